package privilege

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
)

// Walls cannot be taken down, so each test puts them around a child: this
// test program again, with $PRIVILEGE_CHILD naming what it is to do.
const childKey = "PRIVILEGE_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childKey); name != "" {
		runtime.LockOSThread()
		os.Exit(children[name](os.Args[1:]))
	}
	os.Exit(m.Run())
}

var children = map[string]func(args []string) int{
	"errno": childErrno, "args": childArgs, "enosys": childENOSYS, "default": childDefault, "log": childLog, "trap": childTrap,
	"kill process": childKillProcess, "kill thread": childKillThread, "notify": childNotify, "int80": childInt80,
	"landlock": childLandlock, "ports": childPorts, "restrict": childRestrict, "status": childStatus, "sleep": childSleep,
}

func child(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), childKey+"="+name)
	return c
}

// wantOutput runs a child that must succeed and say want.
func wantOutput(t *testing.T, want, name string, args ...string) {
	t.Helper()
	out, err := child(t, name, args...).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("child %q: %v, %q; want %q", name, err, out, want)
	}
}

// say prints and ends well: the code of a child that did what it should.
func say(format string, args ...any) int { fmt.Printf(format+"\n", args...); return 0 }

func fail(err error) int { fmt.Println(err); return 99 }

// wallUp puts up one filter with no_new_privs, so that no root is needed.
func wallUp(spec *specs.LinuxSeccomp) error {
	f, err := Compile(spec, runtime.GOARCH)
	if err != nil {
		return err
	}
	return Walls{NoNewPrivs: true, Filter: &f}.Apply()
}

func profile(action specs.LinuxSeccompAction, rules ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: action, Syscalls: rules}
}

// getpgidErrno is a raw getpgid(pid), a call that Go itself never makes.
func getpgidErrno(pid uintptr) syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_GETPGID, pid, 0, 0)
	return errno
}

func TestAFilterRefusesWithItsErrno(t *testing.T) { wantOutput(t, "99", "errno") }

func childErrno([]string) int {
	err := wallUp(profile(specs.ActAllow, specs.LinuxSyscall{Names: []string{"getpgid"}, Action: specs.ActErrno, ErrnoRet: uintp(99)}))
	if err != nil {
		return fail(err)
	}
	return say("%d", getpgidErrno(0))
}

func TestAFilterComparesAllBitsOfAnArgument(t *testing.T) {
	if runtime.GOARCH == "386" || runtime.GOARCH == "arm" {
		t.Skip("NEEDS arguments of 64 bits")
	}
	wantOutput(t, "0 77 3", "args")
}

func childArgs([]string) int {
	arg := func(v uint64) []specs.LinuxSeccompArg {
		return []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpEqualTo, Value: v}}
	}
	err := wallUp(profile(specs.ActAllow, specs.LinuxSyscall{Names: []string{"getpgid"}, Action: specs.ActErrno, ErrnoRet: uintp(77), Args: arg(1 << 32)}))
	if err != nil {
		return fail(err)
	}
	high := uint64(1) << 32
	return say("%d %d %d", getpgidErrno(0), getpgidErrno(uintptr(high)), getpgidErrno(0x7fffffff))
}

func TestCallsNewerThanTheProfileAreENOSYS(t *testing.T) {
	wantOutput(t, fmt.Sprintf("newer %d, refused %d, named 0", unix.ENOSYS, unix.EPERM), "enosys")
}

// childENOSYS allows all up to openat2 but acct: landlock_create_ruleset is
// newer, and the kernel would answer it.
func childENOSYS([]string) int {
	last, _ := Syscall(runtime.GOARCH, "openat2")
	var names []string
	for line := range strings.Lines(syscallTable(runtime.GOARCH)) {
		name, _, _ := strings.Cut(line, " ")
		if nr, _ := Syscall(runtime.GOARCH, name); nr <= last && name != "acct" {
			names = append(names, name)
		}
	}
	if err := wallUp(profile(specs.ActErrno, specs.LinuxSyscall{Names: names, Action: specs.ActAllow})); err != nil {
		return fail(err)
	}
	_, _, newer := syscall.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1)
	_, _, refused := syscall.RawSyscall(unix.SYS_ACCT, 0, 0, 0)
	return say("newer %d, refused %d, named %d", newer, refused, getpgidErrno(0))
}

