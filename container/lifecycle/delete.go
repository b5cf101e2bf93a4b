package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/container/hook"
	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
)

// Delete removes the container. One that runs or is paused is fault.Conflict
// unless force is set: then it is killed first. Its process's end is waited
// for.
func (c *Container) Delete(force bool) error {
	status := c.Status()
	if !force && status != specs.StateStopped && status != specs.StateCreated {
		return &fault.Error{Op: "delete container", On: c.doc.ID, Kind: fault.Conflict,
			Err: fmt.Errorf("cannot delete container %s that is not stopped: %s", c.doc.ID, status)}
	}
	// Before the lock is asked for: who holds it may wait for the process.
	if err := c.end(); err != nil {
		return err
	}
	lock, err := c.hold()
	if errors.Is(err, fault.NotFound) {
		return nil // somebody else was faster
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return c.remove()
}

// Delete removes the container id. With force one that is not there is no
// error, and what cannot be read is removed too.
func (r Root) Delete(id string, force bool) error {
	c, err := r.Load(id)
	if err == nil {
		return c.Delete(force)
	}
	if !force || c == nil && checkID(id) != nil {
		return err
	}
	c = &Container{root: r, dir: r.dir(id), doc: document{ID: id}}
	lock, err := c.hold()
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return c.remove()
}

// Ended says that the caller has waited for the container's process: Delete need
// not look for it.
func (c *Container) Ended() { c.ended = true }

// end kills the container's process, should it live, and waits for its end.
func (c *Container) end() error {
	if c.ended {
		return nil
	}
	fd, err := c.doc.process().Open()
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	if err := sys.PidfdSignal(fd, syscall.SIGKILL); err != nil && fault.KindOf(err) != fault.NotFound {
		return &fault.Error{Op: "kill container", On: c.doc.ID, Err: err}
	}
	if err := c.thaw(); err != nil {
		return err
	}
	ended, err := sys.PollFor(patience, fd)
	if err == nil && !ended[0] {
		err = fmt.Errorf("its process %d has not ended in %v", c.doc.PID, patience)
	}
	if err != nil {
		return &fault.Error{Op: "kill container", On: c.doc.ID, Kind: fault.Conflict, Err: err, Hint: "what runs in it, or was run in it by others who have not waited for its end, keeps it"}
	}
	return nil
}

// remove removes all that is left of the container, the document last, so
// that a removal that was cut short can be repeated.
func (c *Container) remove() error {
	if err := c.end(); err != nil {
		return err
	}
	c.root.reached("ended")
	if err := c.removeGroup(); err != nil {
		return err
	}
	c.root.reached("removed cgroup")
	if err := c.removeClass(); err != nil {
		return err
	}
	if c.doc.Mount != 0 {
		if err := process.Unmount(c.doc.Rootfs, c.doc.Mount); err != nil {
			return &fault.Error{Op: "delete container", On: c.doc.ID, Err: err}
		}
	}
	for _, name := range []string{goAhead, startFIFO, reportFIFO, configFile, bornLink, stateFile} {
		if err := sys.Unlink(c.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &fault.Error{Op: "delete container", On: c.doc.ID, Err: err}
		}
		c.root.reached("removed " + name)
	}
	if err := c.removeDir(); err != nil {
		return &fault.Error{Op: "delete container", On: c.doc.ID, Err: err}
	}
	if c.doc.PID > 0 {
		c.afterwards(hook.Poststop, specs.StateStopped)
	}
	return nil
}

// removeDir removes the container's directory. What a Restore that was killed
// has mounted there goes first: it is the root file system.
func (c *Container) removeDir() error {
	if sys.Rmdir(c.dir) == nil {
		return nil
	}
	for at := c.file(restoredRoot); isDir(at); {
		err := sys.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, syscall.EINVAL) {
			break // nothing is mounted there any more
		}
		if err != nil {
			return err
		}
	}
	return os.RemoveAll(c.dir)
}
