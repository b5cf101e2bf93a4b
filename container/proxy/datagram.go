package proxy

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// How long a flow of datagrams may be idle: one that has seen an answer, and one
// that has not.
const IdleAnswered, IdleUnanswered = 3 * time.Minute, 30 * time.Second

// MaxDatagram is more bytes than fit into any.
const MaxDatagram = 64 << 10

// A flow is what goes between a client and where the port leads.
type flow struct {
	inside   net.Conn
	answered atomic.Bool
}

// last lets the flow last on.
func (f *flow) last() {
	idle := IdleUnanswered
	if f.answered.Load() {
		idle = IdleAnswered
	}
	_ = f.inside.SetReadDeadline(time.Now().Add(idle))
}

// serveUDP has a flow for each client of a port.
func (p *port) serveUDP(l *net.UDPConn) {
	buffer := make([]byte, MaxDatagram)
	for {
		n, from, err := l.ReadFromUDPAddrPort(buffer)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(crowded)
			continue
		}
		if f := p.flow(l, from); f != nil {
			f.last()
			_, _ = f.inside.Write(buffer[:n]) // one that is refused is lost, as any may be
		}
	}
}

// flow is that of a client; nil: it can have none.
func (p *port) flow(l *net.UDPConn, client netip.AddrPort) *flow {
	p.mu.Lock()
	f, to := p.flows[client], p.to
	p.mu.Unlock()
	if f != nil || to.Port() == 0 || !p.take(p.o.Flows) {
		return f
	}
	inside, err := p.o.Dialer.DialUDP(client, to)
	if err != nil {
		p.give(p.o.Flows)
		return nil
	}
	f = &flow{inside: inside}
	p.mu.Lock()
	stale := p.over || p.to != to
	if !stale {
		p.flows[client], p.live[inside] = f, true
	}
	p.mu.Unlock()
	if stale { // as any datagram that comes while it changes may be lost
		inside.Close()
		p.give(p.o.Flows)
		return nil
	}
	go func() {
		defer p.give(p.o.Flows)
		f.answer(l, client)
		p.end(client, f)
	}()
	return f
}

// answer sends a client of l what comes back, until the flow is idle.
func (f *flow) answer(l *net.UDPConn, client netip.AddrPort) {
	buffer := make([]byte, MaxDatagram)
	for {
		n, err := f.inside.Read(buffer)
		if err != nil {
			return
		}
		f.answered.Store(true)
		f.last()
		_, _ = l.WriteToUDPAddrPort(buffer[:n], client)
	}
}

func (p *port) end(client netip.AddrPort, f *flow) {
	p.mu.Lock()
	if p.flows[client] == f {
		delete(p.flows, client)
	}
	delete(p.live, f.inside)
	p.mu.Unlock()
	f.inside.Close()
}
