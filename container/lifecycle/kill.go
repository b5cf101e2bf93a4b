package lifecycle

import (
	"context"
	"errors"
	"syscall"

	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
)

// Kill sends a signal to the container's process, and with all to every
// process in its cgroup. One that has ended is fault.Conflict: "container not
// running".
func (c *Container) Kill(signal syscall.Signal, all bool) error {
	if all {
		return c.killAll(signal)
	}
	fd, err := c.doc.process().Open()
	if err == nil {
		err = sys.PidfdSignal(fd, signal)
		sys.Close(fd)
	}
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return c.notRunning()
	case err != nil:
		return &fault.Error{Op: "signal container", On: c.doc.ID, Err: err}
	case signal == syscall.SIGKILL:
		return c.thaw()
	}
	return nil
}

func (c *Container) notRunning() error {
	return &fault.Error{Op: "signal container", On: c.doc.ID, Kind: fault.Conflict, Err: errors.New("container not running")}
}

// thaw lets frozen processes go on, so that they get their SIGKILL where the
// freezer of version 1 would keep it from them.
func (c *Container) thaw() error {
	g, err := c.group()
	if err != nil || !g.Frozen() {
		return nil // without a cgroup nothing is frozen
	}
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	return g.Thaw(ctx)
}

// killAll signals what is in the cgroup. Of version 1 the group is frozen
// meanwhile, so that nobody forks away.
func (c *Container) killAll(signal syscall.Signal) error {
	g, err := c.group()
	if errors.Is(err, fault.NotFound) {
		return c.notRunning()
	}
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	if signal == syscall.SIGKILL {
		if err := g.Kill(ctx); err != nil {
			return err
		}
		return c.thaw()
	}
	frozen := g.Frozen()
	if !frozen {
		_ = g.Freeze(ctx) // best effort: one that forks may get away
	}
	pids, err := g.Procs()
	for _, pid := range pids {
		if who, gone := process.Identify(pid); gone == nil {
			signalOne(who, signal)
		}
	}
	if !frozen {
		err = errors.Join(err, g.Thaw(ctx))
	}
	return err
}

// signalOne signals a process that may end at any time, which is no error.
func signalOne(who process.Identity, signal syscall.Signal) {
	if fd, err := who.Open(); err == nil {
		_ = sys.PidfdSignal(fd, signal)
		sys.Close(fd)
	}
}
