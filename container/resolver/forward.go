package resolver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
	"kiste/kernel/network"
)

// Of questions that are passed on. The C library gives up after five seconds.
const (
	patience   = 4500 * time.Millisecond // for a whole question
	nextServer = 800 * time.Millisecond  // until the next server is asked, too
	resend     = 1500 * time.Millisecond // until the same one is asked again
	dnsPort    = 53
)

// An answer is what one server has said.
type answer struct {
	raw []byte
	verdict
}

// An inquiry is a question under way outside.
type inquiry struct {
	q       *query
	by      func(ctx context.Context, to server, q *query) answer
	answers chan answer
	waiting int
	useless []byte // the last that was
}

// ask asks the servers, each when the one before has nothing to say, or says
// nothing for a while; the earlier ones are listened to further. It gives the
// first answer that is final, else one that is useless, or nil.
func (i *inquiry) ask(ctx context.Context, servers []server) []byte {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if len(servers) == 1 {
		return i.by(ctx, servers[0], i.q).raw
	}
	i.answers = make(chan answer, len(servers))
	for n, s := range servers {
		i.waiting++
		go func() { i.answers <- i.by(ctx, s, i.q) }()
		wait := nextServer
		if n == len(servers)-1 {
			wait = patience
		}
		if raw := i.await(ctx, wait); raw != nil {
			return raw
		}
	}
	return i.useless
}

// await waits for a final answer, while there is anybody who may give it.
func (i *inquiry) await(ctx context.Context, limit time.Duration) []byte {
	over := time.NewTimer(limit)
	defer over.Stop()
	for i.waiting > 0 {
		select {
		case a := <-i.answers:
			i.waiting--
			if a.verdict == final {
				return a.raw
			}
			if a.raw != nil {
				i.useless = a.raw
			}
		case <-over.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// overUDP asks a server until it answers, or the context ends.
func (s *service) overUDP(ctx context.Context, to server, q *query) answer {
	for {
		a, err := s.onceOverUDP(ctx, to, q)
		switch {
		case err == nil:
			s.r.hosts.spoke(to.addr)
			return a
		case ctx.Err() != nil:
			return answer{}
		}
		s.r.hosts.silent(to.addr)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return answer{}
		}
	}
}

// buffers are those of onceOverUDP: most answers are much shorter, and each
// question's own would keep the collector busy.
var buffers = sync.Pool{New: func() any { return new([maxUDP + 1]byte) }}

// onceOverUDP asks from a port and with an id of its own.
func (s *service) onceOverUDP(ctx context.Context, to server, q *query) (answer, error) {
	conn, err := s.dialUDP(to)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	defer hurry(ctx, conn, resend)()
	id, msg := anew(q, 0)
	if _, err := conn.Write(msg); err != nil {
		return answer{}, err
	}
	b := buffers.Get().(*[maxUDP + 1]byte)
	defer buffers.Put(b)
	for {
		n, err := conn.Read(b[:])
		if err != nil && err != io.EOF { // which is a datagram of nothing
			return answer{}, err
		}
		if v := judge(q, id, b[:n]); v != foreign {
			return answer{slices.Clone(b[:n]), v}, nil
		}
	}
}

// hurry lets all on the connection end after a while, and with the context.
func hurry(ctx context.Context, conn socket, limit time.Duration) (done func()) {
	_ = conn.SetDeadline(time.Now().Add(limit))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// anew is the question with an id that nobody can guess, behind so many bytes of
// room.
func anew(q *query, room int) (id uint16, msg []byte) {
	msg = make([]byte, room+len(q.raw))
	copy(msg[room:], q.raw)
	_, _ = rand.Read(msg[room : room+2])
	return binary.BigEndian.Uint16(msg[room:]), msg
}

// overTCP asks a server for an answer of any size; one that does not listen there
// is asked by UDP.
func (s *service) overTCP(ctx context.Context, to server, q *query) answer {
	conn, err := s.dialTCP(ctx, to)
	if err != nil {
		return s.overUDP(ctx, to, q)
	}
	defer conn.Close()
	defer hurry(ctx, conn, patience)()
	id, msg := anew(q, 2)
	binary.BigEndian.PutUint16(msg, uint16(len(q.raw)))
	if _, err := conn.Write(msg); err != nil {
		return answer{}
	}
	raw, err := readMessage(conn, maxMessage)
	if err != nil {
		return answer{}
	}
	if v := judge(q, id, raw); v != foreign {
		return answer{raw, v}
	}
	return answer{}
}

// readMessage reads one message with its length before it: RFC 1035 4.2.2.
func readMessage(from io.Reader, most int) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(from, n[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(n[:]))
	if size < headerSize || size > most {
		return nil, errors.New("no message has that size")
	}
	b := make([]byte, size)
	_, err := io.ReadFull(from, b)
	return b, err
}

// A socket leads to one server.
type socket interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// dialUDP opens a socket to a server: inside of the container, so that the rules of
// its networks count, or where only the host reaches the server, there.
func (s *service) dialUDP(to server) (socket, error) {
	if to.onHost {
		return s.dialHere(to)
	}
	f, err := s.fresh(to.addr.Is6())
	if err == nil {
		if err = sys.ConnectDatagram(f, to.addr.AsSlice(), s.r.o.Port); err == nil {
			return f, nil
		}
		f.Close()
	}
	if to.hosts && to.addr.Is6() && noWay(err) { // a container may have IPv4 alone
		return s.dialHere(to)
	}
	return nil, err
}

func (s *service) dialHere(to server) (socket, error) {
	return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.addr, s.r.o.Port)))
}

