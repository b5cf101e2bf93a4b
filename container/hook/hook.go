// Package hook runs the hooks of a container: programs of the host, or of the
// container, that an engine wants to be called at points of its life.
//
//	takes    the hooks of one kind, the container's state, where to run them
//	gives    nothing, or the error of the first one that failed
//	touches  what the hooks do
//	state    none
//
// A hook gets the state as JSON on its standard input, leads a process group
// of its own, and is waited for without polling. Its output is kept for the
// error, up to MaxOutput bytes of each stream; the rest is read and dropped.
// What it leaves running in the background is not waited for, whatever it
// holds open. When its time is up its process group is killed.
//
// Who launches it decides in which namespaces and as whom: Here is for hooks
// of the runtime's namespaces, In for createContainer. Hooks of startContainer
// are processes of the container and so its runtime's to launch. Safe for
// concurrent use.
package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/plan"
	"kiste/container/process"
	"kiste/internal/sys"
)

// MaxOutput is how much of each of a hook's output streams is kept, in bytes.
const MaxOutput = 4 << 10

// The kinds, in the order in which they are run (runtime-spec, runtime.md,
// "Lifecycle").
const (
	Prestart        = "prestart"
	CreateRuntime   = "createRuntime"
	CreateContainer = "createContainer"
	StartContainer  = "startContainer"
	Poststart       = "poststart"
	Poststop        = "poststop"
)

// Of are the hooks of one kind; s may be nil.
func Of(s *specs.Hooks, kind string) []specs.Hook {
	if s == nil {
		return nil
	}
	switch kind {
	case Prestart:
		//lint:ignore SA1019 Docker has its networks made by these
		return s.Prestart
	case CreateRuntime:
		return s.CreateRuntime
	case CreateContainer:
		return s.CreateContainer
	case StartContainer:
		return s.StartContainer
	case Poststart:
		return s.Poststart
	case Poststop:
		return s.Poststop
	}
	return nil
}

// A Launcher begins a hook's program with files as descriptors 0, 1 and 2. It
// shall lead a session or a process group of its own.
type Launcher func(h specs.Hook, files [3]*os.File) (*process.Process, error)

// Here launches hooks in the runtime's own namespaces, in the directory dir;
// an empty one is the runtime's. A hook without an environment gets env.
func Here(dir string, env []string) Launcher {
	return func(h specs.Hook, files [3]*os.File) (*process.Process, error) {
		if len(h.Env) == 0 {
			h.Env = env
		}
		p, err := plan.CompileHook(h, dir, nil)
		if err != nil {
			return nil, err
		}
		return process.Start(p, process.Options{Files: files})
	}
}

// In launches hooks in all namespaces of the process pid, as their root, in the
// directory dir there: those of createContainer, for which a container waits
// that has not entered its root yet. A hook without an environment gets env.
// Shared says that others may be in some of these namespaces: what an ordinary
// user's hook shares with this process they shall not see.
func In(pid int, dir string, env []string, shared bool) Launcher {
	return func(h specs.Hook, files [3]*os.File) (*process.Process, error) {
		if len(h.Env) == 0 {
			h.Env = env
		}
		kinds, err := process.Elsewhere(pid)
		if err != nil {
			return nil, err
		}
		p, err := plan.CompileHook(h, dir, &plan.Target{Namespaces: kinds, Alone: os.Geteuid() != 0 && !shared})
		if err != nil {
			return nil, err
		}
		fd, err := sys.PidfdOpen(pid)
		if err != nil {
			return nil, err
		}
		container := os.NewFile(uintptr(fd), "container")
		defer container.Close()
		return process.Start(p, process.Options{Files: files, Container: container})
	}
}

