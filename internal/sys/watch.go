package sys

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Watch tells that files change: inotify(7). It says that something happened,
// not what: who waits looks at the files again. That way nothing is lost when
// the kernel's queue of events overflows.
type Watch struct{ f *os.File }

// NewWatch watches nothing yet.
func NewWatch() (*Watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, named("inotify_init1", err)
	}
	return &Watch{os.NewFile(uintptr(fd), "inotify")}, nil
}

// Add watches path for events of the mask: unix.IN_MODIFY and so on.
func (w *Watch) Add(path string, mask uint32) error {
	return onPath("inotify_add_watch", path, onFile(w.f, func(fd int) error {
		_, err := unix.InotifyAddWatch(fd, path, mask)
		return err
	}))
}

// Wait waits until something has happened since the last Wait, or the deadline
// (os.ErrDeadlineExceeded); the zero time is none. Close ends a Wait with
// os.ErrClosed.
func (w *Watch) Wait(deadline time.Time) error {
	if w.f.SetReadDeadline(deadline) != nil {
		return os.ErrClosed
	}
	var events [4096]byte
	_, err := w.f.Read(events[:])
	return err
}

// Close ends the watch. It may be called while another goroutine waits.
func (w *Watch) Close() error { return w.f.Close() }
