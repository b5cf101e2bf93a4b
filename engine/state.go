package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"kiste/container/monitor"
	"kiste/container/process"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/store"
)

// lockState takes the lock under which a container's document is changed.
func (e *Engine) lockState(id string) (*store.Lock, error) {
	dir := e.Store.Container(id)
	l, err := store.LockDir(dir, true)
	if err == nil && !l.Holds(dir) { // whoever had it has removed the container
		l.Unlock()
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = noSuch(id)
	}
	return l, err
}

func noSuch(query string) error {
	return &fault.Error{Op: "find container", On: query, Kind: fault.NotFound, Err: errors.New("No such container: " + query), Hint: `"kiste ps -a" lists them`}
}

// change changes a container's document.
func (e *Engine) change(id string, do func(*Container) error) error {
	l, err := e.lockState(id)
	if err != nil {
		return err
	}
	defer l.Unlock()
	c, err := e.load(id)
	if err != nil {
		return err
	}
	if err := do(c); err != nil {
		return err
	}
	return e.write(c)
}

// keeperLock is the lock that the keeper of a container holds as long as it
// runs, and as it waits to be started anew. Somebody has it: fault.Conflict.
func (e *Engine) keeperLock(id string) (*store.Lock, error) {
	dir := e.Store.Running(id)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	return store.TryLockDir(dir, true)
}

// keeperLockSoon is keeperLock of a container that nobody keeps: those who look
// whether anybody does, and a keeper that has just written its end down, hold the
// lock for a moment.
func (e *Engine) keeperLockSoon(id string) (*store.Lock, error) {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		l, err := e.keeperLock(id)
		if !errors.Is(err, fault.Conflict) || time.Now().After(end) {
			return l, err
		}
	}
}

// isKept reports whether the container has a keeper.
func (e *Engine) isKept(id string) bool { return isLocked(e.Store.Running(id)) }

// isLocked reports whether somebody holds the lock on a directory.
func isLocked(dir string) bool {
	l, err := store.TryLockDir(dir, false)
	if err == nil {
		l.Unlock()
	}
	return errors.Is(err, fault.Conflict)
}

// awaitSettled waits until a container has no keeper, or its state is not any more
// what it was: somebody may have started it by then, and it is kept again. Of one
// that is removed it waits for the end of that.
func (e *Engine) awaitSettled(id string, was inspect.State) error {
	return store.AwaitDir(e.Store.Running(id), func() bool {
		c, err := e.read(id)
		return err == nil && (c.State.Status != was.Status || c.State.Restarts != was.Restarts || identity(c.State) != identity(was))
	})
}

// awaitKeeper waits until the container has no keeper. Only of one that nobody can
// start meanwhile that comes to an end.
func (e *Engine) awaitKeeper(id string) error {
	l, err := store.LockDir(e.Store.Running(id), false)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return l.Unlock()
}

