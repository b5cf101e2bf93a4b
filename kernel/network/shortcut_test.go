package network_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/network"
)

// filterBridges has br_netfilter, where the host has it, look at what h's bridges
// switch, or not.
func filterBridges(t testing.TB, h *network.Namespace, on bool) {
	t.Helper()
	must(t, h.Do(func() error {
		for _, name := range []string{"iptables", "ip6tables"} {
			value := map[bool]string{true: "1", false: "0"}[on]
			if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte(value), 0); !errors.Is(err, os.ErrNotExist) && err != nil {
				return err
			}
		}
		return nil
	}))
}

func shortcut(e *network.Endpoint) { e.Shortcut = true }

// switches reports whether the bridge hands from's bytes on to to, whose outer end is
// out and whose address is address.
func switches(t testing.TB, h, from, to *network.Namespace, out, address string) bool {
	t.Helper()
	const size = 1 << 20
	before := sentBy(t, h, out)
	transfer(t, from, to, address, size)
	return sentBy(t, h, out)-before >= size
}

// sentBy are the bytes that left by a link.
func sentBy(t testing.TB, n *network.Namespace, link string) int { return counted(t, n, link, 8) }

// counted is a number that the kernel keeps of a link: proc_pid_net(5), dev.
func counted(t testing.TB, n *network.Namespace, link string, column int) (number int) {
	t.Helper()
	must(t, n.Do(func() error {
		table, err := os.ReadFile("/proc/thread-self/net/dev")
		if _, rest, ok := strings.Cut(string(table), link+":"); ok {
			number, err = strconv.Atoi(strings.Fields(rest)[column])
		}
		return err
	}))
	return number
}

func TestShortcuts(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	filterBridges(t, h, false)
	a, b, c := node(t, h, 2, shortcut), node(t, h, 3, shortcut), node(t, h, 4, nil)
	d := node(t, h, 5, func(e *network.Endpoint) { e.Shortcut, e.BigPackets = true, true })
	for _, way := range []struct {
		from, to     *network.Namespace
		out, address string
		switched     bool
	}{
		{a, b, "k3", "10.2.0.3", false}, {b, a, "k2", "10.2.0.2", false}, {a, b, "k3", "[fd02::3]", false}, {a, d, "k5", "10.2.0.5", false}, {d, b, "k3", "10.2.0.3", false},
		{a, c, "k4", "10.2.0.4", true}, {c, a, "k2", "10.2.0.2", true}, {h, a, "k2", "10.2.0.2", true}, {h, b, "k3", "[fd02::3]", true},
	} {
		if got := switches(t, h, way.from, way.to, way.out, way.address); got != way.switched {
			t.Errorf("to %s: the bridge switches: %v", way.address, got)
		}
	}
	transfer(t, a, h, "10.2.0.1", 1000)
	before := counted(t, b, "eth0", 0)
	transfer(t, a, b, "10.2.0.3", 1<<20)
	if got := counted(t, b, "eth0", 0) - before; got < 1<<20 {
		t.Errorf("its own link has counted %d bytes", got)
	}
}

// An address that somebody had, and others have now, leads to them.
func TestShortcutsFollowWhoHasTheAddress(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	filterBridges(t, h, false)
	known := func(e *network.Endpoint) { e.Shortcut, e.MAC = true, "02:00:00:00:00:07" }
	a, b := node(t, h, 2, shortcut), node(t, h, 3, known)
	if switches(t, h, a, b, "k3", "10.2.0.3") {
		t.Error("it has no shortcut")
	}
	must(t, b.Delete("eth0"))
	again := node(t, h, 3, known)
	if switches(t, h, a, again, "k3", "10.2.0.3") {
		t.Error("who has come again has no shortcut")
	}
	must(t, again.Delete("eth0"))
	slow := node(t, h, 3, func(e *network.Endpoint) { known(e); e.Receives = 1e9 })
	if !switches(t, h, a, slow, "k3", "10.2.0.3") {
		t.Error("it has passed by the rate")
	}
}

// What waits for a rate waits at the outer end, which a shortcut passes by.
func TestShortcutsEndWithARate(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	filterBridges(t, h, false)
	a, b := node(t, h, 2, shortcut), node(t, h, 3, shortcut)
	for _, step := range []struct {
		sends, receives network.Rate
		switched        bool
	}{{0, 0, false}, {0, 1e9, true}, {1e9, 1e9, true}, {1e9, 0, false}, {0, 0, false}} {
		must(t, b.SetRates(h, "eth0", step.sends, step.receives))
		if got := switches(t, h, a, b, "k3", "10.2.0.3"); got != step.switched {
			t.Errorf("sends %v, receives %v: the bridge switches: %v", step.sends, step.receives, got)
		}
	}
	plain := node(t, h, 4, nil)
	must(t, plain.SetRates(h, "eth0", 0, 1e9), plain.SetRates(h, "eth0", 0, 0))
	if !switches(t, h, a, plain, "k4", "10.2.0.4") {
		t.Error("who had no shortcut has got one by a rate")
	}
}

