package process_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"kiste/host"
	"kiste/internal/need"
)

// Whenever kiste is killed, its container ends too, and the next commands
// remove what is left.
func TestNoContainerOutlivesItsKilledParent(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	root := busybox(t)
	s := newStorage(t)
	start := time.Now()
	s.sh(t, root, "true")
	whole := time.Since(start)
	times := 12
	if testing.Short() {
		times = 2
	}
	for _, options := range [][]string{{}, {"--pid", "host"}, {"--userns", "host"}} {
		for range times {
			cmd := s.command(append(append([]string{"run", "--rm"}, options...), "rootfs:"+root, "/bin/sleep", "77.7")...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(rand.Int64N(int64(whole))))
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		left := running(t, "sleep\x0077.7")
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("processes %v go on", left)
		}
	}
	s.sweep(t)
	if r := s.run(t, "gc"); r.code != 0 {
		t.Logf("gc: %s", r.err)
	}
	if left := s.run(t, "ps", "-aq"); left.out != "" {
		t.Errorf("still listed: %s", left.out)
	}
	if claims, _ := os.ReadDir(s.dir + "/run/ids"); len(claims) > 0 {
		t.Errorf("%d ranges of ids are still claimed", len(claims))
	}
}

// running are the processes whose command line has text.
func running(t *testing.T, text string) (pids []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline"); err == nil && strings.Contains(string(b), text) {
			pids = append(pids, e.Name())
		}
	}
	return pids
}

// A parent that is stopped can be killed, and takes its container along.
func TestContainerEndsWithAStoppedParent(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	root := busybox(t)
	s := newStorage(t)
	cmd := s.command("run", "--rm", "rootfs:"+root, "/bin/sh", "-c", "echo up; sleep 55.5")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGSTOP)
	cmd.Process.Kill()
	if err := cmd.Wait(); err == nil {
		t.Error("a killed kiste ended well")
	} else if _, ok := err.(*exec.ExitError); !ok {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); len(running(t, "sleep\x0055.5")) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the container goes on")
		}
	}
	s.sweep(t)
}
