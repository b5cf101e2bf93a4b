package oci

import (
	"os"
	"syscall"

	"kiste/cli/option"
	"kiste/cli/terminal"
	"kiste/container/lifecycle"
	"kiste/container/process"
	"kiste/internal/sys"
)

func runVerb() *verb {
	m := &making{}
	return &verb{
		name: "run", args: oneContainer, min: 1, max: 1,
		short: "create a container, start it, and remove it when it has ended",
		long: bundleText + `

Without --detach it stays until the container's first process has ended: signals
are passed on, and its exit code is the process's, or 128 and the number of
the signal that ended it.`,
		options: append(m.options(),
			option.Row{"-d, --detach", "", "do not stay; the container is there until it is deleted", option.Bool(&m.detach)},
			option.Row{"--keep", "", "do not remove the container when it has ended", option.Bool(&m.keep)},
			option.Row{"--no-subreaper", "", "leave orphans of the container to the host", option.Bool(&m.noSubreaper)}),
		examples: []string{"run web", "run --bundle web --detach web"},
		run: func(s *session, args []string) error {
			n, err := s.prepare(m)
			if err != nil {
				return err
			}
			if m.detach {
				return s.runDetached(m, n, args[0])
			}
			return s.runHere(m, n, args[0])
		},
	}
}

// begin makes the container and lets its program run, or go on.
func (s *session) begin(m *making, id string) (*lifecycle.Container, *process.Process, error) {
	if m.saved != nil {
		return s.containers().Restore(id, m.o, *m.saved)
	}
	return s.containers().Run(id, m.o)
}

func (s *session) runDetached(m *making, n *notifier, id string) error {
	_, p, err := s.begin(m, id)
	if err != nil {
		return err
	}
	defer p.Release()
	return n.passOn(p.PidFD(), p.PID)
}

// runHere runs the container and stays until it has ended.
func (s *session) runHere(m *making, n *notifier, id string) error {
	if !m.noSubreaper {
		if err := sys.Subreaper(); err != nil {
			s.log.warn("cannot become the parent of orphans: " + err.Error())
		}
	}
	a, err := s.attach()
	if err != nil {
		return err
	}
	m.o.Files = a.pipes.Files
	c, p, err := s.begin(m, id)
	a.pipes.Started()
	if err != nil {
		a.pipes.Close()
		return err
	}
	if n.socket != nil {
		sys.Parallel()
		go func() {
			if err := n.passOn(p.PidFD(), os.Getpid()); err != nil {
				s.log.warn("cannot " + err.Error())
			}
		}()
	}
	status, err := a.attend(p)
	if err != nil {
		return err
	}
	c.Ended()
	if !m.keep {
		if err := c.Delete(true); err != nil {
			s.log.warn("cannot " + err.Error())
		}
	}
	return ended(status)
}

// ended is the error that makes this program end as the container did.
func ended(status syscall.WaitStatus) error {
	code := sys.ExitCode(status)
	if code == 0 {
		return nil
	}
	return &exitError{code}
}

func (s *session) user() terminal.User {
	return terminal.User{In: s.env.In, Out: s.env.Out, Err: s.env.Err, Stdout: s.env.Out, Stderr: s.env.Err}
}

// An attachment is what lies between the user and a process that runs in the
// foreground.
type attachment struct {
	user    terminal.User
	pipes   *terminal.Pipes
	signals *sys.Relay
}

// attach prepares the streams of a process without a terminal. It gets this
// process's own but for terminals, which a container must not have.
func (s *session) attach() (*attachment, error) {
	a := &attachment{user: s.user(), signals: terminal.CatchSignals()}
	var want [3]terminal.Stream
	for i, f := range []*os.File{s.env.In, s.env.Out, s.env.Err} {
		want[i] = terminal.Same
		if sys.IsTerminal(f) {
			want[i] = terminal.Own
		}
	}
	var err error
	a.pipes, err = terminal.OpenPipes(a.user, want, sys.Pipe)
	return a, err
}

// attend passes signals and bytes on until p has ended.
func (a *attachment) attend(p *process.Process) (syscall.WaitStatus, error) {
	a.signals.To(p.PidFD())
	defer a.signals.To(-1)
	if p.Console == nil && a.pipes.None() {
		reapOthers(p.PID)
		return p.Wait()
	}
	sys.Parallel()
	reaped := make(chan struct{})
	go func() {
		reapOthers(p.PID)
		close(reaped)
	}()
	if err := a.carry(p); err != nil {
		_ = p.Signal(syscall.SIGKILL)
		return 0, err
	}
	<-reaped
	return p.Wait()
}

func (a *attachment) carry(p *process.Process) error {
	if p.Console == nil {
		return a.pipes.Attend(p.PidFD())
	}
	a.pipes.Close()
	noKeys := []byte{}
	c := terminal.NewConsole(a.user, terminal.Master{File: p.Console, Ended: p.PidFD()}, true, noKeys)
	c.PlainLines()
	_, err := c.Run()
	return err
}

// reapOthers takes away orphans that came to this process, until the child with
// pid has ended, which stays to be waited for.
func reapOthers(pid int) {
	for {
		ended, err := sys.WaitAnyChild()
		if err != nil || ended == pid {
			return
		}
		_ = sys.Reap(ended)
	}
}
