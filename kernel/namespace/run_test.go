package namespace_test

import (
	"bytes"
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

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/namespace"
)

// The tests start themselves again, since Run and Enter replace the process:
// $NAMESPACE_TEST says what to do.
func TestMain(m *testing.M) {
	words := strings.Fields(os.Getenv("NAMESPACE_TEST"))
	if len(words) == 0 {
		os.Exit(m.Run())
	}
	code, err := act(words)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot", err)
		code = 99
	}
	os.Exit(code)
}

func act(words []string) (int, error) {
	os.Unsetenv("NAMESPACE_TEST")
	args := os.Args[1:]
	switch words[0] {
	case "enter":
		targets, err := namespace.Targets(namespace.Pins{Dir: os.Getenv("PINS")}, words[1], kinds(words[2:])...)
		if err != nil {
			return 0, err
		}
		return namespace.Enter(targets, namespace.EnterOptions{Args: args})
	case "root":
		uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
		return namespace.Run(namespace.Options{New: kinds(words[1:]), Args: args,
			UIDs: namespace.RootMap(uid, nil), GIDs: namespace.RootMap(gid, nil)})
	case "range":
		ms := namespace.IDMaps{{Inside: 0, Outside: 300000, Size: 10}}
		return namespace.Run(namespace.Options{New: kinds(words[1:]), UIDs: ms, GIDs: ms, Args: args})
	case "clock":
		return namespace.Run(namespace.Options{New: kinds([]string{"time"}), Boottime: 1000 * time.Hour, Args: args})
	case "proc":
		return namespace.Run(namespace.Options{New: kinds(words[1:]), MountProc: true, KillChild: true, Args: args})
	case "host":
		return namespace.Run(namespace.Options{New: kinds([]string{"uts"}), Hostname: words[1], Args: args})
	}
	return namespace.Run(namespace.Options{New: kinds(words[1:]), Args: args})
}

func kinds(words []string) []namespace.Kind {
	var all []namespace.Kind
	for _, w := range words {
		k, err := namespace.ParseKind(w)
		if err != nil {
			panic(err)
		}
		all = append(all, k)
	}
	return all
}

// command runs args after doing what words say.
func command(t *testing.T, words string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), "NAMESPACE_TEST="+words)
	return c
}

func run(t *testing.T, words string, args ...string) (string, int) {
	t.Helper()
	c := command(t, words, args...)
	return finish(t, c)
}

func finish(t *testing.T, c *exec.Cmd) (string, int) {
	t.Helper()
	var out, complaint bytes.Buffer
	c.Stdout, c.Stderr = &out, &complaint
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if complaint.Len() > 0 {
		t.Log(complaint.String())
	}
	return strings.TrimSpace(out.String()), c.ProcessState.ExitCode()
}

func inode(t *testing.T, path string) string {
	t.Helper()
	s, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEachKindIsNewAndTheOthersAreNot(t *testing.T) {
	need.Power(t, host.Root)
	for _, k := range namespace.Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			for _, other := range namespace.Kinds() {
				out, code := run(t, "new "+k.Name, "readlink", "/proc/self/ns/"+other.File)
				if code != 0 {
					t.Fatalf("exit code %d", code)
				}
				if fresh := out != inode(t, "/proc/self/ns/"+other.File); fresh != (other.Name == k.Name) {
					t.Errorf("with a new %s namespace: %s is %s, new: %v", k.Name, other.Name, out, fresh)
				}
			}
		})
	}
}

func TestNoParentStaysWhereNoneIsNeeded(t *testing.T) {
	need.Power(t, host.Root)
	c := command(t, "new net mount uts ipc cgroup", "sh", "-c", "echo $$")
	out, _ := finish(t, c)
	if out != strconv.Itoa(c.Process.Pid) {
		t.Errorf("the command is process %s, and the one started was %d", out, c.Process.Pid)
	}
}

