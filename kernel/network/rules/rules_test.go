package rules_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/network"
	"kiste/kernel/network/nft"
	"kiste/kernel/network/rules"
)

// A stage is a host with two bridges and an internal one, two containers on the
// first, one on each other, and a stranger on the host's uplink:
//
//	stranger 192.0.2.2 -- 192.0.2.1 host  br0: web 10.2.0.2, peer 10.2.0.3
//	         2001:db8::2  2001:db8::1     br1: other 10.3.0.2
//	                                      br2: inner 10.4.0.2, internal
type stage struct {
	host, stranger, web, peer, other, inner *network.Namespace
	rules                                   *rules.Rules
}

func at(s string) network.Prefix {
	p, err := network.ParsePrefix(s)
	if err != nil {
		panic(err)
	}
	return p
}

func addr(s string) network.Addr {
	return at(s + map[bool]string{true: "/128", false: "/32"}[strings.Contains(s, ":")]).Addr()
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func fresh(t testing.TB) *network.Namespace {
	t.Helper()
	n, err := network.New()
	must(t, err)
	t.Cleanup(func() { n.Close() })
	return n
}

// filter is the table of a namespace.
func filter(t testing.TB, n *network.Namespace) *rules.Rules {
	t.Helper()
	var r *rules.Rules
	must(t, n.Do(func() (err error) { r, err = rules.Open(rules.DefaultName); return err }))
	t.Cleanup(func() { r.Close() })
	return r
}

var bridges = []rules.Bridge{
	{Name: "br0", Subnets: []network.Prefix{at("10.2.0.1/24"), at("fd02::/64")}}, {Name: "br1", Subnets: []network.Prefix{at("10.3.0.0/24"), at("fd03::/64")}},
	{Name: "br2", Internal: true},
}

func set(t testing.TB) *stage {
	t.Helper()
	need.Power(t, host.Root, host.NFT, host.Bridge)
	s := &stage{host: fresh(t), stranger: fresh(t)}
	must(t, s.host.Create(network.Link{Name: "eth0", Kind: "veth", Up: true, Peer: "eth0", PeerNS: s.stranger.FD}), s.stranger.SetUp("eth0"),
		s.host.AddAddress("eth0", at("192.0.2.1/24")), s.stranger.AddAddress("eth0", at("192.0.2.2/24")),
		s.host.AddAddress("eth0", at("2001:db8::1/64")), s.stranger.AddAddress("eth0", at("2001:db8::2/64")),
		s.host.Forward(), s.host.Forward6())
	for i := range 3 {
		_, err := s.host.MakeBridge(network.Bridge{Name: fmt.Sprintf("br%d", i), LocalNet: true,
			Addresses: []network.Prefix{at(fmt.Sprintf("10.%d.0.1/24", 2+i)), at(fmt.Sprintf("fd0%d::1/64", 2+i))}})
		must(t, err)
	}
	attach := func(bridge, last int) *network.Namespace {
		n := fresh(t)
		must(t, s.host.Attach(network.Endpoint{Parent: fmt.Sprintf("br%d", bridge), Outer: fmt.Sprintf("k%d%d", bridge, last), Name: "eth0", Hairpin: true,
			Addresses: []network.Prefix{at(fmt.Sprintf("10.%d.0.%d/24", 2+bridge, last)), at(fmt.Sprintf("fd0%d::%d/64", 2+bridge, last))},
			Gateways:  []network.Addr{addr(fmt.Sprintf("10.%d.0.1", 2+bridge)), addr(fmt.Sprintf("fd0%d::1", 2+bridge))}}, n))
		for _, l := range []string{"10.%d.0.%d:80", "[fd0%d::%d]:80"} {
			serve(t, n, fmt.Sprintf(l, 2+bridge, last))
		}
		return n
	}
	s.web, s.peer, s.other, s.inner = attach(0, 2), attach(0, 3), attach(1, 2), attach(2, 2)
	serve(t, s.stranger, "192.0.2.2:80")
	serve(t, s.stranger, "[2001:db8::2]:80")
	s.rules = filter(t, s.host)
	must(t, s.rules.Add(rules.State{Bridges: bridges}))
	return s
}

// serve tells everybody who connects, by TCP and UDP, from which address.
func serve(t testing.TB, n *network.Namespace, address string) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	must(t, n.Do(func() (err error) {
		if l, err = net.Listen("tcp", address); err == nil {
			p, err = net.ListenPacket("udp", address)
		}
		return err
	}))
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, hostOf(c.RemoteAddr()))
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 10)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte(hostOf(from)), from)
		}
	}()
}

