package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"kiste/container/monitor"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/kernel/cgroup"
	"kiste/store"
)

func (e *Engine) lockOfStore() string { return filepath.Join(e.Store.Lib, "lock") }

// Swept is what Sweep took away.
type Swept struct {
	Containers []string // IDs: unfinished ones, and those of --rm whose keeper was killed
	Settled    int      // containers whose end nobody had written down
	Volumes    []string // names of anonymous ones whose container is gone
	Strays     int      // names, ranges of ids, directories and cgroups of containers that are gone
}

// Groups of other stores' containers lie beside ours, and are empty for a
// moment when they are made.
const groupAge = time.Minute

// Sweep removes what killed keepers have left of containers: directories
// without a document, containers of --rm, claims on names and ids, runtime
// directories, empty cgroups, anonymous volumes. It writes down the end of those
// that it keeps, and lets CNI plugins try again what they have not undone. It leaves
// a container alone that somebody holds or restarts, and one whose document is
// damaged. While anybody makes a container it is fault.Conflict.
func (e *Engine) Sweep() (Swept, error) { return e.sweep(groupAge) }

func (e *Engine) sweep(age time.Duration) (Swept, error) {
	var s Swept
	if err := e.Store.Open(); err != nil {
		return s, err
	}
	lock, err := e.lockAlone()
	if err != nil {
		return s, err
	}
	defer lock.Unlock()
	ids, err := e.ids()
	if err != nil {
		return s, err
	}
	var all []error
	for _, id := range ids {
		if err := e.sweepContainer(id, &s); err != nil {
			all = append(all, err)
		}
	}
	for _, service := range services() {
		s.Strays += removeEach(e.ServiceDir(service), func(path string) bool { return e.gone(filepath.Base(path)) })
	}
	for _, dir := range e.links() {
		s.Strays += removeEach(dir, e.stale)
	}
	s.Strays += removeEach(filepath.Dir(e.Store.Running("x")), func(path string) bool { return e.gone(filepath.Base(path)) })
	s.Strays += e.sweepGroups(age)
	s.Strays += e.sweepLeases()
	s.Strays += monitor.Strays(filepath.Dir(e.Store.Running("x"))+"/", func(dir string) bool { return e.running(filepath.Base(dir)) })
	s.Volumes, err = e.sweepVolumes()
	return s, errors.Join(append(all, err, e.sweepNetworks())...)
}

// patience is how long those who make containers are waited for.
const patience = 2 * time.Second

func (e *Engine) lockAlone() (*store.Lock, error) {
	l, err := store.LockSoon(e.lockOfStore(), true, patience)
	if errors.Is(err, fault.Conflict) {
		return nil, &fault.Error{Op: "lock store", On: e.Store.Lib, Kind: fault.Conflict, Err: errors.New("somebody adds to it"), Hint: "try again when the pull, the import or the start is done"}
	}
	return l, err
}

func (e *Engine) sweepContainer(id string, s *Swept) error {
	held, err := store.TryLockDir(e.Store.Container(id), true)
	if err != nil {
		return nil // somebody changes it, or it is gone by now
	}
	defer held.Unlock()
	was, err := e.read(id)
	c, lost := was, false
	if err == nil {
		c, err = e.load(id)
		lost = err == nil && IsActive(was.State.Status) && !IsActive(c.State.Status)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist): // it never came to life
		s.Containers = append(s.Containers, id)
		return e.removeFiles(id, nil, true)
	case err != nil:
		return nil // damaged, or a later schema: its owner is told by "kiste ps"
	case c.Wishes.Remove && (lost || c.State.Status == inspect.Exited) && !restarting(c.State):
		s.Containers = append(s.Containers, id)
		return e.removeFiles(id, c, true)
	case lost:
		s.Settled++
		e.cleanUp(c)
		return e.write(c)
	case c.State.Unplugged != "" && !IsActive(c.State.Status):
		return errors.Join(e.leavePlugged(c), e.write(c))
	}
	return nil
}

// gone reports whether id has no directory.
func (e *Engine) gone(id string) bool {
	_, err := os.Lstat(e.Store.Container(id))
	return errors.Is(err, fs.ErrNotExist)
}

// removeEach removes the entries of dir that are to go, and counts them.
func removeEach(dir string, goes func(path string) bool) int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	n := 0
	for _, d := range entries {
		if path := filepath.Join(dir, d.Name()); goes(path) && os.RemoveAll(path) == nil {
			n++
		}
	}
	return n
}

func place() (string, error) {
	l, err := cgroup.Detect()
	if err != nil {
		return "", err
	}
	return cgroup.Place(l)
}

// sweepGroups removes empty cgroups of containers that are gone.
func (e *Engine) sweepGroups(age time.Duration) int {
	l, err := cgroup.Detect()
	if err != nil {
		return 0
	}
	parent, err := cgroup.Place(l)
	if err != nil {
		return 0
	}
	names, err := cgroup.Below(l, parent, age)
	if err != nil {
		return 0
	}
	n := 0
	for _, id := range names {
		if isID(id) && e.gone(id) && removeEmpty(l, parent+"/"+id) {
			n++
		}
	}
	cgroup.Tidy(l, parent)
	if lock, err := store.TryLockFile(e.monitorLock(), true); err == nil {
		e.sweepMonitorGroup(l)
		_ = lock.Unlock()
	}
	return n
}

func removeEmpty(l cgroup.Layout, path string) bool {
	g, err := cgroup.Open(l, path)
	if err != nil {
		return false
	}
	ctx, stop := timeout(100 * time.Millisecond)
	defer stop()
	return g.Remove(ctx) == nil
}
