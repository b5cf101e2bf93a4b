package engine

import (
	"errors"
	"fmt"
	"path/filepath"

	"kiste/fault"
	"kiste/store"
)

// Stack gives the directories of a container's root file system: upper has its
// changes, and lower is what they are laid on, the topmost first. Owners are the
// container's own ids for root, and for an ordinary user those of the user
// namespace that has his subordinate ids. A container that works in a directory
// of the host has none: fault.Unsupported.
func (e *Engine) Stack(c *Container) (upper string, lower []string, err error) {
	if c.Wishes.RootFS {
		return "", nil, &fault.Error{Op: "find changes of container", On: c.Name, Kind: fault.Unsupported,
			Err: errors.New("its root is a directory of the host, where its changes are not told from what was there"), Hint: "leave out --rootfs at run: rootfs:DIR as image keeps changes apart"}
	}
	points, err := e.pointsLayer()
	if err != nil {
		return "", nil, err
	}
	return filepath.Join(e.Store.Container(c.ID), "upper"), append([]string{points}, c.Lower...), nil
}

// WorkDir is what overlayfs works in, beside the changes of a container.
func (e *Engine) WorkDir(c *Container) string {
	return filepath.Join(e.Store.Container(c.ID), "work")
}

// Hold keeps a container that does not run from being started or removed, until
// the lock is given back: fault.Conflict where somebody has it.
func (e *Engine) Hold(c *Container) (*store.Lock, error) {
	lock, err := store.TryLockDir(e.Store.Container(c.ID), true)
	if errors.Is(err, fault.Conflict) {
		return nil, &fault.Error{Op: "hold container", On: c.Name, Kind: fault.Conflict, Err: errors.New("somebody is starting or removing it"), Hint: "try again"}
	}
	return lock, err
}

// Proc is a file of /proc of a running container's process.
func (c *Container) Proc(file string) string {
	return fmt.Sprintf("/proc/%d/%s", c.State.PID, file)
}
