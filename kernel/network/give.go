package network

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/network/netlink"
)

// Give moves a link of the calling thread's network namespace into the one at
// path, under the name inside, and brings it up there. It keeps its addresses,
// but for those that depend on where it was: a lease's, which run out, and those
// of narrower scope than the whole network, which the kernel makes itself.
//
// Afterwards the link lives and ends with that namespace: hardware comes back to
// the first one, the kernel's own kinds are gone. Needs CAP_NET_ADMIN over
// both. No such link is fault.NotFound; a name that is taken there is
// fault.Exists, and the link stays, down.
func Give(name, path, inside string) error {
	here, err := Here()
	if err != nil {
		return err
	}
	defer here.Close()
	there, err := Open(path)
	if err != nil {
		return err
	}
	defer there.Close()
	link, err := here.Link(name)
	if err != nil {
		return err
	}
	// Before it is down, which takes those of IPv6 away.
	addresses, err := here.lasting(link.Index)
	if err != nil {
		return err
	}
	if err := here.give(link, there, inside); err != nil {
		return err
	}
	for _, p := range addresses {
		if err := there.AddAddress(inside, p); err != nil && fault.KindOf(err) != fault.Exists {
			return err
		}
	}
	return there.SetUp(inside)
}

// give moves and renames at once: each of the names may be taken by another
// link at the other side.
func (n *Namespace) give(link Link, to *Namespace, inside string) error {
	if _, err := n.socket.Ask(unix.RTM_NEWLINK, 0, ifinfo(link.Index, 0, unix.IFF_UP)); err != nil {
		return named("take down link", link.Name, err)
	}
	b := ifinfo(link.Index, 0, 0)
	b.Text(unix.IFLA_IFNAME, inside)
	b.U32(unix.IFLA_NET_NS_FD, uint32(to.FD))
	_, err := n.socket.Ask(unix.RTM_NEWLINK, 0, b)
	return named("move link", link.Name, err)
}

// lasting are the addresses of a link that are permanent and of the widest
// scope.
func (n *Namespace) lasting(index int) ([]Prefix, error) {
	return n.addresses(func(of int, data []byte) bool {
		flags, scope := addressFlags(data)
		return of == index && flags&unix.IFA_F_PERMANENT != 0 && scope == unix.RT_SCOPE_UNIVERSE
	})
}

// addressFlags are of the data of an RTM_NEWADDR that parseAddress has read: 8
// bits in its header, and all of them in an attribute.
func addressFlags(data []byte) (flags uint32, scope byte) {
	flags, scope = uint32(data[2]), data[3]
	attributes, _ := netlink.Parse(data[unix.SizeofIfAddrmsg:])
	for _, a := range attributes {
		if a.Kind == unix.IFA_FLAGS && len(a.Data) >= 4 {
			flags = binary.NativeEndian.Uint32(a.Data)
		}
	}
	return flags, scope
}
