package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"kiste/fault"
	"kiste/kernel/network"
)

// The options of drivers, by the drivers that have them.
var networkOptions = map[string][]string{
	"com.docker.network.driver.mtu":  {"bridge", "macvlan", "ipvlan"},
	"mtu":                            {"bridge", "macvlan", "ipvlan"}, // podman's word
	"com.docker.network.bridge.name": {"bridge"},
	"com.docker.network.bridge.enable_ip_masquerade":    {"bridge"},
	"com.docker.network.bridge.enable_icc":              {"bridge"},
	"com.docker.network.bridge.host_binding_ipv4":       {"bridge"},
	"com.docker.network.bridge.gateway_mode_ipv4":       {"bridge"},
	"com.docker.network.bridge.gateway_mode_ipv6":       {"bridge"},
	"com.docker.network.bridge.inhibit_ipv4":            {"bridge"},
	"com.docker.network.bridge.default_bridge":          {"bridge"}, // taken and ignored: it says nothing new
	"com.docker.network.container_iface_prefix":         {"bridge", "macvlan", "ipvlan"},
	"com.docker.network.bridge.trusted_host_interfaces": {"bridge"}, // ignored: a host's ports may be reached by all who reach the host
	firewallOption:   {"bridge"},
	bigPacketsOption: {"bridge"},
	shortcutOption:   {"bridge"},
	"isolate":        {"bridge"}, // podman's word; networks always are
	"parent":         {"macvlan", "ipvlan"},
	"macvlan_mode":   {"macvlan"},
	"ipvlan_mode":    {"ipvlan"},
	"mode":           {"macvlan", "ipvlan"}, // podman's word
}

// firewallOption says which of the host's chains decide about published ports:
// with firewallForward those for forward alone, else those for input too.
const (
	firewallOption  = "kiste.firewall"
	firewallForward = "forward"
)

// bigPacketsOption says whether containers hand packets of more than 64 KiB to
// each other. Without it those of internal networks do: nothing leaves the host
// there.
const bigPacketsOption = "kiste.big-packets"

func (n *Network) bigPackets() bool {
	if _, ok := n.Options[bigPacketsOption]; ok {
		return n.on(bigPacketsOption)
	}
	return n.Internal
}

// shortcutOption says whether containers hand packets to each other past the bridge,
// which they do without it.
const shortcutOption = "kiste.shortcut"

// modes are those of macvlan and ipvlan.
var modes = map[string][]string{"macvlan": {"bridge", "private", "vepa", "passthru"}, "ipvlan": {"l2", "l3", "l3s"}}

// gatewayModes are Docker's: how a bridge's host stands between it and others.
var gatewayModes = []string{"nat", "nat-unprotected", "routed", "isolated"}

// gatewayMode is that of a family of a bridge; empty: nat.
func (n *Network) gatewayMode(four bool) string {
	if four {
		return n.Options["com.docker.network.bridge.gateway_mode_ipv4"]
	}
	return n.Options["com.docker.network.bridge.gateway_mode_ipv6"]
}

// hostless reports whether the host has no address of a family on n's bridge.
func (n *Network) hostless(four bool) bool {
	inhibited, _ := strconv.ParseBool(n.Options["com.docker.network.bridge.inhibit_ipv4"])
	return n.gatewayMode(four) == "isolated" || four && inhibited
}

