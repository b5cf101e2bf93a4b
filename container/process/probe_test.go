package process_test

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probeEnv makes this test's binary the probe: a program that runs inside a
// container and does what the variable names.
const probeEnv = "KISTE_PROBE"

// probes are what it can do.
var probes = map[string]func(){
	"posture": tellPosture, "overwrite": overwrite, "type": typeOn,
	"release agent": writeReleaseAgent, "release agent, mount": mountAndWrite,
}

// probing is the option with which a container runs name.
func probing(name string) string { return probeEnv + "=" + name }

// addProbe puts the probe into root, as /bin/probe. There are no libraries
// inside, so a test that needs some is built once more.
func addProbe(t *testing.T, root string) {
	t.Helper()
	file := filepath.Join(root, "bin/probe")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if isDynamic(t, self) {
		build := exec.Command("go", "test", "-c", "-o", file, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the probe: %v\n%s", err, out)
		}
		return
	}
	b, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(file, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func isDynamic(t *testing.T, file string) bool {
	t.Helper()
	program, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	return slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// tellPosture prints what only the process itself can find out, as lines of a
// title and a text with a tab between.
func tellPosture() {
	say := func(title, format string, args ...any) { fmt.Printf(title+"\t"+format+"\n", args...) }
	onFirstThread(func() { tellOfThread(say) })
	tellOfPaths(say)
	listDev(say)
}

// onFirstThread calls f on the thread that was executed: the others are not as
// it is. Goroutines that were given another wait until it is done.
func onFirstThread(f func()) {
	done := make(chan bool)
	for {
		found := make(chan bool)
		go func() {
			runtime.LockOSThread()
			first := unix.Gettid() == os.Getpid()
			if first {
				f()
			}
			found <- first
			<-done
		}()
		if <-found {
			close(done)
			return
		}
	}
}

// tellOfThread tells what a thread can ask about itself.
func tellOfThread(say func(string, string, ...any)) {
	for _, c := range []struct {
		title  string
		option uintptr
	}{
		{"dumpable", unix.PR_GET_DUMPABLE}, {"secure bits", unix.PR_GET_SECUREBITS},
		{"child subreaper", unix.PR_GET_CHILD_SUBREAPER}, {"signal when the parent dies", unix.PR_GET_PDEATHSIG},
	} {
		say(c.title, "%s", prctl(c.option))
	}
	persona, _, _ := syscall.RawSyscall(syscall.SYS_PERSONALITY, 0xffffffff, 0, 0)
	say("personality", "%#x", persona)
	say("session keyring", "%s", sessionKeyring())
}

// tellOfPaths tells what there is to read and to write.
func tellOfPaths(say func(string, string, ...any)) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		say("host name", "%s", unix.ByteSliceToString(uts.Nodename[:]))
		say("domain name", "%s", unix.ByteSliceToString(uts.Domainname[:]))
	}
	cgroups, _ := os.ReadFile("/proc/self/cgroup")
	seen := map[string]bool{}
	for line := range strings.Lines(string(cgroups)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && !seen[f[2]] {
			seen[f[2]] = true
			say("cgroup", "%s", f[2])
		}
	}
	for _, path := range maskedPaths {
		say("masked", "%s %s", path, content(path))
	}
	for _, path := range readOnlyPaths {
		say("read-only", "%s %s", path, writable(path))
	}
	for _, path := range []string{"/", "/etc/hosts", "/dev", "/dev/shm", "/sys", "/proc/sys/kernel/core_pattern", "/proc/self/attr/current", "/proc/1/oom_score_adj"} {
		say("to write", "%s %s", path, writable(path))
	}
}

func prctl(option uintptr) string {
	var value int32
	result, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, option, uintptr(unsafe.Pointer(&value)), 0)
	if errno != 0 {
		return unix.ErrnoName(errno)
	}
	return fmt.Sprint(int32(result) + value) // some give it, some write it
}

// sessionKeyring is its type, owner and name: KEYCTL_DESCRIBE of keyctl(2),
// which Docker's filter forbids.
func sessionKeyring() string {
	const describe = 6
	session := -3
	b := make([]byte, 256)
	n, _, errno := syscall.RawSyscall6(syscall.SYS_KEYCTL, describe, uintptr(session), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0)
	if errno != 0 {
		return unix.ErrnoName(errno)
	}
	return string(b[:max(n, 1)-1])
}

// content tells whether there is something to read.
func content(path string) string {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return errnoOf(err)
	case info.IsDir():
		list, err := os.ReadDir(path)
		if err == nil && len(list) == 0 {
			return "empty"
		}
		return errnoOf(err)
	}
	f, err := os.Open(path)
	if err != nil {
		return errnoOf(err)
	}
	defer f.Close()
	if n, _ := f.Read(make([]byte, 1)); n == 0 {
		return "empty"
	}
	return "open"
}

// writable asks and writes nothing.
func writable(path string) string { return errnoOf(unix.Access(path, unix.W_OK)) }

func errnoOf(err error) string {
	errno, ok := err.(syscall.Errno)
	if e, is := err.(*fs.PathError); is {
		errno, ok = e.Err.(syscall.Errno)
	}
	switch {
	case err == nil:
		return "open"
	case ok:
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func listDev(say func(string, string, ...any)) {
	filepath.WalkDir("/dev", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "/dev" {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v", info.Mode())
		if info.Mode()&fs.ModeDevice != 0 {
			text += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if to, err := os.Readlink(path); err == nil {
			text += " " + to
		}
		say("dev", "%s %s", path, text)
		return nil
	})
}