func hostOf(a net.Addr) string {
	h, _, _ := net.SplitHostPort(a.String())
	return h
}

// ask connects and gives what is said; "" where nothing answers in time.
func ask(n *network.Namespace, proto, address string, wait time.Duration) string {
	var said []byte
	_ = n.Do(func() error {
		c, err := net.DialTimeout(proto, address, wait)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(wait))
		if proto == "udp" {
			said = make([]byte, 100)
			_, _ = c.Write([]byte("?"))
			k, _ := c.Read(said)
			said = said[:k]
			return nil
		}
		said, err = io.ReadAll(c)
		return err
	})
	return string(said)
}

// answers checks that from reaches the address and is seen as want; "" that it
// does not reach it.
func answers(t *testing.T, who string, from *network.Namespace, proto, address, want string) {
	t.Helper()
	wait := 300 * time.Millisecond
	if want != "" {
		wait = 30 * time.Second
	}
	if got := ask(from, proto, address, wait); got != want {
		t.Errorf("%s asks %s %s and is seen as %q; want %q", who, proto, address, got, want)
	}
}

func TestContainersReachOutUnderTheHostsAddress(t *testing.T) {
	s := set(t)
	answers(t, "web", s.web, "tcp", "192.0.2.2:80", "192.0.2.1")
	answers(t, "web", s.web, "udp", "192.0.2.2:80", "192.0.2.1")
	answers(t, "web", s.web, "tcp", "[2001:db8::2]:80", "2001:db8::1")
	answers(t, "web", s.web, "tcp", "10.2.0.3:80", "10.2.0.2")
	answers(t, "web", s.web, "tcp", "[fd02::3]:80", "fd02::2")
	answers(t, "the host", s.host, "tcp", "10.2.0.2:80", "10.2.0.1")
}

func TestWallsBetweenNetworks(t *testing.T) {
	s := set(t)
	answers(t, "a container of another bridge", s.other, "tcp", "10.2.0.2:80", "")
	answers(t, "a container of another bridge", s.other, "tcp", "[fd02::2]:80", "")
	answers(t, "one of an internal network", s.inner, "tcp", "192.0.2.2:80", "")
	answers(t, "one of an internal network", s.inner, "tcp", "10.2.0.2:80", "")
	answers(t, "one that asks an internal network", s.web, "tcp", "10.4.0.2:80", "")
	answers(t, "the host", s.host, "tcp", "10.4.0.2:80", "10.4.0.1")
	must(t, s.stranger.AddRoute(network.Route{Destination: at("10.0.0.0/8"), Gateway: addr("192.0.2.1")}))
	must(t, s.stranger.AddRoute(network.Route{Destination: at("fd00::/8"), Gateway: addr("2001:db8::1")}))
	answers(t, "a neighbour who routes through the host", s.stranger, "tcp", "10.2.0.2:80", "")
	answers(t, "a neighbour who routes through the host", s.stranger, "tcp", "[fd02::2]:80", "")
	answers(t, "a neighbour who routes through the host", s.stranger, "tcp", "10.4.0.2:80", "")
	// A routed network is open, and its containers go out under their own names.
	must(t, s.rules.Remove(rules.State{Bridges: bridges[:1]}), s.rules.Add(rules.State{Bridges: []rules.Bridge{{Name: "br0", Open4: true, Open6: true, Routed4: true, Routed6: true}}}))
	answers(t, "a neighbour of a routed network", s.stranger, "tcp", "10.2.0.2:80", "192.0.2.2")
	answers(t, "web", s.web, "tcp", "192.0.2.2:80", "10.2.0.2")
	answers(t, "web", s.web, "tcp", "[2001:db8::2]:80", "fd02::2")
}

