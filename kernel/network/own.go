package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// Options say what network Own gives. The zero value is loopback alone.
type Options struct {
	// Bridge of the host that the network is a port of. One that is missing
	// is created, with BridgeAddress or with the first address of the first
	// 10.66.N.0/24 that nothing on the host has to do with, and it stays.
	Bridge        string
	BridgeAddress Prefix

	// Address with the size of its network. Zero: the first of the bridge's
	// network that nobody has.
	Address Prefix

	// Gateway of the default route. Zero: the bridge, where it has an address
	// in Address's network. NoGateway: no default route.
	Gateway   Addr
	NoGateway bool

	Rate Rate   // in each direction; 0: no limit
	MAC  string // of the link inside; empty: the kernel's choice
	MTU  int    // bytes; 0: the bridge's
	Name string // of the link inside; empty: eth0
}

// Own puts the calling thread, which it locks, into a new network namespace
// as o says. The caller then calls execve(2), and the whole process is in;
// after an error the thread is of no use and must not be unlocked. What is
// created on the host ends with the namespace, but for the bridge. An Address
// that is in use is fault.Exists.
func Own(o Options) error {
	if o.Name == "" {
		o.Name = "eth0"
	}
	if err := o.check(); err != nil {
		return err
	}
	runtime.LockOSThread()
	host, err := Here()
	if err != nil {
		return err
	}
	defer host.Close()
	var bridge Link
	var created bool
	if o.Bridge != "" {
		if bridge, created, err = host.bridge(o); err != nil {
			return err
		}
	}
	if err := own(host, bridge, o); err != nil {
		if created {
			err = errors.Join(err, host.Delete(o.Bridge))
		}
		return err
	}
	return nil
}

func (o Options) check() error {
	if o.Bridge == "" && (o.Address.IsValid() || o.Gateway.IsValid() || o.Rate != 0 || o.MAC != "" || o.MTU != 0 || o.BridgeAddress.IsValid()) {
		return &fault.Error{Op: "give a network an address, a rate or a gateway", Kind: fault.Invalid,
			Err: fmt.Errorf("without a bridge there is only loopback"), Hint: "--bridge kiste0"}
	}
	if err := CheckName(o.Name); err != nil {
		return err
	}
	if o.MAC != "" {
		if _, err := parseMAC(o.MAC); err != nil {
			return err
		}
	}
	if o.Bridge != "" {
		return CheckName(o.Bridge)
	}
	return nil
}

func own(host *Namespace, bridge Link, o Options) error {
	if err := sys.Unshare(unix.CLONE_NEWNET); err != nil {
		return &fault.Error{Op: "make network namespace", Err: err, Hint: newHint(err)}
	}
	inside, err := Here()
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := inside.SetUp("lo"); err != nil || o.Bridge == "" {
		return err
	}
	addresses, err := host.Addresses(bridge.Index)
	if err != nil {
		return err
	}
	outer, err := host.lease(inside, bridge, addresses, &o)
	if err != nil {
		return err
	}
	if err := inside.furnish(o, addresses); err != nil {
		return errors.Join(err, host.Delete(outer))
	}
	if o.Rate == 0 {
		return nil
	}
	return errors.Join(host.Limit(outer, o.Rate), inside.Limit(o.Name, o.Rate))
}

// furnish sets the link inside up.
func (n *Namespace) furnish(o Options, bridge []Prefix) error {
	if o.MAC != "" {
		if err := n.SetMAC(o.Name, o.MAC); err != nil {
			return err
		}
	}
	if err := n.AddAddress(o.Name, o.Address); err != nil {
		return err
	}
	if err := n.SetUp(o.Name); err != nil {
		return err
	}
	gateway := o.gateway(bridge)
	if !gateway.IsValid() {
		return nil
	}
	return n.AddRoute(Route{Gateway: gateway})
}

func (o Options) gateway(bridge []Prefix) Addr {
	if o.NoGateway || o.Gateway.IsValid() {
		return o.Gateway
	}
	for _, p := range bridge {
		if o.Address.Masked().Contains(p.Addr()) {
			return p.Addr()
		}
	}
	return Addr{}
}

