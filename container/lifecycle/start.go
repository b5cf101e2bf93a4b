package lifecycle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/container/hook"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

// Start lets the program of a created container begin, and returns when it
// has. A program that cannot be executed is an *ExecError, and the container is
// stopped then, as it is when a startContainer hook fails. A container that has
// been started is fault.Conflict.
func (c *Container) Start() error {
	if said := sys.EarlyErrno(); said != 0 {
		return c.notExecuted(said)
	}
	lock, err := c.hold()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if why := notStarted(c.Status()); why != "" {
		return c.cannotStart(why)
	}
	start, report, err := c.openFIFOs()
	if err != nil {
		return err
	}
	defer sys.Close(start)
	defer sys.Close(report)
	pidfd, err := c.doc.process().Open()
	if err != nil {
		return c.cannotStart(notStarted(specs.StateStopped))
	}
	defer sys.Close(pidfd)
	c.root.reached("opened")
	if err := hook.Run(hook.StartContainer, hook.Of(c.doc.Hooks, hook.StartContainer), c.hookState(specs.StateCreated), c.asProcess); err != nil {
		return errors.Join(err, c.end())
	}
	if _, err := sys.Write(start, []byte{1}); err != nil {
		return &fault.Error{Op: "start container", On: c.doc.ID, Err: err}
	}
	c.root.reached("written")
	err = c.hear(report, pidfd)
	c.root.reached("heard")
	for _, name := range []string{startFIFO, reportFIFO, goAhead} {
		os.Remove(c.file(name))
		c.root.reached("removed " + name)
	}
	if err == nil {
		err = c.started()
	}
	return err
}

// plain reports whether nobody is told of a start.
func (c *Container) plain() bool {
	return len(hook.Of(c.doc.Hooks, hook.StartContainer))+len(hook.Of(c.doc.Hooks, hook.Poststart)) == 0
}

// started runs the hooks that come after the program has begun. One that fails
// ends the container (runtime-spec 1.3, runtime.md, lifecycle, step 9).
func (c *Container) started() error {
	hooks := hook.Of(c.doc.Hooks, hook.Poststart)
	if len(hooks) == 0 {
		return nil
	}
	err := hook.Run(hook.Poststart, hooks, c.hookState(specs.StateRunning), hook.Here(c.doc.Bundle, os.Environ()))
	if err != nil {
		return errors.Join(err, c.end())
	}
	return nil
}

// hold takes the container's lock. One that has been removed meanwhile is
// fault.NotFound.
func (c *Container) hold() (*store.Lock, error) {
	lock, err := store.LockDir(c.dir, true)
	if err == nil && !lock.Holds(c.dir) {
		lock.Unlock()
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &fault.Error{Op: "find container", On: c.doc.ID, Kind: fault.NotFound, Err: errors.New("container does not exist")}
	}
	return lock, err
}

// openFIFOs opens those of a container that waits. Nobody else but its process
// holds them: where that one has become its program they have no reader.
func (c *Container) openFIFOs() (start, report int, err error) {
	start, err = sys.OpenFile(c.file(startFIFO), unix.O_WRONLY|unix.O_NONBLOCK)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENXIO) {
		return -1, -1, c.cannotStart(notStarted(specs.StateRunning))
	}
	if err != nil {
		return -1, -1, &fault.Error{Op: "start container", On: c.doc.ID, Err: err}
	}
	report, err = sys.OpenFile(c.file(reportFIFO), unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		sys.Close(start)
		return -1, -1, &fault.Error{Op: "start container", On: c.doc.ID, Err: err}
	}
	return start, report, nil
}

// notStarted is why a container in a state cannot be started, in runc's words;
// "" for the one that can.
func notStarted(s specs.ContainerState) string {
	switch s {
	case specs.StateCreated:
		return ""
	case specs.StateRunning:
		return "cannot start an already running container"
	case specs.StateStopped:
		return "cannot start a container that has stopped"
	}
	return "cannot start a container in the " + string(s) + " state"
}

func (c *Container) cannotStart(why string) error {
	return &fault.Error{Op: "start container", On: c.doc.ID, Kind: fault.Conflict, Err: errors.New(why)}
}

// hear waits until the process has closed the report, which it does by
// becoming its program, or has said why it cannot, or has ended.
func (c *Container) hear(report, pidfd int) error {
	if _, err := sys.Poll(true, report, pidfd); err != nil {
		return &fault.Error{Op: "start container", On: c.doc.ID, Err: err}
	}
	// What was said is there even if the process has ended by now.
	said := make([]byte, plan.ErrnoMessage)
	n, err := sys.Read(report, said)
	switch {
	case n == plan.ErrnoMessage:
		return c.notExecuted(syscall.Errno(binary.LittleEndian.Uint32(said)))
	case errors.Is(err, syscall.EAGAIN):
		// The process has ended and nothing was said: killed.
		return nil
	}
	return nil
}

// notExecuted is the error that a process which waited has said.
func (c *Container) notExecuted(said syscall.Errno) error {
	errno, label := plan.Unlabelled(said)
	if label {
		return &fault.Error{Op: "start container", On: c.doc.ID, Err: fmt.Errorf("apparmor failed to apply profile: %w", errno),
			Hint: "load the profile again: apparmor_parser -r FILE"}
	}
	return &ExecError{Program: c.doc.Program, Errno: errno, Late: true}
}

// An ExecError is a program that cannot be executed.
type ExecError struct {
	Program string // process.args[0]
	Errno   syscall.Errno
	Late    bool // it looked as if it could, until execve(2)
}

// Error is what runc says, which engines search for words.
func (e *ExecError) Error() string {
	missing := e.Errno == syscall.ENOENT || e.Errno == syscall.ENOTDIR
	switch {
	case e.Late:
		return "exec " + e.Program + ": " + e.Errno.Error()
	case missing && strings.Contains(e.Program, "/"):
		return `exec: "` + e.Program + `": stat ` + e.Program + ": " + e.Errno.Error()
	case missing:
		return `exec: "` + e.Program + `": executable file not found in $PATH`
	}
	return `exec: "` + e.Program + `": ` + e.Errno.Error()
}

func (e *ExecError) Unwrap() error { return e.Errno }

// explain says why a start failed.
func explain(program string, err error) error {
	var step *process.StepError
	var errno syscall.Errno
	if errors.As(err, &step) && step.Call != nil && errors.As(step.Err, &errno) {
		switch step.Call.Name {
		case "":
			return &ExecError{Program: program, Errno: errno}
		case "execve", "execveat":
			return &ExecError{Program: program, Errno: errno, Late: true}
		}
	}
	return &fault.Error{Op: "start container process", Err: err}
}