func TestTheDefaultFilterStopsWhatFactsListAndLetsGoRun(t *testing.T) {
	wantOutput(t, "unshare operation not permitted, mount operation not permitted, clone3 38, AF_ALG operation not permitted, inet <nil>, exec ok", "default")
}

func childDefault([]string) int {
	f, err := DefaultFilter(DefaultCaps)
	if err == nil {
		err = Walls{NoNewPrivs: true, Filter: &f}.Apply()
	}
	if err != nil {
		return fail(err)
	}
	_, _, clone3 := syscall.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	_, alg := syscall.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
	_, inet := syscall.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	out, err := exec.Command("echo", "ok").Output()
	if err != nil {
		return fail(err)
	}
	return say("unshare %v, mount %v, clone3 %d, AF_ALG %v, inet %v, exec %s", syscall.Unshare(syscall.CLONE_NEWNS),
		syscall.Mount("a", "/", "tmpfs", 0, ""), int(clone3), alg, inet, strings.TrimSpace(string(out)))
}

func TestLogLetsACallHappen(t *testing.T) { wantOutput(t, "0", "log") }

func childLog([]string) int {
	if err := wallUp(profile(specs.ActAllow, specs.LinuxSyscall{Names: []string{"getpgid"}, Action: specs.ActLog})); err != nil {
		return fail(err)
	}
	return say("%d", getpgidErrno(0))
}

func onGetpgid(action specs.LinuxSeccompAction) int {
	if err := wallUp(profile(specs.ActAllow, specs.LinuxSyscall{Names: []string{"getpgid"}, Action: action})); err != nil {
		return fail(err)
	}
	return say("alive: %d", getpgidErrno(0))
}

func childTrap([]string) int        { return onGetpgid(specs.ActTrap) }
func childKillProcess([]string) int { return onGetpgid(specs.ActKillProcess) }

func TestTrapSendsASignal(t *testing.T) {
	out, err := child(t, "trap").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "SIGSYS") {
		t.Errorf("the child was not stopped by SIGSYS: %v, %.200s", err, out)
	}
}

func TestKillProcessKills(t *testing.T) {
	out, err := child(t, "kill process").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
		t.Errorf("the child ended with %v, %.200s; want SIGSYS", err, out)
	}
}

func TestKillThreadKillsTheThreadAlone(t *testing.T) { wantOutput(t, "thread gone", "kill thread") }

func childKillThread([]string) int {
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			go func() { tid <- 0 }()
			select {}
		}
		tid <- unix.Gettid()
		onGetpgid(specs.ActKillThread)
	}()
	task := fmt.Sprintf("/proc/self/task/%d", <-tid)
	for range 6000 {
		time.Sleep(10 * time.Millisecond)
		if _, err := os.Stat(task); errors.Is(err, os.ErrNotExist) {
			return say("thread gone")
		}
	}
	return say("%s is still there", task)
}

func TestNotifyGivesAListener(t *testing.T) { wantOutput(t, "anon_inode:seccomp notify", "notify") }

func childNotify([]string) int {
	f, err := Compile(profile(specs.ActAllow, specs.LinuxSyscall{Names: []string{"getpgid"}, Action: specs.ActNotify}), runtime.GOARCH)
	if err == nil {
		err = Walls{NoNewPrivs: true}.Apply()
	}
	if err != nil {
		return fail(err)
	}
	fd, err := f.Install()
	if err != nil {
		return fail(err)
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return fail(err)
	}
	return say("%s", name)
}

