package network

import (
	"encoding/binary"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/network/netlink"
)

// changes are requests that go to the kernel in one datagram, in order.
type changes struct {
	requests []netlink.Request
	names    [][2]string // what it is, on what: for the error
}

func (c *changes) add(op, on string, kind, flags uint16, body netlink.Body) {
	c.requests = append(c.requests, netlink.Request{Kind: kind, Flags: flags, Body: body})
	c.names = append(c.names, [2]string{op, on})
}

// do makes all changes; the error is that of the first which failed.
func (n *Namespace) do(c *changes) error {
	if len(c.requests) == 0 {
		return nil
	}
	_, at, err := n.socket.Do(c.requests)
	return named(c.names[at][0], c.names[at][1], err)
}

// create is a new link, already with all that l says.
func (c *changes) create(l Link) error {
	if err := l.check(); err != nil {
		return err
	}
	b, err := l.message()
	if err == nil {
		c.add("create "+l.Kind, l.Name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b)
	}
	return err
}

func (l Link) check() error {
	if l.Peer == "" {
		return CheckName(l.Name)
	}
	if l.Name == "" { // of a veth the kernel may choose it
		return CheckName(l.Peer)
	}
	return errors.Join(CheckName(l.Name), CheckName(l.Peer))
}

func (c *changes) up(l Link) {
	c.add("set up link", l.Name, unix.RTM_NEWLINK, 0, ifinfo(l.Index, unix.IFF_UP, unix.IFF_UP))
}

// least6 is the smallest packet that a link with IPv6 carries: RFC 8200.
const least6 = 1280

// upQuietly brings a link up that speaks no IPv6 by itself: each would else
// tell the whole bridge so, three times. The link is named by its index, or by
// its name where it has none yet.
func (c *changes) upQuietly(l Link) {
	by := func(flags uint32) netlink.Body {
		b := ifinfo(l.Index, flags, flags)
		if l.Index == 0 {
			b.Text(unix.IFLA_IFNAME, l.Name)
		}
		return b
	}
	if has6() && (l.MTU == 0 || l.MTU >= least6) {
		b := by(0) // a message of its own: in one the kernel brings the link up first
		b.Nest(unix.IFLA_AF_SPEC, func(s *netlink.Body) {
			s.Nest(unix.AF_INET6, func(s *netlink.Body) { s.U8(unix.IFLA_INET6_ADDR_GEN_MODE, addressesNone) })
		})
		c.add("quieten link", l.Name, unix.RTM_NEWLINK, 0, b)
	}
	c.add("set up link", l.Name, unix.RTM_NEWLINK, 0, by(unix.IFF_UP))
}

// has6 reports whether this kernel speaks IPv6 at all.
func has6() bool { return sys.Access("/proc/net/if_inet6", unix.F_OK) == nil }

// addressesNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addressesNone = 1

// address gives the link with the index an address.
func (c *changes) address(index int, p Prefix) {
	b := make(netlink.Body, unix.SizeofIfAddrmsg)
	b[0], b[1] = family(p.Addr()), byte(p.Bits())
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	if p.Addr().Is6() {
		b[2] = unix.IFA_F_NODAD // nobody else is on a cable that we have just made
	}
	b.Add(unix.IFA_LOCAL, p.Addr().AsSlice())
	b.Add(unix.IFA_ADDRESS, p.Addr().AsSlice())
	if p.Addr().Is4() && p.Bits() < 31 {
		b.Add(unix.IFA_BROADCAST, p.Last().AsSlice())
	}
	c.add("add address", p.String(), unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b)
}

// route adds r to the main table.
func (c *changes) route(r Route) {
	b := r.message()
	c.add("add route", r.String(), unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b)
}

// String is "default via 10.66.0.1", as ip-route(8) prints it.
func (r Route) String() string {
	to, via := "default", ""
	if r.Destination.IsValid() && r.Destination.Bits() > 0 {
		to = r.Destination.String()
	}
	if r.Gateway.IsValid() {
		via = " via " + r.Gateway.String()
	}
	return to + via
}

// message is r as RTM_NEWROUTE takes it.
func (r Route) message() netlink.Body {
	b := make(netlink.Body, unix.SizeofRtMsg)
	addr := r.Destination.Addr()
	if !r.Destination.IsValid() {
		addr = r.Gateway
	}
	b[0] = family(addr)
	b[4], b[5], b[6], b[7] = unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	if !r.Gateway.IsValid() {
		b[6] = unix.RT_SCOPE_LINK
	} else {
		b.Add(unix.RTA_GATEWAY, r.Gateway.AsSlice())
	}
	if r.Destination.IsValid() && r.Destination.Bits() > 0 {
		b[1] = byte(r.Destination.Bits())
		b.Add(unix.RTA_DST, r.Destination.Masked().Addr().AsSlice())
	}
	if r.Link != 0 {
		b.U32(unix.RTA_OIF, uint32(r.Link))
	}
	if r.Metric != 0 {
		b.U32(unix.RTA_PRIORITY, uint32(r.Metric))
	}
	return b
}

// unsupportedKind explains why a link could not be made.
func unsupportedKind(kind string, err error) error {
	if !errors.Is(err, syscall.EOPNOTSUPP) {
		return err
	}
	return &fault.Error{Op: "make a link of kind", On: kind, Kind: fault.Unsupported, Err: errors.New("this kernel has none"),
		Hint: "modprobe " + kind + ", or boot a kernel with it; a bridge or macvlan do the same for most"}
}
