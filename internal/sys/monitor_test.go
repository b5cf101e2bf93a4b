package sys_test

import (
	"os"
	command "os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kiste/host"
	"kiste/internal/need"
	"kiste/internal/sys"
)

func slack(t *testing.T, thread string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + thread + "/timerslack_ns")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// The monitor sleeps longer, and no child does.
func TestSlowMonitorSlowsNobodyElse(t *testing.T) {
	need.Power(t, host.Root)
	usual := slack(t, "self")
	sys.SlowMonitor()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	var slow int // the monitor, and those that it has made since
	for _, d := range threads {
		switch s := slack(t, d.Name()); s {
		case usual:
		case "4000000":
			slow++
		default:
			t.Errorf("thread %s has %s", d.Name(), s)
		}
	}
	if slow == 0 {
		t.Error("no thread is slow")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 4_000_000, 0, 0, 0); err != nil { // as if the monitor had made it
		t.Fatal(err)
	}
	defer func() {
		was, _ := strconv.Atoi(usual)
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(was), 0, 0, 0)
	}()
	in, sock := sys.NewInbox(0), new(int32)
	c, err := sys.StartChild([]sys.ChildCall{
		{Nr: unix.SYS_WRITE, Args: [6]sys.ChildArg{{Slot: sock}, sys.BytesOf("r"), sys.Number(1)}},
		in.Receive(sock),
	}, sys.ChildOptions{Sock: sock})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Receive()
	if s := slack(t, strconv.Itoa(c.PID)); s != usual {
		t.Errorf("a child has %s", s)
	}
	c.HangUp()
	c.Wait()
	var said [16]byte
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 4_000_000, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	pid, err := sys.Detach("/bin/cat", []string{"cat", "/proc/self/timerslack_ns"}, nil, []int{-1, int(w.Fd())}, -1)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Wait4(pid, nil, 0, nil)
	if n, err := r.Read(said[:]); err != nil || strings.TrimSpace(string(said[:n])) != usual {
		t.Errorf("one that is detached has %s, %v", said[:n], err)
	}
	sys.Timely()
	defer runtime.UnlockOSThread()
	if out, err := command.Command("cat", "/proc/self/timerslack_ns").Output(); err != nil || strings.TrimSpace(string(out)) != usual {
		t.Errorf("one of package os/exec has %s, %v", out, err)
	}
}