// bridge finds o.Bridge or creates it.
func (n *Namespace) bridge(o Options) (l Link, created bool, err error) {
	l, err = n.Link(o.Bridge)
	switch {
	case err == nil && l.Kind != "bridge":
		return l, false, &fault.Error{Op: "use bridge", On: o.Bridge, Kind: fault.Invalid, Err: fmt.Errorf("the link of this name is no bridge")}
	case err == nil:
		return l, false, nil
	case fault.KindOf(err) != fault.NotFound:
		return l, false, err
	}
	address := o.BridgeAddress
	if !address.IsValid() {
		if address, err = n.freeNetwork(); err != nil {
			return l, false, err
		}
	}
	err = n.Create(Link{Name: o.Bridge, Kind: "bridge", Up: true})
	if fault.KindOf(err) == fault.Exists { // somebody was faster
		l, err = n.Link(o.Bridge)
		return l, false, err
	}
	if err == nil {
		if err = n.AddAddress(o.Bridge, address); err == nil {
			l, err = n.Link(o.Bridge)
		}
		if err != nil {
			err = errors.Join(err, n.Delete(o.Bridge))
		}
	}
	return l, err == nil, err
}

// freeNetwork is the first address of the first 10.66.N.0/24 that overlaps no
// address and no route.
func (n *Namespace) freeNetwork() (Prefix, error) {
	taken, err := n.Addresses(0)
	if err != nil {
		return Prefix{}, err
	}
	routes, err := n.Routes()
	if err != nil {
		return Prefix{}, err
	}
	for _, r := range routes {
		if r.Destination.IsValid() && r.Destination.Bits() > 0 {
			taken = append(taken, r.Destination)
		}
	}
	for i := range 256 {
		p := PrefixFrom(Addr{b: [16]byte{10, 66, byte(i), 1}, n: 4}, 24)
		free := true
		for _, t := range taken {
			free = free && !p.Overlaps(t)
		}
		if free {
			return p, nil
		}
	}
	return Prefix{}, &fault.Error{Op: "find a free network for the bridge", Kind: fault.Unavailable, Hint: "--bridge-address 192.168.77.1/24"}
}

// maxLeases bounds the search in a large network.
const maxLeases = 1 << 16

// lease creates the veth between the bridge and inside for o.Address, or for
// the next free one, which it sets; the name outside is the lease.
func (n *Namespace) lease(inside *Namespace, bridge Link, addresses []Prefix, o *Options) (outer string, err error) {
	create := func(p Prefix) error {
		outer = leaseName(p.Addr())
		return n.Create(Link{Name: outer, Kind: "veth", Up: true, MTU: o.MTU, Master: bridge.Index, Peer: o.Name, PeerNS: inside.FD})
	}
	if o.Address.IsValid() {
		err := create(o.Address)
		if fault.KindOf(err) == fault.Exists {
			return "", &fault.Error{Op: "use address", On: o.Address.String(), Kind: fault.Exists, Err: fmt.Errorf("a network has it already: link %s", outer)}
		}
		return outer, err
	}
	var network Prefix
	own := map[Addr]bool{}
	for _, p := range addresses {
		own[p.Addr()] = true
		if p.Addr().Is4() && p.Bits() < 31 && !network.IsValid() {
			network = p.Masked()
		}
	}
	if !network.IsValid() {
		return "", &fault.Error{Op: "find an address in the network of bridge", On: o.Bridge, Kind: fault.Invalid,
			Err: fmt.Errorf("the bridge has no IPv4 address"), Hint: "--address 10.66.0.2/24, or an address for the bridge"}
	}
	links, err := n.Links()
	if err != nil {
		return "", err
	}
	taken := map[string]bool{}
	for _, l := range links {
		taken[l.Name] = true
	}
	addr := network.Addr().Next()
	for tries := 0; tries < maxLeases && addr.Less(network.Last()); tries, addr = tries+1, addr.Next() {
		if own[addr] || taken[leaseName(addr)] {
			continue
		}
		o.Address = PrefixFrom(addr, network.Bits())
		if err := create(o.Address); fault.KindOf(err) != fault.Exists {
			return outer, err
		}
	}
	return "", &fault.Error{Op: "find a free address in", On: network.String(), Kind: fault.Unavailable, Err: fmt.Errorf("all are in use")}
}

// leaseName is the name outside for an address: k and its four bytes; of an
// IPv6 address a hash, by FNV-1a.
func leaseName(a Addr) string {
	if a.Is4() {
		return fmt.Sprintf("k%08x", binary.BigEndian.Uint32(a.b[:]))
	}
	return fmt.Sprintf("k6%012x", Hash(string(a.AsSlice()))>>16)
}
