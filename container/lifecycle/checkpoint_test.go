package lifecycle_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/lifecycle"
	"kiste/fault"
	"kiste/internal/need"
)

// useCRIU puts a criu that works on this kernel at the front of $PATH.
func useCRIU(t *testing.T) {
	t.Helper()
	need.Program(t, "criu", "apt-get")
	script := exec.Command("../../test/criu")
	script.Stderr = os.Stderr // loud
	dir, err := script.Output()
	if err != nil {
		need.Missing(t, "criu", fmt.Sprintf("none works on this kernel: %v", err))
	}
	t.Setenv("PATH", strings.TrimSpace(string(dir))+":"+os.Getenv("PATH"))
}

// counting is a program that writes numbers, one after the other.
var counting = []string{"/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"}

// await waits until what the container has written is as test wants it.
func (f *fixture) await(t *testing.T, test func(lines []string) bool) []string {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		lines := strings.Fields(f.output(t))
		if test(lines) {
			return lines
		}
		if time.Now().After(end) {
			t.Fatalf("it has written %q", lines)
		}
	}
}

// wantCounted fails where a number is missing or comes twice.
func wantCounted(t *testing.T, lines []string) {
	t.Helper()
	for i, line := range lines {
		if line != strconv.Itoa(i+1) {
			t.Fatalf("number %d is %s", i+1, line)
		}
	}
}

func runs(t *testing.T, f *fixture, id string) *lifecycle.Container {
	t.Helper()
	o := f.options(t)
	o.Detach = true
	c, p, err := f.root.Run(id, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.root.Delete(id, true); _, _ = p.Wait(); p.Release() })
	return c
}

func restored(t *testing.T, f *fixture, id string, o lifecycle.CheckpointOptions) *lifecycle.Container {
	t.Helper()
	c, p, err := f.root.Restore(id, f.options(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.root.Delete(id, true); _, _ = p.Wait(); p.Release() })
	return c
}

func TestWhatIsSavedGoesOn(t *testing.T) {
	useCRIU(t)
	need.Clean(t)
	f := newFixture(t, counting...)
	f.spec.Mounts = append(f.spec.Mounts, specs.Mount{Destination: "/bound/here", Type: "bind", Source: t.TempDir(), Options: []string{"rbind", "ro"}})
	o := lifecycle.CheckpointOptions{Images: filepath.Join(filepath.Dir(f.bundle), "images")}
	c := runs(t, f, name("first"))
	f.await(t, func(lines []string) bool { return len(lines) > 3 })
	if err := c.Checkpoint(o); err != nil {
		t.Fatal(err)
	}
	if _, err := f.root.Load(name("first")); !errors.Is(err, fault.NotFound) {
		t.Errorf("what was saved is still there: %v", err)
	}
	saved := len(strings.Fields(f.output(t)))
	second := restored(t, f, name("second"), o)
	wantCounted(t, f.await(t, func(lines []string) bool { return len(lines) > saved+3 }))
	if s := second.State(); s.Status != specs.StateRunning || s.ID != name("second") {
		t.Errorf("%+v", s)
	}
	if pids, err := second.Processes(); err != nil || len(pids) == 0 || !slices.Contains(pids, second.PID()) {
		t.Errorf("its cgroup has %v, %v", pids, err)
	}
	// It is a container as any other: it can be saved once more.
	o.Images += "-again"
	if err := second.Checkpoint(o); err != nil {
		t.Fatal(err)
	}
	third := restored(t, f, name("third"), o)
	if err := third.Delete(true); err != nil {
		t.Error(err)
	}
}

