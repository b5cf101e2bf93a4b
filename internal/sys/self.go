package sys

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// SelfExe is the program of this process, wherever its file is now: proc(5).
const SelfExe = "/proc/self/exe"

// FDPath is a path to what fd refers to, for calls that take paths only.
func FDPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// ProgramPath is a path by which a child of this process can execute f, before
// execve(2). FDPath will not do: what starts the child moves descriptors there,
// and may put one in the place of f.
func ProgramPath(f *os.File) string {
	return "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(f.Fd()))
}

// ReadUmask reads this process's mask without setting it: proc_pid_status(5).
func ReadUmask() (uint32, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var mask uint32
		if n, _ := fmt.Sscanf(line, "Umask:\t%o", &mask); n == 1 {
			return mask, nil
		}
	}
	return 0, errors.New("/proc/self/status has no Umask")
}
