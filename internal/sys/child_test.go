package sys_test

import (
	"errors"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
)

func exec(path string, argv ...string) sys.ChildCall {
	return sys.ChildCall{Nr: unix.SYS_EXECVE, Args: [6]sys.ChildArg{sys.BytesOf(path), sys.StringsOf(argv), sys.StringsOf(nil)}}
}

func TestChildBecomesAProgram(t *testing.T) {
	c, err := sys.StartChild([]sys.ChildCall{exec("/bin/sh", "sh", "-c", "exit 7")}, sys.ChildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if data, _, err := c.Receive(); err != nil || len(data) != 0 {
		t.Fatalf("Receive = %q, %v; want the end", data, err)
	}
	if status, err := c.Wait(); err != nil || status.ExitStatus() != 7 {
		t.Errorf("Wait = %v, %v; want exit 7", status, err)
	}
}

func TestChildNamesTheCallThatFailed(t *testing.T) {
	c, err := sys.StartChild([]sys.ChildCall{
		{Nr: unix.SYS_GETPID},
		{Nr: unix.SYS_CHDIR, Args: [6]sys.ChildArg{sys.BytesOf("/no/such")}},
	}, sys.ChildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _, err = c.Receive()
	var ce *sys.ChildError
	if !errors.As(err, &ce) || ce.Index != 1 || ce.Errno != syscall.ENOENT {
		t.Errorf("Receive = %v; want call 1, ENOENT", err)
	}
	c.Wait()
}

// A descriptor that the parent sends is an argument of a later call.
func TestChildTakesDescriptors(t *testing.T) {
	in := sys.NewInbox(1)
	sock := new(int32)
	c, err := sys.StartChild([]sys.ChildCall{
		in.Receive(sock),
		{Nr: unix.SYS_FCHDIR, Args: [6]sys.ChildArg{{Slot: in.FD(0)}}},
		exec("/bin/sh", "sh", "-c", `test "$(/bin/pwd)" = /proc`),
	}, sys.ChildOptions{Sock: sock})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fd, err := unix.Open("/proc", unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := c.Send([]byte{1}, []int{fd}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Receive(); err != nil {
		t.Fatal(err)
	}
	if status, _ := c.Wait(); status.ExitStatus() != 0 {
		t.Errorf("the child was not in /proc: %v", status)
	}
}

// The child of a parent that gives up does not go on.
func TestChildEndsWithoutItsParent(t *testing.T) {
	in := sys.NewInbox(0)
	sock := new(int32)
	c, err := sys.StartChild([]sys.ChildCall{in.Receive(sock), exec("/bin/true", "true")}, sys.ChildOptions{Sock: sock})
	if err != nil {
		t.Fatal(err)
	}
	c.CloseSocket()
	if status, _ := c.Wait(); status.ExitStatus() != 255 {
		t.Errorf("status %v; want 255", status)
	}
	c.Close()
}

func BenchmarkChild(b *testing.B) {
	for b.Loop() {
		c, err := sys.StartChild([]sys.ChildCall{exec("/bin/true", "true")}, sys.ChildOptions{})
		if err != nil {
			b.Fatal(err)
		}
		c.Receive()
		c.Wait()
		c.Close()
	}
}

// The kernel gives the pidfd to where it was told, however the stack of the
// goroutine that forks grows and moves meanwhile.
func TestChildHasItsPidfdWhereverTheStackIs(t *testing.T) {
	calls := []sys.ChildCall{{Nr: unix.SYS_EXIT_GROUP}}
	for depth := range 60 {
		done := make(chan int)
		go func() { done <- pidfdAt(depth, calls) }()
		if fd := <-done; fd < 0 {
			t.Fatalf("with %d frames above: pidfd %d", depth, fd)
		}
	}
}

// pidfdAt forks with so many frames of 128 bytes above.
func pidfdAt(depth int, calls []sys.ChildCall) int {
	var frame [128]byte
	if depth > 0 {
		frame[depth%128] = 1
		return pidfdAt(depth-1, calls) * int(frame[depth%128])
	}
	c, err := sys.StartChild(calls, sys.ChildOptions{})
	if err != nil {
		return -2
	}
	defer c.Close()
	c.Wait()
	return c.PidFD
}
