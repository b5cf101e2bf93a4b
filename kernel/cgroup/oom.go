package cgroup

import (
	"context"
	"errors"
	"os"

	"kiste/fault"
	"kiste/internal/sys"
)

// OnOOM calls f whenever the kernel has killed a process of the group, or of one
// below, for want of memory, until nobody is in the group any more, or it is
// gone, or ctx ends, whose error it returns. Nothing is polled. It is
// fault.Unsupported without the memory controller. Several kills at once may be
// one call. Sources: cgroup-v2.rst on memory.events; cgroup-v1/memory.rst,
// "OOM Control".
func (g *Group) OnOOM(ctx context.Context, f func()) error {
	d, ok := g.with("memory")
	if !ok {
		return unsupported("memory events", "memory", "the group is in no hierarchy that has it")
	}
	w := oomWatch{file: "memory.events", key: "oom_kill"}
	if !d.h.V2 {
		w = oomWatch{file: "memory.oom_control", key: "oom_kill", eventfd: true}
	}
	err := w.run(ctx, g, d.path, f)
	if err != nil && ctx.Err() == nil {
		return &fault.Error{Op: "watch memory of cgroup", On: g.Path, Err: err}
	}
	return err
}

type oomWatch struct {
	file, key string
	eventfd   bool // version 1 tells through one
}

func (w oomWatch) run(ctx context.Context, g *Group, dir string, f func()) error {
	events, err := os.Open(dir + "/" + w.file)
	if err != nil {
		return err
	}
	defer events.Close()
	changes, reads := []int{int(events.Fd())}, []int{}
	if w.eventfd {
		fd, err := sys.CgroupEvent(dir, events, "")
		if err != nil {
			return err
		}
		defer sys.Close(fd)
		changes, reads = nil, append(reads, fd)
	}
	if d, ok := g.unified(); ok {
		populated, err := os.Open(d.path + "/cgroup.events")
		if err != nil {
			return gone(err)
		}
		defer populated.Close()
		changes = append(changes, int(populated.Fd()))
	}
	seen, err := w.count(events)
	for {
		switch {
		case err != nil:
			return gone(err)
		case !g.populated():
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if err := sys.PollChanges(changes, reads, patience(ctx)); err != nil {
			return err
		}
		for _, fd := range reads {
			if err := sys.DrainEvent(fd); err != nil {
				return err
			}
		}
		var now int64
		now, err = w.count(events)
		if err == nil && now > seen {
			seen = now
			f()
		}
	}
}

// count reads how many processes were killed.
func (w oomWatch) count(events *os.File) (int64, error) {
	buf := make([]byte, 1024)
	n, err := events.ReadAt(buf, 0)
	if n == 0 && err != nil {
		return 0, err
	}
	return parseTable(string(buf[:n]))[w.key], nil
}

// OOMKills is how many processes of the group, and of those below, the kernel
// has killed for want of memory. It is 0 where nobody counts.
func (g *Group) OOMKills() int64 {
	d, ok := g.with("memory")
	if !ok {
		return 0
	}
	file := "memory.oom_control"
	if d.h.V2 {
		file = "memory.events"
	}
	t, err := table(d.path, file)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	return t["oom_kill"]
}
