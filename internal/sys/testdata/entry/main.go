// Command entry tells how it was started, for a test.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"

	"kiste/internal/sys"
)

var allowed = regexp.MustCompile(`Cpus_allowed_list:\s*(\S+)`)

func main() {
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
	cmd := exec.Command("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn; sed -n s/Cpus_allowed_list:.//p /proc/self/status")
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
	}
}
