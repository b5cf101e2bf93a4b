package engine

import (
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"kiste/container/bundle"
	"kiste/container/monitor"
	"kiste/container/process"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/store"
)

// signal sends a signal to the container's process.
func (e *Engine) signal(c *Container, s syscall.Signal) error {
	fd, err := identity(c.State).Open()
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return sys.PidfdSignal(fd, s)
}

// killNow kills a container, also a paused one.
func (e *Engine) killNow(c *Container) {
	if fd, err := identity(c.State).Open(); err == nil { // else it has ended by now
		defer sys.Close(fd)
		_ = sys.PidfdSignal(fd, syscall.SIGKILL)
		if c.State.Status == inspect.Paused || !over(sys.PollFor(slowDeath, fd)) {
			_ = e.freeze(c, false)
		}
	}
	if !e.isKept(c.ID) {
		e.nudge() // somebody has to write the end down
	}
}

func over(ended []bool, err error) bool { return err == nil && ended[0] }

// freeze stops or lets go on all processes of the container.
func (e *Engine) freeze(c *Container, frozen bool) error {
	if c.Cgroup == "" {
		return &fault.Error{Op: "freeze container", On: c.Name, Kind: fault.Unsupported, Err: errors.New("it has no cgroup"), Hint: `"kiste doctor" says why`}
	}
	l, err := cgroup.Detect()
	if err != nil {
		return err
	}
	g, err := cgroup.Open(l, c.Cgroup)
	if err != nil {
		return err
	}
	ctx, stop := timeout(10 * time.Second)
	defer stop()
	if frozen {
		return g.Freeze(ctx)
	}
	return g.Thaw(ctx)
}

// Kill sends a signal to a container that runs. One that ends it by itself, or
// is the container's own stop signal, counts as a wish that it stays ended.
func (e *Engine) Kill(query string, s syscall.Signal) error {
	id, err := e.id(query)
	if err != nil {
		return err
	}
	var c *Container
	err = e.change(id, func(found *Container) error {
		c = found
		if !IsActive(c.State.Status) {
			return conflict("kill container", c, "container %s is not running", c.ID)
		}
		if s == syscall.SIGKILL || s == c.stopSignal() {
			c.State.Stopped = true
		}
		c.passing = true
		return nil
	})
	if err != nil {
		return err
	}
	defer e.wishLasts(c)
	e.Emit("kill", c, map[string]string{"signal": strconv.Itoa(int(s))})
	switch {
	case c.State.Status == inspect.Restarting && !c.State.Stopped:
		return nil // nobody is there to hear it
	case c.State.Status == inspect.Restarting:
		e.nudge()
		return e.awaitSettled(id, c.State)
	case s != syscall.SIGKILL:
		return e.signal(c, s)
	}
	e.killNow(c)
	return e.awaitSettled(id, c.State)
}

func (c *Container) stopSignal() syscall.Signal {
	if n, err := bundle.SignalNumber(c.Result.StopSignal); err == nil {
		return syscall.Signal(n)
	}
	return syscall.SIGTERM
}

// StopOptions say how to stop. The zero value is what the container was made
// with.
type StopOptions struct {
	Signal  syscall.Signal
	Timeout *time.Duration // until it is killed; negative: never
}

// Stop ends a container: by a signal, and when that does not help in time, by
// SIGKILL. One that does not run is fine. When it returns the end is written
// down.
func (e *Engine) Stop(query string, o StopOptions) error {
	id, err := e.id(query)
	if err != nil {
		return err
	}
	return e.stopAndAwait(id, o, false)
}

