// Package terminal connects the user's terminal with a container's: raw mode,
// bytes both ways, the window's size, the keys that detach; and it passes
// signals on.
//
//	takes    the user's streams, the master of the container's terminal
//	gives    whether the user detached
//	touches  both terminals, this process's signal handlers
//	state    none; the user's terminal is as it was when Run returns
package terminal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"kiste/fault"
	"kiste/internal/sys"
)

// A User is who sits at the other end: the streams of this process.
type User struct {
	In             *os.File
	Out, Err       io.Writer
	Stdout, Stderr *os.File // the files under Out and Err; may be nil
}

// A Side is a container as a console sees it.
type Side interface {
	// Output copies what it says until it has ended.
	Output(to io.Writer) error

	// Write is what is typed. It ends early when SetWriteDeadline says so.
	Write(b []byte) (int, error)
	SetWriteDeadline(t time.Time) error

	// Resize gives its terminal a size in characters.
	Resize(rows, columns uint16) error

	// EndInput tells it that no more comes.
	EndInput() error
}

// A Console carries bytes between the user's terminal and a container's.
type Console struct {
	in    *os.File  // where the user types; nil: the user does not
	out   io.Writer // where the user sees
	size  *os.File  // the terminal whose size the container's has; nil: none
	side  Side
	keys  []byte // typed in a row, they detach; empty: nothing does
	plain bool   // the container's lines end with a line feed alone
	raw   bool   // the user's terminal is in raw mode meanwhile
}

// NewConsole connects user with a container. Input: the user types (-i). Nil
// keys: the default ones.
func NewConsole(user User, side Side, input bool, keys []byte) *Console {
	c := &Console{out: user.Out, side: side, keys: keys, raw: true}
	if keys == nil {
		c.keys = defaultDetachKeys()
	}
	if input {
		c.in = user.In
	}
	c.size = user.Terminal()
	return c
}

// PlainLines: the container's lines end with a line feed alone, as they do
// without a terminal; the user's terminal adds the carriage return.
func (c *Console) PlainLines() { c.plain = true }

// WithoutTerminal: the container has no terminal. The user's stays as it is.
func (c *Console) WithoutTerminal() { c.raw, c.size = false, nil }

// Terminal is the user's terminal, or nil.
func (u User) Terminal() *os.File {
	for _, f := range []*os.File{u.In, u.Stdout, u.Stderr} {
		if sys.IsTerminal(f) {
			return f
		}
	}
	return nil
}

// Size is the size that the container's terminal is to start with; 0, 0 where
// the user has no terminal.
func (u User) Size() (rows, columns uint16) {
	if f := u.Terminal(); f != nil {
		rows, columns, _ = sys.WindowSize(f)
	}
	return rows, columns
}

// Run returns when the other side has hung up and all its output is written,
// or when the user has typed the detach keys. While it runs, the user's
// terminal is in raw mode and the container's has its size; afterwards, on
// every way out, the terminal is as it was.
func (c *Console) Run() (detached bool, err error) {
	if c.raw && sys.IsTerminal(c.in) {
		restore, err := sys.MakeRaw(c.in, c.plain)
		if err != nil {
			return false, &fault.Error{Op: "prepare the terminal", Err: err}
		}
		defer restore()
	}
	sys.Parallel() // both directions wait for the kernel
	defer c.followSize()()
	detach, stop := c.readInput()
	output := make(chan error, 1)
	go func() { output <- c.side.Output(c.out) }()
	select {
	case err = <-output:
		stop()
		return false, err
	case <-detach:
		stop()
		return true, nil
	}
}

