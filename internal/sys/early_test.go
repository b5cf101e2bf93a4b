package sys_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	command "os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kiste/internal/need"
	"kiste/internal/sys"
)

const byEarly = "-ldflags=-E kiste/internal/sys.early"

// A waiter is a process as it waits in DIR/ID: this one.
type waiter struct {
	root, dir     string
	start, report *os.File
}

const waiterID = "web-1.a_+B"

// newWaiter waits in a new directory, as the process pid; frozen is the text of
// the freezer's file, or "-" where it is not there.
func newWaiter(t *testing.T, pid int, frozen string) *waiter {
	t.Helper()
	w := &waiter{root: t.TempDir()}
	w.dir = filepath.Join(w.root, waiterID)
	file := filepath.Join(w.root, "freezer")
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if frozen != "-" {
		if err := os.WriteFile(file, []byte(frozen), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := sys.WriteGoAhead(w.dir, pid, file); err != nil {
		t.Fatal(err)
	}
	w.start, w.report = w.fifo(t, sys.StartFIFO), w.fifo(t, sys.ReportFIFO)
	return w
}

func (w *waiter) fifo(t *testing.T, name string) *os.File {
	t.Helper()
	if err := sys.Mkfifo(filepath.Join(w.dir, name), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// goOn waits for the byte, says what there is to say, and goes on.
func (w *waiter) goOn(say []byte) {
	w.start.Read(make([]byte, 1))
	w.report.Write(say)
	w.start.Close()
	w.report.Close()
}

// untouched reports whether no byte was written and nothing was removed.
func (w *waiter) untouched() bool {
	w.start.SetReadDeadline(time.Now())
	n, _ := w.start.Read(make([]byte, 1))
	left, _ := os.ReadDir(w.dir)
	return n == 0 && len(left) == 3
}

// run runs the program, which says "main" and an errno where it gets there.
func (w *waiter) run(t *testing.T, env string, args ...string) string {
	t.Helper()
	cmd := command.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// A start as usual is over before main.
func TestEarlyStart(t *testing.T) {
	program := buildOf(t, "./testdata/early", runtime.GOARCH, byEarly)
	for _, words := range []string{"--root DIR start ID", "--root DIR --log LOG --log-format json --systemd-cgroup start ID", "--log-format= --root DIR start ID"} {
		for _, frozen := range []string{"-", "0\n"} {
			w := newWaiter(t, os.Getpid(), frozen)
			go w.goOn(nil)
			got := w.run(t, "", w.words(program, words)...)
			if unusual := strings.Contains(words, "="); unusual {
				if got != "main 0" {
					t.Errorf("%q: %q", words, got)
				}
				w.run(t, "", w.words(program, "--root DIR start ID")...) // so that nobody waits
				continue
			}
			left, _ := os.ReadDir(w.dir)
			if got != "" || len(left) > 0 {
				t.Errorf("%q: it said %q and left %v", words, got, left)
			}
			if _, err := os.Stat(filepath.Join(w.root, "log")); (err == nil) != strings.Contains(words, "LOG") {
				t.Errorf("%q: log: %v", words, err)
			}
		}
	}
}

// words fills in the command line.
func (w *waiter) words(program, words string) []string {
	r := strings.NewReplacer("DIR", w.root, "ID", waiterID, "LOG", filepath.Join(w.root, "log"))
	return append([]string{program}, strings.Fields(r.Replace(words))...)
}

// What the process says instead of going on is there for main.
func TestEarlyStartThatFails(t *testing.T) {
	program := buildOf(t, "./testdata/early", runtime.GOARCH, byEarly)
	w := newWaiter(t, os.Getpid(), "-")
	go w.goOn(binary.LittleEndian.AppendUint32(nil, uint32(unix.ENOEXEC)))
	if got := w.run(t, "", w.words(program, "--root DIR start ID")...); got != fmt.Sprint("main ", int(unix.ENOEXEC)) {
		t.Errorf("got %q", got)
	}
}

// Whatever is not as usual is left to main, with nothing done.
func TestEarlyLeavesToMain(t *testing.T) {
	program := buildOf(t, "./testdata/early", runtime.GOARCH, byEarly)
	long := strings.Repeat("x", 5000)
	for _, tt := range []struct{ name, words, env, frozen string }{
		{"no words", "", "", "-"},
		{"another verb", "--root DIR state ID", "", "-"},
		{"no root", "start ID", "", "-"},
		{"a root that is not clean", "--root DIR/../x start ID", "", "-"},
		{"the root of the host", "--root / start ID", "", "-"},
		{"a hidden root", "--root .x start ID", "", "-"},
		{"an empty root", "--root= start ID", "", "-"},
		{"a long root", "--root /" + long + " start ID", "", "-"},
		{"an option of the verb", "--root DIR start --help ID", "", "-"},
		{"a word more", "--root DIR start ID ID", "", "-"},
		{"a word less", "--root DIR start", "", "-"},
		{"debug", "--debug --root DIR start ID", "", "-"},
		{"another format", "--log-format yaml --root DIR start ID", "", "-"},
		{"a log that cannot be", "--log DIR/none/log --root DIR start ID", "", "-"},
		{"another container", "--root DIR start other", "", "-"},
		{"a path", "--root DIR start ../ID", "", "-"},
		{"a long name", "--root DIR start " + long, "", "-"},
		{"systemd listens", "--root DIR start ID", "NOTIFY_SOCKET=/x", "-"},
		{"frozen", "--root DIR start ID", "", "1\n"},
		{"who knows", "--root DIR start ID", "", "?\n?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWaiter(t, os.Getpid(), tt.frozen)
			if got := w.run(t, tt.env, w.words(program, tt.words)...); got != "main 0" || !w.untouched() {
				t.Errorf("got %q", got)
			}
		})
	}
}

// So is what lies there that no go-ahead is, or whose process has ended.
func TestEarlyWithoutWaiter(t *testing.T) {
	program := buildOf(t, "./testdata/early", runtime.GOARCH, byEarly)
	for _, tt := range []struct {
		name   string
		change func(w *waiter) error
	}{
		{"no go-ahead", func(w *waiter) error { return os.Remove(filepath.Join(w.dir, sys.GoAhead)) }},
		{"no FIFO", func(w *waiter) error { return os.Remove(filepath.Join(w.dir, sys.StartFIFO)) }},
		{"no report", func(w *waiter) error { return os.Remove(filepath.Join(w.dir, sys.ReportFIFO)) }},
		{"nobody reads", func(w *waiter) error { return w.start.Close() }},
		{"a go-ahead that says nothing", func(w *waiter) error { return w.rewrite("x") }},
		{"a large number", func(w *waiter) error { return w.rewrite("12345678901") }},
		{"no number", func(w *waiter) error { return w.rewrite("0") }},
		{"a file", func(w *waiter) error {
			at := filepath.Join(w.dir, sys.GoAhead)
			return os.Rename(filepath.Join(w.dir, sys.ReportFIFO), at)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWaiter(t, os.Getpid(), "-")
			if err := tt.change(w); err != nil {
				t.Fatal(err)
			}
			if got := w.run(t, "", w.words(program, "--root DIR start ID")...); got != "main 0" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func (w *waiter) rewrite(text string) error {
	at := filepath.Join(w.dir, sys.GoAhead)
	if err := os.Remove(at); err != nil {
		return err
	}
	return os.Symlink(text, at)
}

// The start holds the lock of the directory while it waits.
func TestEarlyStartLocks(t *testing.T) {
	program := buildOf(t, "./testdata/early", runtime.GOARCH, byEarly)
	w := newWaiter(t, os.Getpid(), "-")
	dir, err := os.Open(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var out bytes.Buffer
	cmd := command.Command(program, w.words(program, "--root DIR start ID")[1:]...)
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.start.Read(make([]byte, 1))
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Errorf("lock: %v", err)
	}
	w.start.Close()
	w.report.Close()
	if err := cmd.Wait(); err != nil || out.Len() > 0 {
		t.Errorf("%v %q", err, out.String())
	}
}

// On arm64 it is the same, in an emulator.
func TestEarlyStartOfArm(t *testing.T) {
	if runtime.GOARCH == "arm64" {
		t.Skip("the others have tested it")
	}
	need.Program(t, "qemu-aarch64-static")
	program := buildOf(t, "./testdata/early", "arm64", byEarly)
	w := newWaiter(t, os.Getpid(), "0\n")
	go w.goOn(nil)
	if got := w.run(t, "", append([]string{"qemu-aarch64-static"}, w.words(program, "--root DIR start ID")...)...); got != "" {
		t.Errorf("got %q", got)
	}
	w = newWaiter(t, os.Getpid(), "1\n")
	if got := w.run(t, "", append([]string{"qemu-aarch64-static"}, w.words(program, "--root DIR start ID")...)...); got != "main 0" || !w.untouched() {
		t.Errorf("got %q", got)
	}
}

// Whatever lies there as a go-ahead is none, or a number with the name of a file
// that says what may be.
func FuzzGoAhead(f *testing.F) {
	for _, s := range []string{"1", "12345678901", "1x", "0", "7/nonexistent", "7/proc", "-1", "9999999999/", "4194304\x01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		if number, _, path := strings.Cut(text, "/"); path {
			text = number + "/nonexistent" // else files of this host would be opened
		}
		if os.Symlink(text, filepath.Join(dir, sys.GoAhead)) != nil {
			return // empty, too long, a zero
		}
		fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		number, _, _ := strings.Cut(text, "/")
		n, err := strconv.ParseUint(number, 10, 63)
		if err != nil || len(number) > 10 || strings.Trim(number, "0123456789") != "" {
			n = 0
		}
		if got := sys.EarlyRead(fd); got != int(n) {
			t.Errorf("%q is a go-ahead for %d, want %d", text, got, n)
		}
	})
}

// Whatever the words are, a start before Go's runtime goes to the directory that
// main would go to, or nowhere.
func FuzzEarlyDir(f *testing.F) {
	for _, s := range [][2]string{{"/run/kiste", "web"}, {"/run/kiste/", "web"}, {"/run/../x", "web"}, {"run", "-x"}, {"", ""}, {"/", ".."}, {"/a/.b", "c"}, {strings.Repeat("/a", 2047), "x"}, {"/a", strings.Repeat("x", 4096)}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, root, id string) {
		if strings.ContainsRune(root+id, 0) {
			return
		}
		got := sys.EarlyDir(root, id)
		if got == "" {
			return
		}
		if got != filepath.Join(root, id) || id == "" || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-") != "" || id[0] == '.' || id[0] == '-' {
			t.Errorf("%q and %q lead to %q", root, id, got)
		}
	})
}
