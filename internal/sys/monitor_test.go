package sys_test

import (
	"os"
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
	var slow int
	for _, d := range threads {
		switch s := slack(t, d.Name()); s {
		case usual:
		case "4000000":
			slow++
		default:
			t.Errorf("thread %s has %s", d.Name(), s)
		}
	}
	if slow != 1 {
		t.Errorf("%d threads are slow; want 1", slow)
	}
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
}