// Of one family a network may be open, and of a routed one published ports are
// reached at the container's own address.
func TestOpenFamiliesAndDirectPorts(t *testing.T) {
	s := set(t)
	must(t, s.stranger.AddRoute(network.Route{Destination: at("10.0.0.0/8"), Gateway: addr("192.0.2.1")}))
	must(t, s.stranger.AddRoute(network.Route{Destination: at("fd00::/8"), Gateway: addr("2001:db8::1")}))
	must(t, s.rules.Remove(rules.State{Bridges: bridges[:1]}), s.rules.Add(rules.State{Bridges: []rules.Bridge{{Name: "br0", Open6: true, Routed4: true, Routed6: true}}}))
	answers(t, "a neighbour, where IPv6 is open", s.stranger, "tcp", "[fd02::2]:80", "2001:db8::2")
	answers(t, "a neighbour, where IPv6 is open", s.stranger, "tcp", "10.2.0.2:80", "")
	ports := rules.State{Ports: []rules.Port{
		{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80, Direct: true}, {Proto: rules.TCP, HostPort: 8081, To: addr("10.2.0.2"), ToPort: 80, Direct: true},
	}}
	must(t, s.rules.Add(ports), s.rules.Add(ports))
	answers(t, "a neighbour, of a published port", s.stranger, "tcp", "10.2.0.2:80", "192.0.2.2")
	answers(t, "a neighbour, of a published port", s.stranger, "tcp", "192.0.2.1:8080", "192.0.2.2")
	answers(t, "a neighbour, of another protocol", s.stranger, "udp", "10.2.0.2:80", "")
	answers(t, "a neighbour, of another container", s.stranger, "tcp", "10.2.0.3:80", "")
	if changed, err := s.rules.Reconcile(rules.State{Bridges: append([]rules.Bridge{{Name: "br0", Open6: true, Routed4: true, Routed6: true}}, bridges[1:]...), Ports: ports.Ports}); changed || err != nil {
		t.Errorf("Reconcile of what is there: %v, %v", changed, err)
	}
	must(t, s.rules.Remove(ports))
	answers(t, "a neighbour, of a port that was published", s.stranger, "tcp", "10.2.0.2:80", "")
}

func TestPublishedPorts(t *testing.T) {
	s := set(t)
	for _, filtered := range []string{"1", "0"} {
		t.Run("with br_netfilter "+filtered, func(t *testing.T) {
			must(t, s.host.Do(func() error {
				return run("sh", "-c", "cd /proc/sys/net/bridge 2>/dev/null || exit 0; echo "+filtered+" | tee bridge-nf-call-iptables > bridge-nf-call-ip6tables")
			}))
			publishedPorts(t, s)
		})
	}
}

