// Package sys is the list of what Kiste can ask of a kernel: thin wrappers
// over system calls, by topic, one file each.
//
//	takes    plain integers, strings and descriptors
//	gives    errors that name the call and the path
//	touches  the kernel
//	state    none, but for a directory that is held open: see Hold
//
// A wrapper retries EINTR, names itself and its object in the error, and
// decides nothing. Calls on golang.org/x/sys/unix stand here and nowhere else,
// apart from fork and exec in container/process.
package sys

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// onPath makes err say which call failed on which path.
func onPath(call, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: call, Path: path, Err: err}
}

// named makes err say which call failed.
func named(call string, err error) error {
	if err == nil {
		return nil
	}
	return os.NewSyscallError(call, err)
}

// retry repeats call while a signal interrupts it.
func retry(call func() error) error {
	for {
		if err := call(); !interrupted(err) {
			return err
		}
	}
}

// retryFD is retry for calls that give a descriptor or a count.
func retryFD(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !interrupted(err) {
			return n, err
		}
	}
}

// interrupted reports whether a signal has interrupted a call. Most errors here are
// the number itself, and many are expected.
func interrupted(err error) bool {
	if errno, bare := err.(syscall.Errno); bare || err == nil {
		return errno == unix.EINTR
	}
	return errors.Is(err, unix.EINTR)
}
