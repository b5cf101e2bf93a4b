package engine

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"kiste/internal/bus"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/cgroup/systemd"
	"kiste/store"
)

// The monitor, its guard and the holders belong to nobody's session: systemd ends
// what is in the cgroup of a service or a session that ends. So they are born in a
// group of their own where whoever starts them is in one: root's at the top,
// beside those of the containers; an ordinary user's is a scope of his own
// instance of systemd, in which his containers then have groups, too.

// ownGroup begins the name of the monitor's group.
const ownGroup = "kiste-monitor-"

// groupName is that of this store's: with a number made of its path (FNV-1a).
func (e *Engine) groupName() string {
	sum := uint32(2166136261)
	for _, c := range []byte(e.Store.Run) {
		sum = (sum ^ uint32(c)) * 16777619
	}
	return ownGroup + fmt.Sprintf("%08x", sum)
}

// tracking is the hierarchy in which systemd keeps track of processes where it
// has no other.
const tracking = "name=systemd"

// monitorGroup are the steps that make root's group for the monitor; none where
// it would be no better off. Of the hierarchies with a controller those are left
// too in which the caller is where systemd has put it.
func (e *Engine) monitorGroup(l cgroup.Layout) []cgroup.Step {
	own := membership(l)
	if os.Geteuid() != 0 || len(own) == 0 {
		return nil
	}
	if place, err := cgroup.Delegated(l); err != nil || place != cgroup.Parent {
		return nil
	}
	o := cgroup.Options{Exist: true, Join: []string{tracking}}
	unit := own[0].group
	for _, m := range own {
		if unit == "/" {
			unit = m.group
		}
	}
	if unit == "/" || path.Base(unit) == e.groupName() {
		return nil
	}
	ownOf, _ := cgroup.Membership(l)
	for _, h := range l.V1 {
		if at, ok := ownOf(h); ok && at == unit {
			o.Join = append(o.Join, h.Controllers...)
		}
	}
	steps, err := cgroup.Compile(l, "/"+e.groupName(), cgroup.Limits{}, o)
	if err != nil {
		return nil
	}
	return steps
}

// A member is where this process is in one hierarchy.
type member struct {
	cgroup.Hierarchy
	group string
}

// membership tells where this process is in the hierarchies by which systemd
// keeps track of processes.
func membership(l cgroup.Layout) (list []member) {
	ownOf, err := cgroup.Membership(l)
	if err != nil {
		return nil
	}
	for _, h := range l.All() {
		if at, ok := ownOf(h); ok && (h.V2 || h.Has(tracking)) {
			list = append(list, member{h, at})
		}
	}
	return list
}

// inGroup does start, which forks the guard, so that this is born in the group
// that steps make. It gets the descriptor of the one of version 2, or -1. A group
// that cannot be made or entered is none: the monitor then ends with the caller's.
func inGroup(l cgroup.Layout, steps []cgroup.Step, start func(unified int) error) error {
	if len(steps) == 0 || cgroup.Do(steps) != nil {
		return start(-1)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	leave, err := cgroup.Enter(l, steps)
	if err != nil {
		return start(-1)
	}
	unified := -1
	if dir := cgroup.UnifiedDir(steps); dir != "" {
		f, err := os.Open(dir)
		if err == nil {
			defer f.Close()
			unified = int(f.Fd())
		}
	}
	err = start(unified)
	if e := leave(); err == nil {
		err = e
	}
	return err
}

// leaveGroup removes the monitor's group before processes in it end, which may be
// the last. The caller holds the lock by which monitors are started, or the store is
// gone.
func (e *Engine) leaveGroup(pids ...int) {
	l, err := cgroup.Detect()
	if err != nil || os.Geteuid() != 0 {
		return
	}
	ownOf, err := cgroup.Membership(l)
	if err != nil {
		return
	}
	for _, h := range l.All() {
		if at, ok := ownOf(h); ok && at == "/"+e.groupName() {
			for _, pid := range pids {
				_ = sys.WriteKnob(filepath.Join(h.Dir("/"), "cgroup.procs"), fmt.Sprint(pid))
			}
		}
	}
	e.sweepMonitorGroup(l)
}

// LeaveGroup is called by a service before it ends: where the monitor has ended
// before it, nobody else would remove the group.
func (e *Engine) LeaveGroup() {
	if lock, err := store.LockFile(e.monitorLock(), true); err == nil {
		defer lock.Unlock()
	}
	e.leaveGroup(os.Getpid())
}

// sweepMonitorGroup removes the group if nobody is in it.
func (e *Engine) sweepMonitorGroup(l cgroup.Layout) {
	for _, h := range l.All() {
		_ = sys.Rmdir(h.Dir("/" + e.groupName()))
	}
}

// moveToScope moves an ordinary user's monitor with its guard into a scope of his
// own instance of systemd, where it has not one yet, and there below: who hands
// controllers on has no processes. Where there is no such instance it stays.
func (e *Engine) moveToScope() {
	if os.Geteuid() == 0 {
		return
	}
	l, err := cgroup.Detect()
	own := membership(l)
	if err != nil || len(l.V1) > 0 || len(own) == 0 || strings.Contains(own[0].group, "/"+ownGroup) {
		return
	}
	self := []int{os.Getppid(), os.Getpid()}
	if intoScope(e.groupName()+".scope", "Kiste: containers of "+e.Store.Run, self...) != nil {
		return
	}
	group, err := cgroup.Of(l, 0)
	if err != nil || !strings.HasPrefix(path.Base(group), ownGroup) {
		return
	}
	below := path.Join(l.Unified.Dir(group), "monitor")
	if os.Mkdir(below, 0o755) != nil {
		return
	}
	slices.Reverse(self)
	for _, pid := range self {
		_ = sys.WriteKnob(path.Join(below, "cgroup.procs"), fmt.Sprint(pid))
	}
}

// intoScope moves processes of an ordinary user into a new scope of his own
// instance of systemd.
func intoScope(name, description string, pids ...int) error {
	m, err := systemd.Connect(true)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Start(name, []systemd.Property{
		{Name: "Description", Value: bus.String(description)},
		{Name: "Delegate", Value: bus.Bool(true)},
		{Name: "CollectMode", Value: bus.String("inactive-or-failed")},
	}, pids...)
}