func publishedPorts(t *testing.T, s *stage) {
	to4, to6 := addr("10.2.0.2"), addr("fd02::2")
	publish := func(proto rules.Proto, host network.Addr, port uint16, to network.Addr) rules.Port {
		return rules.Port{Proto: proto, Host: host, HostPort: port, To: to, ToPort: 80, Owner: "web"}
	}
	none := network.Addr{}
	must(t, s.rules.Add(rules.State{Ports: []rules.Port{
		publish(rules.TCP, none, 8080, to4), publish(rules.UDP, none, 8080, to4), publish(rules.TCP, none, 8080, to6), publish(rules.UDP, none, 8080, to6),
		publish(rules.TCP, addr("127.0.0.1"), 8081, to4), publish(rules.UDP, addr("127.0.0.1"), 8081, to4),
		publish(rules.TCP, addr("192.0.2.1"), 8082, to4), publish(rules.TCP, addr("2001:db8::1"), 8082, to6),
	}}))
	for _, proto := range []string{"tcp", "udp"} {
		answers(t, "a stranger", s.stranger, proto, "192.0.2.1:8080", "192.0.2.2")
		answers(t, "a stranger", s.stranger, proto, "[2001:db8::1]:8080", "2001:db8::2")
		answers(t, "the host", s.host, proto, "127.0.0.1:8080", "10.2.0.1")
		answers(t, "the host", s.host, proto, "127.0.0.1:8081", "10.2.0.1")
		answers(t, "the host", s.host, proto, "192.0.2.1:8080", "192.0.2.1")
		answers(t, "a container of another bridge", s.other, proto, "192.0.2.1:8080", "10.3.0.2")
		answers(t, "a container of another bridge, by its gateway", s.other, proto, "10.3.0.1:8080", "10.3.0.2")
		answers(t, "a container of another bridge", s.other, proto, "[2001:db8::1]:8080", "fd03::2")
		answers(t, "a peer", s.peer, proto, "192.0.2.1:8080", "10.2.0.1")
		answers(t, "a peer", s.peer, proto, "[fd02::1]:8080", "fd02::1")
		answers(t, "the container itself", s.web, proto, "192.0.2.1:8080", "10.2.0.1")
		answers(t, "the container itself", s.web, proto, "[2001:db8::1]:8080", "fd02::1")
	}
	answers(t, "the host", s.host, "tcp", "[fd02::1]:8080", "fd02::1")
	answers(t, "the host", s.host, "tcp", "[2001:db8::1]:8080", "2001:db8::1")
	if err := s.host.Do(func() error { _, err := net.DialTimeout("tcp", "[::1]:8080", 5*time.Second); return err }); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("::1: %v; want it refused, so that the client tries 127.0.0.1", err)
	}
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8082", "192.0.2.2")
	answers(t, "a stranger", s.stranger, "tcp", "[2001:db8::1]:8082", "2001:db8::2")
	answers(t, "a container of an internal network", s.inner, "tcp", "192.0.2.1:8080", "")

	answers(t, "a stranger of a port for the host alone", s.stranger, "tcp", "192.0.2.1:8081", "")
	answers(t, "the host at another address", s.host, "tcp", "127.0.0.1:8082", "")
	route := network.Route{Destination: at("10.2.0.0/24"), Gateway: addr("192.0.2.1")}
	if err := s.stranger.AddRoute(route); err != nil && !errors.Is(err, fault.Exists) {
		t.Error(err)
	}
	answers(t, "a stranger of the container's own address", s.stranger, "tcp", "10.2.0.2:80", "")
}

// Whoever sends to 127.0.0.1 through the wire, or says to be it, is not heard.
func TestNobodyOutsideIsTheHostItself(t *testing.T) {
	s := set(t)
	must(t, s.rules.Add(rules.State{Ports: []rules.Port{{Proto: rules.TCP, Host: addr("127.0.0.1"), HostPort: 8081, To: addr("10.2.0.2"), ToPort: 80}}}))
	serve(t, s.host, "127.0.0.1:70")
	serve(t, s.host, "0.0.0.0:71")
	for name, n := range map[string]*network.Namespace{"stranger": s.stranger, "container": s.peer} {
		gateway := map[string]string{"stranger": "192.0.2.1", "container": "10.2.0.1"}[name]
		must(t, n.Do(func() error {
			// lo gives up its network, so that the packets leave.
			return errors.Join(
				run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet"),
				run("ip", "address", "del", "127.0.0.1/8", "dev", "lo"), run("ip", "route", "add", "127.0.0.1/32", "via", gateway, "dev", "eth0"))
		}))
		answers(t, name, n, "tcp", "127.0.0.1:8081", "")
		answers(t, name, n, "tcp", "127.0.0.1:70", "")
		must(t, n.Do(func() error {
			return errors.Join(run("ip", "route", "del", "127.0.0.1/32"), run("ip", "address", "add", "127.0.0.9/32", "dev", "eth0"))
		}))
		var said string
		must(t, n.Do(func() error {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: time.Second}
			c, err := d.Dial("udp", gateway+":71")
			if err != nil {
				return nil // the kernel does not even send it
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
			_, _ = c.Write([]byte("?"))
			b := make([]byte, 100)
			k, _ := c.Read(b)
			said = string(b[:k])
			return nil
		}))
		if said != "" {
			t.Errorf("%s as 127.0.0.9 is answered: %q", name, said)
		}
	}
}

