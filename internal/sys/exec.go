package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Exec is execve(2) with this process's environment: it returns only when it
// failed.
func Exec(path string, args []string) error {
	return onPath("execve", path, retry(func() error { return unix.Exec(path, args, os.Environ()) }))
}
