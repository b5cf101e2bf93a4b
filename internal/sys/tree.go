package sys

import (
	"strings"

	"golang.org/x/sys/unix"
)

// The calls by which a tree of files is written and read, relative to
// descriptors of directories.

// OpenAt is openat(2). Flags are unix.O_ bits; O_CLOEXEC is added. The
// descriptor is the caller's to close.
func OpenAt(dirfd int, name string, flags int, mode uint32) (int, error) {
	fd, err := retryFD(func() (int, error) { return unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, mode) })
	return fd, onPath("openat", name, err)
}

// MkdirAt is mkdirat(2).
func MkdirAt(dirfd int, name string, mode uint32) error {
	return onPath("mkdirat", name, retry(func() error { return unix.Mkdirat(dirfd, name, mode) }))
}

// MknodAt is mknodat(2). Mode has the type: unix.S_IFCHR and so on.
func MknodAt(dirfd int, name string, mode uint32, dev uint64) error {
	return onPath("mknodat", name, retry(func() error { return unix.Mknodat(dirfd, name, mode, int(dev)) }))
}

// Mkfifo is mkfifo(3).
func Mkfifo(path string, mode uint32) error {
	return onPath("mkfifo", path, retry(func() error { return unix.Mkfifo(path, mode) }))
}

// SymlinkAt is symlinkat(2).
func SymlinkAt(target string, dirfd int, name string) error {
	return onPath("symlinkat", name, retry(func() error { return unix.Symlinkat(target, dirfd, name) }))
}

// LinkAt is linkat(2). Flags are unix.AT_ bits; without AT_SYMLINK_FOLLOW a
// symbolic link is itself linked.
func LinkAt(olddirfd int, old string, newdirfd int, name string, flags int) error {
	return onPath("linkat", name, retry(func() error { return unix.Linkat(olddirfd, old, newdirfd, name, flags) }))
}

// UnlinkAt is unlinkat(2). Flags: unix.AT_REMOVEDIR or none.
func UnlinkAt(dirfd int, name string, flags int) error {
	return onPath("unlinkat", name, retry(func() error { return unix.Unlinkat(dirfd, name, flags) }))
}

// ReadlinkAt is readlinkat(2); with an empty name that of the link that dirfd
// was opened on.
func ReadlinkAt(dirfd int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := retryFD(func() (int, error) { return unix.Readlinkat(dirfd, name, buf) })
	if err != nil {
		return "", onPath("readlinkat", name, err)
	}
	return string(buf[:n]), nil
}

// StatAt is fstatat(2), of the link where name is one; with an empty name of
// dirfd itself.
func StatAt(dirfd int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := retry(func() error {
		return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	})
	return st, onPath("fstatat", name, err)
}

// ChownAt is fchownat(2), of the link where name is one.
func ChownAt(dirfd int, name string, uid, gid int) error {
	return onPath("fchownat", name, retry(func() error {
		return unix.Fchownat(dirfd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	}))
}

// Fchmod is fchmod(2).
func Fchmod(fd int, mode uint32) error {
	return named("fchmod", retry(func() error { return unix.Fchmod(fd, mode) }))
}

// ChmodAt is fchmodat(2), which follows a symbolic link: name must not be one.
func ChmodAt(dirfd int, name string, mode uint32) error {
	return onPath("fchmodat", name, retry(func() error { return unix.Fchmodat(dirfd, name, mode, 0) }))
}

// Utimens is utimensat(2), of the link where name is one; with an empty name
// of dirfd itself.
func Utimens(dirfd int, name string, access, modify unix.Timespec) error {
	times := []unix.Timespec{access, modify}
	return onPath("utimensat", name, retry(func() error {
		return unix.UtimesNanoAt(dirfd, name, times, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	}))
}

// Write is write(2): it may write less than all of p.
func Write(fd int, p []byte) (int, error) {
	n, err := retryFD(func() (int, error) { return unix.Write(fd, p) })
	return n, named("write", err)
}

// Read is read(2): 0 at the end.
func Read(fd int, p []byte) (int, error) {
	n, err := retryFD(func() (int, error) { return unix.Read(fd, p) })
	return n, named("read", err)
}

// Ftruncate is ftruncate(2).
func Ftruncate(fd int, size int64) error {
	return named("ftruncate", retry(func() error { return unix.Ftruncate(fd, size) }))
}

// Seek is lseek(2).
func Seek(fd int, offset int64, whence int) (int64, error) {
	n, err := unix.Seek(fd, offset, whence)
	return n, named("lseek", err)
}

// SetXattr sets an extended attribute of name in dirfd, of the link where name
// is one. There is no call for it before Linux 6.13, so it goes through the
// descriptor's name in /proc. dirfd must be a directory.
func SetXattr(dirfd int, name, attr string, value []byte) error {
	path := FDPath(dirfd) + "/" + name
	return onPath("lsetxattr "+attr, name, retry(func() error { return unix.Lsetxattr(path, attr, value, 0) }))
}

// SetXattrFD sets an extended attribute of what fd, also one opened with O_PATH,
// stands for.
func SetXattrFD(fd int, attr string, value []byte) error {
	return named("setxattr "+attr, retry(func() error { return unix.Setxattr(FDPath(fd), attr, value, 0) }))
}

// GetXattrFD reads an extended attribute of at most 64 KiB of what fd, also
// one opened with O_PATH, stands for.
func GetXattrFD(fd int, attr string) ([]byte, error) {
	buf := make([]byte, 64)
	for {
		n, err := retryFD(func() (int, error) { return unix.Getxattr(FDPath(fd), attr, buf) })
		if err == unix.ERANGE && len(buf) < 64<<10 {
			buf = make([]byte, 64<<10)
			continue
		}
		if err != nil {
			return nil, named("getxattr "+attr, err)
		}
		return buf[:n], nil
	}
}

// ListXattrFD lists the names of the extended attributes, 64 KiB at most, of
// what fd, also one opened with O_PATH, stands for.
func ListXattrFD(fd int) ([]string, error) {
	buf := make([]byte, 256)
	for {
		n, err := retryFD(func() (int, error) { return unix.Listxattr(FDPath(fd), buf) })
		if err == unix.ERANGE && len(buf) < 64<<10 {
			buf = make([]byte, 64<<10)
			continue
		}
		if err != nil || n == 0 {
			return nil, named("listxattr", err)
		}
		return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
	}
}

// RenameNew is renameat2(2) that replaces nothing: fs.ErrExist.
func RenameNew(olddirfd int, old string, newdirfd int, name string) error {
	return onPath("renameat2", name, retry(func() error { return unix.Renameat2(olddirfd, old, newdirfd, name, unix.RENAME_NOREPLACE) }))
}

// Syncfs is syncfs(2).
func Syncfs(fd int) error { return named("syncfs", retry(func() error { return unix.Syncfs(fd) })) }

// Statfs is statfs(2).
func Statfs(path string) (unix.Statfs_t, error) {
	var st unix.Statfs_t
	if fd := at(path); fd >= 0 {
		return st, onPath("fstatfs", path, retry(func() error { return unix.Fstatfs(fd, &st) }))
	}
	return st, onPath("statfs", path, retry(func() error { return unix.Statfs(path, &st) }))
}

// Umask is umask(2); it is of the whole process.
func Umask(mask int) int { return unix.Umask(mask) }

// MakeDevice is makedev(3).
func MakeDevice(major, minor uint32) uint64 { return unix.Mkdev(major, minor) }
