package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"kiste/fault"
	"kiste/internal/sys"
)

// deepest is how many directories below one another are held open at once. What
// lies deeper is moved up.
const deepest = 100

// A remover removes a tree that others may be at work in: by descriptor, never
// through a link, never into another mount.
type remover struct {
	parent int // of the tree, which stands beside what is moved up
	base   string
	mount  uint64
	moved  []string
	count  int // of all that were moved
}

// removeHere removes the tree dir as far as it lies on one mount. What is mounted
// in it is fault.Conflict, and stays.
func removeHere(dir string) error {
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer parent.Close()
	r := remover{parent: int(parent.Fd()), base: filepath.Base(dir)}
	if r.mount, err = sys.MountID(r.parent, r.base); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for rest := []string{r.base}; len(rest) > 0; rest, r.moved = r.moved, nil {
		for _, name := range rest {
			if err := r.remove(r.parent, name, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *remover) remove(dir int, name string, depth int) error {
	err := sys.UnlinkAt(dir, name, 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) || !errors.Is(err, syscall.EISDIR) {
		return ignoreMissing(err)
	}
	if depth >= deepest {
		r.count++
		up := fmt.Sprintf("%s.%d-%d", r.base, os.Getpid(), r.count)
		r.moved = append(r.moved, up)
		return sys.RenameNew(dir, name, r.parent, up)
	}
	fd, err := sys.OpenAt(dir, name, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return ignoreMissing(err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if id, err := sys.MountID(fd, ""); err != nil || id != r.mount {
		return errors.Join(err, &fault.Error{Op: "remove", On: name, Kind: fault.Conflict, Err: errors.New("something is mounted on it"), Hint: "unmount it first, and say kiste gc"})
	}
	for range tries {
		if err = r.empty(f, depth); err != nil {
			return err
		}
		if err = sys.UnlinkAt(dir, name, atRemoveDir); !errors.Is(err, syscall.ENOTEMPTY) {
			return ignoreMissing(err)
		}
	}
	return err
}

// tries is how often a directory is emptied that others put something into.
const tries = 100

// empty removes what is in a directory.
func (r *remover) empty(dir *os.File, depth int) error {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, below := range names {
		if err := r.remove(int(dir.Fd()), below, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// atRemoveDir is AT_REMOVEDIR of unlinkat(2).
const atRemoveDir = 0x200

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
