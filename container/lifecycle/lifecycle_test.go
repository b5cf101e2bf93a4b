package lifecycle_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/lifecycle"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
)

// name is a container's id that no other process's tests use.
func name(s string) string { return "kiste-" + s + "-" + strconv.Itoa(os.Getpid()) }

// A fixture is a bundle and a directory of state.
type fixture struct {
	root   lifecycle.Root
	bundle string
	spec   *specs.Spec
	out    *os.File
}

// newFixture is a bundle as "runc spec" writes it, with busybox as root.
func newFixture(t *testing.T, args ...string) *fixture {
	t.Helper()
	need.Power(t, host.Root)
	need.Program(t, "busybox")
	dir, err := os.MkdirTemp("", "kiste-lifecycle")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f := &fixture{root: lifecycle.Root{Dir: filepath.Join(dir, "state")}, bundle: filepath.Join(dir, "bundle")}
	busybox(t, filepath.Join(f.bundle, "rootfs"))
	text, err := os.ReadFile("testdata/config.json")
	if err != nil {
		t.Fatal(err)
	}
	f.spec = &specs.Spec{}
	if err := json.Unmarshal(text, f.spec); err != nil {
		t.Fatal(err)
	}
	f.spec.Process.Terminal = false
	f.spec.Process.Args = args
	if f.out, err = os.OpenFile(filepath.Join(dir, "out"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.out.Close() })
	return f
}

func busybox(t *testing.T, root string) {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"bin", "etc", "tmp", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("sh cat ls id echo sleep true touch readlink grep kill ps pwd hostname env seq tr head wc") {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
}

// options write the bundle, and give what Create takes.
func (f *fixture) options(t *testing.T) lifecycle.CreateOptions {
	t.Helper()
	text, err := json.Marshal(f.spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.bundle, "config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	return lifecycle.CreateOptions{Bundle: f.bundle, Files: [3]*os.File{null, f.out, f.out}, Edit: ownGroup}
}

// ownGroup puts a container into a cgroup of its name below the roots: else it
// would be below that of these tests, wherever somebody has put them.
func ownGroup(dir string, s *specs.Spec) error {
	s.Linux.CgroupsPath = "/" + filepath.Base(dir)
	return nil
}

// output is what the container's programs have written.
func (f *fixture) output(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(f.out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(b))
}

// reap waits for the process, which is this one's child in tests.
func reap(t *testing.T, c *lifecycle.Container) syscall.WaitStatus {
	t.Helper()
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(c.PID(), &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	return status
}

func want(t *testing.T, c *lifecycle.Container, status specs.ContainerState) {
	t.Helper()
	if got := c.Status(); got != status {
		t.Errorf("the container is %s, want %s", got, status)
	}
}

func TestCreateStartDelete(t *testing.T) {
	f := newFixture(t, "sh", "-c", "echo hello; hostname; cat /proc/1/comm")
	need.Clean(t)
	c, err := f.root.Create(name("one"), f.options(t))
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, specs.StateCreated)
	if _, err := f.root.Create(name("one"), f.options(t)); !errors.Is(err, fault.Exists) {
		t.Errorf("a second Create: %v", err)
	}
	again, err := f.root.Load(name("one"))
	if err != nil {
		t.Fatal(err)
	}
	if s := again.State(); s.Status != specs.StateCreated || s.Pid != c.PID() || s.Bundle != f.bundle {
		t.Errorf("state %+v", s)
	}
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	if status := reap(t, c); status.ExitStatus() != 0 {
		t.Errorf("exit status %d", status.ExitStatus())
	}
	if got := f.output(t); got != "hello\nrunc\ncat" {
		t.Errorf("output %q", got)
	}
	want(t, c, specs.StateStopped)
	if err := c.Start(); !errors.Is(err, fault.Conflict) {
		t.Errorf("a second Start: %v", err)
	}
	if err := c.Kill(syscall.SIGTERM, false); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "container not running") {
		t.Errorf("Kill: %v", err)
	}
	if err := c.Delete(false); err != nil {
		t.Fatal(err)
	}
	if _, err := f.root.Load(name("one")); !errors.Is(err, fault.NotFound) {
		t.Errorf("Load: %v", err)
	}
	if all, bad, err := f.root.List(); len(all)+len(bad) > 0 || err != nil {
		t.Errorf("List: %v %v %v", all, bad, err)
	}
}
