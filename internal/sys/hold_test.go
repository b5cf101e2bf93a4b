package sys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is held is found where it is, even when its path leads elsewhere; other
// paths, and those that only begin alike, are as before.
func TestHold(t *testing.T) {
	held.Store(nil)
	defer held.Store(nil)
	top := t.TempDir()
	dir, elsewhere := filepath.Join(top, "dir"), filepath.Join(top, "elsewhere")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	Hold(filepath.Join(top, "missing"))
	Hold(dir)
	Hold(top) // the first one stays
	defer func() { unix.Close(held.Load().fd) }()
	if err := os.Rename(dir, elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := Mkdir(dir+"/group", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(elsewhere + "/group"); err != nil {
		t.Error(err)
	}
	if _, _, err := InodeOf(dir + "/group"); err != nil {
		t.Error(err)
	}
	if there, isDir := Look(dir + "/group"); !there || !isDir {
		t.Errorf("Look: %v, %v", there, isDir)
	}
	fd, err := OpenDir(dir + "/group")
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	for _, path := range []string{dir, dir + "//group", dir + "2/group"} {
		if _, _, err := InodeOf(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := Rmdir(dir + "/group"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(elsewhere+"/knob", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteKnob(dir+"/knob", "5"); err != nil {
		t.Error(err)
	}
	if text, err := ReadKnob(dir+"/knob", 10); text != "5" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	flags, err := unix.FcntlInt(uintptr(held.Load().fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: a program would have it", flags, err)
	}
}
