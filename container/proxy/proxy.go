package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"kiste/fault"
)

// A Port is one of the host's.
type Port struct {
	Protocol string     // "tcp", "udp"
	Host     netip.Addr // invalid: all, of both versions of IP
	HostPort uint16

	// To is where it leads. Without an address the Dialer knows that; the zero
	// value is nowhere: it stays taken, and who comes is turned away.
	To netip.AddrPort
}

func (p Port) String() string {
	at := fmt.Sprint(p.HostPort)
	if p.Host.IsValid() {
		at = netip.AddrPortFrom(p.Host, p.HostPort).String()
	}
	return at + "/" + p.Protocol
}

// at is where the host listens, as package net has it.
func (p Port) at() string {
	if !p.Host.IsValid() {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), p.HostPort).String()
	}
	return netip.AddrPortFrom(p.Host, p.HostPort).String()
}

// version is that of IP in package net's words; empty: both.
func (p Port) version() string {
	switch {
	case !p.Host.IsValid():
		return ""
	case p.Host.Is4():
		return "4"
	}
	return "6"
}

// A Dialer reaches where ports lead, for a client of the host.
type Dialer interface {
	DialTCP(ctx context.Context, client, to netip.AddrPort) (Stream, error)
	DialUDP(client, to netip.AddrPort) (net.Conn, error)
}

// Direct is the Dialer that connects from this process's network: clients are
// seen as the host.
type Direct struct{}

// DialTCP is Dialer's.
func (Direct) DialTCP(ctx context.Context, _, to netip.AddrPort) (Stream, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// DialUDP is Dialer's.
func (Direct) DialUDP(_, to netip.AddrPort) (net.Conn, error) {
	return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
}

// Slots count what goes on at once: as many as it has room for.
type Slots chan struct{}

// Take takes one, if one is free.
func (s Slots) Take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// Give gives one back.
func (s Slots) Give() { <-s }

// Options are what a Proxy may use.
type Options struct {
	Dialer Dialer

	// Connections and Flows are for all ports together, and may be shared with
	// others; Each is how many of both one port may have.
	Connections, Flows Slots
	Each               int
}

// A Proxy listens on the host.
type Proxy struct {
	o Options

	mu    sync.Mutex
	ports map[Port]*port // by place
}

// New is a Proxy that listens nowhere yet.
func New(o Options) *Proxy { return &Proxy{o: o, ports: map[Port]*port{}} }

// place is what no two ports can share.
func (p Port) place() Port {
	p.To = netip.AddrPort{}
	return p
}

// Set makes these the ports that it listens at, and where they lead: those that
// are missing end, with all that goes through them. Those that cannot be had are in
// failed; the next Set tries again.
func (x *Proxy) Set(all []Port) (failed map[Port]error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	want := map[Port]bool{}
	for _, p := range all {
		want[p.place()] = true
	}
	for place, on := range x.ports {
		if !want[place] {
			on.close()
			delete(x.ports, place)
		}
	}
	failed, had := map[Port]error{}, map[Port]bool{}
	for _, p := range all {
		if err := x.set(p, had[p.place()]); err != nil {
			failed[p] = explain(p, err)
			continue
		}
		had[p.place()] = true
	}
	return failed
}

// set listens at p, unless it does; twice: another one is there already.
func (x *Proxy) set(p Port, twice bool) error {
	if twice {
		return syscall.EADDRINUSE
	}
	if on := x.ports[p.place()]; on != nil {
		on.lead(p.To)
		return nil
	}
	on, err := x.listen(p)
	if err == nil {
		x.ports[p.place()] = on
	}
	return err
}

// Close ends all.
func (x *Proxy) Close() { x.Set(nil) }

// explain adds what we know of a port that cannot be had.
func explain(p Port, err error) error {
	e := &fault.Error{Op: "publish port", On: p.String(), Err: err}
	switch {
	case errors.Is(err, syscall.EACCES):
		e.Kind, e.Hint = fault.Denied, "ports below net.ipv4.ip_unprivileged_port_start are root's: choose another one, or let root set that to "+strconv.Itoa(int(p.HostPort))
	case errors.Is(err, syscall.EADDRINUSE):
		e.Kind = fault.Conflict
	}
	return e
}

// listen begins to forward a port.
func (x *Proxy) listen(p Port) (*port, error) {
	on := &port{o: x.o, connections: make(Slots, x.o.Each), to: p.To, live: map[net.Conn]bool{}, flows: map[netip.AddrPort]*flow{}}
	if p.Protocol == "udp" {
		l, err := net.ListenPacket("udp"+p.version(), p.at())
		if err != nil {
			return nil, err
		}
		on.stop = l.Close
		go on.serveUDP(l.(*net.UDPConn))
		return on, nil
	}
	l, err := net.Listen("tcp"+p.version(), p.at())
	if err != nil {
		return nil, err
	}
	on.stop = l.Close
	go on.serveTCP(l)
	return on, nil
}

// A port is one that listens.
type port struct {
	o           Options
	connections Slots        // its own
	stop        func() error // listens no more

	mu    sync.Mutex
	over  bool
	to    netip.AddrPort
	live  map[net.Conn]bool        // ends of connections, and sockets of flows
	flows map[netip.AddrPort]*flow // by their clients
}

// lead lets the port lead elsewhere. Flows of datagrams, which have no end by
// which their clients would notice, begin anew.
func (p *port) lead(to netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to == to {
		return
	}
	p.to = to
	for _, f := range p.flows {
		f.inside.Close()
	}
	clear(p.flows)
}

// leads is where the port leads.
func (p *port) leads() netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.to
}

// close ends the port and all that goes through it.
func (p *port) close() {
	_ = p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	for c := range p.live {
		c.Close()
	}
}

// add lets connections end with the port; false: it has ended.
func (p *port) add(all ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return false
	}
	for _, c := range all {
		p.live[c] = true
	}
	return true
}

func (p *port) forget(all ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range all {
		delete(p.live, c)
	}
}

// crowded is how long a port rests that cannot accept: too many files are open,
// and others may be closed soon.
const crowded = 10 * time.Millisecond

// slowInside is how long the container may take to accept.
const slowInside = 30 * time.Second

func (p *port) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(crowded)
			continue
		case !p.take(p.o.Connections):
			reset(c.(*net.TCPConn))
			continue
		}
		go func() {
			defer p.give(p.o.Connections)
			p.admit(c.(*net.TCPConn))
		}()
	}
}

// take takes a slot of the port's own, and one of all.
func (p *port) take(all Slots) bool {
	if !p.connections.Take() {
		return false
	}
	if all.Take() {
		return true
	}
	p.connections.Give()
	return false
}

func (p *port) give(all Slots) {
	all.Give()
	p.connections.Give()
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

// admit connects a client with where the port leads. Who is refused there is
// reset.
func (p *port) admit(c *net.TCPConn) {
	to := p.leads()
	if to.Port() == 0 || !p.add(c) {
		reset(c)
		return
	}
	defer p.forget(c)
	ctx, cancel := context.WithTimeout(context.Background(), slowInside)
	inside, err := p.o.Dialer.DialTCP(ctx, c.RemoteAddr().(*net.TCPAddr).AddrPort(), to)
	cancel()
	if err != nil {
		reset(c)
		return
	}
	if !p.add(inside) {
		inside.Close()
		return
	}
	defer p.forget(inside)
	Join(c, inside)
}
