package network

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/network/netlink"
)

// A Bridge is a switch in the kernel, as data.
type Bridge struct {
	Name      string
	Addresses []Prefix // of the host on it: the gateways of its ports
	MAC       string   // empty: one that follows from the name, since the kernel's would change with the ports
	MTU       int      // bytes; 0: 1500

	// LocalNet lets connections of the host to 127.0.0.0/8 leave by the bridge,
	// where rules lead them on to a port. It needs a rule that drops what comes
	// in for these addresses: see kernel/network/rules.
	LocalNet bool

	// Router has the host send packets on between the bridge and its other
	// links, see Forward and Forward6. It is not taken back with the bridge.
	Router bool
}

// MakeBridge makes b, or sees to it that one that is there has b's addresses and
// is up: its other addresses and options stay. A link of the name that is no
// bridge is fault.Exists. Nothing that ports send configures the host: it takes
// no router's advertisements there, and speaks IPv6 only where b has an address
// of it.
func (n *Namespace) MakeBridge(b Bridge) (created bool, err error) {
	if b.MAC == "" {
		b.MAC = macOf(b.Name)
	}
	l, err := n.Link(b.Name)
	if fault.KindOf(err) == fault.NotFound {
		err = n.Create(Link{Name: b.Name, Kind: "bridge", MAC: b.MAC, MTU: b.MTU})
		created = err == nil
		if fault.KindOf(err) == fault.Exists {
			err = nil // somebody was faster
		}
		if err == nil {
			l, err = n.Link(b.Name)
		}
	}
	if err == nil && l.Kind != "bridge" {
		err = &fault.Error{Op: "make bridge", On: b.Name, Kind: fault.Exists, Err: fmt.Errorf("the host has a link of this name that is no bridge")}
	}
	if err != nil {
		return false, err
	}
	if err := n.furnishBridge(b, l, created); err != nil {
		if created {
			_ = n.Delete(b.Name)
		}
		return false, err
	}
	return created, nil
}

func (n *Namespace) furnishBridge(b Bridge, l Link, created bool) error {
	have, err := n.Addresses(l.Index)
	if err != nil {
		return err
	}
	var c changes
	for _, p := range b.Addresses {
		if !slices.Contains(have, p) {
			c.address(l.Index, p)
		}
	}
	if l.Up && len(c.requests) == 0 { // as after every start but the first: it was up last of all
		return nil
	}
	c.up(l)
	if err := errors.Join(n.bridgeKnobs(b, created), n.route(b)); err != nil {
		return err
	}
	err = n.do(&c)
	if fault.KindOf(err) == fault.Exists { // somebody was faster
		return nil
	}
	return err
}

// route turns on what b's Router needs.
func (n *Namespace) route(b Bridge) error {
	if !b.Router {
		return nil
	}
	err := n.Forward()
	if any6(b.Addresses) {
		err = errors.Join(err, n.Forward6())
	}
	return err
}

func any6(addresses []Prefix) bool {
	return slices.ContainsFunc(addresses, func(p Prefix) bool { return p.Addr().Is6() })
}

// bridgeKnobs are set before the link is up. What one that was there already may
// do, it may go on doing.
func (n *Namespace) bridgeKnobs(b Bridge, created bool) error {
	speaks := any6(b.Addresses)
	of := func(family, name, value string) knob {
		return knob{"/proc/sys/net/" + family + "/conf/" + b.Name + "/" + name, value, family == "ipv6" && !speaks} // a kernel without IPv6
	}
	knobs := []knob{of("ipv6", "accept_ra", "0")}
	if b.LocalNet {
		knobs = append(knobs, of("ipv4", "route_localnet", "1"))
	}
	switch {
	case speaks:
		knobs = append(knobs, of("ipv6", "disable_ipv6", "0"))
	case created:
		knobs = append(knobs, of("ipv6", "disable_ipv6", "1"))
	}
	return n.turn("set up bridge", knobs...)
}

// macOf is a MAC address that a name always has: one that is administered
// locally, by FNV-1a.
func macOf(name string) string {
	h := Hash(name)
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", byte(h>>32), byte(h>>24), byte(h>>16), byte(h>>8), byte(h))
}

// Hash is FNV-1a of a text. It is no secret and no proof: whoever wishes finds two
// texts with the same.
func Hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// Isolate makes the link, a port of a bridge, one that does not reach other
// isolated ports, or an ordinary one again.
func (n *Namespace) Isolate(name string, on bool) error {
	l, err := n.Link(name)
	if err != nil {
		return err
	}
	var c changes
	c.port("isolate bridge port", l, unix.IFLA_BRPORT_ISOLATED, on)
	return n.do(&c)
}

// port sets one flag of a bridge's port.
func (c *changes) port(op string, l Link, flag uint16, on bool) {
	b := ifinfo(l.Index, 0, 0)
	b[0] = unix.AF_BRIDGE
	b.Nest(unix.IFLA_PROTINFO, func(p *netlink.Body) { p.U8(flag, map[bool]byte{true: 1}[on]) })
	c.add(op, l.Name, unix.RTM_SETLINK, 0, b)
}
