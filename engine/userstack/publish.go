package userstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"kiste/fault"
)

// Publish makes these the ports that are published: it listens on the host for
// those that are new, and no more for those that are missing, whose connections go
// on. Those that cannot be had are in failed.
func (s *Stack) Publish(all []Port) (failed map[Port]error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, end := range s.ports {
		if !slices.Contains(all, p) {
			_ = end()
			delete(s.ports, p)
		}
	}
	failed = map[Port]error{}
	for _, p := range all {
		if s.ports[p] != nil {
			continue
		}
		end, err := s.listen(p)
		if err != nil {
			failed[p] = explain(p, err)
			continue
		}
		s.ports[p] = end
	}
	return failed
}

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

// listen begins to forward a port, and gives what ends it.
func (s *Stack) listen(p Port) (end func() error, err error) {
	if p.Protocol == "udp" {
		l, err := net.ListenPacket("udp"+p.version(), p.at())
		if err != nil {
			return nil, err
		}
		go s.serveUDP(l.(*net.UDPConn), p)
		return l.Close, nil
	}
	l, err := net.Listen("tcp"+p.version(), p.at())
	if err != nil {
		return nil, err
	}
	go s.serveTCP(l, p)
	return l.Close, nil
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

// slowInside is how long the container may take to accept.
const slowInside = 30 * time.Second

func (s *Stack) serveTCP(l net.Listener, p Port) {
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // too many files are open; others may be closed soon
			time.Sleep(10 * time.Millisecond)
			continue
		case !s.tcp.take():
			c.Close()
			continue
		}
		go func() {
			defer s.tcp.give()
			s.admit(c.(*net.TCPConn), p)
		}()
	}
}

// admit connects a client of a port with the container. Who is refused inside is
// reset.
func (s *Stack) admit(c *net.TCPConn, p Port) {
	ctx, cancel := context.WithTimeout(context.Background(), slowInside)
	inside, err := s.dialInside(ctx, c.RemoteAddr().(*net.TCPAddr).AddrPort(), p.Port)
	cancel()
	if err != nil {
		c.SetLinger(0)
		c.Close()
		return
	}
	join(c, inside)
}

// serveUDP has a flow for each client of a port.
func (s *Stack) serveUDP(l *net.UDPConn, p Port) {
	var mu sync.Mutex
	flows := map[netip.AddrPort]*gonet.UDPConn{}
	buffer := make([]byte, maxDatagram)
	for {
		n, from, err := l.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			continue
		}
		mu.Lock()
		inside := flows[from]
		if inside == nil {
			if inside = s.newClient(from, p); inside != nil {
				flows[from] = inside
				go func() {
					defer s.udp.give()
					answer(l, from, inside)
					mu.Lock()
					delete(flows, from)
					mu.Unlock()
					inside.Close()
				}()
			}
		}
		mu.Unlock()
		if inside != nil {
			_ = inside.SetReadDeadline(time.Now().Add(idleAnswered))
			_, _ = inside.Write(buffer[:n])
		}
	}
}

func (s *Stack) newClient(from netip.AddrPort, p Port) *gonet.UDPConn {
	if !s.udp.take() {
		return nil
	}
	seen, f := s.seen(from)
	local, remote := full(seen), full(netip.AddrPortFrom(f.Address.Addr(), p.Port))
	inside, err := gonet.DialUDP(s.s, &local, &remote, number(seen.Addr()))
	if err != nil {
		s.udp.give()
		return nil
	}
	return inside
}

// answer sends a client of l what the container answers, until the flow is idle.
func answer(l *net.UDPConn, to netip.AddrPort, inside *gonet.UDPConn) {
	buffer := make([]byte, maxDatagram)
	for {
		n, err := inside.Read(buffer)
		if err != nil {
			return
		}
		_, _ = l.WriteToUDPAddrPort(buffer[:n], to)
	}
}
