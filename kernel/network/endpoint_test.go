package network_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/network"
)

// lan is a host with a bridge, 10.2.0.1 and fd02::1.
func lan(t testing.TB) *network.Namespace {
	t.Helper()
	h := fresh(t)
	created, err := h.MakeBridge(network.Bridge{Name: "br0", Addresses: []network.Prefix{at("10.2.0.1/24"), at("fd02::1/64")}, LocalNet: true})
	must(t, err)
	if !created {
		t.Error("the bridge was there already")
	}
	return h
}

// node is a namespace on lan's bridge, number i.
func node(t testing.TB, h *network.Namespace, i int, change func(*network.Endpoint)) *network.Namespace {
	t.Helper()
	n := fresh(t)
	e := network.Endpoint{Parent: "br0", Outer: fmt.Sprintf("k%d", i), Name: "eth0",
		Addresses: []network.Prefix{at(fmt.Sprintf("10.2.0.%d/24", i)), at(fmt.Sprintf("fd02::%d/64", i))},
		Gateways:  []network.Addr{at("10.2.0.1/24").Addr(), at("fd02::1/64").Addr()}}
	if change != nil {
		change(&e)
	}
	must(t, h.Attach(e, n))
	return n
}

func TestEndpointsOfABridge(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	a := node(t, h, 2, func(e *network.Endpoint) { e.MAC, e.MTU = "02:00:00:00:00:09", 1400 })
	b := node(t, h, 3, nil)
	// At once: no address waits to be found unique.
	transfer(t, a, b, "[fd02::3]", 1000)
	transfer(t, a, b, "10.2.0.3", 1000)
	transfer(t, b, h, "10.2.0.1", 1000)
	transfer(t, b, h, "[fd02::1]", 1000)
	l, err := a.Link("eth0")
	must(t, err)
	outer, err := h.Link("k2")
	must(t, err)
	if l.MAC != "02:00:00:00:00:09" || l.MTU != 1400 || !l.Up || l.Below != outer.Index || outer.MTU != 1400 {
		t.Errorf("inside %+v, outside %+v", l, outer)
	}
	routes, err := a.Routes()
	must(t, err)
	defaults := 0
	for _, r := range routes {
		if !r.Destination.IsValid() && r.Gateway.IsValid() {
			defaults++
		}
	}
	if defaults != 2 {
		t.Errorf("%d default routes in %+v", defaults, routes)
	}
	must(t, a.Delete("eth0"))
	if _, err := h.Link("k2"); !errors.Is(err, fault.NotFound) {
		t.Errorf("the host's end of a link that was deleted: %v", err)
	}
}

func TestANamespaceIsConnectedWhileItRuns(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	_, err := h.MakeBridge(network.Bridge{Name: "br1", Addresses: []network.Prefix{at("10.3.0.1/24")}})
	must(t, err)
	a := node(t, h, 2, nil)
	second := network.Endpoint{Parent: "br1", Outer: "k2b", Name: "eth1", Addresses: []network.Prefix{at("10.3.0.2/24")},
		Gateways: []network.Addr{at("10.3.0.1/24").Addr()}, Metric: 100}
	must(t, h.Attach(second, a))
	transfer(t, a, h, "10.3.0.1", 1000)
	if err := h.Attach(second, a); !errors.Is(err, fault.Exists) {
		t.Errorf("twice: %v", err)
	}
	must(t, a.Delete("eth1"))
	must(t, h.Attach(second, a), a.Delete("eth1"))
}

