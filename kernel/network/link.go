package network

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/network/netlink"
)

// A Link is a network interface as data.
type Link struct {
	Name   string
	Kind   string // "veth", "bridge", "ifb"; of a link that is listed also "" for hardware and loopback
	Index  int    // when listed
	Up     bool
	MTU    int    // bytes; 0: the kernel's choice
	MAC    string // "02:00:0a:42:00:02"; empty: the kernel's choice
	Master int    // index of the bridge that it is a port of; 0: none

	// Peer of a veth to create: its name, and the descriptor of the network
	// namespace that it goes to; 0: this one.
	Peer    string
	PeerNS  int
	PeerMAC string

	// Parent of a macvlan or ipvlan to create, by its index, its Mode, and the
	// descriptor of the network namespace that it is born in; 0: this one.
	Parent int
	Mode   string
	NS     int

	// Below is, when listed, the index of the other end of a veth, in its
	// namespace, or that of the Parent.
	Below int

	// OneQueue makes a veth, both ends, with one queue in place of one for each
	// processor. It takes no lock and so is no slower, but made sooner.
	OneQueue bool

	// Packet is the most bytes of IPv4 that are handed to a link at once, both ends
	// of a veth: 64 KiB where it is 0, and on kernels before 6.3, which do not know
	// it and list it as 0.
	Packet int
}

// modes are those of macvlan and ipvlan by their names in ip-link(8), with the
// one for none: linux/if_link.h. A map would be made at the start of every
// program that this package is in.
var modes = []struct {
	kind, name string
	mode       uint32
}{
	{"macvlan", "", 4}, {"macvlan", "bridge", 4}, {"macvlan", "private", 1}, {"macvlan", "vepa", 2}, {"macvlan", "passthru", 8},
	{"ipvlan", "", 0}, {"ipvlan", "l2", 0}, {"ipvlan", "l3", 1}, {"ipvlan", "l3s", 2},
}

// modeOf is the number of the link's mode. It is not ok where the kind has none of that name.
func (l Link) modeOf() (mode uint32, ok bool) {
	for _, m := range modes {
		if m.kind == l.Kind && m.name == l.Mode {
			return m.mode, true
		}
	}
	return 0, l.Mode == ""
}

// A Route is a way to Destination. The zero Destination is the default route
// of Gateway's family.
type Route struct {
	Destination Prefix
	Gateway     Addr // zero: on the link itself
	Link        int  // index; 0: where Gateway is reached
	Metric      int  // of several the least is taken; 0: the kernel's choice
}

// maxName is the kernel's limit of a link's name (IFNAMSIZ without its zero).
const maxName = 15

// CheckName refuses what the kernel would refuse as name of a link.
func CheckName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/: \t\n\v\f\r\x00") || strings.ContainsAny(name, "%") {
		return &fault.Error{Op: "name link", On: name, Kind: fault.Invalid, Err: fmt.Errorf("want 1 to %d characters without blanks, / : %%", maxName)}
	}
	return nil
}

