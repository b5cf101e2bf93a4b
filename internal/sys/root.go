package sys

import "golang.org/x/sys/unix"

// Fchdir is fchdir(2): of the calling thread alone after unshare(CLONE_FS).
func Fchdir(fd int) error { return named("fchdir", retry(func() error { return unix.Fchdir(fd) })) }

// Chdir is chdir(2): of the calling thread alone after unshare(CLONE_FS).
func Chdir(path string) error {
	return onPath("chdir", path, retry(func() error { return unix.Chdir(path) }))
}

// ExecWith is execve(2) with the environment env: it returns only when it
// failed. The process goes on where the calling thread is.
func ExecWith(path string, args, env []string) error {
	return onPath("execve", path, unix.Exec(path, args, env))
}

// ReadAll reads at most max bytes of the regular file fd, from its start.
func ReadAll(fd, max int) ([]byte, error) {
	b, err := readAll(nil, fd, max, true)
	return b, named("pread", err)
}
