package storm

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newSmallField is newField with a small file system on dir, below the field's:
// "lib", or "." for all of it.
func newSmallField(t *testing.T, dir, options string) *field {
	t.Helper()
	f := newField(t)
	at := filepath.Join(f.dir, dir)
	if dir == "." {
		f.dir = filepath.Join(f.dir, "small")
		at = f.dir
		f.env = append(f.env, "KISTE_LIB="+filepath.Join(f.dir, "lib"), "KISTE_RUN="+filepath.Join(f.dir, "run"))
	}
	if err := errors.Join(os.MkdirAll(at, 0o755), syscall.Mount("tmpfs", at, "tmpfs", 0, options)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.removeAll()
		f.until("the monitor ends", func() bool { return len(f.monitors()) == 0 })
		// Who ends has no name any more when his files are closed.
		if !f.until("nobody has anything open in "+at, func() bool { return syscall.Unmount(at, 0) == nil }) {
			_ = syscall.Unmount(at, syscall.MNT_DETACH)
		}
	})
	return f
}

// until waits for what comes soon, and reports whether it has come.
func (f *field) until(what string, so func() bool) bool {
	f.t.Helper()
	for end := time.Now().Add(time.Minute); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Errorf("never: %s", what)
			return false
		}
	}
	return true
}

// fill takes all room of the file system that dir is on, and gives it back.
func fill(t *testing.T, dir string, inodes bool) (empty func()) {
	t.Helper()
	at := filepath.Join(dir, "fill")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	for n := 0; err == nil && inodes; n++ {
		err = os.WriteFile(filepath.Join(at, strconv.Itoa(n)), nil, 0o600)
	}
	if !inodes {
		err = fillFile(filepath.Join(at, "file"))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.RemoveAll(at); err != nil {
			t.Error(err)
		}
	}
}

// fillFile writes a file until not one byte more has room.
func fillFile(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for size := 1 << 20; size > 0; {
		if _, err = file.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return err
}

// readOnly makes the file system at dir read-only for all who use it there.
func readOnly(t *testing.T, dir string, _ bool) (writable func()) {
	t.Helper()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND, ""); err != nil {
			t.Error(err)
		}
	}
}

// A trouble is a store in which nothing can be written.
type trouble struct {
	name    string
	dir     string // where the file system is; lib alone, or all
	options string
	make    func(t *testing.T, dir string, inodes bool) (undo func())
	inodes  bool
	says    string
	log     string // a driver: a file that is written keeps its file system from being made read-only
	loses   bool   // of the log
	forgets bool   // what is told meanwhile waits for room
}

var troubles = []trouble{
	{"the disk is full", "lib", "size=6m", fill, false, "no space left on device", "json-file", true, false},
	{"no inodes are left", "lib", "size=6m,nr_inodes=300", fill, true, "no space left on device", "json-file", false, false},
	{"the store is read-only", "lib", "size=6m", readOnly, false, "read-only file system", "none", false, false},
	{"all is full, what runs too", ".", "size=6m", fill, false, "no space left on device", "local", true, true},
}

// What runs goes on and ends as it would, and what is asked works or says in one
// sentence why not, of what; when there is room again nothing of that is lost but
// the log's tail, which is said.
func TestNoRoom(t *testing.T) {
	for _, tr := range troubles {
		t.Run(tr.name, func(t *testing.T) { tr.test(t) })
	}
}

func (tr trouble) test(t *testing.T) {
	f := newSmallField(t, tr.dir, tr.options)
	image := "rootfs:" + f.root
	run := func(name string, args ...string) {
		t.Helper()
		f.must(append([]string{"run", "-d", "--name", name, "--log-driver", tr.log}, args...)...)
	}
	run("keeps", image, "sleep", "600")
	run("stays", image, "sleep", "600")
	run("goes", image, "sleep", "600")
	run("removed", "--rm", image, "sleep", "2")
	run("ends", image, "sh", "-c", "sleep 2; exit 7")
	// 200 KB, which neither the file's last page nor a pipe takes
	run("talks", image, "sh", "-c", "sleep 1; i=0; while [ $i -lt 2000 ]; do echo line $i: 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789; i=$((i+1)); done; exit 9")
	undo := tr.make(t, filepath.Join(f.dir, map[string]string{"lib": "lib", ".": "."}[tr.dir]), tr.inodes)

	f.killMonitor() // the next one keeps them, log or no log
	for _, args := range [][]string{
		{"run", "-d", "--name", "new", image, "true"},
		{"run", "--rm", "--name", "new", image, "true"},
		{"create", "--name", "new", image, "true"},
		{"volume", "create", "new"},
	} {
		_, err := f.kiste(args...)
		if err == nil || !strings.Contains(err.Error(), `"new"`) || !strings.Contains(err.Error(), tr.says) {
			t.Errorf("%v; want it to name new and say %q", err, tr.says)
		}
	}
	if got := strings.Fields(f.must("ps", "-a", "--format", "{{.Names}}")); len(got) < 5 {
		t.Errorf("ps lists %q", got)
	}
	f.must("stop", "-t", "0", "stays")
	if _, err := f.kiste("rm", "-f", "goes"); (err == nil) == (tr.log == "none") {
		t.Errorf("rm -f: %v", err) // which cannot be in what is read-only
	}
	if code := strings.TrimSpace(f.must("wait", "ends")); code != "7" && !tr.forgets {
		t.Errorf("it ended with %s", code)
	}
	f.must("wait", "talks") // it is not held up
	if !tr.forgets {
		f.says("talks", "9")
	}
	if _, err := f.kiste("exec", "keeps", "true"); err != nil {
		t.Error(err)
	}
	undo()
	f.until("what lies aside is written", func() bool {
		aside, _ := filepath.Glob(filepath.Join(f.dir, "run/containers/*/aside-*"))
		return len(aside) == 0
	})
	f.until("the ends are known", func() bool {
		out, _ := f.kiste("inspect", "--format", "{{.State.ExitCode}}", "ends", "talks", "stays")
		return strings.Join(strings.Fields(out), " ") == "7 9 137"
	})
	f.says("keeps", "0")
	if _, err := f.kiste("inspect", "removed"); err == nil {
		f.until("--rm removes", func() bool { _, err := f.kiste("inspect", "removed"); return err != nil })
	}
	if why := f.must("why", "talks"); strings.Contains(why, "log are lost") != tr.loses {
		t.Errorf("of its log is said: %s", why)
	}
	f.must("start", "stays")
	f.must("run", "--rm", "--name", "new", image, "true")
	f.check()
}

// killMonitor kills the monitor and leaves its guard.
func (f *field) killMonitor() {
	for _, pid := range f.monitors() {
		if exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe"); err == nil && !strings.HasPrefix(exe, "/memfd:") {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// says wants an exit code to be told.
func (f *field) says(name, code string) {
	f.t.Helper()
	if got := strings.TrimSpace(f.must("inspect", "--format", "{{.State.ExitCode}}", name)); got != code {
		f.t.Errorf("%s has exit code %s, want %s", name, got, code)
	}
}