// What others' rules do to packets that no network would bring: they lead them
// elsewhere, or keep connections from being known.
func TestNobodyElseLeadsAContainerToTheLoopback(t *testing.T) {
	need.Program(t, "nft")
	s := set(t)
	got := make(chan string, 100)
	for n, address := range map[*network.Namespace]string{s.host: "127.0.0.1:70", s.other: "10.3.0.2:70", s.stranger: "192.0.2.2:70"} {
		record(t, n, address, got)
	}
	must(t, s.stranger.Do(func() error { return run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet") }),
		s.peer.Do(func() error {
			return errors.Join(run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet"),
				run("ip", "address", "del", "127.0.0.1/8", "dev", "lo"), run("ip", "route", "add", "127.0.0.1/32", "via", "10.2.0.1", "dev", "eth0"),
				run("ip", "address", "add", "127.0.0.9/32", "dev", "eth0"))
		}), s.rules.Add(rules.State{Ports: []rules.Port{{Proto: rules.UDP, HostPort: 8070, To: addr("10.3.0.2"), ToPort: 70}}}))
	for _, theirs := range []string{
		"",
		"add table ip theirs; add chain ip theirs pre { type nat hook prerouting priority -100; }; add rule ip theirs pre fib daddr type local udp dport 70 dnat to 10.3.0.2:70", // Docker's
		"add table ip theirs; add chain ip theirs pre { type nat hook prerouting priority -190; }; add rule ip theirs pre ip daddr 127.0.0.1 udp dport 70 dnat to 192.0.2.2:70",
		"add table ip theirs; add chain ip theirs pre { type filter hook prerouting priority -300; }; add rule ip theirs pre notrack",
	} {
		if theirs != "" {
			must(t, s.host.Do(func() error { return run("nft", theirs) }))
		}
		tell(t, s.peer, "10.2.0.3", "127.0.0.1:70", "to the loopback")
		tell(t, s.peer, "127.0.0.9", "127.0.0.1:70", "between loopbacks")
		tell(t, s.peer, "127.0.0.9", "10.2.0.1:8070", "as the loopback to a port")
		tell(t, s.peer, "127.0.0.9", "10.3.0.2:70", "as the loopback to another network")
		tell(t, s.peer, "127.0.0.9", "192.0.2.2:70", "as the loopback to outside")
		// What is sent behind them, on the same way, arrives behind them.
		tell(t, s.host, "127.0.0.1", "127.0.0.1:70", "last")
		tell(t, s.host, "10.3.0.1", "10.3.0.2:70", "last")
		tell(t, s.host, "192.0.2.1", "192.0.2.2:70", "last")
		for range 3 {
			if said := <-got; said != "last" {
				t.Errorf("beside %q a container sends %s", theirs, said)
			}
		}
		if theirs != "" {
			must(t, s.host.Do(func() error { return run("nft", "delete table ip theirs") }))
		}
	}
}

// record hears what is told to an address.
func record(t *testing.T, n *network.Namespace, address string, got chan<- string) {
	t.Helper()
	var p net.PacketConn
	must(t, n.Do(func() (err error) { p, err = net.ListenPacket("udp4", address); return err }))
	t.Cleanup(func() { p.Close() })
	go func() {
		b := make([]byte, 100)
		for {
			k, _, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			got <- string(b[:k])
		}
	}()
}

// tell sends a datagram, if the kernel sends it.
func tell(t *testing.T, n *network.Namespace, from, to, what string) {
	t.Helper()
	must(t, n.Do(func() error {
		c, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}).Dial("udp4", to)
		if err == nil {
			_, err = c.Write([]byte(what))
			c.Close()
		}
		return err
	}))
}

