package sys

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Each of these asks in a way that changes nothing whether the kernel has a
// call. A call that a seccomp filter refuses counts as missing.

// HasOpenat2 reports whether openat2(2) works (Linux 5.6).
func HasOpenat2() bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// HasMountSetattr reports whether mount_setattr(2) is there (Linux 5.12): a
// descriptor that is none is refused as such, and before that whoever may not
// mount.
func HasMountSetattr() bool {
	err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	return errors.Is(err, unix.EBADF) || errors.Is(err, unix.EPERM) && unix.Geteuid() != 0
}

// HasClone3 reports whether clone3(2) is there: arguments of no size are
// refused as such.
func HasClone3() bool {
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	return errno == unix.EINVAL
}

// HasPidfd reports whether pidfd_open(2) works (Linux 5.3).
func HasPidfd() bool {
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// HasSeccompAction reports whether filters may return action, a
// unix.SECCOMP_RET_ value.
func HasSeccompAction(action uint32) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return errno == 0
}

// HasFilesystem reports whether this process can configure a file system of
// that type: it exists, and the user namespace may mount it.
func HasFilesystem(fstype string) bool {
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// Release is the kernel's release as uname(2) gives it: "6.12.1-amd64".
func Release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Machine is the kernel's word for the architecture: uname(2).
func Machine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Machine[:])
}
