package sys

import (
	"golang.org/x/sys/unix"
)

// Unshare is unshare(2) of the calling thread, which the caller has locked.
func Unshare(flags int) error { return named("unshare", unix.Unshare(flags)) }

// Setns is setns(2) of the calling thread, which the caller has locked.
func Setns(fd, kind int) error { return named("setns", unix.Setns(fd, kind)) }

// OpenFile opens path with flags, unix.O_ bits, close-on-exec, outside of
// Go's poller. The descriptor is the caller's to close.
func OpenFile(path string, flags int) (int, error) {
	dir, name := from(path)
	fd, err := retryFD(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0) })
	return fd, onPath("open", path, err)
}

// Inode is the number of the file that fd is, which for a namespace is its
// name, and the device that goes with it.
func Inode(fd int) (device, inode uint64, err error) {
	var st unix.Stat_t
	err = retry(func() error { return unix.Fstat(fd, &st) })
	return st.Dev, st.Ino, named("fstat", err)
}

// InodeOf is Inode by path, following links.
func InodeOf(path string) (device, inode uint64, err error) {
	var st unix.Stat_t
	dir, name := from(path)
	err = retry(func() error { return unix.Fstatat(dir, name, &st, 0) })
	return st.Dev, st.Ino, onPath("stat", path, err)
}

// InodeHere is InodeOf where path's last name may be a link, which is not followed.
func InodeHere(path string) (device, inode uint64, err error) {
	st, err := StatAt(from(path))
	return st.Dev, st.Ino, err
}

// VersionOf is which file path is, and when it was written, in nanoseconds since 1970:
// a file that is replaced has another version.
func VersionOf(path string) (inode uint64, written int64, err error) {
	var st unix.Stat_t
	err = retry(func() error { return unix.Stat(path, &st) })
	return st.Ino, st.Mtim.Nano(), onPath("stat", path, err)
}

// FSType is the magic number of the file system that fd is on: statfs(2).
func FSType(fd int) (int64, error) {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd, &st) })
	return int64(st.Type), named("fstatfs", err)
}

// NamespaceOwner is NS_GET_USERNS: a descriptor of the user namespace that owns
// the namespace fd; the caller's to close. See ioctl_ns(2).
func NamespaceOwner(fd int) (int, error) { return ioctlFD("NS_GET_USERNS", fd, unix.NS_GET_USERNS) }

// NamespaceParent is NS_GET_PARENT, for pid and user namespaces.
func NamespaceParent(fd int) (int, error) { return ioctlFD("NS_GET_PARENT", fd, unix.NS_GET_PARENT) }

// NamespaceKind is NS_GET_NSTYPE: the CLONE_ flag of the namespace fd.
func NamespaceKind(fd int) (int, error) { return ioctlFD("NS_GET_NSTYPE", fd, unix.NS_GET_NSTYPE) }

func ioctlFD(name string, fd int, request uint) (int, error) {
	r, err := unix.IoctlRetInt(fd, request)
	return r, named(name, err)
}

// Thread is the number of the calling thread.
func Thread() int { return unix.Gettid() }

// Foreground reports whether this process's group is the foreground one of its
// controlling terminal, which then sends it the keyboard's signals.
func Foreground() bool {
	fd, err := OpenFile("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// OwnerOf is the user id that owns path, following links: stat(2).
func OwnerOf(path string) (uid uint32, err error) {
	var st unix.Stat_t
	err = retry(func() error { return unix.Stat(path, &st) })
	return st.Uid, onPath("stat", path, err)
}
