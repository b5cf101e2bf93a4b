// Package naming is the resolver of a store: the process that answers for names
// in all its containers.
//
//	takes    the documents of run/names, as package engine writes them
//	gives    Serve
//	touches  sockets in the containers' namespaces, through container/resolver
//	state    none: killed, it is started again and reads the documents
//
// The monitor starts it, with a socket and a lock: see package engine. Whoever
// starts a container writes its document and asks at the socket until the
// container is answered; who changes one just writes it. It ends when there have
// been no documents for a while. One goroutine at a time reads documents.
package naming

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kiste/container/resolver"
	"kiste/engine"
	"kiste/fault"
	"kiste/internal/sys"
)

const (
	linger = 500 * time.Millisecond // without documents
	settle = 5 * time.Millisecond   // between two looks at all of them
)

// A server is the process at work.
type server struct {
	e        *engine.Engine
	r        *resolver.Resolver
	listener *os.File
	changed  chan struct{} // documents, or whether they are void

	mu    sync.Mutex
	known map[string]document // by the container's id
}

// A document is what was read, and from which file.
type document struct {
	container resolver.Container
	file      fs.FileInfo
	err       error // it cannot be answered
}

// Serve is the resolver. It expects descriptors of who has started it, and
// returns when no container has names any more, or with ctx.
func Serve(ctx context.Context, e *engine.Engine) error {
	listener, err := sys.Watched(engine.ResolverSocketFD, "resolver")
	if err != nil {
		return &fault.Error{Op: "be the resolver", Kind: fault.Invalid, Err: err, Hint: "the monitor starts it where it needs one"}
	}
	sys.CloseOnExec(engine.ResolverSocketFD)
	sys.CloseOnExec(engine.ResolverLockFD)
	watch, err := sys.NewWatch()
	if err != nil {
		return err
	}
	defer watch.Close()
	if err := errors.Join(os.MkdirAll(e.Store.Names(), 0o700), watch.Add(e.Store.Names(), unix.IN_MOVED_TO|unix.IN_DELETE)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { watch.Close() })()
	s := &server{e: e, listener: listener, changed: make(chan struct{}, 1), known: map[string]document{}}
	s.r = resolver.New(resolver.Options{Ended: s.ended})
	defer s.r.Close()
	defer listener.Close()
	_ = s.look("")
	go s.accept()
	return s.follow(watch)
}

// follow looks at the documents whenever one has changed.
func (s *server) follow(watch *sys.Watch) error {
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
func (s *server) poke() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *server) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.known {
		if d.err == nil {
			return false
		}
	}
	return true
}

// ended forgets a container whose process has ended, before its document goes.
func (s *server) ended(c resolver.Container) {
	s.mu.Lock()
	if d := s.known[c.ID]; d.container.Process == c.Process {
		d.err = noProcess(c.ID)
		s.known[c.ID] = d
	}
	s.mu.Unlock()
	s.poke()
}

func noProcess(id string) error {
	return &fault.Error{Op: "answer for names in container", On: id, Kind: fault.NotFound, Err: os.ErrProcessDone}
}

func (s *server) accept() {
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
		go engine.AnswerNames(stream, s.look)
	}
}

// look reads the documents, or only that of one container, and lets the resolver
// know. It tells why that container cannot be answered; nil: it is.
func (s *server) look(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == "" {
		s.readAll()
	} else {
		s.read(id)
	}
	var all []resolver.Container
	for _, id := range slices.Sorted(maps.Keys(s.known)) {
		if d := s.known[id]; d.err == nil {
			all = append(all, d.container)
		}
	}
	for id, err := range s.r.Set(all) {
		d := s.known[id]
		d.err = err
		s.known[id] = d
	}
	if d, ok := s.known[id]; ok || id == "" {
		return d.err
	}
	return noProcess(id)
}

func (s *server) readAll() {
	ids, err := s.e.NamedIDs()
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
func (s *server) read(id string) {
	path := s.e.NameDocument(id)
	file, err := os.Lstat(path)
	if err != nil {
		delete(s.known, id)
		return
	}
	if was, ok := s.known[id]; ok && os.SameFile(was.file, file) && was.file.ModTime().Equal(file.ModTime()) {
		return
	}
	d := document{file: file}
	n, err := s.e.Named(id)
	if err == nil {
		d.container, err = translate(n)
	}
	d.err = err
	s.known[id] = d
}

// translate makes a document the resolver's.
func translate(n *engine.Named) (resolver.Container, error) {
	c := resolver.Container{ID: n.ID, Process: n.Process, Closed: n.Closed, Qualified: n.Qualified}
	var err error
	if c.Servers, err = parsed(n.Servers, netip.ParseAddr); err != nil {
		return c, err
	}
	for _, p := range n.Places {
		a := resolver.Attachment{Network: p.Network, Name: p.Name, Names: p.Names}
		var err1, err2 error
		a.Addresses, err1 = parsed(p.Addresses, netip.ParseAddr)
		a.Subnets, err2 = parsed(p.Subnets, netip.ParsePrefix)
		if err := errors.Join(err1, err2); err != nil {
			return c, err
		}
		c.Attachments = append(c.Attachments, a)
	}
	return c, nil
}

func parsed[T any](texts []string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for _, t := range texts {
		v, err := parse(t)
		if err != nil {
			return nil, &fault.Error{Op: "read what the resolver is told", Kind: fault.Invalid, Err: err}
		}
		out = append(out, v)
	}
	return out, nil
}