// int80 is a whole program for amd64: personality(1) by int 0x80, and its
// negated result as exit code. The last byte of the code is at the end.
func int80() []byte {
	code := []byte{
		0xb8, 136, 0, 0, 0, // mov eax, 136 (personality)
		0xbb, 1, 0, 0, 0, // mov ebx, 1
		0xcd, 0x80, // int 0x80
		0xf7, 0xd8, // neg eax
		0x89, 0xc3, // mov ebx, eax
		0xb8, 1, 0, 0, 0, // mov eax, 1 (exit)
		0xcd, 0x80,
	}
	const base, headers = 0x400000, 64 + 56
	le := binary.LittleEndian
	elf := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	elf = le.AppendUint16(elf, 2)  // an executable
	elf = le.AppendUint16(elf, 62) // of x86-64
	elf = le.AppendUint32(elf, 1)
	elf = le.AppendUint64(elf, base+headers) // where it begins
	elf = le.AppendUint64(elf, 64)           // where its program headers are
	elf = le.AppendUint64(elf, 0)
	elf = le.AppendUint32(elf, 0)
	for _, n := range []uint16{64, 56, 1, 0, 0, 0} {
		elf = le.AppendUint16(elf, n)
	}
	size := uint64(headers + len(code))
	elf = le.AppendUint32(elf, 1) // PT_LOAD
	elf = le.AppendUint32(elf, 5) // read and execute
	for _, n := range []uint64{0, base, base, size, size, 0x1000} {
		elf = le.AppendUint64(elf, n)
	}
	return append(elf, code...)
}

