package stub

import (
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"kiste/internal/need"
)

// guarded starts a guard over a shell script and gives what it writes on
// descriptor 3, and what the script writes.
func guarded(t *testing.T, command []string, script string) (cmd *exec.Cmd, ends, out io.Reader) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	// argv[0] is the path to execute, so the command's own argv does not do.
	cmd = exec.Command(command[0])
	cmd.Args = []string{"/bin/sh", "sh", "-c", script}
	if len(command) > 1 {
		cmd.Args = []string{command[0], "-0", "/bin/sh", command[3], "sh", "-c", script}
	}
	cmd.ExtraFiles = []*os.File{w}
	o, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return cmd, r, o
}

func TestGuardLeavesWithItsChild(t *testing.T) {
	need.Program(t, "sh")
	eachMachine(t, Guard, func(t *testing.T, command []string) {
		cmd, ends, out := guarded(t, command, "echo here; ls -l /proc/$$/fd/3 2>/dev/null; exit 0")
		text, _ := io.ReadAll(out)
		if err := cmd.Wait(); err != nil || string(text) != "here\n" {
			t.Errorf("%q, %v", text, err)
		}
		if rest, _ := io.ReadAll(ends); len(rest) != 0 {
			t.Errorf("it wrote %q", rest)
		}
	})
}

func TestGuardTellsOfWhomItInherits(t *testing.T) {
	need.Program(t, "sh", "sleep")
	eachMachine(t, Guard, func(t *testing.T, command []string) {
		if len(command) > 1 {
			t.Skip("the emulator makes nobody a subreaper")
		}
		done := filepath.Join(t.TempDir(), "done")
		// The first monitor starts a child and kills itself; the second one
		// waits for the file.
		script := `if [ -e ` + done + ` ]; then while [ ! -s ` + done + ` ]; do sleep 0.02; done; exit 0; fi
			: > ` + done + `; sh -c 'sleep 0.3; exit 7' & echo $!; kill -9 $$`
		cmd, ends, out := guarded(t, command, script)
		var record [16]byte
		if _, err := io.ReadFull(ends, record[:]); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(done, []byte("x"), 0o600)
		text, _ := io.ReadAll(out)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		gotPID, status := binary.LittleEndian.Uint64(record[:]), syscall.WaitStatus(binary.LittleEndian.Uint64(record[8:]))
		if int(gotPID) != pid || status.ExitStatus() != 7 {
			t.Errorf("process %d ended with %d, want %d and 7", gotPID, status.ExitStatus(), pid)
		}
	})
}

func TestGuardGivesUpWhatCannotBeExecuted(t *testing.T) {
	eachMachine(t, Guard, func(t *testing.T, command []string) {
		cmd := exec.Command(command[0])
		cmd.Args = []string{"/nonexistent", "x"}
		if len(command) > 1 {
			cmd.Args = []string{command[0], "-0", "/nonexistent", command[3], "x"}
		}
		if err := cmd.Run(); err != nil {
			t.Error(err)
		}
	})
}

func TestHolderHolds(t *testing.T) {
	eachMachine(t, Holder, func(t *testing.T, command []string) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Stdout = w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		r.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := r.Read(make([]byte, 1)); !os.IsTimeout(err) {
			t.Errorf("the pipe is not held: %v", err)
		}
		cmd.Process.Kill()
		cmd.Wait()
		r.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := r.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the pipe is still held: %v", err)
		}
	})
}