// The host itself speaks from 127.0.0.1 to containers, and hears their answers.
func TestTheHostSpeaksFromItsLoopback(t *testing.T) {
	s := set(t)
	must(t, s.rules.Add(rules.State{Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80}, {Proto: rules.UDP, HostPort: 9, To: addr("10.2.0.2"), ToPort: 9}}}))
	for _, to := range []string{"127.0.0.1:8080", "127.0.0.9:8080", "192.0.2.1:8080", "10.2.0.2:80"} {
		must(t, s.host.Do(func() error {
			c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, Timeout: 30 * time.Second}).Dial("tcp4", to)
			if err != nil {
				return err
			}
			defer c.Close()
			said, err := io.ReadAll(c)
			if string(said) != "10.2.0.1" {
				t.Errorf("the host from 127.0.0.1 to %s is seen as %q", to, said)
			}
			return err
		}))
	}
	// Nobody has the port in the container: what its kernel says comes back, too.
	must(t, s.host.Do(func() error {
		c, err := net.Dial("udp4", "127.0.0.1:9")
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = c.Write([]byte("?"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("of a port that nobody has: %v; want it refused", err)
		}
		return nil
	}))
}

func run(words ...string) error {
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w: %s", words, err, out)
	}
	return nil
}

func TestRemoveAndDeleteLeaveNothing(t *testing.T) {
	s := set(t)
	one := rules.State{Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80, Owner: "web"}}}
	must(t, s.rules.Add(one), s.rules.Add(one))
	if ports, err := s.rules.Ports(); err != nil || len(ports) != 1 || ports[0] != one.Ports[0] {
		t.Errorf("%v, %v", ports, err)
	}
	another := one.Ports[0]
	another.To, another.Owner = addr("10.2.0.3"), "peer"
	if err := s.rules.Add(rules.State{Ports: []rules.Port{another}}); !errors.Is(err, fault.Exists) || !strings.Contains(err.Error(), "of web") {
		t.Errorf("a port that another has: %v", err)
	}
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "192.0.2.2")
	// One is there and one is not.
	must(t, s.rules.Remove(rules.State{Ports: append(one.Ports, rules.Port{Proto: rules.UDP, HostPort: 9, To: addr("10.2.0.2"), ToPort: 9})}), s.rules.Remove(one))
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "")
	must(t, s.rules.Delete(), s.rules.Delete(), s.rules.Remove(one))
	must(t, s.host.Do(func() error {
		c, err := nft.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		if tables, err := c.Tables(); err != nil || len(tables) != 0 {
			t.Errorf("left: %v, %v", tables, err)
		}
		return nil
	}))
}

