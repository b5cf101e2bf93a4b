package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"kiste/host"
	"kiste/internal/need"
	"kiste/internal/sys"
)

// What goes while a tree is walked is passed over, and all else is reached.
func TestATreeThatShrinksIsWalkedToItsEnd(t *testing.T) {
	dir := t.TempDir()
	const files = 20
	name := func(i int) string { return filepath.Join(dir, fmt.Sprint("f", i)) }
	left := map[uint64]bool{}
	for i := range files {
		if err := os.WriteFile(name(i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, inode, err := sys.InodeOf(name(i))
		if err != nil {
			t.Fatal(err)
		}
		left[inode] = true
	}
	fd, err := openSource(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(fd)
	gone := 0
	err = eachBelow(fd, func(fd, _, _ int) error {
		st, err := sys.StatAt(fd, "")
		delete(left, st.Ino)
		if err != nil || gone > 0 {
			return err
		}
		// The half of the others goes.
		for i := range files {
			if _, inode, err := sys.InodeOf(name(i)); err == nil && left[inode] && gone < files/2 {
				delete(left, inode)
				gone++
				err = os.Remove(name(i))
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil || gone != files/2 || len(left) > 0 {
		t.Errorf("%d files were not reached, %d are gone: %v", len(left), gone, err)
	}
}

// A tree is given away with all that is in it, links themselves too, and nothing
// that they lead to.
func TestOwnFollowsNoLink(t *testing.T) {
	need.Power(t, host.Root)
	work := t.TempDir()
	tree, other := filepath.Join(work, "tree"), filepath.Join(work, "other")
	if err := errors.Join(os.MkdirAll(filepath.Join(tree, "sub"), 0o700), os.WriteFile(filepath.Join(tree, "sub", "f"), nil, 0o600), os.WriteFile(other, nil, 0o600),
		os.Symlink("../../other", filepath.Join(tree, "sub", "out"))); err != nil {
		t.Fatal(err)
	}
	owner := func(path string) string {
		info, err := os.Lstat(filepath.Join(work, path))
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
	}
	if err := own(tree, "", 5, 6); err != nil {
		t.Fatal(err)
	}
	if err := own(tree, "/sub", 7, 8); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"tree": "5:6", "tree/sub": "7:8", "tree/sub/f": "7:8", "tree/sub/out": "7:8", "other": "0:0"} {
		if got := owner(path); got != want {
			t.Errorf("%s is of %s; want %s", path, got, want)
		}
	}
}
