package stub

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kiste/internal/need"
)

// attended starts an attendant of the process pid over a shell script, and gives
// what it records and what the script writes.
func attended(t *testing.T, command []string, pid int, script string) (cmd *exec.Cmd, record, out io.Reader) {
	t.Helper()
	if len(command) > 1 {
		t.Skip("the emulator knows no pidfds")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	defer w.Close()
	cmd = exec.Command(command[0])
	cmd.Args = []string{"/bin/sh", "sh", "-c", script}
	cmd.ExtraFiles = []*os.File{pidfd, w}
	o, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, r, o
}

// served starts a process that is to be served.
func served(t *testing.T) *exec.Cmd {
	t.Helper()
	need.Program(t, "sh", "sleep")
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// ended waits until there is no process pid.
func ended(t *testing.T, pid int) {
	t.Helper()
	for range 6000 {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d goes on", pid)
}

func readPID(t *testing.T, out io.Reader) int {
	t.Helper()
	b := make([]byte, 32)
	n, err := out.Read(b)
	pid, bad := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || bad != nil {
		t.Fatalf("%q, %v", b[:n], errors.Join(err, bad))
	}
	return pid
}

func TestAttendantLeavesWithWhomItServes(t *testing.T) {
	eachMachine(t, Attendant, func(t *testing.T, command []string) {
		s := served(t)
		cmd, _, out := attended(t, command, s.Process.Pid, "test -e /proc/$$/fd/3 || test -e /proc/$$/fd/4 || echo $$; exec sleep 100")
		child := readPID(t, out)
		s.Process.Kill()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		ended(t, child)
	})
}

func TestAttendantsChildLeavesWithIt(t *testing.T) {
	eachMachine(t, Attendant, func(t *testing.T, command []string) {
		s := served(t)
		cmd, _, out := attended(t, command, s.Process.Pid, "echo $$; exec sleep 100")
		child := readPID(t, out)
		cmd.Process.Kill()
		cmd.Wait()
		ended(t, child)
	})
}

func TestAttendantStartsAnewWhatEnds(t *testing.T) {
	eachMachine(t, Attendant, func(t *testing.T, command []string) {
		s := served(t)
		cmd, record, out := attended(t, command, s.Process.Pid, "echo $$; exit 7")
		first := readPID(t, out)
		var status [8]byte
		if _, err := io.ReadFull(record, status[:]); err != nil {
			t.Fatal(err)
		}
		if w := syscall.WaitStatus(binary.LittleEndian.Uint64(status[:])); w.ExitStatus() != 7 {
			t.Errorf("it records %d, want 7", w.ExitStatus())
		}
		if second := readPID(t, out); second == first {
			t.Error("it is not started anew")
		}
		if testing.Short() {
			s.Process.Kill()
			return
		}
		if err := cmd.Wait(); err == nil {
			t.Error("it does not say that it has given up")
		}
		if rest, _ := io.ReadAll(record); len(rest) != 8*(Attempts-1) {
			t.Errorf("it records %d bytes more", len(rest))
		}
	})
}