// Whatever was done to the table, Reconcile makes it whole.
func TestReconcile(t *testing.T) {
	need.Program(t, "nft")
	s := set(t)
	want := rules.State{Bridges: bridges, Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80, Owner: "web"}}}
	for _, harm := range []string{
		"list tables",
		"flush ruleset",
		"flush table inet kiste",
		"flush chain inet kiste forward",
		"flush map inet kiste any4",
		"flush set inet kiste masquerade4",
		"delete element inet kiste any4 { tcp . 8080 }; add element inet kiste any4 { tcp . 8080 : 10.2.0.9 . 80 }",
		"add element inet kiste any4 { tcp . 8090 : 10.2.0.9 . 80 }",
		"add rule inet kiste forward drop",
		"delete chain inet kiste guard",
		"add set inet kiste more { type ifname; }",
		`delete table inet kiste; add table inet kiste { comment "rules 0"; }`,
	} {
		_, err := s.rules.Reconcile(want)
		must(t, err, s.host.Do(func() error { return run("nft", harm) }))
		changed, err := s.rules.Reconcile(want)
		must(t, err)
		if changed == (harm == "list tables") {
			t.Errorf("after %q something was done: %v", harm, changed)
		}
		if changed, err = s.rules.Reconcile(want); err != nil || changed {
			t.Errorf("after %q and a repair something was done: %v, %v", harm, changed, err)
		}
		answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "192.0.2.2")
		answers(t, "web", s.web, "tcp", "192.0.2.2:80", "192.0.2.1")
	}
}

func TestAFlushIsHeardOf(t *testing.T) {
	need.Program(t, "nft")
	s := set(t)
	var w *nft.Watch
	must(t, s.host.Do(func() (err error) { w, err = nft.NewWatch(); return err }))
	defer w.Close()
	for harm, want := range map[string]nft.Change{
		"flush ruleset":                  {Deleted: true, Whole: true},
		"flush chain inet kiste forward": {Deleted: true},
		"flush map inet kiste any4":      {Deleted: true, Set: "any4"},
	} {
		_, err := s.rules.Reconcile(rules.State{Bridges: bridges, Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80}}})
		must(t, err, s.host.Do(func() error { return run("nft", harm) }))
		want.Table = nft.Table{Family: nft.Inet, Name: rules.DefaultName}
		for heard := false; !heard; {
			all, lost, err := w.Next()
			must(t, err)
			for _, c := range all {
				heard = heard || c == want
			}
			if lost {
				t.Error("news were lost")
			}
		}
	}
}

// Two who find no table both have what they need in it afterwards.
func TestManyAddAtOnce(t *testing.T) {
	s := set(t)
	for range 10 {
		must(t, s.rules.Delete())
		done := make(chan error)
		for i := range 8 {
			r := filter(t, s.host)
			go func() {
				done <- r.Add(rules.State{Bridges: bridges, Ports: []rules.Port{{Proto: rules.TCP, HostPort: uint16(8000 + i), To: addr("10.2.0.2"), ToPort: 80}}})
			}()
		}
		for range 8 {
			must(t, <-done)
		}
		ports, err := s.rules.Ports()
		must(t, err)
		if len(ports) != 8 {
			t.Fatalf("%d ports: %v", len(ports), ports)
		}
		if changed, err := s.rules.Reconcile(rules.State{Bridges: bridges, Ports: ports}); err != nil || changed {
			t.Errorf("it was not whole: %v", err)
		}
	}
}

// A table that lacks a set, as one of an older version does, is made anew with
// what it has.
func TestAddToATableThatLacksASet(t *testing.T) {
	need.Program(t, "nft")
	s := set(t)
	first, second := rules.Port{Proto: rules.TCP, HostPort: 80, To: addr("10.2.0.2"), ToPort: 80}, rules.Port{Proto: rules.TCP, HostPort: 81, To: addr("10.2.0.2"), ToPort: 80}
	must(t, s.rules.Add(rules.State{Ports: []rules.Port{first}}), s.host.Do(func() error {
		return errors.Join(run("nft", "flush", "table", "inet", "kiste"), run("nft", "delete", "set", "inet", "kiste", "judged-any4"))
	}))
	must(t, s.rules.Add(rules.State{Bridges: bridges, Ports: []rules.Port{second}}))
	if changed, err := s.rules.Reconcile(rules.State{Bridges: bridges, Ports: []rules.Port{first, second}}); err != nil || changed {
		t.Errorf("it was not whole: %v, %v", changed, err)
	}
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:80", "192.0.2.2")
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:81", "192.0.2.2")
}