// stopAndAwait is Stop of the container id. Again: its end does not remove it,
// though it may have been made so.
func (e *Engine) stopAndAwait(id string, o StopOptions, again bool) error {
	var c *Container
	err := e.change(id, func(found *Container) error {
		c = found
		c.State.Stopped, c.passing = true, true
		setRestarter(&c.State, again)
		return nil
	})
	if err != nil && !(noRoom(err) && !c.Wishes.Restart.Set()) { // nobody would start it anew
		return err
	}
	defer e.wishLasts(c)
	switch {
	case c.State.Status == inspect.Restarting:
		e.nudge()
		return e.awaitSettled(id, c.State)
	case !c.runs():
		return nil
	}
	if err := e.stop(c, o); err != nil {
		return err
	}
	if err := e.awaitSettled(id, c.State); err != nil {
		return err
	}
	e.Emit("stop", c, nil)
	return nil
}

// setRestarter writes down whether this process starts the container again, who
// until then, and as long as it lives, is not to be taken for one that has ended.
func setRestarter(s *inspect.State, again bool) {
	s.Again, s.Restarter, s.RestarterStart = again, 0, 0
	if !again {
		return
	}
	if me, err := process.Identify(os.Getpid()); err == nil {
		s.Restarter, s.RestarterStart = me.PID, me.Start
	}
}

// restarting reports whether somebody is between a container's stop and its start.
func restarting(s inspect.State) bool {
	return s.Again && s.Restarter > 0 && process.Identity{PID: s.Restarter, Start: s.RestarterStart}.Alive()
}

// wishLasts lets the wish that a container stays stopped survive a power cut. Who
// keeps it reads that as soon as it is written; only after a boot, and only where a
// policy would start it then, it matters what the disk has. So no signal waits for
// the disk, and nobody is told that it is stopped before.
func (e *Engine) wishLasts(c *Container) {
	if c.State.Stopped && c.Wishes.Restart.Set() {
		_ = store.Sync(e.document(c.ID)) // it may be removed by now
	}
}

// stop ends the process.
func (e *Engine) stop(c *Container, o StopOptions) error {
	fd, err := identity(c.State).Open()
	if errors.Is(err, fault.NotFound) {
		return nil // it has just ended
	}
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	if o.Signal == 0 {
		o.Signal = c.stopSignal()
	}
	patience := c.Result.StopTimeout
	if o.Timeout != nil {
		patience = *o.Timeout
	}
	if err := sys.PidfdSignal(fd, o.Signal); err != nil {
		return ignoreGone(err)
	}
	e.Emit("kill", c, map[string]string{"signal": strconv.Itoa(int(o.Signal))})
	if c.State.Status == inspect.Paused {
		_ = e.freeze(c, false)
	}
	if !e.isKept(c.ID) {
		e.nudge()
	}
	if patience < 0 {
		_, err = sys.Poll(true, fd)
		return err
	}
	if over, err := sys.PollFor(patience, fd); err != nil || over[0] {
		return err
	}
	_ = sys.PidfdSignal(fd, syscall.SIGKILL)
	e.Emit("kill", c, map[string]string{"signal": strconv.Itoa(int(syscall.SIGKILL))})
	_, err = sys.Poll(true, fd)
	return err
}

// Restart stops a container, if it runs, and starts it. With --rm, too: the end
// in between is not its last, unless it cannot be started.
func (e *Engine) Restart(query string, o StopOptions) error {
	id, err := e.id(query)
	if err != nil {
		return err
	}
	if err := e.stopAndAwait(id, o, true); err != nil {
		return err
	}
	s, err := e.Start(id, StartOptions{})
	if err != nil {
		if c, read := e.load(id); read == nil && c.Wishes.Remove {
			_, _ = e.Remove(id, false, true)
		}
		return err
	}
	e.Emit("restart", s.Container, nil)
	return nil
}

// Pause stops all processes of a container where they are: cgroup freezer.
func (e *Engine) Pause(query string) error { return e.setPaused(query, true) }

// Unpause lets them go on.
func (e *Engine) Unpause(query string) error { return e.setPaused(query, false) }

