package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"kiste/fault"
	"kiste/internal/sys"
)

// Freeze stops all processes of the group and waits until they are, or until
// ctx ends; then they go on. On version 2 the kernel announces it. On version
// 1 it does not, and nothing but reading the state moves it on.
func (g *Group) Freeze(ctx context.Context) error {
	err := g.freeze(ctx, true)
	if err != nil && g.Frozen() {
		// A group that stays half frozen can be neither used nor ended.
		g.freeze(context.WithoutCancel(ctx), false)
	}
	return err
}

// Thaw lets the processes of the group go on.
func (g *Group) Thaw(ctx context.Context) error { return g.freeze(ctx, false) }

func (g *Group) freeze(ctx context.Context, on bool) error {
	op, value, state := "thaw cgroup", "0", "THAWED"
	if on {
		op, value, state = "freeze cgroup", "1", "FROZEN"
	}
	err := unsupported("freeze", "freezer", "no hierarchy of this host has it")
	if d, ok := g.unified(); ok {
		err = sys.WriteKnob(d.path+"/cgroup.freeze", value)
		if err == nil {
			err = waitEvent(ctx, d.path, "frozen", value)
		}
	} else if d, ok := g.with("freezer"); ok {
		err = freezeV1(ctx, d.path, state)
	}
	if err != nil {
		return &fault.Error{Op: op, On: g.Path, Err: err}
	}
	return nil
}

// freezeV1 writes the state again each time: a process that forks may keep
// the group FREEZING for ever otherwise, as runc found out. Who does not freeze
// soon sleeps in the kernel, for as long as a disk or a network wants.
func freezeV1(ctx context.Context, dir, want string) error {
	const soon = 1000
	for tries := 0; ; tries++ {
		if err := sys.WriteKnob(dir+"/freezer.state", want); err != nil {
			return err
		}
		now, err := sys.ReadKnob(dir+"/freezer.state", 64)
		if err != nil || strings.TrimSpace(now) == want {
			return err
		}
		runtime.Gosched()
		if err := ctx.Err(); err != nil {
			return err
		}
		if tries < soon {
			continue
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// patience is how long one system call may wait for ctx: to its deadline, and
// half a second where it can be cancelled before that. Negative is for ever.
func patience(ctx context.Context) time.Duration {
	if ctx.Done() == nil {
		return -1
	}
	d := 500 * time.Millisecond
	if end, ok := ctx.Deadline(); ok {
		d = max(0, min(d, time.Until(end)))
	}
	return d
}

// waitEvent waits until cgroup.events of dir says "key value". The kernel
// announces a change at most every 10 ms, and most need some µs: so it looks
// some times before it waits.
func waitEvent(ctx context.Context, dir, key, value string) error {
	f, err := os.Open(dir + "/cgroup.events")
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 512)
	for looks := 0; ; looks++ {
		n, err := f.ReadAt(buf, 0)
		if n == 0 && err != nil {
			return err
		}
		if now, ok := fieldOf(string(buf[:n]), key); ok && now == value {
			return nil
		}
		if looks < 20 {
			runtime.Gosched()
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := sys.PollChange(int(f.Fd()), patience(ctx)); err != nil {
			return err
		}
	}
}

// Kill sends SIGKILL to every process in the group and below it, and returns
// when they have got it; Wait waits for their end. Processes that fork
// meanwhile do not get away.
func (g *Group) Kill(ctx context.Context) error {
	if d, ok := g.unified(); ok {
		if err := sys.WriteKnob(d.path+"/cgroup.kill", "1"); !errors.Is(err, fs.ErrNotExist) {
			return wrap("kill cgroup", g.Path, err)
		}
	}
	return wrap("kill cgroup", g.Path, g.killAll(ctx))
}

// killAll is for kernels and hosts without cgroup.kill: freeze, signal all,
// thaw, until nobody is left.
func (g *Group) killAll(ctx context.Context) error {
	for {
		freezing, cancel := context.WithTimeout(ctx, time.Second)
		g.freeze(freezing, true) // best effort: the loop copes with forks
		cancel()
		pids, err := g.Procs()
		for _, pid := range pids {
			sys.Kill(pid, int(syscall.SIGKILL))
		}
		g.Thaw(ctx)
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := waitProcs(ctx, pids); err != nil {
			return err
		}
	}
}

// waitProcs waits for the end of processes.
func waitProcs(ctx context.Context, pids []int) error {
	for _, pid := range pids {
		fd, err := sys.PidfdOpen(pid)
		if err != nil {
			continue // it has ended
		}
		err = waitProc(ctx, fd)
		sys.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func waitProc(ctx context.Context, fd int) error {
	for {
		ended, err := sys.PollFor(patience(ctx), fd)
		if err != nil || ended[0] {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// Wait waits until no process is left in the group and below it. It looks for
// the processes' ends first, of which the kernel tells at once.
func (g *Group) Wait(ctx context.Context) error {
	for {
		pids, err := g.Procs()
		if err == nil {
			err = waitProcs(ctx, pids)
		}
		if err != nil {
			return wrap("wait for cgroup", g.Path, err)
		}
		if d, ok := g.unified(); ok {
			return wrap("wait for cgroup", g.Path, gone(waitEvent(ctx, d.path, "populated", "0")))
		}
		if len(pids) == 0 {
			return nil
		}
	}
}
