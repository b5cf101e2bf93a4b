// Command entry tells how it was started, for a test.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"kiste/internal/sys"
)

var allowed = regexp.MustCompile(`Cpus_allowed_list:\s*(\S+)`)

func main() {
	if len(os.Args) > 1 {
		stay(os.Args[1])
		return
	}
	fmt.Println("processors of the runtime:", runtime.GOMAXPROCS(0))
	sys.Begin()
	var limit syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	fmt.Println("limit:", limit.Cur, limit.Max)
	threads, _ := filepath.Glob("/proc/self/task/*/status")
	seen := map[string]bool{}
	for _, file := range threads {
		b, _ := os.ReadFile(file)
		if m := allowed.FindSubmatch(b); m != nil {
			seen[string(m[1])] = true
		}
	}
	fmt.Println("processors of threads:", len(seen), seen)
	fmt.Println("processors:", sys.CPUs())
	sys.Parallel()
	fmt.Println("processors of the runtime:", runtime.GOMAXPROCS(0))
	sys.Timely()
	fmt.Println("timers of a child:", childsTimers())
	cmd := exec.Command("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn; sed -n s/Cpus_allowed_list:.//p /proc/self/status; cat /proc/self/timerslack_ns")
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
	}
}

// stay waits for a line when it has begun, and when it has done what is asked for.
func stay(what string) {
	sys.Begin()
	wait("begun")
	map[string]func(){"parallel": sys.Parallel, "timely": sys.Timely}[what]()
	wait(what)
}

func wait(at string) {
	fmt.Println(at)
	fmt.Scanln()
}

// childsTimers is the timer slack of a sys.Child that another thread makes.
func childsTimers() string {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	said := make(chan string)
	go func() {
		in, sock := sys.NewInbox(0), new(int32)
		c, err := sys.StartChild([]sys.ChildCall{in.Receive(sock)}, sys.ChildOptions{Sock: sock})
		if err != nil {
			said <- err.Error()
			return
		}
		defer c.Close()
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", c.PID))
		c.HangUp()
		c.Wait()
		said <- fmt.Sprint(strings.TrimSpace(string(text)), err)
	}()
	return <-said
}
