package lifecycle

import (
	"errors"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/store"
)

// Paused is the state of a container whose processes are frozen, which the
// specification does not have and runc has.
const Paused specs.ContainerState = "paused"

// Status asks the kernel what the container does.
func (c *Container) Status() specs.ContainerState {
	switch {
	case c.ended:
		return specs.StateStopped
	case c.doc.PID == 0 && c.busy():
		return specs.StateCreating
	case !c.doc.process().Alive():
		return specs.StateStopped
	case c.frozen():
		return Paused
	case c.waits():
		return specs.StateCreated
	}
	return specs.StateRunning
}

// busy reports whether somebody makes, starts or removes the container.
func (c *Container) busy() bool {
	l, err := store.TryLockDir(c.dir, false)
	if err == nil {
		l.Unlock()
	}
	return errors.Is(err, fault.Conflict)
}

func (c *Container) frozen() bool {
	return c.doc.Cgroup != "" && cgroup.Frozen(c.doc.Hierarchies, c.doc.Cgroup)
}

// waits reports whether the process still holds its end of the FIFO.
func (c *Container) waits() bool {
	fd, err := sys.OpenFile(c.file(startFIFO), unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return false
	}
	sys.Close(fd)
	return true
}

// State is the state as the specification has it.
func (c *Container) State() specs.State {
	s := specs.State{Version: c.doc.OCIVersion, ID: c.doc.ID, Status: c.Status(), Pid: c.doc.PID, Bundle: c.doc.Bundle, Annotations: c.doc.Annotations}
	if s.Status == specs.StateStopped {
		s.Pid = 0
	}
	return s
}

// ID is the container's id.
func (c *Container) ID() string { return c.doc.ID }

// Dir is the container's directory below its Root's.
func (c *Container) Dir() string { return c.dir }

// Pidfd opens a pidfd of the container's process, which the caller closes. It
// is fault.NotFound where that has ended.
func (c *Container) Pidfd() (int, error) { return c.doc.process().Open() }

// PID is the number of the container's process, or 0 where it never had one.
func (c *Container) PID() int { return c.doc.PID }

// Rootfs is the path of the root file system on the host.
func (c *Container) Rootfs() string { return c.doc.Rootfs }

// Created is when it was.
func (c *Container) Created() time.Time { return c.doc.Created }

// Owner is the user id of who created it.
func (c *Container) Owner() uint32 { return c.doc.Owner }
