package sys

import (
	"errors"
	"io/fs"
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

// Package os asks of each file that it opens whether it can be polled: five
// calls, and the poller with the first of them. These three are for files and
// directories on disk, in procfs, sysfs and cgroupfs, which cannot.

// OpenPlain is os.OpenFile.
func OpenPlain(path string, flags int, mode fs.FileMode) (*os.File, error) {
	fd, err := retryFD(func() (int, error) { return unix.Open(path, flags|unix.O_CLOEXEC, uint32(mode.Perm())) })
	if err != nil {
		return nil, onPath("open", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// ReadFile reads at most limit bytes of the file path.
func ReadFile(path string, limit int) ([]byte, error) { return ReadFileTo(nil, path, limit) }

// ReadFileTo is ReadFile into the room of b, as far as it goes: for who reads many
// files, and each only once.
func ReadFileTo(b []byte, path string, limit int) ([]byte, error) {
	fd, err := OpenFile(path, unix.O_RDONLY|unix.O_NOCTTY)
	if err != nil {
		return b[:0], err
	}
	defer unix.Close(fd)
	b, err = readAll(b[:0], fd, limit, false)
	return b, onPath("read", path, err)
}

// readAll reads at most limit bytes from fd up to its end: from its start, or
// from where it stands. It appends them to b, which is empty and may have room.
func readAll(b []byte, fd, limit int, fromStart bool) ([]byte, error) {
	// Most files are small, and this page is there already.
	var page [4096]byte
	for len(b) < limit {
		to := page[:]
		if cap(b)-len(b) >= len(page) {
			to = b[len(b):cap(b)]
		}
		to = to[:min(len(to), limit-len(b))]
		var n int
		var err error
		if fromStart {
			n, err = unix.Pread(fd, to, int64(len(b)))
		} else {
			n, err = unix.Read(fd, to)
		}
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return b[:0], err
		case n == 0:
			return b, nil
		}
		b = append(b, to[:n]...)
	}
	return b, nil
}

// WriteFile is os.WriteFile.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	f, err := OpenPlain(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// Rename is rename(2).
func Rename(from, to string) error {
	err := retry(func() error { return unix.Rename(from, to) })
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}

// Look is stat(2) for who only wants to know whether path is there, and whether
// it is a directory.
func Look(path string) (there, dir bool) {
	var st unix.Stat_t
	base, name := from(path)
	for {
		if err := unix.Fstatat(base, name, &st, 0); err != unix.EINTR {
			return err == nil, err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
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