// checkNetwork refuses what a driver cannot do.
func checkNetwork(n *Network) error {
	if n.ConfigOnly {
		return nil // what is made of it is checked
	}
	if !slices.Contains([]string{"bridge", "macvlan", "ipvlan"}, n.Driver) {
		return &fault.Error{Op: "create network", On: n.Name, Kind: fault.NotFound, Err: fmt.Errorf("could not find plugin %s in v2 registry: plugin %q not found", n.Driver, n.Driver),
			Hint: "drivers are bridge, macvlan and ipvlan"}
	}
	for _, key := range slices.Sorted(maps.Keys(n.Options)) {
		if !slices.Contains(networkOptions[key], n.Driver) {
			known := slices.DeleteFunc(slices.Sorted(maps.Keys(networkOptions)), func(k string) bool { return !slices.Contains(networkOptions[k], n.Driver) })
			err := n.refuse("driver %s has no option %q", n.Driver, key[:min(len(key), 100)]).(*fault.Error)
			err.Hint = "it has " + strings.Join(known, ", ")
			return err
		}
	}
	for _, key := range []string{"com.docker.network.bridge.enable_ip_masquerade", "com.docker.network.bridge.enable_icc", "com.docker.network.bridge.inhibit_ipv4", "isolate", bigPacketsOption, shortcutOption} {
		if v, ok := n.Options[key]; ok {
			if _, err := strconv.ParseBool(v); err != nil {
				return n.refuse("%s: %q is neither true nor false", key, v)
			}
		}
	}
	for _, four := range []bool{true, false} {
		mode := n.gatewayMode(four)
		if mode != "" && !slices.Contains(gatewayModes, mode) {
			return n.refuse("unknown gateway mode %s: there are %s", mode, strings.Join(gatewayModes, ", "))
		}
		if mode == "isolated" && !n.Internal {
			return n.refuse("gateway mode 'isolated' can only be used for an internal network")
		}
	}
	if a := n.Options["com.docker.network.bridge.host_binding_ipv4"]; a != "" {
		if ip, err := network.ParseAddr(a); err != nil || !ip.Is4() {
			return n.refuse("com.docker.network.bridge.host_binding_ipv4: %q is no IPv4 address", a)
		}
	}
	if prefix := n.Options["com.docker.network.container_iface_prefix"]; prefix != "" {
		if err := network.CheckName(prefix + "0"); err != nil {
			return err
		}
	}
	if v, ok := n.Options[firewallOption]; ok && v != firewallForward && v != "all" {
		return n.refuse("%s: %q is neither all nor forward", firewallOption, v)
	}
	if _, err := n.mtu(); err != nil {
		return n.refuse("%s", err.Error())
	}
	if mode := n.Mode(); mode != "" && !slices.Contains(modes[n.Driver], mode) {
		return n.refuse("%s has no mode %q: it has %s", n.Driver, mode, strings.Join(modes[n.Driver], ", "))
	}
	if n.Driver != "bridge" && n.Link() == "" {
		err := n.refuse("driver %s stands on a link of the host", n.Driver).(*fault.Error)
		err.Hint = "-o parent=LINK: ip link lists them"
		return err
	}
	if n.NoIPv4 && !n.IPv6 {
		return n.refuse("IPv4 or IPv6 must be enabled")
	}
	if link := n.Link(); link != "" {
		return network.CheckName(link)
	}
	return nil
}

// refuse says what is wrong with a network that is to be made.
func (n *Network) refuse(format string, args ...any) error {
	return networkError("create", n.Name, fault.Invalid, format, args...)
}

// mtu is what the user says, in bytes; 0: nothing.
func (n *Network) mtu() (int, error) {
	for _, key := range []string{"com.docker.network.driver.mtu", "mtu"} {
		v, ok := n.Options[key]
		if !ok {
			continue
		}
		mtu, err := strconv.ParseUint(v, 10, 32)
		if err != nil || mtu != 0 && mtu < 68 || mtu > 65535 {
			return 0, fmt.Errorf("invalid MTU: %q: want 68 to 65535 bytes", v)
		}
		return int(mtu), nil
	}
	return 0, nil
}

// Mode is that of a macvlan or ipvlan network; empty: the driver's first.
func (n *Network) Mode() string {
	for _, key := range []string{n.Driver + "_mode", "mode"} {
		if v := n.Options[key]; v != "" {
			return v
		}
	}
	return ""
}

