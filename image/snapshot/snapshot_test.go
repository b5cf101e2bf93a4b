package snapshot_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kiste/fault"
	"kiste/host"
	"kiste/image/snapshot"
	"kiste/internal/need"
)

func id(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func TestMounts(t *testing.T) {
	l := snapshot.Layers{Dir: "/l"}
	d := func(c string) string { return "/l/" + strings.Repeat(c, 32) + "/diff" }
	for _, tt := range []struct {
		name  string
		keys  []string
		upper string
		want  string // type, lower, options
	}{
		{"the topmost layer comes first", []string{id("a"), id("b")}, "/u", "overlay " + d("b") + ":" + d("a") + " "},
		{"a layer that is there twice counts once, at its upper place", []string{id("a"), id("b"), id("a")}, "/u", "overlay " + d("a") + ":" + d("b") + " "},
		{"without a place for changes it is read-only", []string{id("a"), id("b")}, "", "overlay " + d("b") + ":" + d("a") + " ro"},
		{"one layer alone, read-only, is a bind", []string{id("a")}, "", "bind  bind,ro"},
		{"an image without layers is its changes", nil, "/u", "bind  bind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ms, err := l.Mounts(tt.keys, tt.upper, "/w")
			if err != nil || len(ms) != 1 {
				t.Fatal(ms, err)
			}
			if got := ms[0].Type + " " + strings.Join(ms[0].Lower, ":") + " " + strings.Join(ms[0].Options, ","); got != tt.want {
				t.Errorf("got %s; want %s", got, tt.want)
			}
		})
	}
	if _, err := l.Mounts(make([]string, 501), "/u", "/w"); !errors.Is(err, fault.Unsupported) {
		t.Errorf("501 layers: %v", err)
	}
	if _, err := l.Mounts(nil, "", ""); !errors.Is(err, fault.Invalid) {
		t.Errorf("nothing at all: %v", err)
	}
}

// stack makes three layers with everything that a view has to get right.
func stack(t *testing.T) []string {
	t.Helper()
	top := t.TempDir()
	var dirs []string
	for _, script := range []string{
		`mkdir -p etc usr/bin hidden/deep swap; echo low > etc/passwd; echo low > etc/gone; echo low > hidden/f; echo low > hidden/deep/f; ln -s usr/bin bin; echo x > usr/bin/x; echo low > swap/f; echo file > turned`,
		`mkdir -p etc hidden usr turned; mknod etc/gone c 0 0; setfattr -n trusted.overlay.opaque -v y hidden; echo mid > hidden/g; ln -s /etc/passwd abs; ln -s ../../../etc/passwd up; ln -s loop loop; echo mid > swap; echo mid > turned/f`,
		`mkdir -p etc; echo top > etc/group; ln -s passwd etc/alias; mkdir swap; echo top > swap/g`,
	} {
		dir, err := os.MkdirTemp(top, "layer")
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		dirs = append([]string{dir}, dirs...)
	}
	return dirs
}

// The view is what overlayfs itself shows of the same layers.
func TestViewIsWhatOverlayfsShows(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "setfattr")
	dirs := stack(t)
	root := t.TempDir()
	if err := syscall.Mount("overlay", root, "overlay", syscall.MS_RDONLY, "lowerdir="+strings.Join(dirs, ":")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Errorf("left a mount behind: %v", err)
		}
	}()
	for _, path := range []string{"etc/passwd", "etc/gone", "etc/group", "etc/alias", "hidden/f", "hidden/g", "hidden/deep/f", "bin/x", "bin/../bin/x", "usr/bin/x", "swap/f", "swap/g", "turned/f", "turned", "none", "etc/passwd/x", "etc"} {
		want, wantErr := os.ReadFile(filepath.Join(root, path))
		got, err := snapshot.ReadFile(dirs, path, 100)
		if string(got) != string(want) || (err == nil) != (wantErr == nil) {
			t.Errorf("%s: %q, %v; overlayfs has %q, %v", path, got, err, want, wantErr)
		}
	}
	for _, path := range []string{"abs", "up"} { // they lead inside
		if b, err := snapshot.ReadFile(dirs, path, 100); err != nil || string(b) != "low\n" {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	if _, err := snapshot.ReadFile(dirs, "loop", 100); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("loop: %v", err)
	}
	if _, err := snapshot.ReadFile(dirs, "etc/passwd", 2); !errors.Is(err, fault.Invalid) {
		t.Errorf("too large: %v", err)
	}
	if i, err := snapshot.Stat(dirs, "etc/alias", false); err != nil || i.Mode&fs.ModeSymlink == 0 || i.Link != "passwd" {
		t.Errorf("stat of a link: %+v, %v", i, err)
	}
	if i, err := snapshot.Stat(dirs, "/", true); err != nil || !i.Mode.IsDir() {
		t.Errorf("stat of the root: %+v, %v", i, err)
	}
}

func TestViewLeavesNoDescriptors(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "setfattr")
	dirs := stack(t)
	before, _ := os.ReadDir("/proc/self/fd")
	for range 20 {
		for _, path := range []string{"etc/passwd", "none", "abs", "loop", "hidden/deep/f", "etc", "etc/passwd/x", "swap/../swap/g"} {
			snapshot.ReadFile(dirs, path, 100)
			snapshot.Stat(dirs, path, true)
		}
	}
	if after, _ := os.ReadDir("/proc/self/fd"); len(after) > len(before) {
		t.Errorf("%d descriptors became %d", len(before), len(after))
	}
}

// An overlay of the parts is that part of the overlay of the whole.
func TestPartsMakeAPartOfTheWhole(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "setfattr")
	dirs := stack(t)
	for path, want := range map[string]string{
		"etc": "2:etc 1:etc 0:etc", "hidden": "1:hidden", "swap": "2:swap", "turned": "1:turned", "bin": "0:usr/bin", "usr/bin/../../etc/": "2:etc 1:etc 0:etc",
		"bin/x": "0:usr/bin/x", "etc/alias": "0:etc/passwd", "abs": "0:etc/passwd", "up": "0:etc/passwd", "": "2: 1: 0:", "swap/../..": "2: 1: 0:",
		"none": "", "etc/gone": "", "loop": "", "etc/passwd/x": "", "hidden/f": "",
	} {
		parts, err := snapshot.Parts(dirs, path)
		var got []string
		for _, p := range parts {
			for i, d := range dirs {
				if p == d || strings.HasPrefix(p, d+"/") {
					got = append(got, string(rune('0'+2-i))+":"+strings.TrimPrefix(strings.TrimPrefix(p, d), "/"))
				}
			}
		}
		if (err == nil) != (want != "") || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v; want %s", path, got, err, want)
		}
	}
}