func TestExitCodes(t *testing.T) {
	need.Power(t, host.Root)
	for _, tt := range []struct {
		name, words, script string
		want                int
	}{
		{"its own, without a parent", "new uts", "exit 7", 7},
		{"its own, with a parent", "new pid", "exit 7", 7},
		{"of a signal", "new time", "kill -9 $$", 137},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, code := run(t, tt.words, "sh", "-c", tt.script); code != tt.want {
				t.Errorf("exit code %d; want %d", code, tt.want)
			}
		})
	}
}

func TestFirstProcessSeesOnlyItsOwn(t *testing.T) {
	need.Power(t, host.Root)
	out, _ := run(t, "proc pid mount", "sh", "-c", "echo $$; ls -d /proc/[0-9]*")
	if out != "1\n/proc/1" {
		t.Errorf("inside: %q", out)
	}
}

func TestSignalsAreHandedOn(t *testing.T) {
	need.Power(t, host.Root)
	c := command(t, "new pid", "sh", "-c", `trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done`)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit code %d; want 5 from the trap", code)
	}
}

func TestKillChildEndsTheCommand(t *testing.T) {
	need.Power(t, host.Root)
	c := command(t, "proc pid mount", "sh", "-c", "echo ready; exec sleep 60")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	_ = c.Process.Kill()
	// the pipe ends when the last process that holds it has ended
	done := make(chan error, 1)
	go func() { _, err := out.Read(make([]byte, 16)); done <- err }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("the command lives on")
	}
	_ = c.Wait()
}

func TestRootMapAndRanges(t *testing.T) {
	need.Power(t, host.Root)
	for _, tt := range []struct{ words, want string }{
		{"root user", "0 0 0 0 1"},
		{"range user", "0 0 0 300000 10"},
		{"new user", "65534 65534"},
	} {
		out, _ := run(t, tt.words, "sh", "-c", "echo $(id -u) $(id -g) $(cat /proc/self/uid_map)")
		if out != tt.want {
			t.Errorf("%s: %q; want %q", tt.words, out, tt.want)
		}
	}
}

// An ordinary user, who has nothing but a number, gets all kinds.
func TestOrdinaryUser(t *testing.T) {
	need.Power(t, host.Userns)
	c := command(t, "root user pid mount net uts ipc cgroup time", "sh", "-c", "echo $$ $(id -u) $(cat /proc/self/setgroups)")
	if os.Geteuid() == 0 {
		// the test's own binary lies where that user may not go
		binary := filepath.Join(openDir(t), "test")
		copyFile(t, "/proc/self/exe", binary)
		c.Path = binary
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	}
	out, code := finish(t, c)
	if code != 0 || out != "1 0 deny" {
		t.Errorf("exit code %d, %q; want to be process 1 and root", code, out)
	}
}

func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "namespace")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestClockIsTurned(t *testing.T) {
	need.Power(t, host.Root)
	out, _ := run(t, "clock", "cat", "/proc/uptime")
	seconds, _ := strconv.ParseFloat(strings.Fields(out + " 0")[0], 64)
	if seconds < 1000*3600 {
		t.Errorf("uptime %v; want 1000 hours more", out)
	}
}

func TestMountsStayInside(t *testing.T) {
	need.Power(t, host.Root)
	dir := t.TempDir()
	if _, code := run(t, "new mount", "mount", "-t", "tmpfs", "x", dir); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	if strings.Contains(string(mounts), dir) {
		t.Error("the mount is seen outside")
	}
}

// holder is a process in new namespaces of all kinds.
func holder(t *testing.T) int {
	t.Helper()
	c := exec.Command("sh", "-c", "echo ready; exec sleep 60")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | 0x02000000,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 300000, Size: 10}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 300000, Size: 10}},
		Credential:  &syscall.Credential{Uid: 0, Gid: 0},
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(time.Minute); time.Now().Before(late); time.Sleep(5 * time.Millisecond) {
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.Process.Pid)); bytes.HasPrefix(b, []byte("sleep")) {
			return c.Process.Pid
		}
	}
	t.Fatal("the shell does not become sleep")
	return 0
}

