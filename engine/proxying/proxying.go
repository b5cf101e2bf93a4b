// Package proxying is the proxy of a store: the service that listens at those
// ports of the host that the kernel cannot lead into containers.
//
//	takes    the documents of run/proxied, as package engine writes them
//	gives    Serve
//	touches  sockets of the host, through container/proxy
//	state    connections, in memory: they end with the process
//
// How it is told and how long it lives is package engine/serving's. A container's
// ports are let go of when its process has ended, at the latest. One that
// somebody else has when the proxy is started again is tried again and again.
package proxying

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kiste/container/process"
	"kiste/container/proxy"
	"kiste/engine"
	"kiste/engine/serving"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

// How many connections, and flows of datagrams, there are at most: of all ports,
// and of one.
const most, mostOfOne = 8192, 2048

// patience is between two tries to have a port that somebody else has.
const patience = time.Second

// A Container is one with ports, as its document says.
type Container struct {
	ID      string
	Process process.Identity
	Ports   []proxy.Port
}

// A server is the process at work.
type server struct {
	proxy *proxy.Proxy
	ended func(id string, p process.Identity)

	mu      sync.Mutex
	watched map[process.Identity]*os.File // the pidfds of those that are served
	ports   []proxy.Port
	owners  map[proxy.Port]string // the containers' ids
	failed  map[proxy.Port]error
	again   bool // it is going to try again
}

// Serve is the proxy. It returns when no container has such ports any more, or with
// ctx.
func Serve(ctx context.Context, e *engine.Engine) error {
	if _, err := sys.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	x := &server{watched: map[process.Identity]*os.File{}}
	x.proxy = proxy.New(proxy.Options{Dialer: proxy.Direct{}, Connections: make(proxy.Slots, most), Flows: make(proxy.Slots, most), Each: mostOfOne})
	defer x.proxy.Close()
	read := func(id string) (Container, process.Identity, error) {
		p := &engine.Proxied{}
		if err := store.ReadJSON(e.Document(engine.Proxy, id), p); err != nil {
			return Container{}, process.Identity{}, err
		}
		c, err := translate(p)
		return c, p.Process, err
	}
	s, err := serving.New(e, engine.Proxy, serving.Options[Container]{Read: read, Set: x.set, Lacks: x.lacks})
	if err != nil {
		return err
	}
	x.ended = s.Ended
	return s.Run(ctx)
}

// set makes these the containers that are served. Those whose process has ended
// are in failed.
func (x *server) set(all []Container) (failed map[string]error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	failed = map[string]error{}
	live := map[process.Identity]bool{}
	x.ports, x.owners = nil, map[proxy.Port]string{}
	for _, c := range all {
		if err := x.watch(c); err != nil {
			failed[c.ID] = err
			continue
		}
		live[c.Process] = true
		for _, p := range c.Ports {
			x.ports, x.owners[p] = append(x.ports, p), c.ID
		}
	}
	for p, pidfd := range x.watched {
		if !live[p] {
			pidfd.Close()
			delete(x.watched, p)
		}
	}
	x.listen()
	return failed
}

// watch waits for the end of a container's process, unless somebody does. The
// caller has the lock.
func (x *server) watch(c Container) error {
	if x.watched[c.Process] != nil {
		return nil
	}
	fd, err := c.Process.Open()
	if err != nil {
		return err
	}
	pidfd, err := sys.Watched(fd, "container")
	if err != nil {
		sys.Close(fd)
		return err
	}
	x.watched[c.Process] = pidfd
	go func() {
		if sys.WaitPidfd(pidfd) == nil { // else it was closed before
			x.ended(c.ID, c.Process)
		}
	}()
	return nil
}

// listen has the proxy listen, and tries again where it cannot. The caller has
// the lock.
func (x *server) listen() {
	x.failed = x.proxy.Set(x.ports)
	if len(x.failed) == 0 || x.again {
		return
	}
	x.again = true
	time.AfterFunc(patience, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.again = false
		x.listen()
	})
}

// lacks tells which port of a container cannot be had; nil: all are.
func (x *server) lacks(id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for p, err := range x.failed {
		if x.owners[p] == id {
			return err
		}
	}
	return nil
}

// translate makes a document the proxy's.
func translate(p *engine.Proxied) (Container, error) {
	c := Container{ID: p.ID, Process: p.Process}
	for _, q := range p.Ports {
		port, err := translatePort(q)
		if err != nil {
			return c, &fault.Error{Op: "read what the proxy is told", Kind: fault.Invalid, Err: err}
		}
		c.Ports = append(c.Ports, port)
	}
	return c, nil
}

func translatePort(q engine.ProxiedPort) (p proxy.Port, err error) {
	p = proxy.Port{Protocol: q.Proto, HostPort: q.Host}
	if p.Host, err = netip.ParseAddr(q.IP); err != nil {
		return p, err
	}
	if q.Proto != "tcp" && q.Proto != "udp" || q.Host == 0 || q.Port == 0 {
		return p, errors.New("want tcp or udp, and ports from 1 to 65535")
	}
	if q.To == "" {
		return p, nil
	}
	to, err := netip.ParseAddr(q.To)
	p.To = netip.AddrPortFrom(to, q.Port)
	return p, err
}
