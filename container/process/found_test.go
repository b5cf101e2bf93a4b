package process

import (
	"os/exec"
	"syscall"
	"testing"

	"kiste/internal/need"
	"kiste/internal/sys"
)

// How a process has ended is told as long as nobody has waited for it, and not of
// one that lives.
func TestExitOfWhoWasNotWaitedFor(t *testing.T) {
	need.Program(t, "sh")
	for _, tt := range []struct {
		script string
		want   syscall.WaitStatus
	}{
		{"read line; exit 43", 43 << 8},
		{"read line; exit 0", 0},
		{"read line; kill -9 $$", 9},
	} {
		cmd := exec.Command("sh", "-c", tt.script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		id, err := Identify(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := id.Open()
		if err != nil {
			t.Fatal(err)
		}
		if status, ok := id.Exit(); ok {
			t.Errorf("%q lives, and has ended with %#x", tt.script, status)
		}
		in.Close()
		if _, err := sys.Poll(true, fd); err != nil {
			t.Error(err)
		}
		if status, ok := id.Exit(); !ok || status != tt.want {
			t.Errorf("%q: %#x, %v; want %#x", tt.script, status, ok, tt.want)
		}
		sys.Close(fd)
		_ = cmd.Wait()
		if _, ok := id.Exit(); ok {
			t.Errorf("%q has been waited for, and still tells its end", tt.script)
		}
	}
}
