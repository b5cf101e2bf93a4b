package network

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// An Endpoint is a namespace's way into a network, as data: a link inside, with
// all that makes it of use.
type Endpoint struct {
	// Kind of the link: "veth", also where it is empty, "macvlan" or "ipvlan".
	Kind string

	// Parent is the bridge that a veth becomes a port of, or the link of the
	// host that a macvlan or ipvlan shares. A veth may have none.
	Parent string

	// Mode of a macvlan: bridge, private, vepa, passthru; of an ipvlan: l2, l3,
	// l3s. Empty: bridge, l2.
	Mode string

	Outer string // name of the host's end of a veth; the kernel's choice where it is empty
	Name  string // of the link inside: "eth0"
	MAC   string // of the link inside; empty: the kernel's choice
	MTU   int    // bytes; 0: the parent's

	Addresses []Prefix
	Gateways  []Addr  // default routes: one of a family
	Metric    int     // of the default routes: of several the least is taken; 0: the kernel's choice
	Routes    []Route // others; their Link is not looked at

	// Isolated ports of a bridge reach its other ports, and not each other.
	Isolated bool

	// Hairpin lets the namespace reach what it publishes itself, where the host
	// filters what its bridges switch; elsewhere it is not needed, and not done.
	Hairpin bool

	// BigPackets lets a veth carry up to 192 KiB of a connection by IPv4 at once, in
	// place of 64: cheaper where both ends are on this host. What leaves by a link
	// that takes less is cut up by the processor, which costs more than it saves.
	// Kernels before 6.3 do not know it, and do without.
	BigPackets bool

	// Shortcut has a port of a bridge hand frames for others that have it straight to
	// them, past the bridge, which does not see them: as fast as a cable between the
	// two. It is for root and Linux 5.10 or later; others do without, as do all ports
	// of the bridge while the host filters what bridges switch (Attach and
	// SettleShortcuts look).
	Shortcut bool

	// Sysctls are written when the link is there and not up yet, as NAME=VALUE,
	// where IFNAME stands for the link: "net.ipv4.conf.IFNAME.log_martians=1".
	Sysctls []string

	// Sends and Receives limit what goes out of the link inside and what comes
	// in, see Limit. Receives needs a veth.
	Sends, Receives Rate
}

// String is the endpoint in one line.
func (e Endpoint) String() string {
	words := []string{e.kind(), e.Name}
	for _, w := range []struct{ name, value string }{
		{"outer", e.Outer}, {"on", e.Parent}, {"mode", e.Mode}, {"mac", e.MAC}, {"mtu", number(e.MTU)}, {"", spaced(e.Addresses)},
		{"via", spaced(e.Gateways)}, {"metric", number(e.Metric)}, {"routes", spaced(e.Routes)},
		{"", map[bool]string{true: "isolated"}[e.Isolated]}, {"sends", rateWord(e.Sends)}, {"receives", rateWord(e.Receives)},
		{"", map[bool]string{true: "big packets"}[e.BigPackets]}, {"", map[bool]string{true: "shortcut"}[e.Shortcut]},
		{"with", strings.Join(e.Sysctls, " ")},
	} {
		if w.value != "" {
			words = append(words, strings.TrimSpace(w.name+" "+w.value))
		}
	}
	return strings.Join(words, " ")
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func rateWord(r Rate) string {
	if r == 0 {
		return ""
	}
	return r.String()
}

func spaced[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = v.String()
	}
	return strings.Join(words, " ")
}

func (e Endpoint) kind() string {
	if e.Kind == "" {
		return "veth"
	}
	return e.Kind
}