// giveSubnets gives a network the ranges that are asked for, or such as nobody
// has. The caller holds the lock on networks.
func (e *Engine) giveSubnets(n *Network, o NetworkOptions) error {
	all, bad, err := e.networks()
	if err != nil || len(bad) > 0 {
		return errors.Join(append(bad, err)...)
	}
	taken, err := prefixesOf(all)
	if err != nil {
		return err
	}
	for _, s := range o.Subnets {
		p, err := network.ParsePrefix(s)
		switch {
		case err != nil:
			return n.refuse("invalid subnet %s: want an address with its network's size, as 10.5.0.0/24", s)
		case p != p.Masked():
			return n.refuse("invalid subnet %s: it should be %s", p, p.Masked())
		}
		for _, t := range taken {
			if !n.ConfigOnly && p.Overlaps(t.prefix) {
				err := networkError("create", n.Name, fault.Conflict, "invalid pool request: Pool overlaps with other one on this address space").(*fault.Error)
				err.Hint = "network " + t.of + " has " + t.prefix.String()
				return err
			}
		}
		taken = append(taken, takenPrefix{p, n.Name})
		n.Subnets = append(n.Subnets, Subnet{Subnet: p.String()})
		n.IPv6 = n.IPv6 || p.Addr().Is6()
	}
	if !n.ConfigOnly {
		if err := n.fill(taken); err != nil {
			return err
		}
	}
	if err := n.placeRanges(o); err != nil {
		return err
	}
	return n.placeGateways(o)
}

// fill adds the subnets of families that nobody has given one.
func (n *Network) fill(taken []takenPrefix) error {
	has := func(four bool) bool {
		return slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return strings.Contains(s.Subnet, ":") != four })
	}
	if !n.NoIPv4 && !has(true) {
		p, err := freeSubnet(taken)
		if err != nil {
			return err
		}
		n.Subnets = append([]Subnet{{Subnet: p.String(), Chosen: true}}, n.Subnets...)
	}
	if n.IPv6 && !has(false) {
		// As RFC 4193 has it: fd, and 40 bits that nobody else has.
		p := "fd" + n.ID[:2] + ":" + n.ID[2:6] + ":" + n.ID[6:10] + "::/64"
		parsed, err := network.ParsePrefix(p)
		if err != nil {
			return err
		}
		n.Subnets = append(n.Subnets, Subnet{Subnet: parsed.String(), Chosen: true})
	}
	return nil
}

// find gives the subnet that has an address.
func (n *Network) find(a network.Addr) *Subnet {
	for i := range n.Subnets {
		if p, err := network.ParsePrefix(n.Subnets[i].Subnet); err == nil && p.Contains(a) {
			return &n.Subnets[i]
		}
	}
	return nil
}

// placeRanges takes the ranges and the addresses that nobody is to get into
// their subnets.
func (n *Network) placeRanges(o NetworkOptions) error {
	for _, r := range o.Ranges {
		p, err := network.ParsePrefix(r)
		if err != nil {
			return n.refuse("invalid ip-range %s: want an address with its network's size", r)
		}
		s := n.find(p.Addr())
		if s == nil || mustPrefix(s.Subnet).Bits() > p.Bits() {
			return n.refuse("no matching subnet for range %s", r)
		}
		s.Range = p.Masked().String()
	}
	for name, a := range o.Aux {
		addr, err := network.ParseAddr(a)
		if err != nil {
			return n.refuse("invalid aux-address %s=%s", name, a)
		}
		s := n.find(addr)
		if s == nil {
			return n.refuse("no matching subnet for aux-address %s", a)
		}
		if s.Aux == nil {
			s.Aux = map[string]string{}
		}
		s.Aux[name] = addr.String()
	}
	return nil
}