// An Error is a hook that failed. Its text is runc's, which engines show.
type Error struct {
	Kind  string
	Index int // in the list of its kind
	Err   error

	// What it has written; Ran says whether it was there to write at all.
	Ran            bool
	Stdout, Stderr string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("error running %s hook #%d: %v", e.Kind, e.Index, e.Err)
	if e.Ran {
		s += fmt.Sprintf(", stdout: %s, stderr: %s", e.Stdout, e.Stderr)
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Run runs hooks one after the other, and stops at the first that fails: then
// the error is an *Error. The caller decides what a failure means: before the
// container is started it ends it, after that it is a warning.
func Run(kind string, hooks []specs.Hook, state specs.State, launch Launcher) error {
	for i, h := range hooks {
		if err := run(h, state, launch); err != nil {
			err.Kind, err.Index = kind, i
			return err
		}
	}
	return nil
}

func run(h specs.Hook, state specs.State, launch Launcher) *Error {
	text, err := json.Marshal(state)
	if err != nil {
		return &Error{Err: err}
	}
	stdin, err := sys.Memory("state", text)
	if err != nil {
		return &Error{Err: err}
	}
	defer stdin.Close()
	var out [2]output
	for i := range out {
		if err := out[i].open(); err != nil {
			return &Error{Err: err}
		}
		defer out[i].close()
	}
	p, err := launch(h, [3]*os.File{stdin, out[0].w, out[1].w})
	for i := range out {
		out[i].w.Close()
	}
	if err != nil {
		return &Error{Err: notStarted(h.Path, err)}
	}
	defer p.Remove()
	err = wait(p, out[:], h.Timeout)
	if errors.Is(err, errTimeout) {
		return &Error{Err: fmt.Errorf("hook ran past specified timeout of %.1fs", float64(*h.Timeout))}
	}
	if err != nil {
		return &Error{Err: err, Ran: true, Stdout: out[0].String(), Stderr: out[1].String()}
	}
	return nil
}

// notStarted words the failure of a start as Go's os/exec does, since that is
// what runc's users have seen.
func notStarted(path string, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return &fs.PathError{Op: "fork/exec", Path: path, Err: errno}
	}
	return err
}

var errTimeout = errors.New("the time is up")

// wait reads what p writes until it ends or its seconds are over.
func wait(p *process.Process, out []output, seconds *int) error {
	var end time.Time
	if seconds != nil {
		end = time.Now().Add(time.Duration(*seconds) * time.Second)
	}
	for {
		left := time.Duration(-1)
		if seconds != nil {
			left = max(0, time.Until(end))
		}
		ready, err := sys.PollFor(left, p.PidFD(), out[0].fd(), out[1].fd())
		if err != nil {
			return kill(p, err)
		}
		switch {
		case ready[0]:
			drain(out)
			return ended(p)
		case ready[1] || ready[2]:
			out[0].readIf(ready[1])
			out[1].readIf(ready[2])
		case seconds != nil && time.Until(end) <= 0:
			return kill(p, errTimeout)
		}
	}
}

// drain reads what is there by now. Somebody in the background may go on
// writing for ever.
func drain(out []output) {
	for range maxReads {
		ready, err := sys.PollFor(0, out[0].fd(), out[1].fd())
		if err != nil || !ready[0] && !ready[1] {
			return
		}
		out[0].readIf(ready[0])
		out[1].readIf(ready[1])
	}
}

const maxReads = 64

// kill ends p and its group, and gives why.
func kill(p *process.Process, why error) error {
	_ = sys.Kill(-p.PID, int(syscall.SIGKILL))
	_ = p.Signal(syscall.SIGKILL)
	if _, err := p.Wait(); err != nil {
		return err
	}
	return why
}

// ended is nil for exit code 0, else os/exec's words.
func ended(p *process.Process) error {
	status, err := p.Wait()
	switch {
	case err != nil:
		return err
	case status.Signaled():
		return errors.New("signal: " + status.Signal().String())
	case status.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", status.ExitStatus())
	}
	return nil
}

// An output is a stream of a hook.
type output struct {
	r, w *os.File
	kept []byte
	done bool
}

func (o *output) open() (err error) {
	o.r, o.w, err = sys.Pipe()
	return err
}

func (o *output) close() {
	o.r.Close()
	o.w.Close()
}

// fd is -1 when the stream has ended: poll(2) passes it over.
func (o *output) fd() int {
	if o.done {
		return -1
	}
	return int(o.r.Fd())
}

// readIf reads once, what does not block after poll(2) has said so.
func (o *output) readIf(ready bool) {
	if !ready || o.done {
		return
	}
	var buf [4096]byte
	n, err := o.r.Read(buf[:])
	o.done = err != nil
	o.kept = append(o.kept, buf[:min(n, MaxOutput-len(o.kept))]...)
}

func (o *output) String() string { return string(o.kept) }
