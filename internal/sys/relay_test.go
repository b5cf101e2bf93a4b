package sys_test

import (
	"bufio"
	"os"
	command "os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
)

var relayed = []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, 40, 64}

// counter is a shell that says each signal that it gets.
const counter = `trap "echo HUP" HUP; trap "echo TERM" TERM; trap "echo USR1" USR1; trap "echo USR2" USR2; trap "echo 40" 40; trap "echo 64" 64
echo ready; while :; do sleep 0.01; done`

func startCounter(t *testing.T) (*bufio.Reader, int) {
	t.Helper()
	cmd := command.Command("/bin/sh", "-c", counter)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// A shell traps no signal that was ignored when it began, as nohup ignores
	// SIGHUP; what is caught here is as usual there.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, anySignals(relayed)...)
	err = cmd.Start()
	signal.Stop(caught)
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := sys.PidfdOpen(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		sys.Close(pidfd)
	})
	lines := bufio.NewReader(out)
	hear(t, lines, "ready")
	return lines, pidfd
}

func anySignals(signals []syscall.Signal) (all []os.Signal) {
	for _, s := range signals {
		all = append(all, s)
	}
	return all
}

func hear(t *testing.T, lines *bufio.Reader, want string) {
	t.Helper()
	if got, err := lines.ReadString('\n'); err != nil || strings.TrimSpace(got) != want {
		t.Fatalf("got %q, %v; want %s", got, err, want)
	}
}

// What comes before the process is known is passed on then, and each later
// signal once; none ends this process.
func TestRelay(t *testing.T) {
	t.Cleanup(sys.KeepActions(relayed))
	lines, pidfd := startCounter(t)
	r := sys.CatchSignals(relayed)
	for range 3 {
		signalThread(t, syscall.SIGUSR2)
	}
	r.To(pidfd)
	hear(t, lines, "USR2")
	for range 20 {
		for s, name := range map[syscall.Signal]string{syscall.SIGHUP: "HUP", syscall.SIGTERM: "TERM", syscall.SIGUSR1: "USR1", 40: "40", 64: "64"} {
			syscall.Kill(os.Getpid(), s)
			hear(t, lines, name)
		}
	}
	r.To(-1)
	signalThread(t, syscall.SIGTERM)
}

// signalThread sends a signal to the thread that it is called on, which has
// taken it when this returns.
func signalThread(t *testing.T, s syscall.Signal) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Tgkill(os.Getpid(), unix.Gettid(), s); err != nil {
		t.Fatal(err)
	}
}

// Goroutines that compute, allocate and wait do not notice.
func TestRelayAmongGoroutines(t *testing.T) {
	t.Cleanup(sys.KeepActions(relayed))
	_, pidfd := startCounter(t)
	r := sys.CatchSignals(relayed)
	r.To(pidfd)
	end := make(chan bool)
	sums := make(chan int)
	const busy = 4
	for range busy {
		go func() {
			sum := 0
			for {
				select {
				case <-end:
					sums <- sum
					return
				default:
					sum += len(strings.Repeat("x", 1000))
					runtime.Gosched()
				}
			}
		}()
	}
	for range 5000 {
		syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	}
	close(end)
	for range busy {
		if sum := <-sums; sum%1000 != 0 {
			t.Errorf("sum %d", sum)
		}
	}
	r.To(-1)
}
