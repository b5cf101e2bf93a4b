package sys

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// onFile calls do with f's descriptor, which keeps its mode (Fd would make it
// block).
func onFile(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = retry(func() error { return do(int(fd)) }) }); err != nil {
		return err
	}
	return inner
}

// IsTerminal reports whether f is a terminal.
func IsTerminal(f *os.File) bool {
	return f != nil && onFile(f, func(fd int) error { _, err := unix.IoctlGetTermios(fd, unix.TCGETS); return err }) == nil
}

// MakeRaw puts the terminal f into raw mode, as cfmakeraw(3) has it, and
// returns what puts it back. With output, what is written to it is still
// processed: a line feed also returns the carriage.
func MakeRaw(f *os.File, output bool) (restore func() error, err error) {
	var old unix.Termios
	err = onFile(f, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		old = *t
		t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		if !output {
			t.Oflag &^= unix.OPOST
		}
		t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		return unix.IoctlSetTermios(fd, unix.TCSETS, t)
	})
	if err != nil {
		return nil, onPath("tcsetattr", f.Name(), err)
	}
	return func() error {
		return onPath("tcsetattr", f.Name(), onFile(f, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, &old) }))
	}, nil
}

// WindowSize is the terminal f's size in characters, by TIOCGWINSZ of
// ioctl_tty(2).
func WindowSize(f *os.File) (rows, columns uint16, err error) {
	err = onFile(f, func(fd int) error {
		w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			rows, columns = w.Row, w.Col
		}
		return err
	})
	return rows, columns, onPath("TIOCGWINSZ", f.Name(), err)
}

// SetWindowSize is TIOCSWINSZ of ioctl_tty(2). On a pty's master it also sends
// SIGWINCH to the other side.
func SetWindowSize(f *os.File, rows, columns uint16) error {
	return onPath("TIOCSWINSZ", f.Name(), onFile(f, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}))
}

// OpenPTY opens the master of a new pseudo-terminal of the devpts whose ptmx
// is at path ("/dev/ptmx" on the host), and unlocks it. See pty(7).
func OpenPTY(path string) (*os.File, error) {
	fd, err := retryFD(func() (int, error) {
		return unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return nil, onPath("open", path, err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(fd)
		return nil, onPath("TIOCSPTLCK", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// PTYPeer opens the other side of master by TIOCGPTPEER of ioctl_tty(2): by
// descriptor, so that no path can lead elsewhere (CVE-2025-52565).
func PTYPeer(master *os.File) (*os.File, error) {
	peer := -1
	err := onFile(master, func(fd int) error {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			return errno
		}
		peer = int(n)
		return nil
	})
	if err != nil {
		return nil, onPath("TIOCGPTPEER", master.Name(), err)
	}
	return os.NewFile(uintptr(peer), "pty"), nil
}

// WaitRead waits, by poll(2) and without end, until one of files can be read
// or has hung up, and reports which can. It does not change the files' modes,
// as the runtime's own poller would.
func WaitRead(files ...*os.File) ([]bool, error) {
	fds := make([]unix.PollFd, len(files))
	for i, f := range files {
		if err := onFile(f, func(fd int) error { fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}; return nil }); err != nil {
			return nil, err
		}
	}
	if _, err := retryFD(func() (int, error) { return unix.Poll(fds, -1) }); err != nil {
		return nil, named("poll", err)
	}
	ready := make([]bool, len(files))
	for i := range fds {
		ready[i] = fds[i].Revents != 0
	}
	return ready, nil
}

// Pipe is pipe2(2). Its ends are not known to the runtime's poller: reading
// blocks a thread.
func Pipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, named("pipe2", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// Poll waits until one of fds can be read or has hung up, and reports which.
// Negative ones are passed over. With wait false it only looks.
func Poll(wait bool, fds ...int) ([]bool, error) {
	if wait {
		return PollFor(-1, fds...)
	}
	return PollFor(0, fds...)
}

// PollFor is Poll that waits no longer than limit; a negative one is none.
func PollFor(limit time.Duration, fds ...int) ([]bool, error) {
	list := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		list[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	end := time.Now().Add(limit)
	_, err := retryFD(func() (int, error) {
		ms := -1
		if limit >= 0 {
			ms = int((max(0, time.Until(end)) + time.Millisecond - 1) / time.Millisecond)
		}
		return unix.Poll(list, ms)
	})
	if err != nil {
		return nil, named("poll", err)
	}
	ready := make([]bool, len(fds))
	for i := range list {
		ready[i] = list[i].Revents != 0
	}
	return ready, nil
}

// Memory is memfd_create(2): a file of that name with the given content, at
// whose beginning it stands.
func Memory(name string, content []byte) (*os.File, error) {
	fd, err := retryFD(func() (int, error) { return unix.MemfdCreate(name, unix.MFD_CLOEXEC) })
	if err != nil {
		return nil, named("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(content, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