func TestCallsOf386AreFilteredToo(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("NEEDS amd64")
	}
	program := filepath.Join(t.TempDir(), "int80")
	if err := os.WriteFile(program, int80(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(program).Run(); err != nil {
		t.Skipf("NEEDS a kernel with 32-bit system calls (CONFIG_IA32_EMULATION): %v", err)
	}
	for _, tt := range []struct {
		name, archs string
		want        string
	}{
		{"covered: the profile's errno", "SCMP_ARCH_X86_64 SCMP_ARCH_X86", "exit status 33"},
		{"not covered: killed", "SCMP_ARCH_X86_64", "signal: bad system call"},
	} {
		err := child(t, "int80", append([]string{program}, strings.Fields(tt.archs)...)...).Run()
		if fmt.Sprint(err) != tt.want && fmt.Sprint(err) != tt.want+" (core dumped)" {
			t.Errorf("%s: %v; want %s", tt.name, err, tt.want)
		}
	}
}

func childInt80(args []string) int {
	spec := profile(specs.ActAllow, specs.LinuxSyscall{Names: []string{"personality"}, Action: specs.ActErrno, ErrnoRet: uintp(33)})
	for _, a := range args[1:] {
		spec.Architectures = append(spec.Architectures, specs.Arch(a))
	}
	if err := wallUp(spec); err != nil {
		return fail(err)
	}
	return fail(syscall.Exec(args[0], args[:1], nil))
}

func needLandlock(t *testing.T) {
	t.Helper()
	if LandlockABI() == 0 {
		t.Skip("NEEDS Landlock; boot with landlock in lsm=")
	}
}

func TestLandlockDenies(t *testing.T) {
	needLandlock(t)
	read, write, other := t.TempDir(), t.TempDir(), t.TempDir()
	for _, dir := range []string{read, write, other} {
		if err := os.WriteFile(dir+"/file", nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	wantOutput(t, "read true false false, write true true true, other false false false, file true", "landlock", read, write, other)
}

func can(dir string) string {
	ok := func(_ any, err error) bool { return !errors.Is(err, os.ErrPermission) }
	return fmt.Sprint(ok(os.ReadFile(dir+"/file")), ok(nil, os.WriteFile(dir+"/file", nil, 0o666)), ok(nil, os.Mkdir(dir+"/new", 0o777)))
}

func childLandlock(args []string) int {
	// A rule for a single file as well, which takes fewer rights.
	rules := FilesOnly(args[:1], []string{args[1], "/dev/null"})
	if err := (Walls{NoNewPrivs: true, Files: &rules}).Apply(); err != nil {
		return fail(err)
	}
	_, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	return say("read %s, write %s, other %s, file %v", can(args[0]), can(args[1]), can(args[2]), err == nil)
}

func TestLandlockDeniesPorts(t *testing.T) {
	if LandlockABI() < 4 {
		t.Skip("NEEDS version 4 of Landlock; Linux 6.7 and later have it")
	}
	wantOutput(t, "any port true, port 1 denied true", "ports")
}

func childPorts([]string) int {
	rules := Ruleset{Ports: PortsBind, Net: []PortRule{{Port: 0, Allow: PortsBind}}}
	if err := (Walls{NoNewPrivs: true, Files: &rules}).Apply(); err != nil {
		return fail(err)
	}
	return say("any port %v, port 1 denied %v", listen(0) == nil, errors.Is(listen(1), os.ErrPermission))
}

// listen binds a port with plain TCP: package net would take MPTCP, which
// Landlock lets pass.
func listen(port int) error {
	fd, err := syscall.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	return syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
}

func TestRestrictReachesEveryThread(t *testing.T) {
	needLandlock(t)
	out, err := child(t, "restrict").CombinedOutput()
	if strings.Contains(string(out), "operation not supported") {
		t.Skip("NEEDS CGO_ENABLED=0: package syscall reaches every thread only then")
	}
	if err != nil || string(out) != "denied in all threads\n" {
		t.Errorf("%v, %q", err, out)
	}
}

func childRestrict([]string) int {
	start, ready, result := make(chan bool), make(chan bool), make(chan error)
	const n = 5
	for range n {
		go func() {
			runtime.LockOSThread()
			ready <- true
			<-start
			_, err := os.Open("/etc")
			result <- err
		}()
	}
	for range n { // the threads are there before
		<-ready
	}
	if err := FilesOnly([]string{"/proc"}, nil).Restrict(); err != nil {
		return fail(err)
	}
	close(start)
	for range n {
		if err := <-result; !errors.Is(err, os.ErrPermission) {
			return say("a thread got %v", err)
		}
	}
	return say("denied in all threads")
}

// wallsFor are the walls of the child "status" by name.
func wallsFor(name string) Walls {
	some := Caps(1<<10 | 1<<7)
	filter, _ := DefaultFilter(some)
	switch name {
	case "caps as root":
		return Walls{Caps: &some}
	case "another user with a filter and without no_new_privs":
		return Walls{Caps: &some, Filter: &filter, User: &User{UID: 1234, GID: 1235, Groups: []uint32{7, 8}}}
	case "ambient as another user":
		return Walls{Caps: &some, Ambient: 1 << 10, NoNewPrivs: true, Filter: &filter, User: &User{UID: 1234, GID: 1235, Groups: []uint32{}}}
	case "ambient without Caps":
		return Walls{Ambient: 1 << 10, User: &User{UID: 1234, GID: 1235}}
	case "nothing at all":
		none := Caps(0)
		return Walls{Caps: &none, Rlimits: []Rlimit{{Resource: unix.RLIMIT_NOFILE, Name: "nofile", Soft: 60, Hard: 70}}}
	}
	return Walls{}
}

// childStatus puts up walls and then executes cat from the locked thread.
func childStatus(args []string) int {
	if err := wallsFor(args[0]).Apply(); err != nil {
		return fail(err)
	}
	return fail(syscall.Exec("/bin/cat", []string{"cat", "/proc/self/status", "/proc/self/limits"}, nil))
}

func TestExecFromTheLockedThreadKeepsItsWalls(t *testing.T) {
	need.Power(t, host.Root)
	held, err := Held()
	if err != nil {
		t.Fatal(err)
	}
	some := Caps(1<<10 | 1<<7)
	for _, tt := range []struct {
		name    string
		uid     uint32
		groups  []uint32
		caps    CapSets
		noNew   bool
		seccomp string
	}{
		{"caps as root", 0, nil, CapSets{Effective: some, Permitted: some, Bounding: some}, false, "off"},
		{"another user with a filter and without no_new_privs", 1234, []uint32{7, 8}, CapSets{Bounding: some}, false, "filter"},
		{"ambient as another user", 1234, []uint32{}, CapSets{1 << 10, 1 << 10, 1 << 10, some, 1 << 10}, true, "filter"},
		{"ambient without Caps", 1234, nil, CapSets{1 << 10, 1 << 10, 1 << 10, held, 1 << 10}, false, "off"},
		{"nothing at all", 0, nil, CapSets{}, false, "off"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := child(t, "status", tt.name).CombinedOutput()
			var r Report
			if err != nil || r.readStatus(string(out)) != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if r.UID != [4]uint32{tt.uid, tt.uid, tt.uid, tt.uid} || r.Caps != tt.caps || r.NoNewPrivs != tt.noNew || r.Seccomp.Mode != tt.seccomp {
				t.Errorf("uid %v, %+v, no_new_privs %v, seccomp %s; want %+v", r.UID, r.Caps, r.NoNewPrivs, r.Seccomp.Mode, tt)
			}
			if tt.groups != nil && !slices.Equal(r.Groups, tt.groups) {
				t.Errorf("groups %v; want %v", r.Groups, tt.groups)
			}
			if tt.name == "nothing at all" && !strings.Contains(string(out), "Max open files            60                   70") {
				t.Errorf("the limit was not set:\n%s", out)
			}
		})
	}
}

func TestApplyRefusesWhatIsNotHeld(t *testing.T) {
	held, err := Held()
	if err != nil {
		t.Fatal(err)
	}
	missing := AllCaps() &^ held
	if missing == 0 {
		t.Skip("NEEDS a process that lacks a capability")
	}
	err = Walls{Caps: &missing}.Apply()
	if !errors.Is(err, fault.Denied) || !strings.Contains(err.Error(), missing.String()) {
		t.Errorf("Apply: %v; want fault.Denied naming %v", err, missing)
	}
	none := Caps(0)
	if err := (Walls{Caps: &none, Ambient: 1}).Apply(); !errors.Is(err, fault.Invalid) {
		t.Errorf("ambient outside of Caps: %v; want fault.Invalid", err)
	}
}

func childSleep([]string) int {
	fmt.Println("ready")
	os.Stdin.Read(make([]byte, 1))
	return 0
}

func TestShowSaysWhoIsRootInsideOnly(t *testing.T) {
	need.Power(t, host.Userns)
	c := child(t, "sleep")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	if os.Geteuid() == 0 {
		c.SysProcAttr.UidMappings[0].HostID, c.SysProcAttr.GidMappings[0].HostID = 100000, 100000
		c.SysProcAttr.Credential = &syscall.Credential{}
	}
	in, _ := c.StdinPipe()
	out, _ := c.StdoutPipe()
	if err := c.Start(); err != nil {
		t.Skipf("NEEDS userns; %v", err)
	}
	defer c.Wait()
	defer in.Close()
	out.Read(make([]byte, 5))
	r, err := Show(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("is root only inside its user namespace: uid 0 is %d outside", c.SysProcAttr.UidMappings[0].HostID)
	if lines := r.identity(); !slices.Contains(lines, want) {
		t.Errorf("Show says %q; want %q", lines, want)
	}
	if !slices.Equal(r.Own, []string{"user", "uts"}) || !slices.Contains(r.Shared, "net") {
		t.Errorf("own %v, shared %v; want user and uts of its own", r.Own, r.Shared)
	}
	if lines := r.powers(); !slices.Contains(lines, "its capabilities count only for what belongs to its user namespace") {
		t.Errorf("Show says %q", lines)
	}
}

func TestShowOfNobody(t *testing.T) {
	if _, err := Show(1 << 30); !errors.Is(err, fault.NotFound) {
		t.Errorf("Show: %v; want fault.NotFound", err)
	}
}

func TestShowOfOurselves(t *testing.T) {
	r, err := Show(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if r.Secure == nil || len(r.Limits) != 16 || len(r.Own) != 0 || len(r.UIDMap) == 0 || r.Name == "" {
		t.Errorf("Show: %+v", r)
	}
}
