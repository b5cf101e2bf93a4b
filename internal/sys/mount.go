package sys

import (
	"golang.org/x/sys/unix"
)

// Mount is mount(2). Flags are unix.MS_ bits, kept as a plain integer so
// that callers need not import x/sys.
func Mount(source, target, fstype string, flags uintptr, data string) error {
	return onPath("mount", target, retry(func() error { return unix.Mount(source, target, fstype, flags, data) }))
}

// Unmount is umount2(2). Flags are unix.MNT_ and unix.UMOUNT_ bits.
func Unmount(target string, flags int) error {
	return onPath("umount", target, retry(func() error { return unix.Unmount(target, flags) }))
}

// OpenTree is open_tree(2). Flags are unix.OPEN_TREE_ and unix.AT_ bits. The
// descriptor is the caller's to close.
func OpenTree(dirfd int, path string, flags uint) (int, error) {
	dir, name := dirfd, path
	if dirfd == unix.AT_FDCWD {
		dir, name = from(path)
	}
	fd, err := retryFD(func() (int, error) { return unix.OpenTree(dir, name, flags|unix.OPEN_TREE_CLOEXEC) })
	return fd, onPath("open_tree", path, err)
}

// MoveMount is move_mount(2). Flags are unix.MOVE_MOUNT_ bits.
func MoveMount(fromFD int, from string, toFD int, to string, flags int) error {
	return onPath("move_mount", to, retry(func() error { return unix.MoveMount(fromFD, from, toFD, to, flags) }))
}

// MountSetattr is mount_setattr(2). Flags are unix.AT_ bits.
func MountSetattr(dirfd int, path string, flags uint, attr *unix.MountAttr) error {
	return onPath("mount_setattr", path, retry(func() error { return unix.MountSetattr(dirfd, path, flags, attr) }))
}

// Fsopen is fsopen(2). The descriptor is the caller's to close.
func Fsopen(fstype string) (int, error) {
	fd, err := retryFD(func() (int, error) { return unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC) })
	return fd, onPath("fsopen", fstype, err)
}

// FsconfigString is fsconfig(2) with FSCONFIG_SET_STRING.
func FsconfigString(fd int, key, value string) error {
	return onPath("fsconfig", key+"="+value, unix.FsconfigSetString(fd, key, value))
}

// FsconfigFlag is fsconfig(2) with FSCONFIG_SET_FLAG.
func FsconfigFlag(fd int, key string) error {
	return onPath("fsconfig", key, unix.FsconfigSetFlag(fd, key))
}

// FsconfigFD is fsconfig(2) with FSCONFIG_SET_FD; overlay takes layers so
// since Linux 6.13.
func FsconfigFD(fd int, key string, value int) error {
	return onPath("fsconfig", key, unix.FsconfigSetFd(fd, key, value))
}

// FsconfigCreate is fsconfig(2) with FSCONFIG_CMD_CREATE.
func FsconfigCreate(fd int) error { return named("fsconfig create", unix.FsconfigCreate(fd)) }

// Fsmount is fsmount(2). Attrs are unix.MOUNT_ATTR_ bits. The descriptor of
// the detached mount is the caller's to close.
func Fsmount(fd int, attrs int) (int, error) {
	m, err := retryFD(func() (int, error) { return unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attrs) })
	return m, named("fsmount", err)
}

// MountID is the number of the mount that path leads to below dirfd, an empty one
// dirfd itself: since Linux 6.8 one that no mount gets again.
func MountID(dirfd int, path string) (uint64, error) {
	const unique = 0x4000 // STATX_MNT_ID_UNIQUE of statx(2)
	var st unix.Statx_t
	err := retry(func() error {
		return unix.Statx(dirfd, path, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID|unique, &st)
	})
	return st.Mnt_id, onPath("statx", path, err)
}

// PivotRoot is pivot_root(2).
func PivotRoot(newRoot, putOld string) error {
	return onPath("pivot_root", newRoot, unix.PivotRoot(newRoot, putOld))
}
