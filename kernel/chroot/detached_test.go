package chroot

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kiste/host"
	"kiste/internal/need"
	"kiste/internal/sys"
)

const testBase = 700000

// userns is a user namespace that maps 0 to testBase, by a process that sleeps.
func userns(t *testing.T) *Shift {
	t.Helper()
	need.Power(t, host.Root, host.Userns, host.IdmapOverlay)
	cmd := exec.Command("sleep", "60")
	maps := []syscall.SysProcIDMap{{ContainerID: 0, HostID: testBase, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: maps, GidMappings: maps, GidMappingsEnableSetgroups: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	fd, err := sys.OpenFile("/proc/"+strconv.Itoa(cmd.Process.Pid)+"/ns/user", unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close(fd) })
	return &Shift{Userns: fd, UID: testBase, GID: testBase}
}

// layersIn makes directories with a file of their name, owned by uid 1000.
func layersIn(t *testing.T, names ...string) (dirs []string) {
	t.Helper()
	top := t.TempDir()
	for _, name := range names {
		dir := filepath.Join(top, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "of-"+name)
		if err := os.WriteFile(file, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(file, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

func owner(t *testing.T, tree int, name string) uint32 {
	t.Helper()
	st, err := sys.StatAt(tree, name)
	if err != nil {
		t.Fatal(err)
	}
	return st.Uid
}

// Both ways to give overlayfs its layers show shifted owners, and write back
// unshifted ones.
func TestDetachedOverlayIsShifted(t *testing.T) {
	by := userns(t)
	for _, way := range []struct {
		name string
		make func(t *testing.T, m Mount, p Parsed) (int, error)
	}{
		{"by descriptor", func(t *testing.T, m Mount, p Parsed) (int, error) {
			need.Power(t, host.OverlayFD)
			return m.byDescriptor(p, by)
		}},
		{"by path", func(_ *testing.T, m Mount, p Parsed) (int, error) { return m.byPath(p, by) }},
	} {
		t.Run(way.name, func(t *testing.T) {
			dirs := layersIn(t, "a", "b")
			both := t.TempDir()
			for _, d := range []string{"upper", "work"} {
				if err := os.Mkdir(filepath.Join(both, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			m := Mount{Type: "overlay", Lower: dirs, Upper: filepath.Join(both, "upper"), Work: filepath.Join(both, "work")}
			tree, err := way.make(t, m, Parsed{})
			if err != nil {
				t.Fatal(err)
			}
			defer sys.Close(tree)
			for _, name := range []string{"of-a", "of-b"} {
				if uid := owner(t, tree, name); uid != testBase+1000 {
					t.Errorf("%s belongs to %d; want %d", name, uid, testBase+1000)
				}
			}
			err = by.asRoot(func() error {
				fd, err := sys.OpenAt(tree, "new", unix.O_CREAT|unix.O_WRONLY, 0o644)
				if err == nil {
					sys.Close(fd)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if uid := owner(t, unix.AT_FDCWD, filepath.Join(both, "upper", "new")); uid != 0 {
				t.Errorf("on disk the new file belongs to %d; want 0", uid)
			}
		})
	}
}

// An overlay without an upper directory is what several layers of an image are
// when they are mounted beside others.
func TestDetachedReadOnlyOverlay(t *testing.T) {
	by := userns(t)
	dirs := layersIn(t, "a", "b", "c")
	tree, err := Mount{Type: "overlay", Lower: dirs, Options: []string{"ro", "idmap"}}.Detached(by)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(tree)
	if uid := owner(t, tree, "of-c"); uid != testBase+1000 {
		t.Errorf("of-c belongs to %d; want %d", uid, testBase+1000)
	}
	if _, err := sys.OpenAt(tree, "new", unix.O_CREAT|unix.O_WRONLY, 0o644); err == nil {
		t.Error("made a file on a read-only mount")
	}
}

// A path below the source of a bind is looked up in it: a link that leads out
// does not.
func TestDetachedBelowStaysInside(t *testing.T) {
	need.Power(t, host.Root)
	dir := layersIn(t, "a")[0]
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if tree, err := (Mount{Type: "bind", Source: dir, Below: "out"}).Detached(nil); err == nil {
		sys.Close(tree)
		t.Error("a link to /etc led to the host's")
	}
	tree, err := Mount{Type: "bind", Source: dir, Below: "of-a"}.Detached(nil)
	if err != nil {
		t.Fatal(err)
	}
	sys.Close(tree)
}

// Only what the kernel cannot shift is ErrShift: not any EINVAL.
func TestWhatCannotBeShifted(t *testing.T) {
	by := userns(t)
	for _, tt := range []struct {
		name string
		m    Mount
		want bool
	}{
		{"a file system without id-mapped mounts", Mount{Type: "bind", Source: "/proc", Target: "/p"}, true},
		{"an option that a file system does not have", Mount{Type: "tmpfs", Source: "tmpfs", Target: "/t", Options: []string{"size=much"}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fd, err := tt.m.Detached(by)
			if err == nil {
				sys.Close(fd)
				t.Fatal("it was mounted")
			}
			if !errors.Is(err, unix.EINVAL) || errors.Is(err, ErrShift) != tt.want {
				t.Errorf("got %v, EINVAL: %t, ErrShift: %t, want EINVAL and %t", err, errors.Is(err, unix.EINVAL), errors.Is(err, ErrShift), tt.want)
			}
		})
	}
}
