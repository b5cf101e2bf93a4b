package userstack

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"kiste/container/proxy"
)

const dnsPort = 53

// forwardTCP is called for each connection that the container begins.
func (s *Stack) forwardTCP(r *tcp.ForwarderRequest) {
	to := addrOf(r.ID().LocalAddress, r.ID().LocalPort)
	if !s.tcp.Take() {
		r.Complete(true)
		return
	}
	defer s.tcp.Give()
	host := s.dialTCP(to)
	if host == nil {
		r.Complete(true)
		return
	}
	var queue waiter.Queue
	ep, err := r.CreateEndpoint(&queue)
	r.Complete(err != nil)
	if err != nil {
		host.Close()
		return
	}
	ep.SocketOptions().SetDelayOption(false)
	proxy.Join(gonet.NewTCPConn(&queue, ep), host)
}

// dialTCP connects to what an address of the container's world is; nil: to
// nobody.
func (s *Stack) dialTCP(to netip.AddrPort) proxy.Stream {
	if s.isDNS(to) {
		for _, server := range s.servers() {
			if c, err := s.dial.Dial("tcp", server.String()); err == nil {
				return c.(proxy.Stream)
			}
		}
		return nil
	}
	a := s.target(to.Addr())
	if !a.IsValid() {
		return nil
	}
	c, err := s.dial.Dial("tcp", netip.AddrPortFrom(a, to.Port()).String())
	if err != nil {
		return nil
	}
	return c.(proxy.Stream)
}

func (s *Stack) isDNS(to netip.AddrPort) bool {
	return to.Port() == dnsPort && (to.Addr() == s.c.V4.DNS || to.Addr() == s.c.V6.DNS)
}

// A flow is two sockets between which datagrams go, until it is idle.
type flow struct {
	inside, host net.Conn
	over         sync.Once
}

// forwardUDP is called for the first datagram of each flow from the container.
func (s *Stack) forwardUDP(r *udp.ForwarderRequest) bool {
	to := addrOf(r.ID().LocalAddress, r.ID().LocalPort)
	dns := s.isDNS(to)
	a := s.target(to.Addr())
	if !dns && !a.IsValid() || !s.udp.Take() {
		return true
	}
	var queue waiter.Queue
	ep, err := r.CreateEndpoint(&queue)
	if err != nil {
		s.udp.Give()
		return true
	}
	inside := gonet.NewUDPConn(&queue, ep)
	go func() {
		defer s.udp.Give()
		if dns {
			s.answerQueries(inside)
			return
		}
		host, err := s.dial.Dial("udp", netip.AddrPortFrom(a, to.Port()).String())
		if err != nil {
			inside.Close()
			return
		}
		s.relay(&flow{inside: inside, host: host}, proxy.IdleUnanswered)
	}()
	return true
}

// relay copies datagrams until the flow is idle. What comes from the host is an
// answer.
func (s *Stack) relay(f *flow, idle time.Duration) {
	done := make(chan struct{})
	go func() {
		f.copy(f.host, f.inside, idle)
		close(done)
	}()
	f.copy(f.inside, f.host, proxy.IdleAnswered)
	<-done
}

// copy copies datagrams to one side. Each lets the flow last for idle at least.
func (f *flow) copy(to, from net.Conn, idle time.Duration) {
	defer f.close()
	buffer := make([]byte, proxy.MaxDatagram)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		until := time.Now().Add(idle)
		_ = from.SetReadDeadline(until)
		_ = to.SetReadDeadline(until)
		_, _ = to.Write(buffer[:n]) // one that is refused is lost, as any may be
	}
}

func (f *flow) close() {
	f.over.Do(func() {
		f.inside.Close()
		f.host.Close()
	})
}