// Check refuses what Attach would refuse without asking the kernel.
func (e Endpoint) Check() error {
	if err := e.link(0, 0).check(); err != nil {
		return err
	}
	for _, p := range e.Addresses {
		if !p.IsValid() {
			return &fault.Error{Op: "add address to", On: e.Name, Kind: fault.Invalid, Err: errors.New("it is no address")}
		}
	}
	for _, s := range e.Sysctls {
		if _, _, err := e.sysctl(s); err != nil {
			return err
		}
	}
	if e.kind() != "veth" && (e.Parent == "" || e.Receives != 0 || e.Isolated || e.Hairpin || e.BigPackets || e.Shortcut) {
		return &fault.Error{Op: "make " + e.Kind, On: e.Name, Kind: fault.Invalid,
			Err: errors.New("it needs a link of the host as parent, and has no end there that could be limited, isolated or have big packets and shortcuts")}
	}
	if e.Shortcut && (e.Parent == "" || e.Isolated) {
		return &fault.Error{Op: "make " + e.kind(), On: e.Name, Kind: fault.Invalid, Err: errors.New("shortcuts are between ports of a bridge that reach each other")}
	}
	_, err := e.link(0, 0).message()
	return err
}

// bigPacket is that of BigPackets, in bytes. 256 KiB save little more, 128 much less.
const bigPacket = 192 << 10

// link is the message that makes both ends, for a parent by its index.
func (e Endpoint) link(parent, into int) Link {
	if e.kind() == "veth" {
		l := Link{Name: e.Outer, Kind: "veth", Up: e.Outer == "", MTU: e.MTU, Master: parent, Peer: e.Name, PeerNS: into, PeerMAC: e.MAC, OneQueue: true}
		if e.BigPackets {
			l.Packet = bigPacket
		}
		return l
	}
	return Link{Name: e.bornAs(into), Kind: e.Kind, MTU: e.MTU, MAC: e.MAC, Parent: parent, Mode: e.Mode, NS: into}
}

// bornAs is the link's first name. Linux 6.1 refuses one that a link of the
// parent's namespace has, though it is born in another.
func (e Endpoint) bornAs(into int) string {
	if e.kind() == "veth" {
		return e.Name
	}
	return fmt.Sprintf("k%x-%x", os.Getpid(), into)
}

// Attach makes e between n, the host's namespace, and to: links, addresses,
// routes and rates. After an error nothing of it is there. The link ends with
// the namespace, or by to.Delete. A name that is taken is fault.Exists, a parent
// that is missing fault.NotFound, a kind that the kernel lacks
// fault.Unsupported. It may be called while processes run in to.
func (n *Namespace) Attach(e Endpoint, to *Namespace) error {
	if err := e.Check(); err != nil {
		return err
	}
	parent := Link{}
	if e.Parent != "" {
		var err error
		if parent, err = n.Link(e.Parent); err != nil {
			return err
		}
	}
	if e.MTU == 0 {
		e.MTU = parent.MTU
	}
	var c changes
	if err := c.create(e.link(parent.Index, to.FD)); err != nil {
		return err
	}
	if e.Outer != "" {
		c.upQuietly(Link{Name: e.Outer, MTU: e.MTU})
	}
	if err := n.do(&c); err != nil {
		return unsupportedKind(e.kind(), err)
	}
	if born := e.bornAs(to.FD); born != e.Name {
		if err := to.rename(born, e.Name); err != nil {
			return errors.Join(err, to.Delete(born))
		}
	}
	if err := n.furnishEndpoint(e, parent, to); err != nil {
		return errors.Join(err, to.Delete(e.Name))
	}
	return nil
}

func (n *Namespace) furnishEndpoint(e Endpoint, parent Link, to *Namespace) error {
	inside, err := to.Link(e.Name)
	if err != nil {
		return err
	}
	if err := to.setSysctls(e); err != nil {
		return err
	}
	var c changes
	if any6(e.Addresses) {
		c.up(inside)
	} else {
		c.upQuietly(inside)
	}
	for _, p := range e.Addresses {
		c.address(inside.Index, p)
	}
	for _, r := range e.Routes {
		r.Link = inside.Index
		c.route(r)
	}
	for _, g := range e.Gateways {
		c.route(Route{Gateway: g, Link: inside.Index, Metric: e.Metric})
	}
	if e.Sends != 0 {
		c.limit(inside, e.Sends)
	}
	if err := to.do(&c); err != nil {
		return err
	}
	var outer changes
	host := Link{Name: e.Outer, Index: inside.Below, MTU: inside.MTU}
	if e.Isolated {
		outer.port("isolate bridge port", host, unix.IFLA_BRPORT_ISOLATED, true)
	}
	if e.Hairpin && n.filtersBridges() {
		outer.port("let reach itself bridge port", host, unix.IFLA_BRPORT_MODE, true)
	}
	if e.Receives != 0 {
		outer.limit(host, e.Receives)
	}
	if err := n.do(&outer); err != nil {
		return err
	}
	if e.Shortcut {
		n.shortcut(parent.Index, inside.Below, inside.MAC, e.Receives == 0)
	}
	return nil
}

