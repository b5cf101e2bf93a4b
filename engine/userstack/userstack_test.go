package userstack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kiste/container/proxy"
	"kiste/host"
	"kiste/internal/need"
	"kiste/internal/sys"
	"kiste/kernel/network"
)

var (
	v4 = Family{netip.MustParsePrefix("10.0.2.100/24"), netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("10.0.2.3")}
	v6 = Family{netip.MustParsePrefix("fd6b:6973:7465::100/64"), netip.MustParseAddr("fd6b:6973:7465::2"), netip.MustParseAddr("fd6b:6973:7465::3")}
)

// inside starts a stack and gives the namespace that it serves.
func inside(t *testing.T, c Config) *network.Namespace {
	t.Helper()
	need.Power(t, host.Root)
	n, err := network.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	var tap *os.File
	err = n.Do(func() (err error) {
		if tap, err = os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err == nil {
			err = sys.TapOf(tap, "eth0")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.V4, c.V6 = v4, v6
	if c.MTU == 0 {
		c.MTU = 65520
	}
	s, err := Start(tap, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(n.SetMTU("eth0", c.MTU))
	must(n.SetUp("eth0"))
	for _, f := range []Family{v4, v6} {
		p, err := network.ParsePrefix(f.Address.String())
		must(err)
		must(n.AddAddress("eth0", p))
		g, err := network.ParseAddr(f.Gateway.String())
		must(err)
		must(n.AddRoute(network.Route{Gateway: g}))
	}
	return n
}

// dialed is what a client inside gets to read from an address.
func dialed(n *network.Namespace, protocol, to, say string) (answer string, err error) {
	var c net.Conn
	err = n.Do(func() (err error) {
		c, err = net.DialTimeout(protocol, to, 10*time.Second)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, say); err != nil {
		return "", err
	}
	if protocol == "udp" {
		b := make([]byte, 64<<10)
		n, err := c.Read(b)
		return string(b[:n]), err
	}
	c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	return string(b), err
}

// echoes answers all that comes to a port of 127.0.0.1 or ::1.
func echoes(t *testing.T, at string) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(at, "0"))
	if err != nil {
		t.Fatal(err)
	}
	need.Serve(t, l, func(c net.Conn) { io.Copy(c, c); c.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	u, err := net.ListenPacket("udp", net.JoinHostPort(at, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo(b[:n], from)
		}
	}()
	return port
}

func TestTheHostIsReachedThroughItsSockets(t *testing.T) {
	n := inside(t, Config{HostLoopback: true})
	for _, f := range []struct{ at, gateway string }{{"127.0.0.1", "10.0.2.2"}, {"::1", "fd6b:6973:7465::2"}} {
		port := echoes(t, f.at)
		large := string(bytes.Repeat([]byte("0123456789abcdef"), 1<<16))
		if got, err := dialed(n, "tcp", net.JoinHostPort(f.gateway, port), large); err != nil || got != large {
			t.Errorf("tcp %s: %d bytes, %v", f.gateway, len(got), err)
		}
		if got, err := dialed(n, "udp", net.JoinHostPort(f.gateway, port), "hello"); err != nil || got != "hello" {
			t.Errorf("udp %s: %q, %v", f.gateway, got, err)
		}
	}
	if _, err := dialed(n, "tcp", "10.0.2.2:1", ""); !isRefused(err) {
		t.Errorf("a port where nobody listens: %v", err)
	}
}

func isRefused(err error) bool {
	return err != nil && bytes.Contains([]byte(err.Error()), []byte("refused"))
}

func TestTheHostsLoopbackIsNotReached(t *testing.T) {
	port := echoes(t, "127.0.0.1")
	n := inside(t, Config{})
	if got, err := dialed(n, "tcp", "10.0.2.2:"+port, "x"); err == nil {
		t.Errorf("the gateway answers %q", got)
	}
	s := &Stack{c: Config{V4: v4, V6: v6}}
	for _, a := range []string{"127.0.0.1", "127.255.0.1", "0.0.0.0", "0.0.0.1", "::", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "::ffff:0.0.0.0", "224.0.0.1", "255.255.255.255", "240.0.0.1", "ff02::1", "fe80::1", "10.0.2.2", "10.0.2.100", "10.0.2.7", "fd6b:6973:7465::2", "fd6b:6973:7465::9"} {
		if to := s.target(netip.MustParseAddr(a)); to.IsValid() {
			t.Errorf("%s leads to %s", a, to)
		}
	}
	for _, a := range []string{"192.0.2.1", "10.0.3.1", "2001:db8::1", "169.254.1.1"} {
		if to := s.target(netip.MustParseAddr(a)); to.String() != a {
			t.Errorf("%s leads to %s", a, to)
		}
	}
}

func TestAPublishedPortShowsItsClients(t *testing.T) {
	port, to := freePort(t), netip.AddrPortFrom(netip.Addr{}, 80)
	n := inside(t, Config{Ports: []proxy.Port{{Protocol: "tcp", HostPort: port, To: to}, {Protocol: "udp", Host: netip.MustParseAddr("127.0.0.1"), HostPort: port, To: to},
		{Protocol: "udp", Host: netip.IPv6Loopback(), HostPort: port, To: netip.AddrPortFrom(netip.IPv4Unspecified(), 80)}}})
	listenInside(t, n)
	for _, tt := range []struct{ protocol, to, seen string }{
		{"tcp", "127.0.0.1", "10.0.2.2"},
		{"udp", "127.0.0.1", "10.0.2.2"},
		{"tcp", "::1", "fd6b:6973:7465::2"},
		{"udp", "::1", "10.0.2.2"}, // which leads to IPv4
	} {
		c, err := net.Dial(tt.protocol, net.JoinHostPort(tt.to, fmt.Sprint(port)))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, "who am I?")
		b := make([]byte, 100)
		m, err := c.Read(b)
		if seen, _, _ := net.SplitHostPort(string(b[:m])); err != nil || seen != tt.seen {
			t.Errorf("%s to %s is seen as %q, want %s; %v", tt.protocol, tt.to, b[:m], tt.seen, err)
		}
		c.Close()
	}
}

// The address of somebody elsewhere stays what it is.
func TestAddressesOfClientsStay(t *testing.T) {
	s := &Stack{c: Config{V4: v4, V6: v6}}
	for client, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7:1234", "[2001:db8::7]:99": "[2001:db8::7]:99", "[::ffff:192.0.2.7]:5": "192.0.2.7:5",
		"127.0.0.1:1": "10.0.2.2:0", "[::1]:1": "[fd6b:6973:7465::2]:0", "10.0.2.100:1": "10.0.2.2:0", "[fe80::1]:1": "[fd6b:6973:7465::2]:0",
	} {
		if got, _ := s.seen(netip.MustParseAddrPort(client)); got.String() != want {
			t.Errorf("%s is seen as %s, want %s", client, got, want)
		}
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	port, err := sys.CanBind(false, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(port)
}

// listenInside tells everybody at port 80 under which address he is seen.
func listenInside(t *testing.T, n *network.Namespace) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	err := n.Do(func() (err error) {
		if l, err = net.Listen("tcp", ":80"); err == nil {
			u, err = net.ListenPacket("udp", ":80")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, c.RemoteAddr().String())
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 100)
		for {
			_, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo([]byte(from.String()), from)
		}
	}()
}

func TestQueriesAreForwarded(t *testing.T) {
	// A server of our own for both: its answer is the query, in capitals.
	const at = "127.0.0.53"
	u, err := net.ListenPacket("udp", at+":53")
	if err != nil {
		t.Skip(err)
	}
	defer u.Close()
	l, err := net.Listen("tcp", at+":53")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo(bytes.ToUpper(b[:n]), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			c.Write(bytes.ToUpper(b))
			c.Close()
		}
	}()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	n := inside(t, Config{ResolvConf: file})
	// The file is read at each query.
	if err := os.WriteFile(file, []byte("nameserver "+at+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []string{"udp", "tcp"} {
		for _, to := range []string{"10.0.2.3:53", "[fd6b:6973:7465::3]:53"} {
			if got, err := dialed(n, protocol, to, "query"); err != nil || got != "QUERY" {
				t.Errorf("%s %s: %q, %v", protocol, to, got, err)
			}
		}
	}
}

func TestServers(t *testing.T) {
	got := parseServers("# x\nnameserver 192.0.2.1\nsearch a b\nnameserver nonsense\nnameserver\nnameserver 2001:db8::1 # more\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n")
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::1]:53"), netip.MustParseAddrPort("1.1.1.1:53")}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// ping sends one echo request from inside, and gives the answer's payload.
func ping(t *testing.T, n *network.Namespace, to string, wait time.Duration) (string, error) {
	t.Helper()
	a := netip.MustParseAddr(to)
	var c net.PacketConn
	err := n.Do(func() (err error) {
		network, kind := "ip4:icmp", "0.0.0.0"
		if a.Is6() {
			network, kind = "ip6:ipv6-icmp", "::"
		}
		c, err = net.ListenPacket(network, kind)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request, answer := byte(8), byte(0)
	if a.Is6() {
		request, answer = 128, 129
	}
	m := append([]byte{request, 0, 0, 0, 0x12, 0x34, 0, 1}, "payload"...)
	if a.Is4() {
		sum := checksumOf(m)
		m[2], m[3] = byte(sum>>8), byte(sum)
	}
	if _, err := c.WriteTo(m, &net.IPAddr{IP: a.AsSlice()}); err != nil {
		return "", err
	}
	b := make([]byte, 1500)
	for {
		c.SetReadDeadline(time.Now().Add(wait))
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return "", err
		}
		if n > 8 && b[0] == answer && b[4] == 0x12 && b[5] == 0x34 {
			return string(b[8:n]), nil
		}
	}
}

func checksumOf(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func TestPing(t *testing.T) {
	n := inside(t, Config{HostLoopback: true})
	for _, a := range []string{"10.0.2.2", "fd6b:6973:7465::2"} {
		if got, err := ping(t, n, a, 30*time.Second); err != nil || got != "payload" {
			t.Errorf("the gateway %s: %q, %v", a, got, err)
		}
	}
	own := ownAddress()
	if own == "" {
		t.Skip("the host has no address to ping")
	}
	fd, err := sys.PingSocket(false)
	if err == nil {
		unix.Close(fd)
	}
	allowed, wait := err == nil, 2*time.Second
	if allowed {
		wait = 30 * time.Second
	}
	got, pinged := ping(t, n, own, wait)
	if allowed != (pinged == nil && got == "payload") {
		t.Errorf("%s: ping sockets %v; answer %q, %v", own, err, got, pinged)
	}
}

// ownAddress is one of the host's that is not its loopback's.
func ownAddress() string {
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr().String()
		}
	}
	return ""
}

// Packets that a container makes up crash nothing, and what is taken for an echo
// is one.
func FuzzEcho(f *testing.F) {
	e := echo{from: netip.MustParseAddr("10.0.2.100"), to: netip.MustParseAddr("192.0.2.1")}
	ip, _ := e.reply([]byte{8, 0, 0, 0, 1, 2, 3, 4, 'x'})
	f.Add(ip)
	e = echo{from: netip.MustParseAddr("2001:db8::1"), to: netip.MustParseAddr("2001:db8::2")}
	ip, _ = e.reply([]byte{128, 0, 0, 0, 1, 2, 3, 4, 'x'})
	f.Add(ip)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := parseEcho(b)
		if !ok {
			return
		}
		answer, _ := e.reply(slices.Clone(e.message))
		if !mayBeEcho(answer) {
			t.Errorf("the reply to %x is no echo: %x", b, answer)
		}
	})
}

func TestTheStackEndsWithItsFlows(t *testing.T) {
	n := inside(t, Config{HostLoopback: true})
	port := echoes(t, "127.0.0.1")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range 200 {
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
		if got, err := dialed(n, "tcp", "10.0.2.2:"+port, "x"); err != nil || got != "x" {
			t.Fatal(got, err)
		}
	}
}