func TestWhatCannotBeAttachedLeavesNothing(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	n := fresh(t)
	for _, tt := range []struct {
		name string
		e    network.Endpoint
		want fault.Kind
	}{
		{"no parent", network.Endpoint{Parent: "br9", Name: "eth0", Outer: "k9"}, fault.NotFound},
		{"a gateway out of reach", network.Endpoint{Parent: "br0", Name: "eth0", Outer: "k9", Addresses: []network.Prefix{at("10.2.0.9/24")}, Gateways: []network.Addr{at("10.9.0.1/24").Addr()}}, ""},
		{"a bad MAC address", network.Endpoint{Parent: "br0", Name: "eth0", Outer: "k9", MAC: "02:00"}, fault.Invalid},
		{"a bad name", network.Endpoint{Parent: "br0", Name: "a/b", Outer: "k9"}, fault.Invalid},
		{"a name that is taken", network.Endpoint{Parent: "br0", Name: "lo", Outer: "k9"}, fault.Exists},
		{"a mode that is none", network.Endpoint{Kind: "macvlan", Mode: "hub", Parent: "br0", Name: "eth0"}, fault.Invalid},
		{"a macvlan of nothing", network.Endpoint{Kind: "macvlan", Name: "eth0"}, fault.Invalid},
		{"a rate of what has one end", network.Endpoint{Kind: "macvlan", Parent: "br0", Name: "eth0", Receives: 1000}, fault.Invalid},
	} {
		before := links(t, h) + links(t, n)
		err := h.Attach(tt.e, n)
		if err == nil || tt.want != "" && fault.KindOf(err) != tt.want {
			t.Errorf("%s: %v; want %s", tt.name, err, tt.want)
		}
		if after := links(t, h) + links(t, n); after != before {
			t.Errorf("%s: %d links, before %d", tt.name, after, before)
		}
	}
}

func TestSysctlsOfALink(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	n := node(t, h, 2, func(e *network.Endpoint) {
		e.Sysctls = []string{"net.ipv4.conf.IFNAME.log_martians=1", "net.ipv4.neigh.IFNAME.gc_stale_time=77"}
	})
	must(t, n.Do(func() error {
		for file, want := range map[string]string{"conf/eth0/log_martians": "1", "neigh/eth0/gc_stale_time": "77", "conf/all/log_martians": "0"} {
			if got, err := os.ReadFile("/proc/sys/net/ipv4/" + file); err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s is %q, %v; want %s", file, got, err, want)
			}
		}
		return nil
	}))
	for _, bad := range []string{"net.ipv4.ip_forward=1", "net.ipv4.conf.all.log_martians=1", "net.ipv4.conf.IFNAME.../../x=1", "kernel.conf.IFNAME.a=1", "net.ipv4.conf.IFNAME.log_martians", ""} {
		e := network.Endpoint{Parent: "br0", Name: "eth1", Sysctls: []string{bad}}
		if err := h.Attach(e, n); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	before := links(t, n)
	if err := h.Attach(network.Endpoint{Parent: "br0", Name: "eth1", Sysctls: []string{"net.ipv4.conf.IFNAME.no_such=1"}}, n); err == nil || links(t, n) != before {
		t.Errorf("one that is not there: %v, %d links", err, links(t, n)-before)
	}
}

func links(t *testing.T, n *network.Namespace) int {
	t.Helper()
	all, err := n.Links()
	must(t, err)
	return len(all)
}

func TestMakeBridgeTwice(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	before, err := h.Link("br0")
	must(t, err)
	created, err := h.MakeBridge(network.Bridge{Name: "br0", Addresses: []network.Prefix{at("10.2.0.1/24"), at("10.7.0.1/24")}})
	must(t, err)
	if created {
		t.Error("created again")
	}
	addresses, err := h.Addresses(before.Index)
	must(t, err)
	if len(addresses) < 3 {
		t.Errorf("addresses %v", addresses)
	}
	node(t, h, 2, func(e *network.Endpoint) { e.MAC = "02:00:00:00:00:01" })
	if after, err := h.Link("br0"); err != nil || after.MAC != before.MAC || !after.Up {
		t.Errorf("with a port the bridge is %+v, before %+v, %v", after, before, err)
	}
	must(t, h.Create(network.Link{Name: "v0", Kind: "veth", Peer: "v1"}))
	if _, err := h.MakeBridge(network.Bridge{Name: "v0"}); !errors.Is(err, fault.Exists) {
		t.Errorf("a bridge where there is a veth: %v", err)
	}
}

