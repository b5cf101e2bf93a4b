package terminal

import (
	"io"
	"os"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Stream is what a descriptor of a container without a terminal is to be.
type Stream uint8

// The streams.
const (
	Null Stream = iota // /dev/null
	Same               // this process's own
	Own                // a pipe of its own
)

// Pipes are what lies between the user's descriptors and the container's 0, 1
// and 2. A container that gets pipes of its own cannot open the user's terminal
// or files again through /dev/stdout. The zero value is none.
type Pipes struct {
	Files [3]*os.File // the container's ends
	ours  [3]*os.File // nil where there is no pipe
	user  User
}

// OpenPipes makes them; pipe is sys.Pipe, or its like.
func OpenPipes(user User, want [3]Stream, pipe func() (r, w *os.File, err error)) (*Pipes, error) {
	p := &Pipes{user: user}
	same := [3]*os.File{user.In, user.Stdout, user.Stderr}
	for i, s := range want {
		var err error
		switch s {
		case Null:
			p.Files[i], err = null(i)
		case Same:
			p.Files[i] = same[i]
		case Own:
			err = p.pipe(i, pipe)
		}
		if err != nil {
			p.Close()
			return nil, &fault.Error{Op: "make pipes", Err: err}
		}
	}
	return p, nil
}

func null(i int) (*os.File, error) {
	if i == 0 {
		return sys.OpenPlain(os.DevNull, os.O_RDONLY, 0)
	}
	return sys.OpenPlain(os.DevNull, os.O_WRONLY, 0)
}

func (p *Pipes) pipe(i int, pipe func() (r, w *os.File, err error)) error {
	r, w, err := pipe()
	if err != nil {
		return err
	}
	if i == 0 {
		p.Files[i], p.ours[i] = r, w
		return nil
	}
	p.Files[i], p.ours[i] = w, r
	// Any user of the container may open /dev/stdout again.
	return w.Chmod(0o666)
}

// Started closes the container's ends, which it has by now.
func (p *Pipes) Started() {
	for i, f := range p.Files {
		if f != nil && f != p.user.In && f != p.user.Stdout && f != p.user.Stderr {
			f.Close()
		}
		p.Files[i] = nil
	}
}

// Close closes this process's ends.
func (p *Pipes) Close() {
	for _, f := range p.ours {
		if f != nil {
			f.Close()
		}
	}
}

// None reports whether there are no pipes, and so nothing to attend to.
func (p *Pipes) None() bool { return p.ours == [3]*os.File{} }

// Attend copies until the process of pidfd has ended and all its output is
// written, and closes this process's ends. Without pipes it returns at once.
func (p *Pipes) Attend(pidfd int) error {
	defer p.Close()
	if p.ours[0] != nil {
		sys.Parallel()
		go func() {
			io.Copy(p.ours[0], p.user.In)
			p.ours[0].Close()
		}()
	}
	if p.ours[1] == nil && p.ours[2] == nil {
		return nil
	}
	return p.pump(pidfd)
}

// pump copies both outputs in one thread, which costs a short container less
// than two goroutines and the runtime's poller. When the process has ended,
// what is still in the pipes is copied, and nothing is waited for.
func (p *Pipes) pump(pidfd int) error {
	from := []int{-1, -1, pidfd}
	for i, f := range p.ours[1:] {
		if f != nil {
			from[i] = int(f.Fd())
		}
	}
	to := []io.Writer{p.user.Out, p.user.Err}
	buffer := make([]byte, 64<<10)
	for {
		ended := from[2] < 0
		ready, err := sys.Poll(!ended, from...)
		if err != nil {
			return err
		}
		idle := true
		for i := range to {
			if !ready[i] {
				continue
			}
			idle = false
			n, err := p.ours[i+1].Read(buffer)
			if n > 0 {
				_, err = to[i].Write(buffer[:n])
			}
			if err != nil {
				// The end; or nobody reads any more, which the
				// container learns when it writes again.
				p.ours[i+1].Close()
				from[i] = -1
			}
		}
		switch {
		case ready[2]:
			from[2] = -1
		case ended && idle:
			return nil
		}
	}
}
