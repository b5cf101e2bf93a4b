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

// ResolverCommand is the hidden command that becomes the resolver: see package
// engine/naming.
const ResolverCommand = "__resolver"

// Descriptors of the resolver, from who starts it: its socket, and the lock that
// says that there is one, which ends with it.
const (
	ResolverSocketFD = 3
	ResolverLockFD   = 4
)

func (e *Engine) resolverSocket() string { return filepath.Join(e.Store.Run, "resolver") }

func (e *Engine) resolverLock() string { return filepath.Join(e.Store.Run, "resolver.lock") }

// A Named is a container that runs, as the resolver is told of it: one document
// in the directory of names. It is void when the process has ended.
type Named struct {
	ID        string
	Process   process.Identity
	Places    []Place
	Servers   []string // its own; none: the host's
	Closed    bool     // nothing is asked outside
	Qualified bool     // its names of one label are not asked outside
}

// A Place is where a container is found, and finds others.
type Place struct {
	Network   string // its id
	Name      string
	Subnets   []string
	Names     []string // the container's own first; none: no names here
	Addresses []string
}

// A nameRequest asks the resolver to answer a container of which it is told.
type nameRequest struct{ ID string }

// A nameReply is its word on that.
type nameReply struct{ Error *failure }

// slowNames is how long who talks of names may take for that.
const slowNames = 5 * time.Second

// AnswerNames is the resolver's side of a stream: look tells why the container id
// is not answered; nil: it is.
func AnswerNames(stream *os.File, look func(id string) error) {
	defer stream.Close()
	_ = stream.SetDeadline(time.Now().Add(slowNames))
	var q nameRequest
	if receive(stream, &q) == nil {
		_ = send(stream, nameReply{toFailure(look(q.ID))})
	}
}

// announce tells the resolver of a container and waits until it is answered.
// Where no resolver is the monitor starts one.
func (e *Engine) announce(n *Named) error {
	if err := e.tell(n); err != nil {
		return err
	}
	var err error
	for range 20 {
		var stream *os.File
		if stream, err = e.dialResolver(); err != nil {
			break
		}
		_ = stream.SetDeadline(time.Now().Add(2 * slowNames))
		var r nameReply
		if err = send(stream, nameRequest{n.ID}); err == nil {
			err = receive(stream, &r)
		}
		stream.Close()
		if err == nil {
			return r.Error.err()
		}
	}
	return &fault.Error{Op: "ask the resolver", Kind: fault.Unavailable, Err: err, Hint: "see whether kisted is beside kiste, and " + e.Store.Run + " is not full"}
}

// tell writes what the resolver is told, which it follows.
func (e *Engine) tell(n *Named) error {
	b, err := store.Encode(n)
	if err != nil {
		return err
	}
	path := e.NameDocument(n.ID)
	err = store.WriteBriefly(path, b)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(e.Store.Names(), 0o700); err == nil {
			err = store.WriteBriefly(path, b)
		}
	}
	return err
}

// unname forgets a container's names.
func (e *Engine) unname(id string) { _ = os.Remove(e.NameDocument(id)) }

// NameDocument is the file of what the resolver is told of a container.
func (e *Engine) NameDocument(id string) string { return filepath.Join(e.Store.Names(), id) }

// Named is what the resolver is told of a container.
func (e *Engine) Named(id string) (*Named, error) {
	n := &Named{}
	return n, store.ReadJSON(e.NameDocument(id), n)
}

// NamedIDs are the containers of which the resolver is told.
func (e *Engine) NamedIDs() ([]string, error) { return idsIn(e.Store.Names(), 0) }

// dialResolver connects to the resolver, which is started where there is none. One
// that is about to end refuses, and no other is started before it has ended: that
// is waited for.
func (e *Engine) dialResolver() (*os.File, error) {
	const pause = 5 * time.Millisecond
	for end := time.Now().Add(slowNames); ; time.Sleep(pause) {
		stream, err := sys.DialUnix(e.resolverSocket())
		if err == nil || errors.Is(err, syscall.EACCES) {
			return stream, err
		}
		if e.keepNames == nil {
			e.nudge()
		} else if err := e.keepNames(); err != nil {
			return nil, err
		}
		if stream, err = sys.DialUnix(e.resolverSocket()); err == nil || time.Now().After(end) {
			return stream, err
		}
	}
}

// A nameKeeper sees to it that there is a resolver as long as one is needed: the
// monitor has one.
type nameKeeper struct {
	e *Engine

	mu       sync.Mutex
	child    *exec.Cmd // the resolver, if this process has started it
	watching bool
}

// keep starts the resolver unless one is there, and another when it ends while
// containers have names.
func (k *nameKeeper) keep() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	l, err := store.TryLockFile(k.e.resolverLock(), true)
	switch {
	case err == nil:
		if err := k.start(l); err != nil {
			return &fault.Error{Op: "start the resolver", Err: err}
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

// keepIfNeeded is keep, if any container has names.
func (k *nameKeeper) keepIfNeeded() {
	if k.e.anyNamed() {
		_ = k.keep()
	}
}

// anyNamed reports whether a container that runs has names.
func (e *Engine) anyNamed() bool {
	ids, _ := e.NamedIDs()
	return slices.ContainsFunc(ids, func(id string) bool {
		n, err := e.Named(id)
		return err == nil && n.Process.Alive()
	})
}

// watch waits for the end of the resolver: its lock is free then.
func (k *nameKeeper) watch() {
	for {
		l, err := store.LockFile(k.e.resolverLock(), true)
		if err != nil || !k.next(l) {
			return
		}
	}
}

// next starts another resolver where one is needed.
func (k *nameKeeper) next(l *store.Lock) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.e.anyNamed() && k.start(l) == nil {
		return true
	}
	l.Unlock()
	k.reap()
	k.watching = false
	return false
}

// start starts the resolver and gives it the lock. Its socket is there before it
// is: who asks waits.
func (k *nameKeeper) start(l *store.Lock) error {
	defer l.Unlock()
	k.reap()
	if k.e.Kisted == nil {
		return &fault.Error{Op: "find kisted", Kind: fault.NotFound}
	}
	program, err := k.e.Kisted()
	if err != nil {
		return err
	}
	if err := os.Remove(k.e.resolverSocket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := sys.ListenUnix(k.e.resolverSocket(), 0o600)
	if err != nil {
		return err
	}
	defer listener.Close()
	cmd := exec.Command(program, ResolverCommand)
	cmd.Dir, cmd.Env = "/", append(k.e.monitorEnv(), "GOGC=50", "GOMEMLIMIT=64MiB")
	cmd.ExtraFiles = []*os.File{listener, l.File()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	k.child = cmd
	return nil
}

// reap takes the end of a resolver that was started here, and has ended.
func (k *nameKeeper) reap() {
	if k.child != nil {
		_ = k.child.Wait()
		k.child = nil
	}
}