// sysctl takes one of Sysctls apart: the file, and what is written there. Others
// than those of the link are refused: the namespace is not this link's alone.
func (e Endpoint) sysctl(s string) (path, value string, err error) {
	name, value, ok := strings.Cut(s, "=")
	part := strings.Split(name, ".")
	ok = ok && len(part) == 5 && part[0] == "net" && (part[1] == "ipv4" || part[1] == "ipv6" || part[1] == "mpls") && (part[2] == "conf" || part[2] == "neigh") && part[3] == "IFNAME" &&
		part[4] != "" && !strings.ContainsFunc(part[4], func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' })
	if !ok {
		return "", "", &fault.Error{Op: "take sysctl", On: s[:min(len(s), 100)], Kind: fault.Invalid, Err: errors.New("want one of the link, as net.ipv4.conf.IFNAME.log_martians=1")}
	}
	return "/proc/sys/net/" + part[1] + "/" + part[2] + "/" + e.Name + "/" + part[4], value, nil
}

func (n *Namespace) setSysctls(e Endpoint) error {
	if len(e.Sysctls) == 0 {
		return nil
	}
	knobs := make([]knob, len(e.Sysctls))
	for i, s := range e.Sysctls {
		path, value, err := e.sysctl(s)
		if err != nil {
			return err
		}
		knobs[i] = knob{path: path, value: value}
	}
	return n.turn("set sysctl", knobs...)
}

// filtersBridges reports whether the packet filter sees what bridges switch:
// br_netfilter.
func (n *Namespace) filtersBridges() bool {
	if n.Foreign() {
		return hasBridgeFilter() // it is on in each new namespace
	}
	on := false
	_ = n.within(func() error {
		for _, name := range []string{"iptables", "ip6tables"} {
			on = on || isOne("/proc/sys/net/bridge/bridge-nf-call-"+name)
		}
		return nil
	})
	return on
}

// hasBridgeFilter reports whether the host has br_netfilter.
func hasBridgeFilter() bool {
	_, err := sys.ReadKnob("/proc/sys/net/bridge/bridge-nf-call-iptables", 16)
	return err == nil
}

// within calls f in n. The thread comes back; where it cannot, which the kernel
// does only when it has no memory at all, it is never used again.
func (n *Namespace) within(f func() error) error { return within(n.FD, f) }

// SetRates changes the rates of a veth's end inside n, called name, and of its
// other end in host: 0 takes one away. Live: what is under way goes on.
func (n *Namespace) SetRates(host *Namespace, name string, sends, receives Rate) error {
	inside, err := n.Link(name)
	if err != nil {
		return err
	}
	if err := n.limit(inside, sends); err != nil {
		return err
	}
	if inside.Kind != "veth" || inside.Below == 0 {
		if receives == 0 {
			return nil
		}
		return &fault.Error{Op: "limit what comes in by", On: name, Kind: fault.Unsupported, Err: errors.New("it is no veth, and so has no end on the host")}
	}
	outer, err := host.linkAt(inside.Below)
	if err != nil {
		return err
	}
	if receives != 0 {
		host.reopen(outer, inside.MAC, false)
	}
	if err := host.limit(outer, receives); err != nil || receives != 0 {
		return err
	}
	host.reopen(outer, inside.MAC, true)
	return nil
}

// linkAt finds a link by its index.
func (n *Namespace) linkAt(index int) (Link, error) {
	answers, err := n.socket.Ask(unix.RTM_GETLINK, 0, ifinfo(index, 0, 0))
	return foundLink(fmt.Sprint(index), answers, err)
}
