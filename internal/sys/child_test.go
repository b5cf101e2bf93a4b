package sys_test

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

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
	if data, _, err := c.Receive(); err != nil || len(data) != 0 {
		t.Errorf("and then %q, %v; want the end", data, err)
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

// What a child receives with stays as long as its calls do, though nobody else
// knows of it: the collector must not give it to others.
func TestAnInboxLivesWithItsCalls(t *testing.T) {
	for range 20 {
		gate, sock := new([1]byte), new(int32)
		c, err := sys.StartChild([]sys.ChildCall{
			{Nr: unix.SYS_READ, Args: [6]sys.ChildArg{{Slot: sock}, {Bytes: gate[:]}, sys.Number(1)}, Want: 1},
			sys.NewInbox(3).Receive(sock),
			exec("/bin/true", "true"),
		}, sys.ChildOptions{Sock: sock})
		if err != nil {
			t.Fatal(err)
		}
		var others [][]byte // who would have its memory
		for range 3 {
			runtime.GC()
			for _, size := range []int{8, 16, 32, 64} {
				for range 2000 {
					others = append(others, bytes.Repeat([]byte{0xff}, size))
				}
			}
		}
		err = c.Send([]byte{1}, nil)
		if err == nil {
			err = c.Send([]byte{1}, nil)
		}
		if _, _, received := c.Receive(); err != nil || received != nil {
			t.Fatal(err, received)
		}
		c.Wait()
		c.Close()
		for _, b := range others {
			if b[0] != 0xff || b[len(b)-1] != 0xff {
				t.Fatalf("the child has written into another's memory: % x", b)
			}
		}
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

// Until its execve a child has this process's memory, or a copy.
func TestChildSharesMemoryUnlessItHasItsOwn(t *testing.T) {
	for _, own := range []bool{false, true} {
		pid := new(int32)
		c, err := sys.StartChild([]sys.ChildCall{{Nr: unix.SYS_GETPID, Out: pid}, exec("/bin/true", "true")}, sys.ChildOptions{OwnMemory: own})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Receive(); err != nil {
			t.Error(err)
		}
		if seen := int(*pid) == c.PID; seen == own {
			t.Errorf("own memory %v: the child, %d, has written %d", own, c.PID, *pid)
		}
		if status, err := c.Wait(); err != nil || status.ExitStatus() != 0 {
			t.Errorf("Wait = %v, %v", status, err)
		}
		c.Close()
	}
}

func dumpable(t *testing.T) int {
	t.Helper()
	d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// While a child that nobody may look into shares this process's memory, nobody
// may look into that; and then again.
func TestChildMakesItsParentUndumpableForAWhile(t *testing.T) {
	in, sock := sys.NewInbox(0), new(int32)
	before := dumpable(t)
	waits := []sys.ChildCall{
		{Nr: unix.SYS_PRCTL, Args: [6]sys.ChildArg{sys.Number(unix.PR_SET_DUMPABLE), sys.Number(0)}},
		{Nr: unix.SYS_WRITE, Args: [6]sys.ChildArg{{Slot: sock}, sys.BytesOf("r"), sys.Number(1)}},
		in.Receive(sock),
		exec("/bin/true", "true"),
	}
	first, err := sys.StartChild(waits, sys.ChildOptions{Sock: sock})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, _, err := first.Receive(); err != nil {
		t.Fatal(err)
	}
	second, err := sys.StartChild([]sys.ChildCall{exec("/bin/true", "true")}, sys.ChildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	second.Receive()
	second.Wait()
	second.Close()
	if d := dumpable(t); d != 0 {
		t.Errorf("PR_GET_DUMPABLE is %d while a child shares the memory; want 0", d)
	}
	if err := first.Send([]byte{1}, nil); err != nil {
		t.Fatal(err)
	}
	first.Receive()
	if d := dumpable(t); d != before {
		t.Errorf("PR_GET_DUMPABLE is %d and was %d", d, before)
	}
	first.Wait()
}

// The parent whose death a child is told of is this process, not the thread
// that asked for it; whoever closes a Child is through with it.
func TestChildOutlivesTheThreadThatAskedForIt(t *testing.T) {
	started, ended := make(chan *sys.Child), make(chan bool)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends
		defer close(ended)
		c, err := sys.StartChild([]sys.ChildCall{
			{Nr: unix.SYS_PRCTL, Args: [6]sys.ChildArg{sys.Number(unix.PR_SET_PDEATHSIG), sys.Number(uintptr(unix.SIGTERM))}},
			exec("/bin/sleep", "sleep", "100"),
		}, sys.ChildOptions{})
		if err != nil {
			t.Error(err)
		}
		started <- c
	}()
	c := <-started
	<-ended
	if c == nil {
		return
	}
	if _, _, err := c.Receive(); err != nil {
		t.Error(err)
	}
	time.Sleep(50 * time.Millisecond)
	if fds, err := sys.Poll(false, c.PidFD); err != nil || fds[0] {
		t.Errorf("the child has ended with a thread: %v", err)
	}
	pid := c.PidFD
	c.PidFD = -1
	c.Close()
	if fds, err := sys.Poll(true, pid); err != nil || !fds[0] {
		t.Error(err)
	}
	unix.Close(pid)
	if status, _ := c.Wait(); status.Signal() != unix.SIGTERM {
		t.Errorf("status %v; want SIGTERM", status)
	}
}

// Many at once, of which some fail, leave neither threads nor descriptors.
func TestChildrenAtOnce(t *testing.T) {
	count := func(what string) int {
		list, err := os.ReadDir("/proc/self/" + what)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	var all sync.WaitGroup
	work := func(rounds int) {
		for g := range 8 {
			all.Go(func() {
				for i := range rounds {
					program := []string{"/bin/true", "/no/such"}[(g+i)%2]
					c, err := sys.StartChild([]sys.ChildCall{exec(program, "true")}, sys.ChildOptions{OwnMemory: i%5 == 0})
					if err != nil {
						t.Error(err)
						return
					}
					_, _, err = c.Receive()
					if failed := errors.As(err, new(*sys.ChildError)); failed != (program == "/no/such") {
						t.Errorf("%s: %v", program, err)
					}
					if _, err := c.Wait(); err != nil {
						t.Error(err)
					}
					c.Close()
				}
			})
		}
		all.Wait()
	}
	work(5)
	// Go starts a thread when it likes, but not one for each of 400 children.
	for what, more := range map[string]int{"task": 40, "fd": 0} {
		before := count(what)
		work(50)
		for end := time.Now().Add(time.Minute); count(what) > before+more; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %d before, %d after", what, before, count(what))
			}
		}
	}
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
