package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// OpenIn opens path below the directory dirfd with openat2(2) and
// RESOLVE_IN_ROOT: symbolic links, absolute ones too, and ".." stay inside, so
// that a hostile tree cannot lead out. Magic links are refused. Flags are
// unix.O_ bits; O_CLOEXEC is added. The descriptor is the caller's to close.
func OpenIn(dirfd int, path string, flags uint64, mode uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Mode:    mode,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(dirfd, path, &how)
		// EAGAIN: a rename raced with "..", says openat2(2): try again.
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, onPath("openat2", path, err)
		}
	}
}

// Close is close(2).
func Close(fd int) error { return named("close", unix.Close(fd)) }

// Flock is flock(2). How is unix.LOCK_SH, LOCK_EX, LOCK_UN, LOCK_NB.
func Flock(f *os.File, how int) error {
	return onPath("flock", f.Name(), retry(func() error { return unix.Flock(int(f.Fd()), how) }))
}

// Access reports whether path can be reached with the given unix.R_OK,
// W_OK, X_OK bits by the effective ids.
func Access(path string, mode uint32) error {
	return onPath("faccessat", path, unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS))
}

// Inherited reports whether fd is open and was there when this program began:
// what it opens itself is close-on-exec.
func Inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// Descriptor is f's number. The file keeps its mode, where Fd would make it
// block; f must outlive the use of the number.
func Descriptor(f *os.File) (fd int, err error) {
	err = onFile(f, func(n int) error { fd = n; return nil })
	return fd, err
}

// IsLink reports whether a descriptor of O_PATH is of a symbolic link.
func IsLink(fd int) (bool, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(fd, &st) })
	return st.Mode&unix.S_IFMT == unix.S_IFLNK, named("fstat", err)
}
