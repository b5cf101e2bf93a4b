package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"kiste/fault"
	"kiste/internal/need"
)

// patience is for what takes no time.
const patience = 20 * time.Second

// new is a proxy of which each port has so many connections.
func newProxy(t *testing.T, each int) *Proxy {
	t.Helper()
	x := New(Options{Dialer: Direct{}, Connections: make(Slots, 64), Flows: make(Slots, 64), Each: each})
	t.Cleanup(x.Close)
	return x
}

// lead has x listen at a free port of ::1 that leads to a server; it gives the port.
func lead(t *testing.T, x *Proxy, protocol string, to netip.AddrPort) Port {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp6", "[::1]:0")
		if err != nil {
			t.Skip(err)
		}
		at := l.Addr().(*net.TCPAddr).AddrPort()
		l.Close()
		p := Port{Protocol: protocol, Host: at.Addr(), HostPort: at.Port(), To: to}
		if len(x.Set([]Port{p})) == 0 {
			return p
		}
	}
	t.Fatal("no free port of ::1")
	return Port{}
}

// server listens at 127.0.0.1 and does something with each client.
func server(t *testing.T, do func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	need.Serve(t, l, func(c net.Conn) { do(c.(*net.TCPConn)) })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echo answers all, and ends when the client does.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	c.Close()
}

func dial(t *testing.T, p Port) net.Conn {
	t.Helper()
	c, err := knock(t, p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// knock is dial where a reset may come before the connection is told of.
func knock(t *testing.T, p Port) (net.Conn, error) {
	t.Helper()
	c, err := net.Dial(p.Protocol, netip.AddrPortFrom(p.Host, p.HostPort).String())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c, c.SetDeadline(time.Now().Add(patience))
}

// Each side ends by itself: a server answers when its client has said all.
func TestEachSideEndsByItself(t *testing.T) {
	to := server(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		_, _ = c.Write(bytes.ToUpper(all))
		c.Close()
	})
	c := dial(t, lead(t, newProxy(t, 8), "tcp", to))
	said := bytes.Repeat([]byte("some words "), 1<<18)
	go func() {
		_, _ = c.Write(said)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, bytes.ToUpper(said)) {
		t.Errorf("%d bytes of %d come back, %v", len(got), len(said), err)
	}
}

// Who is refused inside, or comes to a port that leads nowhere, is reset.
func TestWhoIsRefusedIsReset(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	for _, to := range []netip.AddrPort{nobody, {}} {
		c, err := knock(t, lead(t, newProxy(t, 8), "tcp", to))
		if err == nil {
			_, err = io.ReadAll(c)
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a port that leads to %v: %v", to, err)
		}
	}
}

// A client more than a port may have is reset, and let in when one has gone.
func TestConnectionsAreCounted(t *testing.T) {
	p := lead(t, newProxy(t, 1), "tcp", server(t, echo))
	speak := func() (net.Conn, error) {
		c, err := knock(t, p)
		if err == nil {
			_, err = c.Write([]byte("x"))
		}
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		return c, err
	}
	one, err := speak()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := speak(); err == nil {
		t.Error("a second client is served")
	}
	one.Close()
	for late := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := speak(); err == nil {
			break
		}
		if time.Now().After(late) {
			t.Fatal("nobody is let in after the first has gone")
		}
	}
}

// A port that is gone ends its connections and is free; one that is missing
// nobody else's.
func TestAPortEndsWithItsConnections(t *testing.T) {
	x := newProxy(t, 8)
	p := lead(t, x, "tcp", server(t, echo))
	c := dial(t, p)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	x.Set(nil)
	if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
		t.Error("its connection goes on")
	}
	l, err := net.Listen("tcp6", netip.AddrPortFrom(p.Host, p.HostPort).String())
	if err != nil {
		t.Fatalf("it is not free: %v", err)
	}
	l.Close()
}

