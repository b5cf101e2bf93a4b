package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"kiste/container/monitor"
	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
)

// HoldCommand is the hidden command that holds the terminal of a command that
// was left behind.
const HoldCommand = "__hold"

// An execRequest is a command that is left behind in a container: one that the
// monitor is to start, or one that runs (PID), whose end it is to tell.
type execRequest struct {
	ID         string // of the exec
	Args       []string
	Env        []string
	Workdir    string
	User       string
	Privileged bool
	TTY        bool
	PID        int
	Start      uint64
}

// ExecDetached runs one more process in a container, as Exec does, but as the
// monitor's child, which tells its end. It has no streams.
func (e *Engine) ExecDetached(query string, o ExecOptions) error {
	c, err := e.Find(query)
	if err != nil {
		return err
	}
	stream, r, err := e.ask(request{Op: "exec", ID: c.ID, Exec: &execRequest{ID: newID(), Args: o.Args, Env: o.Env, Workdir: o.Workdir, User: o.User, Privileged: o.Privileged, TTY: o.TTY}})
	if stream != nil {
		stream.Close()
	}
	if o.Warn != nil {
		for _, w := range r.Warnings {
			o.Warn(w)
		}
	}
	return err
}

// Leave leaves a process behind that this one has started: somebody holds its
// terminal, whose end would be its own, and the monitor tells its end. It learns
// the exit code where the parent that it gets waits for nobody, and where the
// kernel keeps it for others than the parent (Linux 6.15): see endOf.
func (x *Exec) Leave() error {
	if err := x.hold(); err != nil {
		return err
	}
	id, err := process.Identify(x.PID)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	stream, _, err := x.e.ask(request{Op: "exec", ID: x.c.ID, Exec: &execRequest{ID: x.id, PID: id.PID, Start: id.Start}})
	if stream != nil {
		stream.Close()
	}
	return err
}

// hold starts a process that holds the terminal, if there is one.
func (x *Exec) hold() error {
	if x.Console == nil {
		return nil
	}
	program, err := x.e.program()
	if err != nil {
		return err
	}
	holder := exec.Command(program, HoldCommand)
	holder.Stdin, holder.Dir, holder.SysProcAttr = x.Console, "/", &syscall.SysProcAttr{Setsid: true}
	if err := holder.Start(); err != nil {
		return &fault.Error{Op: "hold the terminal of", On: "the command", Err: err}
	}
	go func() { _ = holder.Wait() }()
	return nil
}

// answerExec starts a process or takes one over, answers, and stays until it has
// ended.
func (s *supervisor) answerExec(stream *os.File, q request) {
	var r reply
	x, wait, err := s.exec(q, &r)
	r.Error = toFailure(err)
	_ = send(stream, r)
	stream.Close()
	if err == nil && x != nil {
		s.changed() // that may take long
		x.died(wait())
		_ = os.Remove(x.noteFile())
	}
}

// notes is where the monitor writes down whose ends it has to tell, for the one that
// comes when it is killed.
func (e *Engine) notes() string { return e.monitorFile("monitor.execs") }

// noteFile is a link whose target tells which process a command is.
func (e *Engine) noteFile(container, exec string) string {
	return filepath.Join(e.notes(), container+"-"+exec)
}

func (x *Exec) noteFile() string { return x.e.noteFile(x.c.ID, x.id) }

// note writes x down. It is best effort: a command does not end for want of room.
func (x *Exec) note(id process.Identity) {
	target := fmt.Sprint(id.PID, " ", id.Start, " ", bootID())
	if errors.Is(os.Symlink(target, x.noteFile()), fs.ErrNotExist) {
		_ = os.Mkdir(x.e.notes(), 0o700)
		_ = os.Symlink(target, x.noteFile())
	}
}

// tellInherited tells the ends of the commands that a monitor before this one has
// written down, which was killed.
func (s *supervisor) tellInherited() {
	names, _ := os.ReadDir(s.e.notes())
	for _, name := range names {
		id, execID, _ := strings.Cut(name.Name(), "-")
		x := &Exec{e: s.e, c: &Container{}, id: execID}
		x.c.ID = id
		target, _ := os.Readlink(x.noteFile())
		var of process.Identity
		var boot string
		if _, err := fmt.Sscan(target, &of.PID, &of.Start, &boot); err != nil || boot != bootID() || !isID(id) {
			_ = os.Remove(x.noteFile())
			continue
		}
		s.work(1)
		go func() {
			defer s.work(-1)
			s.inherit(x, of)
		}()
	}
}

