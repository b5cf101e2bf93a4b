package snapshot_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"kiste/host"
	"kiste/image/snapshot"
	"kiste/internal/need"
)

// rich is a directory "d" with all that a file system can hold, over two
// layers, and links that lead out of it.
func rich(t *testing.T) []string {
	t.Helper()
	top := t.TempDir()
	var dirs []string
	for _, script := range []string{
		`mkdir -p d/sub/deep d/hidden d/gone d/once; cd d
		echo low > f; echo low > sub/f; echo low > hidden/f; echo low > gone/f; echo 1 > once/a; ln once/a once/b; ln once/a sub/c
		ln -s /etc/passwd abs; ln -s ../../.. up; ln -s f near; mkfifo -m 622 fifo; mknod -m 660 null c 1 3
		cp /bin/busybox suid; chown 5:6 suid; chmod 6755 suid; setfattr -n user.note -v hi suid
		setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 f
		setfattr -n system.posix_acl_access -v 0x0200000001000700ffffffff02000700d204000004000700ffffffff10000700ffffffff20000100ffffffff sub; chown 7:8 sub; chmod 3771 sub; truncate -s 8M holes; printf x | dd of=holes bs=1 seek=4M conv=notrunc status=none
		touch -h -d @1500000000.123456789 abs f suid sub fifo; chmod 1777 .; chown 9:10 .; touch -d @1400000000 .`,
		`mkdir -p d/sub d/hidden; cd d; chmod 711 sub; mknod gone c 0 0; setfattr -n trusted.overlay.opaque -v y hidden; echo high > hidden/g; echo high > sub/g; touch -d @1600000000 sub hidden; chmod 750 .; chown 11:12 .; touch -d @1450000000 .`,
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

// listing tells everything of a tree, a line for each name.
func listing(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf(".%s %o %d:%d %d.%d dev %d", strings.TrimPrefix(path, root), st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			line += " -> " + target
		case d.Type().IsRegular():
			b, _ := os.ReadFile(path)
			line += fmt.Sprintf(" names %d content %.20q", st.Nlink, b)
		}
		if d.Type()&fs.ModeSymlink == 0 {
			out, _ := exec.Command("getfattr", "-d", "-m", "^(user|security|system)", "--absolute-names", path).Output()
			_, attrs, _ := strings.Cut(string(out), "\n")
			line += " " + strings.Join(strings.Fields(attrs), " ")
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A copy is what overlayfs itself shows of the same layers.
func TestCopyIsWhatOverlayfsShows(t *testing.T) {
	need.Power(t, host.Root)
	for _, program := range []string{"setfattr", "getfattr", "busybox"} {
		need.Program(t, program)
	}
	dirs, root, to := rich(t), t.TempDir(), t.TempDir()
	if err := syscall.Mount("overlay", root, "overlay", syscall.MS_RDONLY, "lowerdir="+strings.Join(dirs, ":")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Errorf("left a mount behind: %v", err)
		}
	}()
	before, _ := os.ReadDir("/proc/self/fd")
	if found, err := snapshot.Copy(dirs, "/d", to); !found || err != nil {
		t.Fatal(found, err)
	}
	if after, _ := os.ReadDir("/proc/self/fd"); len(after) > len(before) {
		t.Errorf("%d descriptors became %d", len(before), len(after))
	}
	got, want := listing(t, to), listing(t, filepath.Join(root, "d"))
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("the copy is\n%s\n\nand overlayfs shows\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if !slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "./sub/g ") }) {
		t.Error("nothing is merged")
	}
	var st syscall.Stat_t
	if err := syscall.Stat(to+"/holes", &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("the holes take %d blocks, %v", st.Blocks, err)
	}
	a, _ := os.Lstat(to + "/once/a")
	if b, err := os.Lstat(to + "/sub/c"); err != nil || !os.SameFile(a, b) {
		t.Errorf("two names became two files: %v", err)
	}
}

func TestCopyOfWhatIsNoDirectory(t *testing.T) {
	need.Power(t, host.Root)
	for _, program := range []string{"setfattr", "busybox"} {
		need.Program(t, program)
	}
	dirs := rich(t)
	for _, dir := range []string{"/none", "/d/f", "/d/gone", "/d/abs", "/d/fifo"} {
		if found, err := snapshot.Copy(dirs, dir, t.TempDir()); found || err != nil {
			t.Errorf("%s: %v, %v", dir, found, err)
		}
	}
	if _, err := snapshot.Copy(append(dirs, "/nowhere"), "/d", t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a layer is missing: %v", err)
	}
	to := t.TempDir()
	if found, err := snapshot.Copy(dirs, "/d/up/d/sub", to); !found || err != nil { // a link that leads out ends at the root
		t.Error(found, err)
	}
	if names, _ := os.ReadDir(to); len(names) != 4 {
		t.Errorf("got %v", names)
	}
}