func TestEnterByPid(t *testing.T) {
	need.Power(t, host.Root)
	pid := holder(t)
	out, code := run(t, "enter "+strconv.Itoa(pid), "sh", "-c", "id -u; for k in user mnt net uts ipc cgroup pid; do readlink /proc/self/ns/$k || echo self; done")
	lines := strings.Split(out, "\n")
	if code != 0 || lines[0] != "0" {
		t.Fatalf("exit code %d, %q", code, out)
	}
	for i, k := range []string{"user", "mnt", "net", "uts", "ipc", "cgroup"} {
		// /proc is the host's, where "self" has no meaning for who is in
		// another pid namespace: it is seen as no process at all
		if want := inode(t, fmt.Sprintf("/proc/%d/ns/%s", pid, k)); i+1 < len(lines) && lines[i+1] != want && lines[i+1] != "self" {
			t.Errorf("%s: %s; want %s", k, lines[i+1], want)
		}
	}
}

func TestEnterOneKind(t *testing.T) {
	need.Power(t, host.Root)
	pid := holder(t)
	for _, k := range namespace.Kinds() {
		if k.Name == "time" || k.Name == "pid" {
			continue
		}
		out, code := run(t, "enter "+strconv.Itoa(pid)+" "+k.Name, "readlink", "/proc/self/ns/"+k.File)
		if want := inode(t, fmt.Sprintf("/proc/%d/ns/%s", pid, k.File)); code != 0 || out != want {
			t.Errorf("%s: exit code %d, %q; want %s", k.Name, code, out, want)
		}
	}
	if out, _ := run(t, "enter "+strconv.Itoa(pid)+" pid", "sh", "-c", "echo $$"); out != "2" {
		t.Errorf("entered a pid namespace as process %q; want 2", out)
	}
}

