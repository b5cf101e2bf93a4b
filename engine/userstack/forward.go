package userstack

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const dnsPort = 53

// forwardTCP is called for each connection that the container begins.
func (s *Stack) forwardTCP(r *tcp.ForwarderRequest) {
	to := addrOf(r.ID().LocalAddress, r.ID().LocalPort)
	if !s.tcp.take() {
		r.Complete(true)
		return
	}
	defer s.tcp.give()
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
	join(gonet.NewTCPConn(&queue, ep), host)
}

// dialTCP connects to what an address of the container's world is; nil: to
// nobody.
func (s *Stack) dialTCP(to netip.AddrPort) stream {
	if s.isDNS(to) {
		for _, server := range s.servers() {
			if c, err := s.dial.Dial("tcp", server.String()); err == nil {
				return c.(stream)
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
	return c.(stream)
}

func (s *Stack) isDNS(to netip.AddrPort) bool {
	return to.Port() == dnsPort && (to.Addr() == s.c.V4.DNS || to.Addr() == s.c.V6.DNS)
}

// A stream is a connection each side of which ends by itself.
type stream interface {
	net.Conn
	CloseWrite() error
}

// buffers are for copying; their size is that of a large segment, twice.
var buffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// join copies between two streams until both sides have ended.
func join(a, b stream) {
	done := make(chan struct{})
	go func() {
		pump(a, b)
		close(done)
	}()
	pump(b, a)
	<-done
	a.Close()
	b.Close()
}

// pump copies one side, and its end. Where it cannot be copied any more both
// streams are of no use.
func pump(to, from stream) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	// Without methods, so that the buffer is used.
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, *buffer)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		soon := time.Now()
		to.SetDeadline(soon)
		from.SetDeadline(soon)
	}
}

// How long a UDP flow may be idle: one that has seen an answer, and one that
// has not.
const idleAnswered, idleUnanswered = 3 * time.Minute, 30 * time.Second

// maxDatagram is more than fits into any.
const maxDatagram = 64 << 10

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
	if !dns && !a.IsValid() || !s.udp.take() {
		return true
	}
	var queue waiter.Queue
	ep, err := r.CreateEndpoint(&queue)
	if err != nil {
		s.udp.give()
		return true
	}
	inside := gonet.NewUDPConn(&queue, ep)
	go func() {
		defer s.udp.give()
		if dns {
			s.answerQueries(inside)
			return
		}
		host, err := s.dial.Dial("udp", netip.AddrPortFrom(a, to.Port()).String())
		if err != nil {
			inside.Close()
			return
		}
		s.relay(&flow{inside: inside, host: host}, idleUnanswered)
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
	f.copy(f.inside, f.host, idleAnswered)
	<-done
}

// copy copies datagrams to one side. Each lets the flow last for idle at least.
func (f *flow) copy(to, from net.Conn, idle time.Duration) {
	defer f.close()
	buffer := make([]byte, maxDatagram)
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

// dialInside connects to a port in the container as client; where it refuses one
// of IPv6, as the gateway by IPv4.
func (s *Stack) dialInside(ctx context.Context, client netip.AddrPort, port uint16) (*gonet.TCPConn, error) {
	from, f := s.seen(client)
	c, err := s.dialAs(ctx, from, netip.AddrPortFrom(f.Address.Addr(), port))
	if err != nil && from.Addr().Is6() {
		v4 := s.c.V4
		return s.dialAs(ctx, netip.AddrPortFrom(v4.Gateway, 0), netip.AddrPortFrom(v4.Address.Addr(), port))
	}
	return c, err
}

func (s *Stack) dialAs(ctx context.Context, from, to netip.AddrPort) (*gonet.TCPConn, error) {
	return gonet.DialTCPWithBind(ctx, s.s, full(from), full(to), number(to.Addr()))
}