// A router goes on learning its own way out from other routers.
func TestABridgesHostIsARouter(t *testing.T) {
	need.Power(t, host.Root)
	h := fresh(t)
	must(t, h.Create(network.Link{Name: "eth0", Kind: "veth", Peer: "far"}))
	_, err := h.MakeBridge(network.Bridge{Name: "br0", Addresses: []network.Prefix{at("10.2.0.1/24"), at("fd02::1/64")}, Router: true})
	must(t, err)
	must(t, h.Do(func() error {
		for knob, want := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv6/conf/eth0/accept_ra": "2", "ipv6/conf/br0/accept_ra": "0"} {
			if got, _ := os.ReadFile("/proc/sys/net/" + knob); strings.TrimSpace(string(got)) != want {
				t.Errorf("%s is %q; want %s", knob, got, want)
			}
		}
		return nil
	}))
}

// Whoever has no IPv6 address does not speak it.
func TestNobodySpeaksIPv6Unasked(t *testing.T) {
	need.Power(t, host.Root)
	h := fresh(t)
	_, err := h.MakeBridge(network.Bridge{Name: "br0", Addresses: []network.Prefix{at("10.2.0.1/24")}})
	must(t, err)
	n := node(t, h, 2, func(e *network.Endpoint) { e.Addresses, e.Gateways = e.Addresses[:1], e.Gateways[:1] })
	for what, ns := range map[string]*network.Namespace{"br0": h, "eth0": n} {
		l, err := ns.Link(what)
		must(t, err)
		addresses, err := ns.Addresses(l.Index)
		must(t, err)
		if len(addresses) != 1 {
			t.Errorf("%s has %v", what, addresses)
		}
	}
	must(t, n.Delete("eth0"))
	must(t, h.Attach(network.Endpoint{Parent: "br0", Outer: "k2", Name: "eth0", Addresses: []network.Prefix{at("fd02::2/64")}}, n))
	m := node(t, h, 3, func(e *network.Endpoint) { e.Gateways = nil })
	transfer(t, m, n, "[fd02::2]", 1000)
}

// dial says whether an address answers; refused whether it does not for a while.
func dial(from *network.Namespace, address string) error {
	return dialFor(from, address, 30*time.Second)
}

func refused(from *network.Namespace, address string) bool {
	return dialFor(from, address, 300*time.Millisecond) != nil
}

