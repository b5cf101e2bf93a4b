package need

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"kiste/host"
	"kiste/internal/sys"
)

// What a test leaves behind must be seen, each kind of it.
func TestLookSeesWhatIsLeftBehind(t *testing.T) {
	for _, tt := range []struct {
		name  string
		needs []host.Power
		leave func(t *testing.T, dir string) (takeAway func())
		want  string
	}{
		{"a file", nil, leaveFile, "file "},
		{"a descriptor", nil, leaveDescriptor, "descriptor of /"},
		{"a child", nil, leaveChild, "(sleep, "},
		{"a daemon", nil, leaveDaemon, "(sleep, "},
		{"a mount", []host.Power{host.Root}, leaveMount, "mount tmpfs on "},
		{"a link", []host.Power{host.Root}, leaveLink, "link kistelo0"},
		{"a thread elsewhere", []host.Power{host.Root}, leaveThread, "thread in uts:["},
	} {
		t.Run(tt.name, func(t *testing.T) {
			Power(t, tt.needs...)
			dir := t.TempDir()
			wakePoller()
			before := look([]string{dir})
			takeAway := tt.leave(t, dir)
			left := described(newer(before, look([]string{dir})))
			takeAway()
			if !strings.Contains(strings.Join(left, "\n"), tt.want) {
				t.Errorf("left behind: %q; none says %q", left, tt.want)
			}
			if left := settled(before, []string{dir}); len(left) != 0 {
				t.Errorf("after it was taken away: %q", left)
			}
		})
	}
}

// A process that was there before is not left behind because it sleeps now, or
// has become another program.
func TestLookKnowsAChangedProcess(t *testing.T) {
	Program(t, "sh", "sleep")
	cmd := exec.Command("sh", "-c", "read line; exec sleep 60")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	before := look(nil)
	in.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if name, _, _ := process(cmd.Process.Pid); name == "sleep" {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the shell does not become sleep")
		}
	}
	for _, thing := range newer(before, look(nil)) {
		if strings.HasPrefix(thing, "process ") {
			t.Errorf("left behind: %s", described([]string{thing}))
		}
	}
}

func leaveFile(t *testing.T, dir string) func() {
	path := filepath.Join(dir, "x")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() { os.Remove(path) }
}

func leaveDescriptor(t *testing.T, dir string) func() {
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}

func leaveChild(t *testing.T, _ string) func() {
	Program(t, "sleep")
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() { cmd.Process.Kill(); cmd.Wait() }
}

// leaveDaemon starts a process whose parent ends, as a daemon does.
func leaveDaemon(t *testing.T, _ string) func() {
	Program(t, "sleep", "sh")
	out, err := exec.Command("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(out))
	return func() { exec.Command("sh", "-c", "kill "+pid).Run() }
}

func leaveMount(t *testing.T, dir string) func() {
	if err := sys.Mount("kiste", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	return func() { sys.Unmount(dir, 0) }
}

func leaveLink(t *testing.T, _ string) func() {
	Program(t, "ip")
	if out, err := exec.Command("ip", "link", "add", "kistelo0", "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("NEEDS bridge: %s", out)
	}
	return func() { exec.Command("ip", "link", "del", "kistelo0").Run() }
}

// leaveThread holds a thread in a uts namespace of its own until told to stop;
// the locked thread then ends with its goroutine. The process's first thread
// would not end, so that one is left alone.
func leaveThread(t *testing.T, _ string) func() {
	ready, stop := make(chan error), make(chan bool)
	var move func()
	move = func() {
		runtime.LockOSThread()
		if syscall.Gettid() == os.Getpid() {
			go move()
			<-stop
			runtime.UnlockOSThread()
			return
		}
		ready <- syscall.Unshare(syscall.CLONE_NEWUTS)
		<-stop
	}
	go move()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	return func() { close(stop) }
}

// A test that cleans up after itself passes, also when Clean is nested.
func TestCleanPassesACleanTest(t *testing.T) {
	Clean(t)
	dir := t.TempDir()
	t.Run("inner", func(t *testing.T) {
		Clean(t, dir)
		os.Remove(filepath.Join(dir, "never was"))
	})
}
