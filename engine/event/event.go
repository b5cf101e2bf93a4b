// Package event tells what happens to containers, images and volumes: it is
// written down by whoever does it, and read by whoever wants to know.
//
//	takes    an Event
//	gives    events as they come, and those of the past
//	touches  lib/events/
//	state    two files: log, and log.1, which it was before
//
// No process stands between those who tell and those who listen. Who tells
// appends one line of JSON, in Docker's shape, with one write(2) to a file
// opened with O_APPEND, which is atomic. When the file has grown to its bound
// it takes the place of the one before. Who listens reads both, and is woken
// by inotify(7).
//
// Nothing waits for a listener, for a lock or for the disk: an event costs a
// few microseconds and is lost when it cannot be written, since what it tells
// of has happened all the same.
//
// All of the package is safe for concurrent use, also by several processes.
package event

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

// The types of what events are about.
const (
	Container = "container"
	Image     = "image"
	Volume    = "volume"
	Network   = "network"
)

// An Event is one thing that has happened, in the shape of Docker's messages:
// the Docker Engine API, GET /events.
type Event struct {
	Status   string `json:"status,omitempty"` // of containers and images: Action again
	ID       string `json:"id,omitempty"`     // of containers and images: Actor.ID again
	From     string `json:"from,omitempty"`   // of containers: the image
	Type     string
	Action   string // "start", "exec_create: sh"
	Actor    Actor
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`     // seconds since 1970
	TimeNano int64  `json:"timeNano"` // nanoseconds since 1970
}

// An Actor is what an event is about.
type Actor struct {
	ID         string
	Attributes map[string]string // its labels among them
}

// New is an event of now, whole.
func New(kind, action, id string, attributes map[string]string) Event {
	now := time.Now()
	if attributes == nil {
		attributes = map[string]string{}
	}
	e := Event{Type: kind, Action: action, Actor: Actor{id, attributes}, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano()}
	switch kind {
	case Container:
		e.Status, e.ID, e.From = action, id, attributes["image"]
	case Image:
		e.Status, e.ID = action, id
	}
	return e
}

const (
	// maxLine is the longest line, its end included.
	maxLine = 256 << 10

	// maxFile is the size at which a file has had its last line: some
	// thousand events.
	maxFile = 4 << 20
)

func logFile(s store.Store) string { return filepath.Join(s.Events(), "log") }

func olderFile(s store.Store) string { return filepath.Join(s.Events(), "log.1") }

// Append writes e down. A store that has had no event yet is made ready for
// them. An event of more than 256 KiB is fault.Invalid.
func Append(s store.Store, e Event) error {
	line, err := store.Encode(e)
	if err == nil && len(line) >= maxLine {
		err = fmt.Errorf("it has %d bytes", len(line))
	}
	if err != nil {
		return &fault.Error{Op: "write event", On: e.Action, Kind: fault.Invalid, Err: err}
	}
	f, err := openLog(s)
	if err != nil {
		return &fault.Error{Op: "write event", On: e.Action, Err: err}
	}
	defer f.Close()
	if _, err = f.Write(append(line, '\n')); err != nil {
		return &fault.Error{Op: "write event", On: e.Action, Err: err}
	}
	if end, err := f.Seek(0, io.SeekCurrent); err == nil && end >= maxFile {
		rotate(s, f)
	}
	return nil
}

func openLog(s store.Store) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_APPEND | os.O_CREATE
	f, err := sys.OpenPlain(logFile(s), flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.Events(), 0o700); err != nil {
			return nil, err
		}
		return sys.OpenPlain(logFile(s), flags, 0o600)
	}
	return f, err
}

// rotate makes f, if it still is the log, the older file. Of several who want
// to, one does; a failure is made good by who comes next.
func rotate(s store.Store, f *os.File) {
	const exclusiveTry = 2 | 4 // LOCK_EX, LOCK_NB
	if sys.Flock(f, exclusiveTry) == nil && isAt(f, logFile(s)) {
		_ = sys.Rename(logFile(s), olderFile(s))
	}
}

// isAt reports whether path names the file f.
func isAt(f *os.File, path string) bool {
	held, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(held, named)
}
