package resolver

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"kiste/container/process"
)

// Options are how to resolve. The zero value is right.
type Options struct {
	// Ended hears of a container whose process has ended, which is not answered
	// any more. Nil: nobody does.
	Ended func(Container)

	// HostConf is the host's resolv.conf, ResolvedConf the one where
	// systemd-resolved names its servers. Empty: the usual.
	HostConf, ResolvedConf string

	// Port is where servers are asked. Zero: 53.
	Port uint16
}

// A Resolver answers containers.
type Resolver struct {
	o         Options
	hosts     hostServers
	traveller *traveller
	slots     chan struct{}
	book      atomic.Pointer[book]

	mu       sync.Mutex
	services map[string]*service // by the container's id
}

// New is a Resolver that answers nobody yet.
func New(o Options) *Resolver {
	if o.HostConf == "" {
		o.HostConf = "/etc/resolv.conf"
	}
	if o.ResolvedConf == "" {
		o.ResolvedConf = "/run/systemd/resolve/resolv.conf"
	}
	if o.Port == 0 {
		o.Port = dnsPort
	}
	r := &Resolver{o: o, traveller: newTraveller(), slots: make(chan struct{}, underWayAll), services: map[string]*service{}}
	r.hosts = hostServers{path: o.HostConf, resolved: o.ResolvedConf, hasTried: map[netip.Addr]time.Time{}}
	r.book.Store(&book{})
	return r
}

// Set makes these the containers that are answered and found: those that are new,
// or run anew, get their sockets, those that are missing lose them. When it
// returns all that could be bound is, and the others are in failed, by their
// ids.
func (r *Resolver) Set(all []Container) (failed map[string]error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := write(all)
	r.book.Store(&b)
	failed = map[string]error{}
	there := map[string]process.Identity{}
	for _, c := range all {
		there[c.ID] = c.Process
	}
	for id, s := range r.services {
		if p, ok := there[id]; !ok || p != s.container.Load().Process {
			s.close()
			delete(r.services, id)
		}
	}
	for _, c := range all {
		if s := r.services[c.ID]; s != nil {
			s.container.Store(&c)
			continue
		}
		s, err := r.serve(c)
		if err != nil {
			failed[c.ID] = err
			continue
		}
		r.services[c.ID] = s
	}
	return failed
}

// Close ends all.
func (r *Resolver) Close() {
	r.Set(nil)
	r.traveller.close()
}
