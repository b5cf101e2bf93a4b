package sys

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAPidfdKnowsTheExitCode(t *testing.T) {
	cmd := exec.Command("sh", "-c", "exit 7")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := PidfdOpen(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(fd)
	if _, ok := PidfdExit(fd); ok {
		t.Log("it had ended already")
	}
	cmd.Wait()
	status, ok := PidfdExit(fd)
	if !ok {
		t.Skip("this kernel does not tell (it came with 6.15)")
	}
	if status.ExitStatus() != 7 {
		t.Errorf("it ended with %d", status.ExitStatus())
	}
}

// The number of a process that has ended may be that of a session in which
// somebody is.
func TestPidfdOfWhoHasLeftItsSession(t *testing.T) {
	cmd := exec.Command("sh", "-c", "read x <&3 &")
	r, w, err := Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd.ExtraFiles = []*os.File{r}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	err = cmd.Run()
	r.Close()
	if err != nil {
		t.Fatal(err)
	}
	if fd, err := PidfdOpen(cmd.Process.Pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("%d, %v; want ESRCH", fd, err)
	}
}

func TestTeeLeavesWhatItCopies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	SetPipeSize(int(f.Fd()), 1<<20)
	r, w, err := Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if n, err := Tee(int(f.Fd()), int(w.Fd()), 100); n != 0 || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("of nothing: %d, %v", n, err)
	}
	f.WriteString("hello")
	if n, err := Tee(int(f.Fd()), int(w.Fd()), 100); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, f := range []*os.File{r, f} {
		b := make([]byte, 100)
		if n, err := f.Read(b); string(b[:n]) != "hello" {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
	self, err := PidfdOpen(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer Close(self)
	if fd, err := PidfdGetFD(self, int(f.Fd())); err != nil {
		t.Error(err)
	} else {
		unix.Close(fd)
	}
}