// A pool has sockets that nobody has used, and that belong to a container's
// namespace: a trip there takes longer than the rest of a question.
type pool struct {
	v6      bool
	sockets chan *os.File
	filling atomic.Bool
}

// batch is how many sockets are made on one trip.
const batch = 8

// fresh takes a socket, and has others made before they are missed.
func (s *service) fresh(v6 bool) (*os.File, error) {
	p := &s.pools[0]
	if v6 {
		p = &s.pools[1]
	}
	select {
	case f := <-p.sockets:
		if len(p.sockets) < batch/2 && p.filling.CompareAndSwap(false, true) {
			go func() {
				if all, err := s.datagrams(v6); err == nil {
					p.keep(all)
				}
				p.filling.Store(false)
			}()
		}
		return f, nil
	default:
	}
	all, err := s.datagrams(v6)
	if err != nil {
		return nil, err
	}
	p.keep(all[1:])
	return all[0], nil
}

// datagrams are as many new sockets as are made at once.
func (s *service) datagrams(v6 bool) (all []*os.File, err error) {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	err = s.inside(func(ns *network.Namespace) error {
		all, err = s.r.traveller.sockets(ns, family, unix.SOCK_DGRAM, batch)
		return err
	})
	return all, err
}

// keep fills the pool, and closes what is too many.
func (p *pool) keep(all []*os.File) {
	for _, f := range all {
		select {
		case p.sockets <- f:
		default:
			f.Close()
		}
	}
}

func (p *pool) drain() {
	for {
		select {
		case f := <-p.sockets:
			f.Close()
		default:
			return
		}
	}
}

func noWay(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// dialTCP waits for the connection on a thread of its own.
func (s *service) dialTCP(ctx context.Context, to server) (conn net.Conn, err error) {
	open := func() error {
		d := net.Dialer{Timeout: resend}
		conn, err = d.DialContext(ctx, "tcp", netip.AddrPortFrom(to.addr, s.r.o.Port).String())
		return err
	}
	if to.onHost {
		err = open()
		return conn, err
	}
	err = s.inside(func(ns *network.Namespace) error {
		if ns.Foreign() { // what it reaches of the outside is what this process reaches
			return open()
		}
		return ns.Do(open)
	})
	if to.hosts && to.addr.Is6() && noWay(err) {
		err = open()
	}
	return conn, err
}
