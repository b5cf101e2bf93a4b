package sys_test

import (
	"fmt"
	"os"
	command "os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
)

// A program that starts by our entry goes on as one that does not, and so do
// its children; but for the processors of its runtime.
func TestEntryChangesNothingThatLasts(t *testing.T) {
	if _, err := command.LookPath("go"); err != nil {
		t.Skip("NEEDS programs; go builds what is tested")
	}
	dir := t.TempDir()
	build := func(name string, flags ...string) string {
		path := filepath.Join(dir, name)
		cmd := command.Command("go", append(append([]string{"build"}, flags...), "-o", path, "./testdata/entry")...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return path
	}
	plain, entered := build("plain"), build("entered", "-ldflags=-E kiste/internal/sys.entry")
	whole := sys.CPUs()
	for _, tt := range []struct {
		name   string
		prefix string
		cpus   int
	}{
		{"as usual", "", whole},
		{"with a low limit", "ulimit -Sn 100; ", whole},
		{"with a limit that cannot be raised", "ulimit -n 90; ", whole},
		{"tied to a processor", "", 1},
		{"without standard input", "exec <&-; ", whole},
		{"without standard error", "exec 2>&-; ", whole},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run := func(program string) []string {
				cmd := command.Command("/bin/sh", "-c", tt.prefix+"exec "+program)
				if tt.cpus < whole {
					defer tie(t)()
				}
				out, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				return strings.Split(strings.TrimSpace(string(out)), "\n")
			}
			want, got := run(plain), run(entered)
			if len(want) != len(got) || len(got) != 8 {
				t.Fatalf("got\n%s\nwithout the entry\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if got[0] != "processors of the runtime: 1" || got[4] != fmt.Sprint("processors of the runtime: ", tt.cpus) {
				t.Errorf("%s, then %s", got[0], got[4])
			}
			// Go raises its own soft limit, and gives its children the old one.
			for _, i := range []int{2, 3, 5, 6, 7} {
				if got[i] != want[i] {
					t.Errorf("got %q, without the entry %q", got[i], want[i])
				}
			}
		})
	}
}

// tie leaves this thread one processor until it is undone.
func tie(t *testing.T) (undo func()) {
	t.Helper()
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	return func() {
		unix.SchedSetaffinity(0, &before)
		runtime.UnlockOSThread()
	}
}