// inherit waits for the end of a process whose parent is the guard now, or nobody of
// ours, and tells it, if its container is there.
func (s *supervisor) inherit(x *Exec, of process.Identity) {
	var pidfd *os.File
	if fd, err := of.Watch(); err == nil {
		s.forgetStale(of)
		pidfd, _ = sys.Watched(fd, "pidfd")
	}
	end := s.endOf(of, pidfd)
	if c, err := s.e.read(x.c.ID); err == nil {
		x.c = c
		x.died(end)
	}
	_ = os.Remove(x.noteFile())
}

// endOf waits for the end of a process that is not this one's child, by its pidfd,
// which it closes; nil: it has ended. The kernel tells the code of one that its
// parent has waited for (from Linux 6.15 on), and of one that still lies there: that
// parent is the container's first process, and many of these wait for nobody.
func (s *supervisor) endOf(of process.Identity, pidfd *os.File) monitor.End {
	exit := func() (status syscall.WaitStatus, ok bool) {
		if pidfd != nil {
			status, ok = sys.PidfdExit(int(pidfd.Fd()))
		}
		return status, ok
	}
	if pidfd != nil {
		defer pidfd.Close()
		_ = sys.WaitPidfd(pidfd)
	}
	for _, ask := range []func() (syscall.WaitStatus, bool){of.Exit, exit, func() (syscall.WaitStatus, bool) { return s.seen(of.PID) }, exit} {
		if status, known := ask(); known {
			return monitor.End{Status: status, Known: true}
		}
	}
	return monitor.End{}
}

func (s *supervisor) exec(q request, r *reply) (x *Exec, wait func() monitor.End, err error) {
	asked := q.Exec
	if asked == nil || !isID(q.ID) || !isID(asked.ID) {
		return nil, nil, &fault.Error{Op: "exec in container", On: short(q.ID), Kind: fault.Invalid}
	}
	if _, err := os.Readlink(s.e.noteFile(q.ID, asked.ID)); q.Again && err == nil {
		return nil, nil, nil // the monitor before this one had done it
	}
	if asked.PID > 0 {
		return s.left(q)
	}
	files, err := nothing()
	if err != nil {
		return nil, nil, err
	}
	defer monitor.CloseFiles(files)
	o := ExecOptions{Args: asked.Args, Env: asked.Env, Workdir: asked.Workdir, User: asked.User, Privileged: asked.Privileged, TTY: asked.TTY, Files: files,
		Warn: func(w string) { r.Warnings = append(r.Warnings, w) }}
	x, err = s.e.execAs(q.ID, asked.ID, o, s.limit)
	if err != nil {
		return nil, nil, err
	}
	if err := x.hold(); err != nil {
		_ = x.Signal(syscall.SIGKILL)
		_, _ = x.Process.Wait()
		return nil, nil, err
	}
	if x.Console != nil {
		x.Console.Close()
	}
	if id, err := process.Identify(x.PID); err == nil {
		x.note(id)
	}
	return x, func() monitor.End {
		status, err := x.Process.Wait()
		return monitor.End{Status: status, Known: err == nil}
	}, nil
}

// left takes over a process whose parent, a kiste, has left it.
func (s *supervisor) left(q request) (*Exec, func() monitor.End, error) {
	c, err := s.e.load(q.ID)
	if err != nil {
		return nil, nil, err
	}
	of := process.Identity{PID: q.Exec.PID, Start: q.Exec.Start}
	fd, err := of.Open()
	if err != nil {
		return nil, nil, err
	}
	pidfd, err := sys.Watched(fd, "pidfd")
	if err != nil {
		return nil, nil, err
	}
	x := &Exec{e: s.e, c: c, id: q.Exec.ID}
	x.note(of)
	return x, func() monitor.End { return s.endOf(of, pidfd) }, nil
}

// nothing is the streams of who has none.
func nothing() (files [3]*os.File, err error) {
	for i := range files {
		if files[i], err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
			monitor.CloseFiles(files)
			return files, err
		}
	}
	return files, nil
}
