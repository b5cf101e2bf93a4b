package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"kiste/engine/event"
	"kiste/fault"
	"kiste/store"
)

// Prune removes the containers that goes chooses among those that do not run
// and that nobody is making. It gives their IDs, and how many bytes they had
// written. One that cannot be removed does not keep the others from it.
func (e *Engine) Prune(goes func(c *Container) bool) (ids []string, freed int64, err error) {
	all, _, err := e.List()
	if err != nil {
		return nil, 0, err
	}
	var bad []error
	for _, c := range all {
		if c.State.Status != "exited" && c.State.Status != "created" || !goes(c) || e.held(c.ID) {
			continue
		}
		n := e.Written(c.ID)
		_, err := e.Remove(c.ID, false, false)
		switch {
		case err == nil:
			ids, freed = append(ids, c.ID), freed+n
		case !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Conflict):
			bad = append(bad, err)
		}
	}
	return ids, freed, errors.Join(bad...)
}

// held reports whether somebody makes the container or keeps it.
func (e *Engine) held(id string) bool {
	l, err := store.TryLockDir(e.lockFile(id), false)
	if err == nil {
		l.Unlock()
	}
	return errors.Is(err, fault.Conflict)
}

// PruneAnonymous removes the volumes that were made without a name, that no
// container has and that goes chooses by the time when they were made. It gives
// their names and their size in bytes. While anybody makes a container it is
// fault.Conflict.
func (e *Engine) PruneAnonymous(goes func(created time.Time) bool) (names []string, freed int64, err error) {
	lock, err := e.lockAlone()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil // there is no store yet
	}
	if err != nil {
		return nil, 0, err
	}
	defer lock.Unlock()
	owners, err := e.owners()
	if err != nil {
		return nil, 0, err
	}
	used, err := e.usedVolumes()
	if err != nil {
		return nil, 0, err
	}
	var bad []error
	for name := range owners {
		home := filepath.Dir(e.Store.Volume(name))
		info, err := os.Lstat(home)
		if !isID(name) || used[name] > 0 || err != nil || !goes(info.ModTime()) {
			continue
		}
		size := treeSize(home)
		if err := e.discardVolume(name); err != nil {
			bad = append(bad, err)
			continue
		}
		names, freed = append(names, name), freed+size
		e.EmitVolume("destroy", name, nil)
	}
	slices.Sort(names)
	event.OfPrune(e.Store, event.Volume, freed)
	return names, freed, errors.Join(bad...)
}

// discardVolume removes a volume: from its renaming on, nobody takes half of it
// for the volume.
func (e *Engine) discardVolume(name string) error {
	home := filepath.Dir(e.Store.Volume(name))
	unlimitVolume(home)
	gone := filepath.Join(filepath.Dir(home), ".gone-"+name)
	if err := os.Rename(home, gone); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return e.removeTree(gone)
	}
	return removeHere(gone)
}

// usedVolumes tells how many containers have a volume, by its name. A container
// whose document cannot be read is an error: what it needs is not known.
func (e *Engine) usedVolumes() (map[string]int, error) {
	all, bad, err := e.List()
	if err != nil || len(bad) > 0 {
		return nil, errors.Join(append(bad, err)...)
	}
	used := map[string]int{}
	for _, c := range all {
		for _, name := range c.VolumeNames {
			used[name]++
		}
	}
	return used, nil
}

// treeSize adds up the lengths of the files below dir.
func treeSize(dir string) int64 {
	var n int64
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read is not counted
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
