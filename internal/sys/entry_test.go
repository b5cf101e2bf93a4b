package sys_test

import (
	"bufio"
	"fmt"
	"os"
	command "os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"kiste/host"
	"kiste/internal/need"
	"kiste/internal/sys"
)

// build makes testdata/entry, for a processor of the kind arch.
func build(t *testing.T, arch string, flags ...string) string {
	t.Helper()
	return buildOf(t, "./testdata/entry", arch, flags...)
}

func buildOf(t *testing.T, program, arch string, flags ...string) string {
	t.Helper()
	need.Program(t, "go")
	path := filepath.Join(t.TempDir(), "entry")
	cmd := command.Command("go", append(append([]string{"build"}, flags...), "-o", path, program)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

const byEntry = "-ldflags=-E kiste/internal/sys.entry"

// said is what testdata/entry prints, run by cmd.
func said(t *testing.T, cmd *command.Cmd) []string {
	t.Helper()
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 10 {
		t.Fatalf("got %q", lines)
	}
	return lines
}

// sameButRuntime compares what lasts: the processors of all threads and of
// children, and the limits and the timers of these. Go raises its own soft limit, and gives
// its children the old one.
func sameButRuntime(t *testing.T, got, want []string) {
	t.Helper()
	for _, i := range []int{2, 3, 5, 6, 7, 8, 9} {
		if got[i] != want[i] {
			t.Errorf("got %q, without the entry %q", got[i], want[i])
		}
	}
}

// A program that starts by our entry goes on as one that does not, and so do
// its children; but for the processors of its runtime.
func TestEntryChangesNothingThatLasts(t *testing.T) {
	plain, entered, early := build(t, runtime.GOARCH), build(t, runtime.GOARCH, byEntry), build(t, runtime.GOARCH, byEarly)
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
		{"without either", "exec <&- 2>&-; ", whole},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run := func(program string) []string {
				if tt.cpus < whole {
					defer tie(t)()
				}
				return said(t, command.Command("/bin/sh", "-c", tt.prefix+"exec "+program))
			}
			want := run(plain)
			for _, program := range []string{entered, early} {
				got := run(program)
				if got[0] != "processors of the runtime: 1" || got[4] != fmt.Sprint("processors of the runtime: ", tt.cpus) {
					t.Errorf("%s, then %s", got[0], got[4])
				}
				sameButRuntime(t, got, want)
			}
		})
	}
}

// Who is root's is born with a monitor that sleeps for long, until it has something to
// watch; another could not change that any more.
func TestTheMonitorSleepsLongUntilItWatches(t *testing.T) {
	need.Power(t, host.Root)
	program := build(t, runtime.GOARCH, byEarly)
	if err := os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755); err != nil { // which is the test's alone
		t.Fatal(err)
	}
	for _, tt := range []struct {
		uid             uint32
		by, alone, then string
	}{
		{0, "parallel", "20000000", "4000000"},
		{0, "timely", "20000000", "4000000"},
		{65534, "parallel", "4000000", "4000000"},
	} {
		cmd := command.Command(program, tt.by)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for _, want := range []string{tt.alone, tt.then} {
			lines.Scan()
			if got := latestTimers(t, cmd.Process.Pid); got != want {
				t.Errorf("as %d: after %q %s, not %s", tt.uid, lines.Text(), got, want)
			}
			fmt.Fprintln(in)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// latestTimers is the largest timer slack of a thread.
func latestTimers(t *testing.T, pid int) string {
	t.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	latest := 0
	for _, d := range threads {
		n, err := strconv.Atoi(slack(t, d.Name()))
		if err != nil {
			t.Fatal(err)
		}
		latest = max(latest, n)
	}
	return strconv.Itoa(latest)
}

// refuse names the call that a child of this test may not make, and its errno.
const refuse = "KISTE_REFUSE"

func TestMain(m *testing.M) {
	if what := os.Getenv(refuse); what != "" {
		if err := execWithout(what, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// execWithout executes args where a filter refuses a call: "NUMBER ERRNO".
func execWithout(what string, args []string) error {
	var nr, errno uint32
	if _, err := fmt.Sscan(what, &nr, &errno); err != nil {
		return err
	}
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | errno}, // SECCOMP_RET_ERRNO
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},         // SECCOMP_RET_ALLOW
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return err
	}
	os.Unsetenv(refuse)
	return unix.Exec(args[0], args, os.Environ())
}

// Whatever the kernel refuses to the entry, it goes on: sched_getaffinity(2) is
// EINVAL for more than 1024 processors, sched_setaffinity(2) where the one at
// hand has gone offline.
func TestEntryIsRefused(t *testing.T) {
	plain, entered := build(t, runtime.GOARCH), build(t, runtime.GOARCH, byEntry)
	for _, tt := range []struct {
		call  string
		nr    int
		errno unix.Errno
	}{
		{"sched_getaffinity", unix.SYS_SCHED_GETAFFINITY, unix.EINVAL},
		{"getcpu", unix.SYS_GETCPU, unix.ENOSYS},
		{"sched_setaffinity", unix.SYS_SCHED_SETAFFINITY, unix.EINVAL},
		{"prlimit64", unix.SYS_PRLIMIT64, unix.EPERM},
	} {
		t.Run(tt.call, func(t *testing.T) {
			run := func(program string) []string {
				cmd := command.Command("/proc/self/exe", "/bin/sh", "-c", "ulimit -Sn 100; exec "+program)
				cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", refuse, tt.nr, tt.errno))
				return said(t, cmd)
			}
			sameButRuntime(t, run(entered), run(plain))
		})
	}
}

// The entry of arm64 does the same, in an emulator.
func TestEntryOfArm(t *testing.T) {
	if runtime.GOARCH == "arm64" {
		t.Skip("the others have tested it")
	}
	need.Program(t, "qemu-aarch64-static")
	plain, entered := build(t, "arm64"), build(t, "arm64", byEntry)
	for _, prefix := range []string{"", "ulimit -Sn 100; ", "ulimit -n 90; ", "exec <&-; "} {
		run := func(program string) []string {
			return said(t, command.Command("/bin/sh", "-c", prefix+"exec qemu-aarch64-static "+program))
		}
		want, got := run(plain), run(entered)
		// An emulator has a thread of its own, and Begin takes it for one of the
		// runtime's: one that is born meanwhile may be missed, and its children
		// are tied as it is.
		for tries := 0; got[2] != want[2] && tries < 20; tries++ {
			got = run(entered)
		}
		if got[0] != "processors of the runtime: 1" {
			t.Errorf("%q: %s", prefix, got[0])
		}
		sameButRuntime(t, got, want)
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
