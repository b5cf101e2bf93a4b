package sys

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// PidfdGetFD is pidfd_getfd(2): a copy of another process's descriptor, which
// the caller must be allowed to trace.
func PidfdGetFD(pidfd, fd int) (int, error) {
	n, err := retryFD(func() (int, error) { return unix.PidfdGetfd(pidfd, fd, 0) })
	return n, named("pidfd_getfd", err)
}

// PidfdExit is the wait status of a process that has ended and was waited for,
// by PIDFD_GET_INFO (Linux 6.15; kernel commit 7477d7dce48a). ok is false
// where the process has not, or the kernel does not tell. The descriptor must
// have been open when the process was waited for.
func PidfdExit(pidfd int) (status syscall.WaitStatus, ok bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err := unix.IoctlPidfdInfo(pidfd, &info)
	return syscall.WaitStatus(info.Exit_code), err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0
}

// PidfdMounts opens the mount namespace of a process: PIDFD_GET_MNT_NAMESPACE
// (Linux 6.11). The descriptor is the caller's to close.
func PidfdMounts(pidfd int) (int, error) {
	const getMounts = 0xff03 // _IO(PIDFS_IOCTL_MAGIC, 3)
	fd, err := retryFD(func() (int, error) { return unix.IoctlRetInt(pidfd, getMounts) })
	return fd, named("ioctl", err)
}

// TryReap is wait4(2) of one child without waiting: ok is false where it has not
// ended, or is no child of this process.
func TryReap(pid int) (status syscall.WaitStatus, ok bool) {
	var w unix.WaitStatus
	n, err := retryFD(func() (int, error) { return unix.Wait4(pid, &w, unix.WNOHANG, nil) })
	return syscall.WaitStatus(w), err == nil && n == pid
}

// Tee is tee(2): up to n bytes of a pipe are copied into another, and stay in
// the first. Nothing there is syscall.EAGAIN, and 0 without a writer.
func Tee(from, to, n int) (int, error) {
	got, err := retryFD(func() (int, error) {
		n, err := unix.Tee(from, to, n, unix.SPLICE_F_NONBLOCK)
		return int(n), err
	})
	return max(got, 0), named("tee", err)
}

// SetPipeSize asks for a pipe of so many bytes; where that is more than the
// kernel gives this user, the pipe stays as it is.
func SetPipeSize(fd, bytes int) { _, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, bytes) }

// WaitPidfd waits until the process of a pidfd has ended; without a thread, where
// Watched made the file.
func WaitPidfd(pidfd *os.File) error {
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Read(func(fd uintptr) bool {
		ready, err := Poll(false, int(fd))
		failed = err
		return err != nil || ready[0]
	})
	return errors.Join(err, failed)
}

// AdoptChild makes a child of this process that it did not start itself a Child.
func AdoptChild(pid int) (*Child, error) {
	fd, err := PidfdOpen(pid)
	if err != nil {
		return nil, err
	}
	return &Child{PID: pid, PidFD: fd, sock: -1}, nil
}
