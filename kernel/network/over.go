package network

import (
	"kiste/fault"
	"kiste/kernel/network/netlink"
)

// Over is the network namespace in which a netlink socket of NETLINK_ROUTE was
// opened, new and not yet used, which is the Namespace's from here on: for who
// cannot go there himself. Its FD is -1.
func Over(fd int) (*Namespace, error) {
	s, err := netlink.From(fd)
	if err != nil {
		return nil, &fault.Error{Op: "open netlink socket", Err: err}
	}
	return &Namespace{FD: -1, socket: s}, nil
}