// followSize gives the container's terminal the size of the user's, now and at
// every change, until the function returned is called.
func (c *Console) followSize() (stop func()) {
	if c.size == nil {
		return func() {}
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	c.resize()
	var done sync.WaitGroup
	done.Go(func() {
		for range changed {
			c.resize()
		}
	})
	return func() {
		signal.Stop(changed)
		close(changed)
		done.Wait()
	}
}

// resize is best effort: a terminal of a wrong size is no reason to end. One that
// does not know its size, as that of many scripts, takes nobody else's away.
func (c *Console) resize() {
	if rows, columns, err := sys.WindowSize(c.size); err == nil && rows != 0 && columns != 0 {
		_ = c.side.Resize(rows, columns)
	}
}

// readInput copies what the user types until stop is called, which returns
// when no more of it will be read: what is typed later is the shell's. Detach
// is closed when the detach keys were typed.
func (c *Console) readInput() (detach <-chan struct{}, stop func()) {
	typed := make(chan struct{})
	if c.in == nil {
		return typed, func() {}
	}
	wake, waker, err := os.Pipe()
	if err != nil {
		return typed, func() {}
	}
	var done sync.WaitGroup
	done.Go(func() {
		if c.copyInput(wake) {
			close(typed)
		}
	})
	return typed, func() {
		waker.Close()
		// A write to a container that does not read ends now.
		if c.side.SetWriteDeadline(time.Unix(1, 0)) == nil {
			done.Wait()
			wake.Close()
			c.side.SetWriteDeadline(time.Time{})
		}
	}
}

// copyInput reports whether the detach keys were typed.
func (c *Console) copyInput(wake *os.File) bool {
	d := detacher{keys: c.keys}
	buf := make([]byte, 4096)
	for {
		ready, err := sys.WaitRead(c.in, wake)
		if err != nil || ready[1] {
			return false
		}
		n, err := c.in.Read(buf)
		out, detached := d.feed(buf[:n])
		if _, werr := c.side.Write(out); werr != nil {
			return detached
		}
		if detached {
			return true
		}
		if err != nil {
			c.endInput(d.held())
			return false
		}
	}
}

// endInput tells the other side that no more comes.
func (c *Console) endInput(held []byte) {
	if !sys.IsTerminal(c.in) || !c.raw {
		_, _ = c.side.Write(held)
		_ = c.side.EndInput()
	}
}

// A detacher finds the detach keys in what is typed. What may become them is
// held back until it is known.
type detacher struct {
	keys  []byte
	match int // how many of keys are the last that were typed
}

// held is what was typed and not passed on yet.
func (d *detacher) held() []byte { return append([]byte(nil), d.keys[:d.match]...) }

// feed takes what was typed and returns what is to be passed on. What follows
// the keys is dropped.
func (d *detacher) feed(typed []byte) (out []byte, detached bool) {
	if len(d.keys) == 0 {
		return typed, false
	}
	for _, b := range typed {
		held := append(d.held(), b)
		// The longest end of what is held that begins the keys stays.
		keep := min(len(held), len(d.keys))
		for ; keep > 0 && string(held[len(held)-keep:]) != string(d.keys[:keep]); keep-- {
		}
		out = append(out, held[:len(held)-keep]...)
		if d.match = keep; keep == len(d.keys) {
			d.match = 0
			return out, true
		}
	}
	return out, false
}

// defaultDetachKeys are ctrl-p ctrl-q.
func defaultDetachKeys() []byte { return []byte{16, 17} }

// ParseDetachKeys reads Docker's form: single characters and ctrl-X, with
// commas between, X a letter or one of @ [ \ ] ^ _.
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return defaultDetachKeys(), nil
	}
	var keys []byte
	for word := range strings.SplitSeq(s, ",") {
		control, isControl := strings.CutPrefix(strings.ToLower(word), "ctrl-")
		switch {
		case len(word) == 1 && word[0] > ' ' && word[0] < 0x7f:
			keys = append(keys, word[0])
		case strings.EqualFold(word, "DEL"):
			keys = append(keys, 0x7f)
		case isControl && len(control) == 1 && (control[0] >= 'a' && control[0] <= 'z' || strings.Contains(`@[\]^_`, control)):
			keys = append(keys, control[0]&0x1f)
		default:
			return nil, fmt.Errorf("unknown character: '%s': want single characters and ctrl-X with commas between", word)
		}
	}
	return keys, nil
}

// Check refuses -it where nobody can type, as Docker does.
func (u User) Check(interactive, tty bool) error {
	if interactive && tty && !sys.IsTerminal(u.In) {
		return &fault.Error{Op: "use option", On: "-t", Kind: fault.Invalid, Err: errors.New("the input device is not a TTY"),
			Hint: "leave out -t, or -i"}
	}
	return nil
}

// CatchSignals keeps signals for the process that is going to be started: see
// sys.Relay. Not those that are about this process alone: its children, its
// broken pipes, its terminal, the Go runtime's own.
func CatchSignals() *sys.Relay { return sys.CatchSignals(forwarded()) }

// forwarded are the signals that are passed on.
func forwarded() []syscall.Signal {
	own := []syscall.Signal{
		syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG, syscall.SIGWINCH,
		syscall.SIGTTIN, syscall.SIGTTOU,
		// Nobody can catch these.
		syscall.SIGKILL, syscall.SIGSTOP,
		// These are errors of this process.
		syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGPROF,
		// The C library's.
		32, 33,
	}
	const last = 64
	all := make([]syscall.Signal, 0, last)
	for s := syscall.Signal(1); s <= last; s++ {
		if !slices.Contains(own, s) {
			all = append(all, s)
		}
	}
	return all
}
