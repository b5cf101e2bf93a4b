package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
)

// Address is where containers ask, and from where rules lead them to the sockets
// here.
var Address, _ = netip.AddrFromSlice(rules.ResolverAddress.AsSlice())

// Bounds of one container, and of all.
const (
	perSecond   = 20_000 // questions
	window      = 50 * time.Millisecond
	underWay    = 256 // that are asked outside
	underWayAll = 1024
	connections = 32
	idle        = 10 * time.Second // until a connection without questions ends
	slow        = 5 * time.Second  // that a connection may take for a message
)

// A service is what answers one container.
type service struct {
	r         *Resolver
	container atomic.Pointer[Container]
	ns        *network.Namespace
	udp       *net.UDPConn
	tcp       *net.TCPListener
	pidfd     *os.File
	slots     chan struct{} // of questions under way
	streams   chan struct{} // of connections
	pools     [2]pool       // for questions outside, by IPv4 and IPv6
	ctx       context.Context
	cancel    context.CancelFunc
	once      sync.Once
	life      sync.RWMutex // held by who uses ns, which is closed under it
}

// serve opens the sockets of a container and answers there.
func (r *Resolver) serve(c Container) (*service, error) {
	fd, err := c.Process.Open()
	if err != nil {
		return nil, err
	}
	pidfd, err := sys.Watched(fd, "container")
	if err != nil {
		sys.Close(fd)
		return nil, err
	}
	s := &service{r: r, pidfd: pidfd, slots: make(chan struct{}, underWay), streams: make(chan struct{}, connections)}
	for i := range s.pools {
		s.pools[i].v6, s.pools[i].sockets = i == 1, make(chan *os.File, batch)
	}
	s.container.Store(&c)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.ns, err = network.OpenProcess(c.Process.PID)
	if err == nil && !c.Process.Alive() { // it may be of another, with its number
		err = &fault.Error{Op: "find process", Kind: fault.NotFound, Err: os.ErrProcessDone}
	}
	if err == nil {
		err = s.listen()
	}
	if err != nil {
		s.close()
		return nil, &fault.Error{Op: "answer for names in container", On: c.ID, Err: err}
	}
	go s.readUDP()
	go s.accept()
	go s.awaitEnd()
	return s, nil
}

// listen opens the sockets in the container's namespace, where nothing may be up
// yet, and leads questions there.
func (s *service) listen() error {
	if err := s.ns.SetUp("lo"); err != nil {
		return err
	}
	if err := s.bind(0); err != nil {
		return err
	}
	err := rules.Resolver{UDP: s.udp.LocalAddr().(*net.UDPAddr).AddrPort().Port(), TCP: s.tcp.Addr().(*net.TCPAddr).AddrPort().Port()}.Lead(s.ns)
	if fault.KindOf(err) != fault.Unsupported {
		return err
	}
	// Without nftables the port is the resolver's, and no server of the
	// container's own can have it.
	s.udp.Close()
	s.tcp.Close()
	return s.bind(dnsPort)
}

func (s *service) bind(port uint16) error {
	udp, err := s.bound(unix.SOCK_DGRAM, port)
	if err != nil {
		return err
	}
	defer udp.Close()
	packets, err := net.FilePacketConn(udp)
	if err != nil {
		return err
	}
	s.udp = packets.(*net.UDPConn)
	tcp, err := s.bound(unix.SOCK_STREAM, port)
	if err != nil {
		return err
	}
	defer tcp.Close()
	streams, err := net.FileListener(tcp)
	if err == nil {
		s.tcp = streams.(*net.TCPListener)
	}
	return err
}

// bound is a socket at Address in the container's namespace.
func (s *service) bound(kind int, port uint16) (*os.File, error) {
	all, err := s.r.traveller.sockets(s.ns, unix.AF_INET, kind, 1)
	if err != nil {
		return nil, err
	}
	if err := sys.BindSocket(all[0], Address.AsSlice(), port); err != nil {
		all[0].Close()
		return nil, err
	}
	return all[0], nil
}

// awaitEnd gives the namespace up when the container's process has ended: the
// sockets would keep it, and its addresses.
func (s *service) awaitEnd() {
	if sys.WaitPidfd(s.pidfd) != nil {
		return // closed before
	}
	s.close()
	if s.r.o.Ended != nil {
		s.r.o.Ended(*s.container.Load())
	}
}

func (s *service) close() {
	s.once.Do(func() {
		s.cancel()
		if s.udp != nil {
			s.udp.Close()
		}
		if s.tcp != nil {
			s.tcp.Close()
		}
		s.pidfd.Close()
		s.life.Lock()
		defer s.life.Unlock()
		if s.ns != nil {
			s.ns.Close()
		}
		for i := range s.pools {
			s.pools[i].drain()
		}
	})
}

