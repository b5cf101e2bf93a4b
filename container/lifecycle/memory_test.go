package lifecycle_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/lifecycle"
	"kiste/internal/need"
)

// limitMemory limits what the container may use to so many bytes.
func (f *fixture) limitMemory(n int64) { f.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &n} }

// A container may have as little memory as its program needs: what waits for
// the start is some pages. The limit is what the kernel charges a CPU with in
// advance (MEMCG_CHARGE_BATCH of mm/memcontrol.c): on a busy host it sometimes
// kills although there is enough.
func TestLittleMemoryIsEnough(t *testing.T) {
	f := newFixture(t, "true")
	f.limitMemory(256 << 10)
	o := f.options(t)
	need.Clean(t)
	const tries, tolerated = 20, 3
	var failed []error
	for range tries {
		if err := f.livesWithLittle(t, o); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > tolerated {
		t.Errorf("%d of %d: %v", len(failed), tries, errors.Join(failed...))
	}
}

func (f *fixture) livesWithLittle(t *testing.T, o lifecycle.CreateOptions) error {
	t.Helper()
	c, err := f.root.Create(name("memory"), o)
	if err != nil {
		return err
	}
	pages := resident(t, c.PID())
	err = c.Start()
	if status := reap(t, c); err == nil && status.ExitStatus() != 0 {
		err = fmt.Errorf("exit status %d, signal %v", status.ExitStatus(), status.Signal())
	}
	if err := c.Delete(true); err != nil {
		t.Fatal(err)
	}
	if pages > 8 {
		t.Errorf("it waited with %d pages, want at most 8", pages)
	}
	return err
}

// resident is how many pages of memory the process has: proc_pid_statm(5).
func resident(t *testing.T, pid int) (n int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err == nil {
		_, err = fmt.Sscan(string(text), new(int), &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Less than a start needs is told.
func TestTooLittleMemory(t *testing.T) {
	f := newFixture(t, "true")
	f.limitMemory(16 << 10)
	o := f.options(t)
	need.Clean(t)
	// tmpfs finds no space where it gets no memory for its counters
	if _, err := f.root.Create(name("memory"), o); err == nil || !strings.Contains(err.Error(), "memory") && !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Create: %v", err)
	}
}
