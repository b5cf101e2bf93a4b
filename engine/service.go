package engine

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

// A Service is a process of kisted that serves containers that run, one for the
// store. Of each container it is told by a document; the monitor starts it with the first
// and another when it is killed; it ends after the last. See package engine/serving.
type Service struct {
	Command string // the hidden command that becomes it
	name    string // of its files: a socket, and a lock that is held while it is there
	dir     func(store.Store) string
}

// The services, which the monitor keeps.
var (
	Resolver = &Service{"__resolver", "resolver", store.Store.Names}
	Proxy    = &Service{"__proxy", "proxy", store.Store.Proxied}
)

func services() []*Service { return []*Service{Resolver, Proxy} }

// Descriptors of a service, from who starts it: its socket, and the lock that
// says that there is one, which ends with it.
const (
	ServiceSocketFD = 3
	ServiceLockFD   = 4
)

func (e *Engine) serviceSocket(s *Service) string { return filepath.Join(e.Store.Run, s.name) }

func (e *Engine) serviceLock(s *Service) string { return filepath.Join(e.Store.Run, s.name+".lock") }

// A toldRequest asks a service to serve a container of which it is told.
type toldRequest struct{ ID string }

// A toldReply is its word on that.
type toldReply struct{ Error *failure }

// slowWord is how long who talks with a service may take for that.
const slowWord = 5 * time.Second

// Answer is a service's side of a stream: look tells why the container id is not
// served; nil: it is.
func Answer(stream *os.File, look func(id string) error) {
	defer stream.Close()
	_ = stream.SetDeadline(time.Now().Add(slowWord))
	var q toldRequest
	if receive(stream, &q) == nil {
		_ = send(stream, toldReply{toFailure(look(q.ID))})
	}
}

// announce tells a service of a container and waits until it is served. Where no
// such service is the monitor starts one.
func (e *Engine) announce(s *Service, id string, document any) error {
	if err := e.tell(s, id, document); err != nil {
		return err
	}
	var err error
	for range 20 {
		var stream *os.File
		if stream, err = e.dialService(s); err != nil {
			break
		}
		var word error
		if word, err = askService(stream, id); err == nil {
			return word
		}
	}
	return &fault.Error{Op: "ask the " + s.name, Kind: fault.Unavailable, Err: err, Hint: "see whether kisted is beside kiste, and " + e.Store.Run + " is not full"}
}

// askService asks a service what keeps it from serving a container; nil: nothing.
func askService(stream *os.File, id string) (word, err error) {
	defer stream.Close()
	_ = stream.SetDeadline(time.Now().Add(2 * slowWord))
	var r toldReply
	if err = send(stream, toldRequest{id}); err == nil {
		err = receive(stream, &r)
	}
	return r.Error.err(), err
}

// tell writes what a service is told, which it follows.
func (e *Engine) tell(s *Service, id string, document any) error {
	b, err := store.Encode(document)
	if err != nil {
		return err
	}
	path := e.Document(s, id)
	err = store.WriteBriefly(path, b)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(e.ServiceDir(s), 0o700); err == nil {
			err = store.WriteBriefly(path, b)
		}
	}
	return err
}

// untell lets a service forget a container.
func (e *Engine) untell(s *Service, id string) error { return os.Remove(e.Document(s, id)) }

// unserve lets all services forget a container. When it returns its ports are free.
func (e *Engine) unserve(id string) {
	_ = e.untell(Resolver, id)
	if e.untell(Proxy, id) != nil {
		return
	}
	if stream, err := sys.DialUnix(e.serviceSocket(Proxy)); err == nil { // else there is none
		_, _ = askService(stream, id)
	}
}

// ServiceDir is the directory of a service's documents.
func (e *Engine) ServiceDir(s *Service) string { return s.dir(e.Store) }

// Document is the file of what a service is told of a container.
func (e *Engine) Document(s *Service, id string) string { return filepath.Join(e.ServiceDir(s), id) }

// Told are the containers of which a service is told.
func (e *Engine) Told(s *Service) ([]string, error) { return idsIn(e.ServiceDir(s), 0) }

