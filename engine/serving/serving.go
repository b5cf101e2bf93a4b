// Package serving is what the services of a store have in common: processes that
// serve containers that run, and are told of them by documents.
//
//	takes    a directory of documents, as package engine writes them; what reads and
//	         serves them
//	gives    Run
//	touches  that directory, and the socket at which others ask
//	state    none: who is killed is started again and reads the documents
//
// The monitor starts a service, with a socket and a lock: see package engine.
// Whoever starts a container writes its document and asks at the socket until the
// container is served; who changes one just writes it, or asks as well. A service ends when
// there have been no documents for a while. One goroutine at a time reads documents.
package serving

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kiste/container/process"
	"kiste/engine"
	"kiste/fault"
	"kiste/internal/sys"
)

const (
	linger = 500 * time.Millisecond // without documents
	settle = 5 * time.Millisecond   // between two looks at all of them
)

// Options say what a service does with containers, each a T.
type Options[T any] struct {
	// Read is what the document of a container says, and its process.
	Read func(id string) (T, process.Identity, error)

	// Set makes these the containers that are served. Those that cannot be are in
	// failed, by their ids, and are not served any more.
	Set func(all []T) (failed map[string]error)

	// Lacks tells what of a container that is served is not; nil: nothing is
	// ever missing.
	Lacks func(id string) error
}

// A Server is the process at work.
type Server[T any] struct {
	e        *engine.Engine
	s        *engine.Service
	o        Options[T]
	listener *os.File
	changed  chan struct{} // documents, or whether they are void

	mu    sync.Mutex
	known map[string]document[T] // by the container's id
}

// A document is what was read, and from which file.
type document[T any] struct {
	container T
	process   process.Identity
	file      fs.FileInfo
	err       error // it cannot be served
}

// New is the service s. It expects descriptors of who has started it.
func New[T any](e *engine.Engine, s *engine.Service, o Options[T]) (*Server[T], error) {
	listener, err := sys.Watched(engine.ServiceSocketFD, "service")
	if err != nil {
		return nil, &fault.Error{Op: "be a service", Kind: fault.Invalid, Err: err, Hint: "the monitor starts it where it needs one"}
	}
	sys.CloseOnExec(engine.ServiceSocketFD)
	sys.CloseOnExec(engine.ServiceLockFD)
	return &Server[T]{e: e, s: s, o: o, listener: listener, changed: make(chan struct{}, 1), known: map[string]document[T]{}}, nil
}

// Run serves, and returns when no container needs it any more, or with ctx.
func (s *Server[T]) Run(ctx context.Context) error {
	defer s.e.LeaveGroup()
	defer s.listener.Close()
	watch, err := sys.NewWatch()
	if err != nil {
		return err
	}
	defer watch.Close()
	dir := s.e.ServiceDir(s.s)
	if err := errors.Join(os.MkdirAll(dir, 0o700), watch.Add(dir, unix.IN_MOVED_TO|unix.IN_DELETE)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { watch.Close() })()
	_ = s.look("")
	go s.accept()
	return s.follow(watch)
}

// follow looks at the documents whenever one has changed.
func (s *Server[T]) follow(watch *sys.Watch) error {
	failed := make(chan error, 1)
	go func() {
		for {
			if err := watch.Wait(time.Time{}); err != nil {
				failed <- err
				return
			}
			s.poke()
			time.Sleep(settle)
		}
	}()
	for {
		var over <-chan time.Time
		if s.idle() {
			over = time.After(linger)
		}
		select {
		case err := <-failed:
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			return err
		case <-s.changed:
			_ = s.look("")
		case <-over:
			if _ = s.look(""); s.idle() {
				return nil
			}
		}
	}
}

// poke lets follow look.
func (s *Server[T]) poke() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *Server[T]) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.known {
		if d.err == nil {
			return false
		}
	}
	return true
}

// Ended forgets a container whose process has ended, before its document goes.
func (s *Server[T]) Ended(id string, p process.Identity) {
	s.mu.Lock()
	if d, ok := s.known[id]; ok && d.process == p {
		d.err = noProcess(id)
		s.known[id] = d
	}
	s.mu.Unlock()
	s.poke()
}

func noProcess(id string) error {
	return &fault.Error{Op: "serve container", On: id, Kind: fault.NotFound, Err: os.ErrProcessDone}
}

func (s *Server[T]) accept() {
	for {
		stream, uid, err := sys.Accept(s.listener)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			time.Sleep(settle)
			continue
		case uid != uint32(os.Geteuid()) && uid != 0:
			stream.Close()
			continue
		}
		go engine.Answer(stream, s.look)
	}
}

// look reads the documents, or only that of one container, and has them served.
// It tells why that container is not; nil: it is.
func (s *Server[T]) look(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == "" {
		s.readAll()
	} else {
		s.read(id)
	}
	var all []T
	for _, id := range slices.Sorted(maps.Keys(s.known)) {
		if d := s.known[id]; d.err == nil {
			all = append(all, d.container)
		}
	}
	for id, err := range s.o.Set(all) {
		d := s.known[id]
		d.err = err
		s.known[id] = d
	}
	d, ok := s.known[id]
	switch {
	case id == "":
		return nil
	case !ok:
		return noProcess(id)
	case d.err == nil && s.o.Lacks != nil:
		return s.o.Lacks(id)
	}
	return d.err
}

func (s *Server[T]) readAll() {
	ids, err := s.e.Told(s.s)
	if err != nil {
		return
	}
	there := map[string]bool{}
	for _, id := range ids {
		there[id] = true
		s.read(id)
	}
	for id := range s.known {
		if !there[id] {
			delete(s.known, id)
		}
	}
}

// read reads a document unless it is the one that was read before.
func (s *Server[T]) read(id string) {
	file, err := os.Lstat(s.e.Document(s.s, id))
	if err != nil {
		delete(s.known, id)
		return
	}
	if was, ok := s.known[id]; ok && os.SameFile(was.file, file) && was.file.ModTime().Equal(file.ModTime()) {
		return
	}
	d := document[T]{file: file}
	d.container, d.process, d.err = s.o.Read(id)
	s.known[id] = d
}
