package engine

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"kiste/container/monitor"
)

// finish is Engine.finish of a monitor: it remembers an end that cannot be written
// down, and has that tried again.
func (s *supervisor) finish(c *Container, end monitor.End) error {
	err := s.e.finish(c, end)
	s.mu.Lock()
	delete(s.unwritten, c.ID)
	if err != nil {
		s.unwritten[c.ID] = end
	}
	s.mu.Unlock()
	if err != nil || c.aside != "" {
		s.lookLater()
	}
	return err
}

// knownEnd is the end that could not be written down before, or end.
func (s *supervisor) knownEnd(id string, end monitor.End) (_ monitor.End, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was, ok := s.unwritten[id]; ok {
		return was, true
	}
	return end, false
}

// Of the pauses between two tries to write down what could not be written.
const (
	firstRetry = time.Second
	lastRetry  = 10 * time.Second
)

// lookLater looks again after a while, and goes on until nothing is left that
// could not be written. As long as it does the monitor stays.
func (s *supervisor) lookLater() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retrying {
		return
	}
	s.retrying = true
	s.busy++
	go func() {
		defer s.work(-1)
		for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
			time.Sleep(pause)
			if s.look(); !s.stillUnwritten() {
				return
			}
		}
	}()
}

// stillUnwritten reports whether there is anything to try again; if not nobody
// is trying any more.
func (s *supervisor) stillUnwritten() bool {
	aside := s.anyAside()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.unwritten {
		if s.e.gone(id) {
			delete(s.unwritten, id)
		}
	}
	s.retrying = aside || len(s.unwritten) > 0
	return s.retrying
}

func (s *supervisor) anyAside() bool {
	ids, err := s.e.ids()
	if err != nil {
		return true
	}
	for _, id := range ids {
		file, err := s.e.aside(id)
		if err != nil {
			continue
		}
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// logLost writes down that parts of a container's log are lost.
func (s *supervisor) logLost(id string, why error) {
	text := "since " + time.Now().Format(time.RFC3339) + ": " + cause(why).Error()
	s.work(1)
	go func() { // whoever holds the container's lock may wait for this output
		defer s.work(-1)
		_ = s.e.change(id, func(c *Container) error {
			c.State.LogLost = text
			return nil
		})
		if s.anyAside() {
			s.lookLater()
		}
	}()
}

// cause is what the kernel said, without the path of a file that is no matter
// of the person's.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