// ifinfo is struct ifinfomsg.
func ifinfo(index int, flags, change uint32) netlink.Body {
	b := make(netlink.Body, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

func upFlags(up bool) (flags, change uint32) {
	if up {
		return unix.IFF_UP, unix.IFF_UP
	}
	return 0, 0
}

// message is l as RTM_NEWLINK takes it.
func (l Link) message() (netlink.Body, error) {
	flags, change := upFlags(l.Up)
	b := ifinfo(0, flags, change)
	if l.Name != "" {
		b.Text(unix.IFLA_IFNAME, l.Name)
	}
	if err := l.common(&b); err != nil {
		return nil, err
	}
	mode, ok := l.modeOf()
	if !ok {
		return nil, &fault.Error{Op: "make " + l.Kind + " of mode", On: l.Mode, Kind: fault.Invalid, Hint: modeHint(l.Kind)}
	}
	var err error
	b.Nest(unix.IFLA_LINKINFO, func(info *netlink.Body) {
		info.Text(unix.IFLA_INFO_KIND, l.Kind)
		switch {
		case l.Kind == "veth" && l.Peer != "":
			info.Nest(unix.IFLA_INFO_DATA, func(data *netlink.Body) { err = l.peer(data) })
		case l.Kind == "macvlan":
			info.Nest(unix.IFLA_INFO_DATA, func(data *netlink.Body) { data.U32(unix.IFLA_MACVLAN_MODE, mode) })
		case l.Kind == "ipvlan":
			info.Nest(unix.IFLA_INFO_DATA, func(data *netlink.Body) { data.U16(unix.IFLA_IPVLAN_MODE, uint16(mode)) })
		}
	})
	return b, err
}

func modeHint(kind string) string {
	return map[string]string{"macvlan": "modes are bridge, private, vepa, passthru", "ipvlan": "modes are l2, l3, l3s"}[kind]
}

func (l Link) common(b *netlink.Body) error {
	if l.MTU != 0 {
		b.U32(unix.IFLA_MTU, uint32(l.MTU))
	}
	if l.Master != 0 {
		b.U32(unix.IFLA_MASTER, uint32(l.Master))
	}
	if l.Parent != 0 {
		b.U32(unix.IFLA_LINK, uint32(l.Parent))
	}
	if l.NS != 0 {
		b.U32(unix.IFLA_NET_NS_FD, uint32(l.NS))
	}
	if l.OneQueue {
		b.U32(unix.IFLA_NUM_TX_QUEUES, 1)
		b.U32(unix.IFLA_NUM_RX_QUEUES, 1)
	}
	if l.Packet != 0 {
		b.U32(unix.IFLA_GSO_IPV4_MAX_SIZE, uint32(l.Packet))
	}
	if l.MAC != "" {
		mac, err := parseMAC(l.MAC)
		if err != nil {
			return err
		}
		b.Add(unix.IFLA_ADDRESS, mac)
	}
	return nil
}

// vethPeer is VETH_INFO_PEER of linux/veth.h.
const vethPeer = 1

func (l Link) peer(data *netlink.Body) error {
	inner := ifinfo(0, 0, 0) // not up: the kernel opens no end before it has both
	inner.Text(unix.IFLA_IFNAME, l.Peer)
	p := Link{MTU: l.MTU, MAC: l.PeerMAC, NS: l.PeerNS, OneQueue: l.OneQueue, Packet: l.Packet}
	err := p.common(&inner)
	data.Add(vethPeer, inner)
	return err
}

// CheckMAC refuses what is no MAC address of one node.
func CheckMAC(s string) error {
	_, err := parseMAC(s)
	return err
}

// parseMAC reads six bytes in hexadecimal between colons. A group address is
// refused, as the kernel does.
func parseMAC(s string) ([]byte, error) {
	bad := &fault.Error{Op: "read MAC address", On: s, Kind: fault.Invalid, Err: fmt.Errorf("want six bytes as 02:00:0a:42:00:02, the first of them even")}
	parts := strings.Split(s, ":")
	if len(parts) != 6 {
		return nil, bad
	}
	mac := make([]byte, 0, 6)
	for _, p := range parts {
		v, err := strconv.ParseUint(p, 16, 8)
		if err != nil || len(p) != 2 {
			return nil, bad
		}
		mac = append(mac, byte(v))
	}
	if mac[0]&1 != 0 {
		return nil, bad
	}
	return mac, nil
}

// parseLink reads the data of an RTM_NEWLINK.
func parseLink(data []byte) (Link, error) {
	if len(data) < unix.SizeofIfInfomsg {
		return Link{}, netlink.ErrShort()
	}
	l := Link{Index: int(int32(binary.NativeEndian.Uint32(data[4:]))), Up: binary.NativeEndian.Uint32(data[8:])&unix.IFF_UP != 0}
	attributes, err := netlink.Parse(data[unix.SizeofIfInfomsg:])
	for _, a := range attributes {
		switch a.Kind {
		case unix.IFLA_IFNAME:
			l.Name = netlink.Text(a.Data)
		case unix.IFLA_MTU:
			l.MTU = int(netlink.U32(a.Data))
		case unix.IFLA_LINK:
			l.Below = int(int32(netlink.U32(a.Data)))
		case unix.IFLA_MASTER:
			l.Master = int(netlink.U32(a.Data))
		case unix.IFLA_GSO_IPV4_MAX_SIZE:
			l.Packet = int(netlink.U32(a.Data))
		case unix.IFLA_ADDRESS:
			l.MAC = formatMAC(a.Data)
		case unix.IFLA_LINKINFO:
			l.Kind = netlink.Text(netlink.Find(a.Data, unix.IFLA_INFO_KIND))
		}
	}
	return l, err
}

func formatMAC(b []byte) string {
	if len(b) != 6 {
		return ""
	}
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}

// parseAddress reads the data of an RTM_NEWADDR.
func parseAddress(data []byte) (index int, p Prefix, err error) {
	if len(data) < unix.SizeofIfAddrmsg {
		return 0, p, netlink.ErrShort()
	}
	index = int(binary.NativeEndian.Uint32(data[4:]))
	attributes, err := netlink.Parse(data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return 0, p, err
	}
	for _, kind := range []uint16{unix.IFA_ADDRESS, unix.IFA_LOCAL} { // local wins
		for _, a := range attributes {
			if addr, ok := AddrFromSlice(a.Data); ok && a.Kind == kind {
				p = PrefixFrom(addr, int(data[1]))
			}
		}
	}
	if !p.IsValid() {
		return 0, p, netlink.ErrShort()
	}
	return index, p, nil
}

// parseRoute reads the data of an RTM_NEWROUTE.
func parseRoute(data []byte) (Route, error) {
	if len(data) < unix.SizeofRtMsg {
		return Route{}, netlink.ErrShort()
	}
	var r Route
	attributes, err := netlink.Parse(data[unix.SizeofRtMsg:])
	for _, a := range attributes {
		switch a.Kind {
		case unix.RTA_DST:
			if addr, ok := AddrFromSlice(a.Data); ok {
				r.Destination = PrefixFrom(addr, int(data[1]))
			}
		case unix.RTA_GATEWAY:
			r.Gateway, _ = AddrFromSlice(a.Data)
		case unix.RTA_OIF:
			r.Link = int(netlink.U32(a.Data))
		}
	}
	return r, err
}
