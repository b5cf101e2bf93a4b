package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

// Span is which events are wanted. The zero value: all that come from now on,
// for ever.
type Span struct {
	Since time.Time // zero: those of the past are not wanted, unless Until is set
	Until time.Time // zero: for ever. In the past: those that come are not waited for
}

// Listen gives hear the events of the span, in the order in which they were
// written down, until its end, an error of hear's, or the end of ctx, which is
// no error. It waits for those that are still to come.
func Listen(ctx context.Context, s store.Store, span Span, hear func(Event) error) error {
	if err := os.MkdirAll(s.Events(), 0o700); err != nil {
		return &fault.Error{Op: "listen for events", Err: err}
	}
	w, err := sys.NewWatch()
	if err != nil {
		return &fault.Error{Op: "listen for events", Err: err}
	}
	defer w.Close()
	defer context.AfterFunc(ctx, func() { w.Close() })()
	if err := w.Add(s.Events(), unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		return &fault.Error{Op: "listen for events", Err: err}
	}
	l := &listener{store: s, span: span, hear: hear}
	defer l.close()
	if err := l.begin(); err != nil {
		return err
	}
	for {
		if err := l.read(); err != nil {
			return err
		}
		if !span.Until.IsZero() && !time.Now().Before(span.Until) {
			return nil
		}
		switch err := w.Wait(span.Until); {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return &fault.Error{Op: "listen for events", Err: err}
		}
	}
}

// A listener reads the log and the file that was the log before, since whoever
// opened that one before it was moved may still write to it.
type listener struct {
	store      store.Store
	span       Span
	hear       func(Event) error
	now, older *tail
}

func (l *listener) begin() (err error) {
	if l.now, err = openTail(logFile(l.store)); err != nil {
		return err
	}
	if l.span == (Span{}) {
		return l.now.toEnd()
	}
	l.older, err = openTail(olderFile(l.store))
	return err
}

func (l *listener) close() {
	l.now.close()
	l.older.close()
}

// read reads to the end of what there is.
func (l *listener) read() error {
	for {
		for _, t := range []*tail{l.older, l.now} {
			if err := t.each(l.tell); err != nil {
				return err
			}
		}
		if l.now != nil && isAt(l.now.f, logFile(l.store)) {
			return nil
		}
		next, err := l.next()
		if err != nil || next == nil {
			return err
		}
		l.older.close()
		l.older, l.now = l.now, next
	}
}

// next is the file after the one that was read: the log, or where that has been
// moved twice since, the older one.
func (l *listener) next() (*tail, error) {
	older, err := openTail(olderFile(l.store))
	if err != nil {
		return nil, err
	}
	if older != nil && l.now != nil && !isAt(l.now.f, olderFile(l.store)) {
		return older, nil
	}
	older.close()
	return openTail(logFile(l.store))
}

func (l *listener) tell(line []byte) error {
	e, ok := parse(line)
	at := time.Unix(0, e.TimeNano)
	if !ok || at.Before(l.span.Since) || !l.span.Until.IsZero() && at.After(l.span.Until) {
		return nil
	}
	return l.hear(e)
}

// parse reads one line. Behind the beginning of one that was cut short, by a
// disk that was full, the next one stands on the same line: a quotation mark
// inside of a string has a backslash, so that this cannot be a part of one.
func parse(line []byte) (Event, bool) {
	for _, start := range []string{`{"status":`, `{"Type":`} {
		if i := bytes.LastIndex(line, []byte(start)); i > 0 {
			line = line[i:]
		}
	}
	var e Event
	err := json.Unmarshal(line, &e)
	return e, err == nil && e.Type != "" && e.Action != "" && e.TimeNano != 0
}

// A tail is a file that is read line by line as it grows. A nil tail is one of
// a file that is not there.
type tail struct {
	f    *os.File
	rest []byte // the beginning of a line whose end has not come
}

func openTail(path string) (*tail, error) {
	f, err := sys.OpenPlain(path, os.O_RDONLY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, &fault.Error{Op: "read events", Err: err}
	}
	return &tail{f: f}, nil
}

func (t *tail) close() {
	if t != nil {
		t.f.Close()
	}
}

func (t *tail) toEnd() error {
	if t == nil {
		return nil
	}
	_, err := t.f.Seek(0, io.SeekEnd)
	return err
}

// each calls line for each line that is whole. What is too long for a line is
// left out.
func (t *tail) each(line func([]byte) error) error {
	if t == nil {
		return nil
	}
	buffer := make([]byte, 64<<10)
	for {
		n, err := t.f.Read(buffer)
		if n == 0 {
			if err == io.EOF {
				return nil
			}
			return err
		}
		t.rest = append(t.rest, buffer[:n]...)
		for {
			whole, rest, ok := bytes.Cut(t.rest, []byte("\n"))
			if !ok {
				break
			}
			if err := line(whole); err != nil {
				return err
			}
			t.rest = rest
		}
		if len(t.rest) > maxLine {
			t.rest = t.rest[len(t.rest)-maxLine:]
		}
	}
}