func (e *Engine) setPaused(query string, paused bool) error {
	id, err := e.id(query)
	if err != nil {
		return err
	}
	return e.change(id, func(c *Container) error {
		status, event := inspect.Running, "unpause"
		if paused {
			status, event = inspect.Paused, "pause"
		}
		switch {
		case paused && c.State.Status == inspect.Paused:
			return conflict("pause container", c, "container %s is already paused", c.ID)
		case paused && c.State.Status == inspect.Restarting:
			return conflict("pause container", c, "container %s is restarting, wait until the container is running", c.ID)
		case paused && c.State.Status != inspect.Running:
			return conflict("pause container", c, "container %s is not running", c.ID)
		case !paused && c.State.Status != inspect.Paused:
			return conflict("unpause container", c, "container %s is not paused", c.ID)
		}
		if err := e.freeze(c, paused); err != nil {
			return err
		}
		c.State.Status = status
		e.Emit(event, c, nil)
		return nil
	})
}

// Rename gives a container another name.
func (e *Engine) Rename(query, name string) error {
	id, err := e.id(query)
	if err != nil {
		return err
	}
	return e.change(id, func(c *Container) error {
		if c.Name == name {
			return &fault.Error{Op: "rename container", On: name, Kind: fault.Conflict, Err: errors.New("Renaming a container with the same name as its current name")}
		}
		if err := e.claimName(name, id); err != nil {
			return err
		}
		old := c.Name
		c.Name, c.Wishes.Name = name, name
		if err := e.write(c); err != nil {
			os.Remove(e.nameFile(name))
			return err
		}
		os.Remove(e.nameFile(old))
		e.Emit("rename", c, map[string]string{"oldName": "/" + old})
		return nil
	})
}

// Wait waits until a container has ended, and gives its exit code. Next: until
// it ends the next time, also where it does not run now.
func (e *Engine) Wait(query string, next bool) (int, error) {
	c, err := e.Find(query)
	if err != nil {
		return 0, err
	}
	for !IsActive(c.State.Status) && next {
		if err := e.awaitStart(c.ID); err != nil {
			return 0, err
		}
		if c, err = e.load(c.ID); err != nil {
			return 0, err
		}
	}
	if !IsActive(c.State.Status) {
		return c.State.ExitCode, nil
	}
	return e.awaitEnd(c)
}

// awaitEnd waits for the end of a container that runs. Its keeper tells the
// exit code, also when the container is removed at once.
func (e *Engine) awaitEnd(c *Container) (int, error) {
	if !c.Lasting {
		return e.awaitUnkept(c)
	}
	a, err := e.attach(c)
	if err == nil {
		defer a.Close()
		if err := a.Quiet(); err == nil {
			_ = a.Copy(io.Discard, io.Discard)
		}
		if code, known := a.Code(); known {
			return code, nil
		}
	}
	return e.awaitUnkept(c)
}

// awaitUnkept waits without a keeper that would tell: by a pidfd, and then for
// whoever writes the end down.
func (e *Engine) awaitUnkept(c *Container) (int, error) {
	code := unseen
	if fd, err := identity(c.State).Open(); err == nil {
		defer sys.Close(fd)
		if _, err := sys.Poll(true, fd); err != nil {
			return 0, err
		}
		if s, ok := sys.PidfdExit(fd); ok {
			code = monitor.End{Status: s, Known: true}.Code()
		}
	}
	if err := e.awaitSettled(c.ID, c.State); err != nil {
		return 0, err
	}
	now, err := e.load(c.ID)
	switch {
	case errors.Is(err, fault.NotFound):
		return code, nil
	case err != nil:
		return 0, err
	case now.State.FinishedAt.IsZero() || IsActive(now.State.Status):
		return code, nil
	}
	return now.State.ExitCode, nil
}

// awaitStart waits until somebody changes the container's document.
func (e *Engine) awaitStart(id string) error {
	w, err := sys.NewWatch()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Add(e.Store.Container(id), syscall.IN_MOVED_TO|syscall.IN_DELETE_SELF); err != nil {
		return err
	}
	if c, err := e.load(id); err != nil || IsActive(c.State.Status) {
		return err
	}
	return w.Wait(time.Time{})
}
