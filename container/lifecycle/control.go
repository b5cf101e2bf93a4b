package lifecycle

import (
	"context"
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
	"kiste/kernel/cgroup"
)

// Pause freezes all processes of the container. One that neither runs nor
// waits for its start is fault.Conflict.
func (c *Container) Pause() error {
	if s := c.Status(); s != specs.StateRunning && s != specs.StateCreated {
		return &fault.Error{Op: "pause container", On: c.doc.ID, Kind: fault.Conflict, Err: errors.New("container not running")}
	}
	return c.freeze("pause container", (*cgroup.Group).Freeze)
}

// Resume lets the processes of a paused container go on.
func (c *Container) Resume() error {
	if c.Status() != Paused {
		return &fault.Error{Op: "resume container", On: c.doc.ID, Kind: fault.Conflict, Err: errors.New("container not paused")}
	}
	return c.freeze("resume container", (*cgroup.Group).Thaw)
}

func (c *Container) freeze(op string, do func(*cgroup.Group, context.Context) error) error {
	g, err := c.group()
	if err == nil {
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		err = do(g, ctx)
	}
	if err != nil {
		return &fault.Error{Op: op, On: c.doc.ID, Err: err}
	}
	return nil
}

// Processes are the numbers, on the host, of all that is in the container's
// cgroup: none where that is gone.
func (c *Container) Processes() ([]int, error) {
	g, err := c.group()
	if errors.Is(err, fault.NotFound) {
		return []int{}, nil
	}
	if err != nil {
		return nil, &fault.Error{Op: "list processes of container", On: c.doc.ID, Err: err}
	}
	pids, err := g.Procs()
	if err != nil {
		return nil, &fault.Error{Op: "list processes of container", On: c.doc.ID, Err: err}
	}
	return append([]int{}, pids...), nil
}

// Update changes the limits that r has; nil and zero leave them as they are. A
// container that has ended is fault.Conflict. Rules for devices are not
// changed: others may have added some, for a GPU say.
func (c *Container) Update(r *specs.LinuxResources) error {
	if c.Status() == specs.StateStopped {
		return &fault.Error{Op: "update container", On: c.doc.ID, Kind: fault.Conflict, Err: errors.New("container not running")}
	}
	without := *r
	without.Devices = nil
	limits, err := cgroup.FromSpec(&without)
	if err != nil {
		return err
	}
	g, err := c.group()
	if err == nil {
		err = c.update(g, limits)
	}
	if err != nil {
		return &fault.Error{Op: "update container", On: c.doc.ID, Err: err}
	}
	return nil
}

// Stats is what the container uses now. It is fault.NotFound where its cgroup
// is gone.
func (c *Container) Stats() (cgroup.Stats, error) {
	g, err := c.group()
	if err != nil {
		return cgroup.Stats{}, err
	}
	s, err := g.Stats()
	if err != nil {
		return s, &fault.Error{Op: "read what container uses", On: c.doc.ID, Err: err}
	}
	return s, nil
}

// OnOOM calls f when the kernel has killed processes of the container for want
// of memory, until it has ended.
func (c *Container) OnOOM(f func()) error {
	g, err := c.group()
	if err != nil {
		return err
	}
	return g.OnOOM(context.Background(), f)
}
