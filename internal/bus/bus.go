// Package bus speaks D-Bus: it calls methods and hears signals.
//
//	takes    the path of a Unix socket: of a message bus, or of a peer such as systemd
//	gives    a Conn: Call, Wait; Values, and the reader of their text form
//	touches  that socket
//	state    a connection, and the signals that came while a reply was waited for
//
// It is what a program needs that calls a few methods and ends: no objects of
// its own, no goroutines, no reflection, no descriptors sent. Each wait has a
// limit. A library for all of D-Bus would be a quarter of the runtime's size:
// 1.2 MB, with package net behind it, of a binary of 4.2 MB.
//
// What a peer sends is bounded and not believed. A Conn is not safe for
// concurrent use. Source: the D-Bus specification, version 0.43.
package bus

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"time"

	"kiste/fault"
	"kiste/internal/sys"
)

// Limit is how long a Conn waits for what the peer should say.
const Limit = 30 * time.Second

// A Conn is a connection that has been authenticated.
type Conn struct {
	f       *os.File
	serial  uint32
	unread  []byte    // what has been read too much
	signals []*Signal // heard while a reply was waited for
}

// A Signal is what the peer tells everybody.
type Signal struct {
	Path, Interface, Member string
	Args                    []Value
}

// An Error is the peer's answer that a method failed.
type Error struct {
	Name string // "org.freedesktop.DBus.Error.AccessDenied"
	Text string
}

func (e *Error) Error() string {
	if e.Text != "" {
		return e.Text
	}
	return e.Name
}

// Dial connects to the peer at the socket path, "@name" for an abstract one,
// as the user that this process is. Errors of a socket that is not there or
// not served are fault.NotFound or fault.Unavailable.
func Dial(path string) (*Conn, error) {
	f, err := sys.ConnectUnix(path, false)
	if err != nil {
		return nil, &fault.Error{Op: "connect to", On: path, Err: err}
	}
	c := &Conn{f: f}
	if err := c.authenticate(); err != nil {
		f.Close()
		return nil, &fault.Error{Op: "connect to", On: path, Kind: fault.Denied, Err: err}
	}
	return c, nil
}

// DialBus is Dial for a message bus, which wants to be greeted.
func DialBus(path string) (*Conn, error) {
	c, err := Dial(path)
	if err != nil {
		return nil, err
	}
	if _, err := c.Call(Method{"org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello"}); err != nil {
		c.Close()
		return nil, &fault.Error{Op: "connect to", On: path, Err: err}
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.f.Close() }

// authenticate says EXTERNAL without a name: the peer takes the user from the
// socket, which is right in a user namespace too.
func (c *Conn) authenticate() error {
	if _, err := c.f.WriteString("\x00AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"); err != nil {
		return err
	}
	end := time.Now().Add(Limit)
	for range 8 {
		line, err := c.line(end)
		word, _, _ := strings.Cut(line, " ")
		switch {
		case err != nil:
			return err
		case word == "OK":
			return nil
		case word != "DATA":
			return errors.New("it answered " + line)
		}
	}
	return errors.New("it does not come to an end")
}

// line reads a line of the authentication.
func (c *Conn) line(end time.Time) (string, error) {
	const most = 4096
	for len(c.unread) < most {
		if i := bytes.Index(c.unread, []byte("\r\n")); i >= 0 {
			line := string(c.unread[:i])
			c.unread = c.unread[i+2:]
			return line, nil
		}
		if err := c.more(end); err != nil {
			return "", err
		}
	}
	return "", errors.New("its line is too long")
}

// more reads what there is.
func (c *Conn) more(end time.Time) error {
	ready, err := sys.PollFor(max(0, time.Until(end)), int(c.f.Fd()))
	switch {
	case err != nil:
		return err
	case !ready[0]:
		return &fault.Error{Op: "wait for an answer of", On: c.f.Name(), Kind: fault.Unavailable, Err: errors.New("it said nothing for " + Limit.String())}
	}
	var buf [8192]byte
	n, err := c.f.Read(buf[:])
	if n == 0 && err == nil {
		return errors.New("it ended the connection")
	}
	c.unread = append(c.unread, buf[:n]...)
	return err
}

// A Method is what is called, and where. A peer that is no message bus needs
// no Destination.
type Method struct{ Destination, Path, Interface, Member string }

// Call calls m and waits for its answer. The peer's own error is an *Error.
func (c *Conn) Call(m Method, args ...Value) ([]Value, error) {
	c.serial++
	text, err := callMessage(c.serial, m, args)
	if err != nil {
		return nil, err
	}
	if _, err := c.f.Write(text); err != nil {
		return nil, &fault.Error{Op: "call " + m.Member, On: c.f.Name(), Err: err}
	}
	end := time.Now().Add(Limit)
	for {
		got, err := c.message(end)
		switch {
		case err != nil:
			return nil, &fault.Error{Op: "call " + m.Member, On: c.f.Name(), Err: err}
		case got.kind == kindSignal:
			c.keep(got)
		case got.replyTo != c.serial:
		case got.kind == kindError:
			return nil, &Error{Name: got.errorName, Text: firstText(got.body)}
		case got.kind == kindReturn:
			return got.body, nil
		}
	}
}

// mostSignals is how many signals are kept while replies are waited for.
const mostSignals = 1024

func (c *Conn) keep(m *message) {
	if len(c.signals) < mostSignals {
		c.signals = append(c.signals, &Signal{m.path, m.iface, m.member, m.body})
	}
}

func firstText(body []Value) string {
	if len(body) > 0 && body[0].Type == "s" {
		return body[0].Text
	}
	return ""
}

// Wait waits for a signal that wanted wants, of those that came already too.
func (c *Conn) Wait(wanted func(*Signal) bool) error {
	end := time.Now().Add(Limit)
	for {
		for len(c.signals) > 0 {
			s := c.signals[0]
			c.signals = c.signals[1:]
			if wanted(s) {
				return nil
			}
		}
		got, err := c.message(end)
		if err != nil {
			return &fault.Error{Op: "wait for a signal of", On: c.f.Name(), Err: err}
		}
		if got.kind == kindSignal {
			c.keep(got)
		}
	}
}

// message reads the next one.
func (c *Conn) message(end time.Time) (*message, error) {
	for {
		size, err := messageSize(c.unread)
		if err != nil {
			return nil, err
		}
		if size > 0 && len(c.unread) >= size {
			m, err := parseMessage(c.unread[:size])
			c.unread = c.unread[size:]
			return m, err
		}
		if err := c.more(end); err != nil {
			return nil, err
		}
	}
}