func dialFor(from *network.Namespace, address string, wait time.Duration) error {
	return from.Do(func() error {
		c, err := net.DialTimeout("tcp", address, wait)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// listen answers at an address of n until the test ends.
func listen(t testing.TB, n *network.Namespace, address string) net.Listener {
	t.Helper()
	var l net.Listener
	must(t, n.Do(func() (err error) { l, err = net.Listen("tcp", address); return err }))
	need.Serve(t, l, func(c net.Conn) {
		fmt.Fprint(c, c.RemoteAddr())
		c.Close()
	})
	return l
}

// Big packets are for both ends of a cable, and reach also whom they are too big
// for.
func TestBigPackets(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	big := func(e *network.Endpoint) { e.BigPackets = true }
	a, b, c := node(t, h, 2, big), node(t, h, 3, big), node(t, h, 4, nil)
	d := node(t, h, 5, func(e *network.Endpoint) { e.BigPackets, e.Sends, e.Receives = true, 1e9, 1e9 })
	lo, err := h.Link("lo")
	must(t, err)
	for _, end := range []struct {
		n    *network.Namespace
		name string
		want int
	}{{a, "eth0", 192 << 10}, {h, "k2", 192 << 10}, {c, "eth0", lo.Packet}, {h, "k4", lo.Packet}} {
		l, err := end.n.Link(end.name)
		must(t, err)
		if lo.Packet == 0 {
			end.want = 0 // a kernel before 6.3
		}
		if l.Packet != end.want {
			t.Errorf("%s takes %d bytes at once; want %d", end.name, l.Packet, end.want)
		}
	}
	const size = 8 << 20
	for _, way := range []struct {
		from, to *network.Namespace
		address  string
	}{{a, b, "10.2.0.3"}, {a, c, "10.2.0.4"}, {c, a, "10.2.0.2"}, {a, h, "10.2.0.1"}, {h, a, "10.2.0.2"}, {a, d, "10.2.0.5"}, {d, a, "10.2.0.2"}, {a, b, "[fd02::3]"}} {
		transfer(t, way.from, way.to, way.address, size)
	}
	e := network.Endpoint{Kind: "macvlan", Parent: "br0", Name: "eth0", BigPackets: true}
	if err := e.Check(); !errors.Is(err, fault.Invalid) {
		t.Errorf("a macvlan: %v", err)
	}
}

func TestIsolatedPorts(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	isolated := func(e *network.Endpoint) { e.Isolated = true }
	a, b, c := node(t, h, 2, isolated), node(t, h, 3, isolated), node(t, h, 4, nil)
	listen(t, b, "10.2.0.3:80")
	if !refused(a, "10.2.0.3:80") {
		t.Error("one isolated port reaches another")
	}
	must(t, dial(c, "10.2.0.3:80"), dial(h, "10.2.0.3:80"))
	must(t, h.Isolate("k2", false), dial(a, "10.2.0.3:80"))
}

func TestRatesOfBothDirections(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	const sends, receives = 1_000_000, 3_000_000
	n := node(t, h, 2, func(e *network.Endpoint) { e.Sends, e.Receives = sends, receives })
	near := func(what string, got, want float64) {
		t.Helper()
		least := 0.8
		if testing.Short() {
			least = 0.1
		}
		if got < least*want || got > 1.2*want {
			t.Errorf("%s: %.0f bytes/s; want %.0f", what, got, want)
		}
	}
	near("sends", transfer(t, n, h, "10.2.0.1", sends), sends)
	near("receives", transfer(t, h, n, "10.2.0.2", receives), receives)
	must(t, n.SetRates(h, "eth0", receives, sends))
	near("sends then", transfer(t, n, h, "10.2.0.1", receives), receives)
	near("receives then", transfer(t, h, n, "10.2.0.2", sends), sends)
	must(t, n.SetRates(h, "eth0", 0, 0), n.SetRates(h, "eth0", 0, 0))
	free := 20_000_000.0
	if testing.Short() {
		free = 1.3 * receives // see TestRateIsKept
	}
	if got := transfer(t, n, h, "10.2.0.1", 20_000_000); got < free {
		t.Errorf("without limits %.0f bytes/s", got)
	}
}

func TestMacvlan(t *testing.T) {
	need.Power(t, host.Root)
	for _, tt := range []struct {
		mode  string
		reach bool // another of the same parent
	}{{"", true}, {"bridge", true}, {"private", false}, {"vepa", false}, {"passthru", false}} {
		t.Run("mode "+tt.mode, func(t *testing.T) {
			h, wire := fresh(t), fresh(t)
			must(t, h.Create(network.Link{Name: "eth0", Kind: "veth", Up: true, Peer: "far", PeerNS: wire.FD}), wire.SetUp("far"), wire.AddAddress("far", at("10.4.0.1/24")))
			var nodes []*network.Namespace
			for i := 2; i < 4 && (i < 3 || tt.mode != "passthru"); i++ { // of passthru there can be one
				n := fresh(t)
				must(t, h.Attach(network.Endpoint{Kind: "macvlan", Mode: tt.mode, Parent: "eth0", Name: "eth0", MAC: fmt.Sprintf("02:00:00:00:00:%02x", i), Sends: 10_000_000,
					Addresses: []network.Prefix{at(fmt.Sprintf("10.4.0.%d/24", i))}, Gateways: []network.Addr{at("10.4.0.1/24").Addr()}}, n))
				nodes = append(nodes, n)
			}
			transfer(t, nodes[0], wire, "10.4.0.1", 1000)
			if len(nodes) < 2 {
				return
			}
			listen(t, nodes[1], "10.4.0.3:80")
			if refused(nodes[0], "10.4.0.3:80") == tt.reach {
				t.Errorf("one reaches the other: %v", !tt.reach)
			}
			if err := nodes[0].SetRates(h, "eth0", 1000, 1000); !errors.Is(err, fault.Unsupported) {
				t.Errorf("a rate of what comes in: %v", err)
			}
		})
	}
}

func TestIPvlan(t *testing.T) {
	need.Power(t, host.Root)
	for _, mode := range []string{"", "l2", "l3", "l3s"} {
		h, wire, n, second := fresh(t), fresh(t), fresh(t), fresh(t)
		must(t, h.Create(network.Link{Name: "eth0", Kind: "veth", Up: true, Peer: "far", PeerNS: wire.FD}), h.AddAddress("eth0", at("10.4.0.250/24")), wire.SetUp("far"), wire.AddAddress("far", at("10.4.0.1/24")))
		one := network.Endpoint{Kind: "ipvlan", Mode: mode, Parent: "eth0", Name: "eth0", Addresses: []network.Prefix{at("10.4.0.2/24")}, Sends: 10_000_000}
		if mode == "l3" || mode == "l3s" { // nobody answers there who asks where an address is: the wire has a route
			one.Addresses, one.Gateways = []network.Prefix{at("10.5.0.2/24")}, []network.Addr{at("10.5.0.1/24").Addr()}
			must(t, wire.AddRoute(network.Route{Destination: at("10.5.0.0/24"), Gateway: at("10.4.0.250/24").Addr()}))
		}
		err := h.Attach(one, n)
		if errors.Is(err, fault.Unsupported) {
			if fault.HintOf(err) == "" || !errors.Is(err, fault.Unsupported) {
				t.Errorf("%v has no hint", err)
			}
			t.Logf("this kernel: %v", err)
			continue
		}
		must(t, err)
		another := one
		another.Addresses = []network.Prefix{network.PrefixFrom(one.Addresses[0].Addr().Next(), 24)}
		must(t, h.Attach(another, second))
		transfer(t, n, wire, "10.4.0.1", 1000)
		transfer(t, wire, n, one.Addresses[0].Addr().String(), 1000)
		transfer(t, n, second, another.Addresses[0].Addr().String(), 1000)
		if err := n.SetRates(h, "eth0", 1000, 1000); !errors.Is(err, fault.Unsupported) {
			t.Errorf("%s: a rate of what comes in: %v", mode, err)
		}
	}
}

// BenchmarkAttach is what a start on a bridge pays for its cable; the CPU time
// is the whole process's.
func BenchmarkAttach(b *testing.B) {
	need.Power(b, host.Root)
	h := lan(b)
	for _, bb := range []struct {
		name string
		addr []network.Prefix
	}{{"IPv4", []network.Prefix{at("10.2.0.9/24")}}, {"both", []network.Prefix{at("10.2.0.9/24"), at("fd02::9/64")}}} {
		b.Run(bb.name, func(b *testing.B) {
			var cpu time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				n := fresh(b)
				path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.FD)
				before := used()
				b.StartTimer()
				to, err := network.Open(path)
				must(b, err)
				e := network.Endpoint{Parent: "br0", Outer: fmt.Sprintf("%s%d", bb.name, i), Name: "eth0", MAC: "02:00:00:00:00:09", Addresses: bb.addr, Gateways: []network.Addr{at("10.2.0.1/24").Addr()}}
				must(b, h.Attach(e, to))
				b.StopTimer()
				cpu += used() - before
				must(b, to.Close())
				b.StartTimer()
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "CPU-µs/op")
		})
	}
}

func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