func TestSavingAndGoingOn(t *testing.T) {
	useCRIU(t)
	need.Clean(t)
	f := newFixture(t, counting...)
	dir := filepath.Dir(f.bundle)
	c := runs(t, f, name("first"))
	f.await(t, func(lines []string) bool { return len(lines) > 3 })
	if err := c.Checkpoint(lifecycle.CheckpointOptions{Images: filepath.Join(dir, "images"), LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	n := len(strings.Fields(f.output(t)))
	wantCounted(t, f.await(t, func(lines []string) bool { return len(lines) > n+3 }))
}

func TestATerminalIsRestored(t *testing.T) {
	useCRIU(t)
	need.Clean(t)
	f := newFixture(t, "/bin/sh", "-c", "while read line; do echo got $line; done")
	f.spec.Process.Terminal = true
	o := lifecycle.CheckpointOptions{Images: filepath.Join(filepath.Dir(f.bundle), "images"), ShellJob: true}
	create := f.options(t)
	create.Files = [3]*os.File{}
	c, p, err := f.root.Run(name("first"), create)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, p.Console, "one")
	err = c.Checkpoint(o)
	p.Console.Close()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = p.Wait()
	p.Release()
	second, p, err := f.root.Restore(name("second"), create, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Delete(true); _, _ = p.Wait(); p.Release() }()
	if p.Console == nil {
		t.Fatal("it has no terminal")
	}
	talk(t, p.Console, "two")
	p.Console.Close()
}

// talk types a word and waits for the answer.
func talk(t *testing.T, console *os.File, word string) {
	t.Helper()
	if _, err := console.WriteString(word + "\n"); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	buf := make([]byte, 256)
	for !strings.Contains(said.String(), "got "+word) {
		n, err := console.Read(buf)
		if err != nil {
			t.Fatalf("it said %q: %v", said.String(), err)
		}
		said.Write(buf[:n])
	}
}

func TestWhatCannotBeSaved(t *testing.T) {
	f := newFixture(t, "/bin/sleep", "100")
	o := f.options(t)
	c, err := f.root.Create(name("waits"), o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete(true)
	if err := c.Checkpoint(lifecycle.CheckpointOptions{}); !errors.Is(err, fault.Conflict) {
		t.Errorf("one that is created: %v", err)
	}
	odd := newFixture(t, "/bin/sleep", "100")
	odd.spec.Mounts = append(odd.spec.Mounts, specs.Mount{Destination: "/x]:y", Type: "bind", Source: "/etc", Options: []string{"bind"}})
	c = runs(t, odd, name("odd"))
	if err := c.Checkpoint(lifecycle.CheckpointOptions{Images: filepath.Join(filepath.Dir(odd.bundle), "images")}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("a mount that criu cannot tell: %v", err)
	}
	if err := c.Checkpoint(lifecycle.CheckpointOptions{Cgroups: "hard"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}

// A root whose mount point has become a link out of it (CVE-2026-119101).
func TestRestoreFollowsNoLinks(t *testing.T) {
	useCRIU(t)
	need.Clean(t)
	f := newFixture(t, "/bin/sleep", "100")
	dir := filepath.Dir(f.bundle)
	source, victim := t.TempDir(), t.TempDir()
	f.spec.Mounts = append(f.spec.Mounts, specs.Mount{Destination: "/a/b", Type: "bind", Source: source, Options: []string{"bind"}})
	o := lifecycle.CheckpointOptions{Images: filepath.Join(dir, "images")}
	if err := runs(t, f, name("first")).Checkpoint(o); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(f.bundle, "rootfs/a")
	if err := errors.Join(os.RemoveAll(at), os.Symlink(victim, at)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.root.Restore(name("second"), f.options(t), o); err == nil || !strings.Contains(err.Error(), "a link lies on the way") {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(victim); len(left) > 0 {
		t.Errorf("on the host there is %v", left)
	}
	if _, err := f.root.Load(name("second")); !errors.Is(err, fault.NotFound) {
		t.Errorf("it is there: %v", err)
	}
}

func TestWithoutCRIU(t *testing.T) {
	f := newFixture(t, "/bin/sleep", "100")
	c := runs(t, f, name("one"))
	t.Setenv("PATH", "")
	err := c.Checkpoint(lifecycle.CheckpointOptions{Images: filepath.Join(filepath.Dir(f.bundle), "images")})
	if !errors.Is(err, fault.Unsupported) || fault.HintOf(err) != "install criu" {
		t.Errorf("%v", err)
	}
}

// What is not there is not made.
func TestRestoreWithoutImages(t *testing.T) {
	need.Clean(t)
	f := newFixture(t, "/bin/sleep", "100")
	images := filepath.Join(filepath.Dir(f.bundle), "images")
	if _, _, err := f.root.Restore(name("one"), f.options(t), lifecycle.CheckpointOptions{Images: images}); !errors.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(images); err == nil {
		t.Error("the directory was made")
	}
	if _, err := f.root.Load(name("one")); !errors.Is(err, fault.NotFound) {
		t.Errorf("a container is left: %v", err)
	}
}

// A restore that was killed has the root file system mounted in the container's
// directory: that is not removed with it.
func TestDeleteLeavesTheRootOfARestore(t *testing.T) {
	need.Clean(t)
	f := newFixture(t, "/bin/true")
	o := f.options(t)
	o.Detach = true
	id := name("killed")
	_, p, err := f.root.Run(id, o)
	if err != nil {
		t.Fatal(err)
	}
	p.Wait()
	p.Release()
	rootfs, at := filepath.Join(f.bundle, "rootfs"), filepath.Join(f.root.Dir, id, "root")
	if err := errors.Join(os.Mkdir(at, 0o700), syscall.Mount(rootfs, at, "", syscall.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	if err := f.root.Delete(id, true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(rootfs, "bin/busybox")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(at)); err == nil {
		t.Error("the directory is there")
	}
}