// placeGateways takes the gateways into their subnets, and gives the others the
// first address, of their range where they have one, that is not kept.
func (n *Network) placeGateways(o NetworkOptions) error {
	for _, g := range o.Gateways {
		addr, err := network.ParseAddr(g)
		if err != nil {
			return n.refuse("invalid gateway %s", g)
		}
		s := n.find(addr)
		switch {
		case s == nil:
			return n.refuse("no matching subnet for gateway %s", g)
		case s.Gateway != "":
			return n.refuse("multiple gateways for subnet %s", s.Subnet)
		}
		s.Gateway = addr.String()
	}
	if n.ConfigOnly {
		return nil
	}
	for i := range n.Subnets {
		s := &n.Subnets[i]
		if s.Gateway != "" {
			continue
		}
		p := mustPrefix(s.Subnet)
		if p.Addr().Is4() && p.Bits() > 30 {
			return n.refuse("subnet %s has no room for a gateway and a container", s.Subnet)
		}
		gateway := p.Addr().Next()
		if s.Range != "" {
			// The first address of the range, as Docker has it.
			if r := mustPrefix(s.Range); r.Addr() != p.Addr() {
				gateway = r.Addr()
			}
		}
		for s.keeps(gateway.String()) {
			gateway = gateway.Next()
		}
		s.Gateway = gateway.String()
	}
	return nil
}

// keeps reports whether an address is kept for somebody.
func (s *Subnet) keeps(address string) bool {
	for _, aux := range s.Aux {
		if aux == address {
			return true
		}
	}
	return false
}

// mustPrefix is a prefix of a document; a damaged one is none.
func mustPrefix(s string) network.Prefix {
	p, _ := network.ParsePrefix(s)
	return p
}

// A takenPrefix is a range of addresses that somebody has.
type takenPrefix struct {
	prefix network.Prefix
	of     string
}

func prefixesOf(all []*Network) ([]takenPrefix, error) {
	var taken []takenPrefix
	for _, n := range all {
		if n.Driver == "macvlan" || n.Driver == "ipvlan" || n.ConfigOnly {
			continue // of another wire, where they may be the same, or of none
		}
		for _, s := range n.Subnets {
			p, err := network.ParsePrefix(s.Subnet)
			if err != nil {
				return nil, networkError("read", n.Name, fault.Invalid, "subnet %q", s.Subnet)
			}
			taken = append(taken, takenPrefix{p, n.Name})
		}
	}
	return taken, nil
}

// pools are where subnets come from that nobody has asked for: 128 of 4093
// addresses, and where these are taken 256 small ones. They are none of
// Docker's, Podman's or Kubernetes'.
var pools = []struct {
	first string
	count int
}{{"10.72.0.0/20", 128}, {"192.168.0.0/24", 256}}

// freeSubnet is the first of the pools that no network has and nothing on the
// host has to do with.
func freeSubnet(taken []takenPrefix) (network.Prefix, error) {
	taken = slices.Clone(taken)
	if host, err := network.Here(); err == nil {
		defer host.Close()
		addresses, err1 := host.Addresses(0)
		routes, err2 := host.Routes()
		if err := errors.Join(err1, err2); err != nil {
			return network.Prefix{}, err
		}
		for _, a := range addresses {
			taken = append(taken, takenPrefix{a, "the host"})
		}
		for _, r := range routes {
			if r.Destination.IsValid() && r.Destination.Bits() > 0 {
				taken = append(taken, takenPrefix{r.Destination, "the host"})
			}
		}
	}
	for _, pool := range pools {
		p := mustPrefix(pool.first)
		for range pool.count {
			if !slices.ContainsFunc(taken, func(t takenPrefix) bool { return p.Overlaps(t.prefix) }) {
				return p, nil
			}
			p = network.PrefixFrom(p.After(), p.Bits())
		}
	}
	return network.Prefix{}, &fault.Error{Op: "create network", Kind: fault.Unavailable, Err: errors.New("all predefined address pools have been fully subnetted"), Hint: "--subnet 172.30.0.0/24, or another that is free"}
}

// on reports whether an option is not switched off.
func (n *Network) on(key string) bool {
	v, err := strconv.ParseBool(n.Options[key])
	return err != nil || v
}
