package engine

import (
	"errors"
	"slices"

	"kiste/container/bundle"
	"kiste/container/process"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/kernel/network"
)

// The kernel leads a port of the host into a container, but for those at ::1,
// which it lets nothing leave, and from one version of IP to the other. There a
// program listens and copies: an ordinary user's stack, which all his ports go
// through, or for root's containers the proxy, a service of the store.

// A Proxied is a container that runs with ports that the proxy has, as that is told
// of it. It is void when the process has ended.
type Proxied struct {
	ID      string
	Process process.Identity
	Ports   []ProxiedPort
}

// A ProxiedPort is one of them.
type ProxiedPort struct {
	Proto string // "tcp", "udp"
	IP    string // of the host
	Host  uint16
	To    string // the container's address; empty: nothing leads there now
	Port  uint16 // the container's
}

// String is "tcp [::1]:8080 -> 10.66.0.2:80".
func (p ProxiedPort) String() string {
	return p.Proto + " " + hostPort(p.IP, p.Host) + " -> " + hostPort(p.To, p.Port)
}

// isCarried reports whether a port at the address a of the host, which the user has
// named, is copied to a container with these ways out.
func isCarried(a network.Addr, ways [2]*inspect.Endpoint) bool {
	if a.Is6() && a.IsLoopback() && !shares() {
		return true
	}
	return ways[familyOf(a)] == nil
}

// familyOf is 0 for IPv4 and 1 for IPv6.
func familyOf(a network.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// leadsTo is the way by which a port at the address a of the host leads into the
// container, and the container's address there; nil: none.
func leadsTo(a network.Addr, carried bool, ways [2]*inspect.Endpoint) (way *inspect.Endpoint, to string) {
	family := familyOf(a)
	if carried && ways[family] == nil {
		family = 1 - family
	}
	if way = ways[family]; way == nil {
		return nil, ""
	}
	return way, inspect.Bare([]string{way.IP, way.IP6}[family])
}

// noCarriedSCTP refuses what nobody copies.
func noCarriedSCTP(port bundle.Port) error {
	return &fault.Error{Op: "publish port", On: hostPort(port.HostIP, port.Host) + "/sctp", Kind: fault.Unsupported,
		Err:  errors.New("SCTP is forwarded by the kernel alone, not at ::1 and not from one version of IP to the other"),
		Hint: "publish it at 127.0.0.1, or at an address of the version that the container's network has"}
}

// proxied are the ports of a container that the proxy has. Those that lead
// nowhere stay taken.
func (c *Container) proxied() (all []ProxiedPort) {
	if shares() {
		return nil // the stack has them
	}
	add := func(b inspect.Binding, to string) {
		ports, err := bundle.ParsePort(b.Port)
		if b.Carried && err == nil {
			all = append(all, ProxiedPort{ports[0].Proto, b.IP, b.Host, to, ports[0].Container})
		}
	}
	for _, b := range c.Bindings {
		add(b, b.To)
	}
	for _, b := range c.Parked {
		add(b, "")
	}
	return all
}

// announceProxied has the proxy listen for the container, whose process is pid.
func (p *Prepared) announceProxied(pid int) error {
	id, err := process.Identify(pid)
	if err != nil {
		return err
	}
	return p.e.proxy(p.Container, id)
}

// proxy has the proxy listen for a container, and lead where its ports lead now.
func (e *Engine) proxy(c *Container, id process.Identity) error {
	return e.announce(Proxy, c.ID, Proxied{c.ID, id, c.proxied()})
}

// proxyAnew is that for one that runs, where something has changed. A port that
// somebody has taken while the proxy was started again is still tried.
func (e *Engine) proxyAnew(c *Container, before []ProxiedPort) error {
	if slices.Equal(before, c.proxied()) {
		return nil
	}
	if err := e.proxy(c, identity(c.State)); fault.KindOf(err) != fault.Conflict {
		return err
	}
	return nil
}
