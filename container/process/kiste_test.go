package process_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kiste/internal/need"
)

// kiste is the binary under test: what this package is for is what a user gets.
var kiste string

func TestMain(m *testing.M) {
	if probe := probes[os.Getenv(probeEnv)]; probe != nil {
		probe()
		return
	}
	need.Main(m, func(dir string) error {
		kiste = filepath.Join(dir, "kiste")
		return need.Build(dir)
	})
}

// A store is where containers of one test live.
type storage struct {
	dir string
}

// newStorage is an empty one, below a directory that everybody can enter.
func newStorage(t *testing.T) storage {
	t.Helper()
	dir, err := os.MkdirTemp("", "kiste-test")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := storage{dir: dir}
	t.Cleanup(func() {
		s.collect(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// collect takes away what stays on the host as long as the store does: the
// bridges of its networks, and its rules.
func (s storage) collect(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(s.dir + "/run/networks"); err != nil {
		return
	}
	if r := s.run(t, "gc"); r.code != 0 {
		t.Errorf("kiste gc: %s", r.err)
	}
}

func (s storage) env() []string {
	return append(os.Environ(), "KISTE_LIB="+s.dir+"/lib", "KISTE_RUN="+s.dir+"/run")
}

// command is kiste with args.
func (s storage) command(args ...string) *exec.Cmd {
	cmd := exec.Command(kiste, args...)
	cmd.Env = s.env()
	return cmd
}

// A result is what a run of kiste said.
type result struct {
	out, err string
	code     int
}

// run runs kiste to its end.
func (s storage) run(t *testing.T, args ...string) result {
	t.Helper()
	return finish(t, s.command(args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	return finishIn(t, cmd, 2*time.Minute)
}

// finishIn kills cmd when the time is up.
func finishIn(t *testing.T, cmd *exec.Cmd, limit time.Duration) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	defer late.Stop()
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{strings.TrimSpace(out.String()), strings.TrimSpace(errs.String()), cmd.ProcessState.ExitCode()}
}

// sweep removes what killed runs have left, as a person would.
func (s storage) sweep(t *testing.T) {
	t.Helper()
	for _, id := range strings.Fields(s.run(t, "ps", "-aq").out) {
		if r := s.run(t, "rm", "-f", id); r.code != 0 {
			t.Errorf("rm %s: %s", id, r.err)
		}
	}
}

// sh runs a script in a new container of root, which has to end well.
func (s storage) sh(t *testing.T, root, script string, options ...string) string {
	t.Helper()
	r := s.run(t, append(append([]string{"run", "--rm"}, options...), "rootfs:"+root, "/bin/sh", "-c", script)...)
	if r.code != 0 {
		t.Fatalf("run %v: code %d\n%s\n%s", options, r.code, r.out, r.err)
	}
	return r.out
}

// busybox makes a root file system of one program under many names.
func busybox(t *testing.T) string {
	t.Helper()
	need.Program(t, "busybox")
	root := newStorage(t).dir
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"bin", "etc", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("sh cat ls id echo sleep true mount umount touch mkdir mknod unshare readlink grep head tail kill dd wc stat test ps pwd hostname env setsid chmod ln rm tr seq cut sed") {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