// Whoever filters what bridges switch sees it all, from the next port on or as soon
// as somebody looks.
func TestShortcutsEndWhereBridgesAreFiltered(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "nft")
	const chain = "table bridge t { chain c { type filter hook forward priority 0; }; }"
	nft := func(h *network.Namespace, commands string) {
		t.Helper()
		must(t, h.Do(func() error {
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(commands)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}))
	}
	const byChain = "nftables, chain bridge t c"
	for name, filter := range map[string]func(t *testing.T, h *network.Namespace, on bool){
		network.BridgeNetfilter: func(t *testing.T, h *network.Namespace, on bool) {
			if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
				t.Skip("NEEDS br_netfilter")
			}
			filterBridges(t, h, on)
		},
		byChain: func(_ *testing.T, h *network.Namespace, on bool) {
			nft(h, map[bool]string{true: chain, false: "delete table bridge t"}[on])
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := lan(t)
			filterBridges(t, h, false)
			nft(h, "table bridge idle { chain c { }; }") // which nothing calls
			a, b := node(t, h, 2, shortcut), node(t, h, 3, shortcut)
			if switches(t, h, a, b, "k3", "10.2.0.3") {
				t.Fatal("no shortcut")
			}
			must(t, h.SettleShortcuts("br0"))
			if switches(t, h, a, b, "k3", "10.2.0.3") {
				t.Fatal("no shortcut after a look")
			}
			if by := h.BridgeFilter(); by != "" {
				t.Errorf("%s is said to look at them", by)
			}
			filter(t, h, true)
			if by := h.BridgeFilter(); by != name {
				t.Errorf("%q looks at them, want %s", by, name)
			}
			must(t, h.SettleShortcuts("br0"))
			if !switches(t, h, a, b, "k3", "10.2.0.3") {
				t.Error("a shortcut past the filter")
			}
			must(t, b.SetRates(h, "eth0", 0, 0))
			c := node(t, h, 4, shortcut)
			if !switches(t, h, a, b, "k3", "10.2.0.3") || !switches(t, h, a, c, "k4", "10.2.0.4") {
				t.Error("a shortcut past the filter for who comes later, or changes his rate")
			}
			must(t, c.Delete("eth0"))
			c = node(t, h, 4, shortcut)
			filter(t, h, false)
			must(t, h.SettleShortcuts("br0"))
			if switches(t, h, a, b, "k3", "10.2.0.3") || switches(t, h, c, a, "k2", "10.2.0.2") || switches(t, h, a, c, "k4", "10.2.0.4") {
				t.Error("no shortcut when the filter is gone")
			}
		})
		t.Run(name+", at the next port", func(t *testing.T) {
			h := lan(t)
			filterBridges(t, h, false)
			a, b := node(t, h, 2, shortcut), node(t, h, 3, shortcut)
			filter(t, h, true)
			node(t, h, 4, shortcut)
			if !switches(t, h, a, b, "k3", "10.2.0.3") {
				t.Error("a shortcut past the filter")
			}
			filter(t, h, false)
			node(t, h, 5, shortcut)
			if switches(t, h, a, b, "k3", "10.2.0.3") {
				t.Error("no shortcut when the filter is gone")
			}
		})
	}
	h := lan(t)
	must(t, h.SettleShortcuts("br0")) // which never had any
	if err := h.SettleShortcuts("br7"); !errors.Is(err, fault.NotFound) {
		t.Errorf("of no bridge: %v", err)
	}
}

// All who begin at once share one table.
func TestShortcutsOfMany(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	filterBridges(t, h, false)
	const many = 12
	nodes := make([]*network.Namespace, many)
	var wait sync.WaitGroup
	for i := range nodes {
		nodes[i] = fresh(t)
		own, err := network.Open(fmt.Sprintf("/proc/self/fd/%d", h.FD))
		must(t, err)
		t.Cleanup(func() { own.Close() })
		wait.Go(func() {
			err := own.Attach(network.Endpoint{Parent: "br0", Outer: fmt.Sprintf("k%d", i+2), Name: "eth0", Shortcut: true,
				Addresses: []network.Prefix{at(fmt.Sprintf("10.2.0.%d/24", i+2))}}, nodes[i])
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for i := range nodes {
		to := (i + 1) % many
		if switches(t, h, nodes[i], nodes[to], fmt.Sprintf("k%d", to+2), fmt.Sprintf("10.2.0.%d", to+2)) {
			t.Errorf("%d has no shortcut to %d", i, to)
		}
	}
}

// Of two addresses with the same last bits one has the shortcut, and both are reached.
func TestShortcutsOfTheSamePlace(t *testing.T) {
	need.Power(t, host.Root)
	h := lan(t)
	filterBridges(t, h, false)
	with := func(mac string) func(*network.Endpoint) {
		return func(e *network.Endpoint) { e.Shortcut, e.MAC = true, mac }
	}
	a, b, c := node(t, h, 2, shortcut), node(t, h, 3, with("02:00:00:00:10:07")), node(t, h, 4, with("02:00:00:00:20:07"))
	if !switches(t, h, a, b, "k3", "10.2.0.3") || switches(t, h, a, c, "k4", "10.2.0.4") {
		t.Error("not the later one has the shortcut")
	}
	must(t, b.SetRates(h, "eth0", 0, 1e9))
	if switches(t, h, a, c, "k4", "10.2.0.4") {
		t.Error("the rate of one has ended the shortcut of the other")
	}
}

func TestShortcutsAreBetweenPortsOfABridge(t *testing.T) {
	for name, e := range map[string]network.Endpoint{
		"no bridge": {Name: "eth0"}, "isolated": {Name: "eth0", Parent: "br0", Isolated: true}, "a macvlan": {Name: "eth0", Parent: "br0", Kind: "macvlan"},
	} {
		e.Shortcut = true
		if err := e.Check(); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