// A port that is taken, by somebody else or by another port, is a conflict, and
// had by the next try.
func TestAPortThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	x, to := newProxy(t, 8), server(t, echo)
	p := Port{Protocol: "tcp", Host: at.Addr(), HostPort: at.Port(), To: to}
	if err := x.Set([]Port{p})[p]; fault.KindOf(err) != fault.Conflict {
		t.Error(err)
	}
	l.Close()
	if err := x.Set([]Port{p})[p]; err != nil {
		t.Error(err)
	}
	q := p
	q.To = netip.AddrPortFrom(to.Addr(), 1)
	if failed := x.Set([]Port{p, q}); len(failed) != 1 || fault.KindOf(failed[q]) != fault.Conflict {
		t.Error(failed)
	}
	if err := explain(p, syscall.EACCES); fault.KindOf(err) != fault.Denied || fault.HintOf(err) == "" {
		t.Error(err)
	}
}

// named answers each datagram with its own name.
func named(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	l, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		b := make([]byte, MaxDatagram)
		for {
			n, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = l.WriteTo(append([]byte(name), b[:n]...), from)
		}
	}()
	return l.LocalAddr().(*net.UDPAddr).AddrPort()
}

// asked is what comes back of a datagram; one that gets lost is sent again.
func asked(t *testing.T, c net.Conn, say string) string {
	t.Helper()
	b := make([]byte, MaxDatagram)
	for late := time.Now().Add(patience); time.Now().Before(late); {
		_, _ = c.Write([]byte(say))
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := c.Read(b); err == nil {
			return string(b[:n])
		}
	}
	t.Fatal("nobody answers")
	return ""
}

// A client of datagrams has one flow, by which its server knows it; where the port
// leads elsewhere, so does the flow.
func TestDatagramsFollowThePort(t *testing.T) {
	x := newProxy(t, 8)
	p := lead(t, x, "udp", named(t, "one "))
	c := dial(t, p)
	for range 3 {
		if got := asked(t, c, "hello"); got != "one hello" {
			t.Errorf("%q answers", got)
		}
	}
	on := x.ports[p.place()]
	on.mu.Lock()
	n := len(on.flows)
	on.mu.Unlock()
	if n != 1 {
		t.Errorf("one client has %d flows", n)
	}
	p.To = named(t, "two ")
	if failed := x.Set([]Port{p}); len(failed) > 0 {
		t.Fatal(failed)
	}
	for late := time.Now().Add(patience); asked(t, c, "hello") != "two hello"; {
		if time.Now().After(late) {
			t.Fatal("the flow leads where the port led before")
		}
	}
}

// A flow that nobody answers ends sooner than one that is.
func TestFlowsEnd(t *testing.T) {
	if IdleUnanswered >= IdleAnswered {
		t.Error("a flow that nobody answers stays")
	}
	x := newProxy(t, 1)
	p := lead(t, x, "udp", named(t, ""))
	if got := asked(t, dial(t, p), "x"); got != "x" {
		t.Errorf("%q answers", got)
	}
	on := x.ports[p.place()]
	on.mu.Lock()
	for _, f := range on.flows {
		_ = f.inside.SetReadDeadline(time.Now()) // as after its time
	}
	on.mu.Unlock()
	if got := asked(t, dial(t, p), "y"); got != "y" { // for which there was no room
		t.Errorf("%q answers", got)
	}
}

// A stream that is no socket is copied by buffers, and ends likewise.
func TestJoinOfStreams(t *testing.T) {
	a, far := net.Pipe()
	done := make(chan struct{})
	inside, err := Direct{}.DialTCP(context.Background(), netip.AddrPort{}, server(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		Join(pipe{a}, inside)
		close(done)
	}()
	_ = far.SetDeadline(time.Now().Add(patience))
	go func() { _, _ = far.Write([]byte("words")) }()
	got := make([]byte, 5)
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "words" {
		t.Errorf("%q, %v", got, err)
	}
	far.Close()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("it goes on after one side has ended")
	}
}

// A pipe is a stream that has no half to close.
type pipe struct{ net.Conn }

func (p pipe) CloseWrite() error { return p.Close() }
