package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inOwnMounts is in the environment of who has a mount namespace of its own.
const inOwnMounts = "KISTE_BENCH_OWN_MOUNTS"

// ownMounts runs this program again, in a mount namespace of its own, and gives
// its exit code. What is mounted and unmounted there nobody else notices.
func ownMounts() (code int, err error) {
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), inOwnMounts+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	err = again.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return ended.ExitCode(), nil
	}
	return 0, err
}

// hideUnified takes cgroup version 2 away where version 1 has the controllers:
// crun of Debian 12 refuses such hosts while any controller is left to version 2.
func hideUnified() error {
	const unified = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(unified + "/cgroup.controllers"); err != nil {
		return nil
	}
	return os.NewSyscallError("umount", syscall.Unmount(unified, syscall.MNT_DETACH))
}

// adoptOrphans makes this process the parent of what its children leave, so
// that the time of containers is counted, too.
func adoptOrphans() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// childrenTime is the CPU time of all children that were waited for.
func childrenTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reap waits for the children that have ended.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}

// await waits for the child pid, own or adopted. One that fails is an error.
func await(pid int) error {
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err == nil && status != 0:
			return fmt.Errorf("wait status %#x", uint32(status))
		}
		return err
	}
}

// amongMounts runs f where the host has n more mounts, on a thread that ends
// with it: what f starts by fork sees them.
func amongMounts(dir string, n int, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is of no use to others
		result <- func() error {
			if err := syscall.Unshare(syscall.CLONE_FS | syscall.CLONE_NEWNS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
				return err
			}
			for i := range n {
				at := filepath.Join(dir, fmt.Sprint(i))
				if err := os.MkdirAll(at, 0o755); err != nil {
					return err
				}
				if err := syscall.Mount("none", at, "tmpfs", 0, ""); err != nil {
					return fmt.Errorf("mount %d: %w", i, err)
				}
			}
			return f()
		}()
	}()
	return <-result
}