func TestPinsOutliveTheirProcess(t *testing.T) {
	need.Power(t, host.Root)
	dir := t.TempDir()
	pins := namespace.Pins{Dir: dir + "/pins"}
	all := kinds([]string{"net", "uts", "mount"})
	c := command(t, "host pinned", "sh", "-c", "echo ready; exec sleep 60")
	out, _ := c.StdoutPipe()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Read(make([]byte, 16))
	err := pins.Pin("blue", c.Process.Pid, kinds([]string{"net", "uts"})...)
	_ = c.Process.Kill()
	_ = c.Wait()
	if err != nil {
		t.Fatal(err)
	}
	removed := false
	defer func() {
		if !removed {
			_ = pins.Remove("blue")
		}
	}()
	if err := pins.Pin("blue", 0, all...); !errors.Is(err, fault.Exists) {
		t.Errorf("pinning again: %v; want it refused", err)
	}
	list, err := pins.List()
	if err != nil || len(list) != 2 {
		t.Errorf("List = %v, %v; want two", list, err)
	}
	found, err := namespace.List(pins)
	if err != nil || !slices.ContainsFunc(found, func(n namespace.Namespace) bool {
		return n.Kind == "uts" && slices.Contains(n.Pins, "blue") && n.Processes == 0 && n.Owner != 0
	}) {
		t.Errorf("namespace.List does not know the pin: %v", err)
	}
	e := command(t, "enter blue", "hostname")
	e.Env = append(e.Env, "PINS="+pins.Dir)
	if name, _ := finish(t, e); name != "pinned" {
		t.Errorf("host name in the pin: %q", name)
	}
	removed = true
	if err := pins.Remove("blue"); err != nil {
		t.Fatal(err)
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	if _, err := os.Stat(pins.Dir); !os.IsNotExist(err) || strings.Contains(string(mounts), dir) {
		t.Error("something of the pins is left")
	}
}

func TestListKnowsOwnersAndWhoIsIn(t *testing.T) {
	need.Power(t, host.Root)
	pid := holder(t)
	all, err := namespace.List(namespace.Pins{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	numbers, err := namespace.Of(pid)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, n := range all {
		if !slices.Contains(numbers, n.Inode) || n.PID != pid {
			continue
		}
		seen++
		if n.Processes != 1 || n.UID != 300000 || n.Command != "sleep 60" {
			t.Errorf("%+v", n)
		}
		if n.Kind == "net" && n.Owner != numbers[0] { // of Kinds, user is the first
			t.Errorf("net belongs to %d; want %d", n.Owner, numbers[0])
		}
	}
	if seen != 7 {
		t.Errorf("%d namespaces of the process; want 7", seen)
	}
}

func TestWhatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    namespace.Options
	}{
		{"a host name without uts", namespace.Options{Hostname: "x"}},
		{"a /proc without mount", namespace.Options{MountProc: true}},
		{"a clock without time", namespace.Options{Monotonic: 1}},
		{"maps without user", namespace.Options{UIDs: namespace.IDMaps{{Inside: 0, Outside: 0, Size: 1}}}},
		{"a long host name", namespace.Options{New: kinds([]string{"uts"}), Hostname: strings.Repeat("x", 65)}},
		{"an unknown propagation", namespace.Options{Propagation: "loud"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := namespace.Run(tt.o); !errors.Is(err, fault.Invalid) {
				t.Errorf("Run = %v; want it refused as invalid", err)
			}
		})
	}
}

func TestMissingCommandIsNotFound(t *testing.T) {
	// a directory that may not be searched would make it a command that is denied, as in execvp(3)
	t.Setenv("PATH", "/usr/bin:/bin")
	need.Power(t, host.Userns)
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	_, err := namespace.Run(namespace.Options{New: kinds([]string{"user", "pid"}), Args: []string{"no-such-command"},
		UIDs: namespace.RootMap(uid, nil), GIDs: namespace.RootMap(gid, nil)})
	var not *namespace.NotStarted
	if !errors.As(err, &not) || !errors.Is(err, fault.NotFound) {
		t.Errorf("Run = %v; want not started, not found", err)
	}
}

func TestAFileThatIsNoNamespaceIsRefused(t *testing.T) {
	if _, err := namespace.Targets(namespace.Pins{}, "/dev/null"); !errors.Is(err, fault.Invalid) {
		t.Errorf("Targets = %v; want it refused", err)
	}
}

// The maps of a user namespace are those of a process in it, however it is
// named.
func TestUserMaps(t *testing.T) {
	need.Power(t, host.Root, host.Userns)
	need.Program(t, "sleep")
	need.Clean(t)
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 70000, Size: 10}, {ContainerID: 10, HostID: 5, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 80000, Size: 10}}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	file := fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid)
	open, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for _, name := range []string{file, fmt.Sprintf("/proc/self/fd/%d", open.Fd())} {
		uids, gids, own, err := namespace.UserMaps(name)
		if uids.String() != "0:70000:10,10:5:1" || gids.String() != "0:80000:10" || own || err != nil {
			t.Errorf("UserMaps(%s) = %v, %v, %v, %v", name, uids, gids, own, err)
		}
	}
	if _, _, own, err := namespace.UserMaps("/proc/self/ns/user"); !own || err != nil {
		t.Errorf("UserMaps of our own: %v, %v", own, err)
	}
	if _, _, _, err := namespace.UserMaps("/proc/self/ns/net"); !errors.Is(err, fault.Unsupported) {
		t.Errorf("UserMaps of a network namespace: %v", err)
	}
	if _, _, _, err := namespace.UserMaps("/no/such"); !errors.Is(err, fault.NotFound) {
		t.Errorf("UserMaps of nothing: %v", err)
	}
}