// inside lets do use the container's namespace, as long as it is there.
func (s *service) inside(do func(*network.Namespace) error) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.ctx.Err() != nil {
		return net.ErrClosed
	}
	return do(s.ns)
}

// A pace lets so many pass in a window of time, and makes the rest wait: who
// reads no more lets the kernel drop what comes.
type pace struct {
	began time.Time
	count int
}

func (p *pace) step() {
	const most = int(perSecond * window / time.Second)
	if p.count++; p.count <= most {
		return
	}
	if rest := window - time.Since(p.began); rest > 0 {
		time.Sleep(rest)
	}
	p.began, p.count = time.Now(), 0
}

func (s *service) readUDP() {
	b := make([]byte, maxQuery)
	var p pace
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		p.step()
		if err != nil {
			continue
		}
		q, rcode, ok := parse(b[:n])
		if !ok {
			continue
		}
		if out := s.known(&q, rcode, q.room); out != nil {
			_, _ = s.udp.WriteToUDPAddrPort(out, from)
			continue
		}
		if !s.enter() {
			_, _ = s.udp.WriteToUDPAddrPort(failure(&q), from)
			continue
		}
		q.raw = slices.Clone(q.raw)
		go func() {
			defer s.leave()
			_, _ = s.udp.WriteToUDPAddrPort(s.outside(&q, s.overUDP, q.room), from)
		}()
	}
}

func failure(q *query) []byte {
	return build(q, reply{rcode: dnsmessage.RCodeServerFailure}, plainUDP)
}

// known is the answer that is known here; nil: it has to be asked outside.
func (s *service) known(q *query, rcode dnsmessage.RCode, room int) []byte {
	if rcode != dnsmessage.RCodeSuccess {
		return build(q, reply{rcode: rcode}, room)
	}
	c := s.container.Load()
	f := s.r.book.Load().look(c, q.question)
	switch {
	case f.known:
		return build(q, f.reply, room)
	case c.Closed:
		return failure(q)
	case c.Qualified && oneLabel(&q.question.Name):
		return build(q, reply{rcode: dnsmessage.RCodeNameError}, room)
	}
	return nil
}

func oneLabel(n *dnsmessage.Name) bool {
	var small [255]byte
	return n.Length > 1 && !slices.Contains(lowered(n, small[:0]), '.')
}

// outside is what the servers say.
func (s *service) outside(q *query, by func(context.Context, server, *query) answer, room int) []byte {
	i := inquiry{q: q, by: by}
	raw := i.ask(s.ctx, s.servers())
	if raw == nil {
		return failure(q)
	}
	return passOn(q, raw, room)
}

func (s *service) servers() []server {
	own := s.container.Load().Servers
	if len(own) == 0 {
		return s.r.hosts.inOrder(s.r.hosts.now())
	}
	var all []server
	for _, a := range own[:min(len(own), maxServers)] {
		if a.Unmap() != Address { // it would ask itself
			all = append(all, server{addr: a.Unmap()})
		}
	}
	return s.r.hosts.inOrder(all)
}

// enter takes a place among the questions under way; false: there is none.
func (s *service) enter() bool {
	select {
	case s.slots <- struct{}{}:
	default:
		return false
	}
	select {
	case s.r.slots <- struct{}{}:
		return true
	default:
		<-s.slots
		return false
	}
}

func (s *service) leave() {
	<-s.r.slots
	<-s.slots
}

func (s *service) accept() {
	for {
		s.streams <- struct{}{} // who has as many as it may waits
		conn, err := s.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			<-s.streams
			time.Sleep(window)
			continue
		}
		go func() {
			defer func() { <-s.streams }()
			defer conn.Close()
			s.readTCP(conn)
		}()
	}
}

// readTCP answers the questions of a connection, one after another.
func (s *service) readTCP(conn *net.TCPConn) {
	stop := context.AfterFunc(s.ctx, func() { conn.Close() })
	defer stop()
	var p pace
	for {
		_ = conn.SetReadDeadline(time.Now().Add(idle))
		raw, err := readMessage(conn, maxQuery)
		if err != nil {
			return
		}
		p.step()
		q, rcode, ok := parse(raw)
		if !ok {
			return
		}
		out := s.known(&q, rcode, maxMessage)
		if out == nil {
			out = s.askForStream(&q)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(slow))
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

func (s *service) askForStream(q *query) []byte {
	if !s.enter() {
		return failure(q)
	}
	defer s.leave()
	return s.outside(q, s.overTCP, maxMessage)
}