// bootID tells this boot of the host from others.
var bootID = sync.OnceValue(func() string {
	b, _ := readSmall("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})

func identity(s inspect.State) process.Identity {
	return process.Identity{PID: s.PID, Start: s.Start}
}

// lives asks the kernel whether a container's process is there. Without the
// directory of what runs the host has been started anew.
func (e *Engine) lives(c *Container) bool {
	return c.State.PID > 0 && c.State.Boot == bootID() && identity(c.State).Alive() && isDir(e.Store.Running(c.ID))
}

// IsActive reports whether a state is one with a process, or soon again.
func IsActive(status string) bool {
	return slices.Contains([]string{inspect.Running, inspect.Paused, inspect.Restarting}, status)
}

// runs reports whether the container has a process, paused or not.
func (c *Container) runs() bool {
	return c.State.Status == inspect.Running || c.State.Status == inspect.Paused
}

// started is the state of a container whose process has just begun.
func started(was inspect.State, id process.Identity) inspect.State {
	return inspect.State{Status: inspect.Running, PID: id.PID, Start: id.Start, Boot: bootID(), StartedAt: time.Now(), FinishedAt: was.FinishedAt,
		Restarts: was.Restarts, Delay: was.Delay, LogLost: was.LogLost}
}

// ended is the state after the end of a process.
func ended(was inspect.State, end monitor.End) inspect.State {
	s := was
	s.Status, s.PID, s.Start, s.Boot, s.ExitCode, s.FinishedAt = inspect.Exited, 0, 0, "", end.Code(), end.At
	return s
}

// cleanUp takes away what a container has only while it runs.
func (e *Engine) cleanUp(c *Container) {
	e.unserve(c.ID)
	e.unmounted(c)
	e.tellNetworks("disconnect", c)
	e.disconnect(c)
	e.endNetwork(c)
	_ = e.leavePlugged(c) // which writes it down
	if c.Cgroup != "" {
		removeAnyGroup(c.Cgroup)
	}
	if c.IDs != "" {
		os.Remove(c.IDs)
	}
}

// finish writes down that the container has ended, and decides whether it is
// started anew, when its state is Restarting. With --rm it is removed. The
// caller holds both locks.
func (e *Engine) finish(c *Container, end monitor.End) error {
	about := c.suspect()
	c.State = ended(c.State, end)
	c.State.OOMKilled = e.oomKilled(c)
	c.remember(about)
	if e.startsAgain(c, end) {
		c.State.Status = inspect.Restarting
	}
	return e.settle(c)
}

// remember keeps what the cgroup has counted, which goes with it, and what the
// kernel has told of the container. It costs nothing where there is nothing to
// know.
func (c *Container) remember(about suspect) {
	s, l := &c.State, c.Wishes.Limits
	if s.Removing {
		return
	}
	if c.Cgroup != "" && (l.Memory > 0 || l.Pids > 0 || l.NanoCPUs > 0 || l.CPUQuota > 0) {
		s.Spent = spentOf(usageOf(c.Cgroup))
	}
	if s.OOMKilled || s.ExitCode == 128+int(syscall.SIGSYS) || c.Wishes.Security.LogDenials {
		t := about.ask()
		s.Denied, s.Victim = t.denied, t.oom
	}
}

func spentOf(u *cgroup.Usage) *inspect.Spent {
	if u == nil {
		return nil
	}
	var s inspect.Spent
	if m := u.Memory; m != nil {
		s.PeakMemory = max(0, m.Peak)
	}
	if p := u.Pids; p != nil {
		s.Refused, s.PidsLimit = p.Refused, p.Limit
	}
	if cpu := u.CPU; cpu != nil {
		s.Periods, s.Throttled, s.ThrottledTime = cpu.Periods, cpu.Throttled, cpu.ThrottledTime
	}
	return &s
}

// settle takes away what a container has only while it runs and writes its
// state down, or removes it: with --rm, unless it is restarted, and where it was
// killed for that.
func (e *Engine) settle(c *Container) error {
	e.cleanUp(c)
	if !c.State.Removing && (!c.Wishes.Remove || c.State.Status != inspect.Exited || c.State.Again) {
		return e.write(c)
	}
	c.Cgroup, c.IDs = "", ""
	e.Emit("destroy", c, nil)
	return e.removeFiles(c.ID, c, c.Wishes.Remove || c.State.RemovingVolumes)
}

// settleAfterBoot writes down that a container has ended with the host. What is
// to run again after that is for StartAtBoot.
func (e *Engine) settleAfterBoot(c *Container) {
	c.State = ended(c.State, monitor.End{At: time.Now()})
	c.State.AtBoot, c.State.Delay = true, 0
	setRestarter(&c.State, false)
	_ = e.settle(c)
}

// StartAtBoot starts the containers that their policies want after a boot of
// the host: always; unless somebody has stopped them; and on failure, those
// that ran when it went down. It gives their names.
func (e *Engine) StartAtBoot() (names []string, err error) {
	all, bad, err := e.List()
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if IsActive(c.State.Status) || !c.Wishes.Restart.AtBoot(c.State.Stopped, c.State.AtBoot) {
			continue
		}
		if _, err := e.Start(c.ID, StartOptions{}); err != nil {
			bad = append(bad, err)
			continue
		}
		names = append(names, c.Name)
	}
	return names, errors.Join(bad...)
}

// StopForBoot stops all containers that the monitor keeps, at the same time, since the
// host is going down. What policies want is started again by StartAtBoot. Those of
// systemd's units are left to systemd. It gives their names.
func (e *Engine) StopForBoot(o StopOptions) (names []string, err error) {
	all, bad, err := e.List()
	if err != nil {
		return nil, err
	}
	sys.Parallel()
	var mu sync.Mutex
	var running sync.WaitGroup
	for _, c := range all {
		if !IsActive(c.State.Status) || c.Unit != "" || !c.Lasting {
			continue
		}
		running.Go(func() {
			err := e.stopForBoot(c.ID, o)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				names = append(names, c.Name)
			case !errors.Is(err, fault.NotFound): // --rm
				bad = append(bad, err)
			}
		})
	}
	running.Wait()
	slices.Sort(names)
	return names, errors.Join(bad...)
}

func (e *Engine) stopForBoot(id string, o StopOptions) error {
	if err := e.Stop(id, o); err != nil {
		return err
	}
	return e.change(id, func(c *Container) error {
		c.State.Stopped, c.State.AtBoot = false, true
		return nil
	})
}

// Of the pause before a container is started anew.
const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = time.Minute
	longRun    = 10 * time.Second // who has run so long begins with the first again
)

// startsAgain applies the restart policy, and sets the pause before: it doubles,
// as Docker's does.
func (e *Engine) startsAgain(c *Container, end monitor.End) bool {
	s, r := &c.State, c.Wishes.Restart
	if s.Removing || s.Stopped || !r.Again(s.ExitCode, s.Restarts) {
		s.Delay = 0
		return false
	}
	switch {
	case s.Delay == 0 || end.At.Sub(s.StartedAt) >= longRun:
		s.Delay = firstDelay
	default:
		s.Delay = min(2*s.Delay, lastDelay)
	}
	s.Restarts++
	return true
}

// oomKilled asks the container's cgroup.
func (e *Engine) oomKilled(c *Container) bool {
	if c.Cgroup == "" || c.Wishes.Limits.Memory == 0 {
		return false
	}
	l, err := cgroup.Detect()
	if err != nil {
		return false
	}
	g, err := cgroup.Open(l, c.Cgroup)
	return err == nil && g.OOMKills() > 0
}

// conflict is what somebody hears who wants of a container what its state does
// not allow.
func conflict(op string, c *Container, format string, args ...any) error {
	return &fault.Error{Op: op, On: c.Name, Kind: fault.Conflict, Err: fmt.Errorf(format, args...)}
}

// running reports whether the container id has a keeper or a process.
func (e *Engine) running(id string) bool {
	if e.isKept(id) {
		return true
	}
	c, err := e.load(id)
	return err == nil && IsActive(c.State.Status)
}