// told reports whether a service is told of a container.
func (e *Engine) told(s *Service, id string) bool {
	_, err := os.Lstat(e.Document(s, id))
	return err == nil
}

// dialService connects to a service, which is started where there is none. One that
// is about to end refuses, and no other is started before it has ended: that is
// waited for.
func (e *Engine) dialService(s *Service) (*os.File, error) {
	const pause, slowEnd = 5 * time.Millisecond, 20 * time.Second
	for end := time.Now().Add(slowEnd); ; time.Sleep(pause) {
		stream, err := sys.DialUnix(e.serviceSocket(s))
		if err == nil || errors.Is(err, syscall.EACCES) {
			return stream, err
		}
		if e.keepService == nil {
			e.nudge()
		} else if err := e.keepService(s); err != nil {
			return nil, err
		}
		if stream, err = sys.DialUnix(e.serviceSocket(s)); err == nil || time.Now().After(end) {
			return stream, err
		}
	}
}

// A serviceKeeper sees to it that there is a service as long as one is needed:
// the monitor has one of each.
type serviceKeeper struct {
	e *Engine
	s *Service

	mu       sync.Mutex
	child    *exec.Cmd // the service, if this process has started it
	watching bool
}

// keepServices lets this process be the one that keeps the services.
func (e *Engine) keepServices() (all map[*Service]*serviceKeeper) {
	all = map[*Service]*serviceKeeper{}
	for _, s := range services() {
		all[s] = &serviceKeeper{e: e, s: s}
	}
	e.keepService = func(s *Service) error { return all[s].keep() }
	return all
}

// keep starts the service unless one is there, and another when it ends while
// containers need it.
func (k *serviceKeeper) keep() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	l, err := store.TryLockFile(k.e.serviceLock(k.s), true)
	switch {
	case err == nil:
		if err := k.start(l); err != nil {
			_ = l.Unlock()
			return &fault.Error{Op: "start the " + k.s.name, Err: err}
		}
	case !errors.Is(err, fault.Conflict):
		return err
	}
	if !k.watching {
		k.watching = true
		go k.watch()
	}
	return nil
}

// keepIfNeeded is keep, if any container needs it.
func (k *serviceKeeper) keepIfNeeded() {
	if k.e.anyTold(k.s) {
		_ = k.keep()
	}
}

// anyTold reports whether a service is told of a container that runs.
func (e *Engine) anyTold(s *Service) bool {
	ids, _ := e.Told(s)
	return slices.ContainsFunc(ids, func(id string) bool {
		var d struct{ Process process.Identity }
		return store.ReadJSON(e.Document(s, id), &d) == nil && d.Process.Alive()
	})
}

// watch waits for the end of the service: its lock is free then.
func (k *serviceKeeper) watch() {
	for {
		l, err := store.LockFile(k.e.serviceLock(k.s), true)
		if err != nil || !k.next(l) {
			return
		}
	}
}

// next starts another service where one is needed.
func (k *serviceKeeper) next(l *store.Lock) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.e.anyTold(k.s) && k.start(l) == nil {
		return true
	}
	l.Unlock()
	k.reap()
	k.watching = false
	return false
}

// start starts the service and gives it the lock. Its socket is there before it
// is: who asks waits. With an error the lock is still the caller's.
func (k *serviceKeeper) start(l *store.Lock) error {
	k.reap()
	if k.e.Kisted == nil {
		return &fault.Error{Op: "find kisted", Kind: fault.NotFound}
	}
	program, err := k.e.Kisted()
	if err != nil {
		return err
	}
	if err := os.Remove(k.e.serviceSocket(k.s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := sys.ListenUnix(k.e.serviceSocket(k.s), 0o600)
	if err != nil {
		return err
	}
	defer listener.Close()
	cmd := exec.Command(program, k.s.Command)
	cmd.Dir, cmd.Env = "/", append(k.e.monitorEnv(), "GOGC=50", "GOMEMLIMIT=64MiB")
	cmd.ExtraFiles = []*os.File{listener, l.File()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	k.child = cmd
	return l.Leave()
}

// reap takes the end of a service that was started here, and has ended.
func (k *serviceKeeper) reap() {
	if k.child != nil {
		_ = k.child.Wait()
		k.child = nil
	}
}