func TestTwoTablesOfOneHost(t *testing.T) {
	s := set(t)
	var second *rules.Rules
	must(t, s.host.Do(func() (err error) { second, err = rules.Open("kiste-2"); return err }))
	defer second.Close()
	must(t, s.rules.Remove(rules.State{Bridges: bridges[1:2]}),
		second.Add(rules.State{Bridges: bridges[1:2], Ports: []rules.Port{{Proto: rules.TCP, HostPort: 81, To: addr("10.3.0.2"), ToPort: 80}}}),
		s.rules.Add(rules.State{Ports: []rules.Port{{Proto: rules.TCP, HostPort: 80, To: addr("10.2.0.2"), ToPort: 80}}}))
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:81", "192.0.2.2")
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:80", "192.0.2.2")
	answers(t, "one bridge's container", s.web, "tcp", "10.3.0.2:80", "")
	answers(t, "other, of what the first table publishes", s.other, "tcp", "192.0.2.1:80", "10.2.0.1")
	must(t, second.Delete())
}

func TestManyPorts(t *testing.T) {
	s := set(t)
	var state rules.State
	for i := range 5000 {
		state.Ports = append(state.Ports, rules.Port{Proto: rules.TCP, HostPort: uint16(10000 + i), To: addr("10.2.0.2"), ToPort: 80, Owner: "0123456789abcdef"})
	}
	start := time.Now()
	must(t, s.rules.Add(state))
	t.Logf("5000 ports in %v", time.Since(start))
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:14999", "192.0.2.2")
	must(t, s.rules.Remove(state))
	if ports, err := s.rules.Ports(); err != nil || len(ports) != 0 {
		t.Errorf("left: %d, %v", len(ports), err)
	}
}

func TestPortsThatAreRefused(t *testing.T) {
	need.Power(t, host.Root)
	r := filter(t, fresh(t))
	to := addr("10.2.0.2")
	for _, p := range []rules.Port{
		{Proto: 1, HostPort: 80, To: to, ToPort: 80}, {Proto: rules.TCP, To: to, ToPort: 80}, {Proto: rules.TCP, HostPort: 80, To: to},
		{Proto: rules.TCP, HostPort: 80, ToPort: 80}, {Proto: rules.TCP, Host: addr("::1"), HostPort: 80, To: to, ToPort: 80},
	} {
		if err := r.Add(rules.State{Ports: []rules.Port{p}}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", p, err)
		}
	}
	if err := r.Add(rules.State{Ports: []rules.Port{{Proto: rules.TCP, Host: addr("::1"), HostPort: 80, To: addr("fd02::2"), ToPort: 80}}}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("::1: %v", err)
	}
	if err := r.Add(rules.State{Bridges: []rules.Bridge{{Name: "a/b"}}}); !errors.Is(err, fault.Invalid) {
		t.Errorf("a bridge's name: %v", err)
	}
}

func TestResolver(t *testing.T) {
	need.Power(t, host.Root, host.NFT)
	n := fresh(t)
	must(t, rules.Resolver{UDP: 1053, TCP: 1054}.Lead(n))
	lead := func(udp, tcp string) {
		serve(t, n, "127.0.0.11:"+udp)
		if tcp != udp {
			serve(t, n, "127.0.0.11:"+tcp)
		}
		answers(t, "a container", n, "udp", "127.0.0.11:53", "127.0.0.1")
		answers(t, "a container", n, "tcp", "127.0.0.11:53", "127.0.0.1")
	}
	lead("1053", "1054")
	must(t, rules.Resolver{UDP: 2053, TCP: 2053}.Lead(n))
	lead("2053", "2053")
	serve(t, n, "127.0.0.1:53") // its own
	answers(t, "a container, of its own server", n, "udp", "127.0.0.1:53", "127.0.0.1")
}
