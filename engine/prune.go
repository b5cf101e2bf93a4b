package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"kiste/fault"
)

// Prune removes the containers that goes chooses among those that do not run
// and that nobody is making or restarting. It gives their IDs, and how many bytes they had
// written. One that cannot be removed does not keep the others from it.
func (e *Engine) Prune(goes func(c *Container) bool) (ids []string, freed int64, err error) {
	all, _, err := e.Brief()
	if err != nil {
		return nil, 0, err
	}
	var bad []error
	for _, c := range all {
		if IsActive(c.State.Status) || !goes(c) || e.held(c.ID) || restarting(c.State) {
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
func (e *Engine) held(id string) bool { return isLocked(e.Store.Container(id)) || e.isKept(id) }

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
