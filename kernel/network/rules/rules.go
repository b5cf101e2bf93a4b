// Package rules has the packet filter's part of bridges and published ports:
// one table of our own, inet kiste, and copies of the host's chains for input.
//
//	takes    State: bridges and published ports, as data
//	gives    the batch that makes it so; what is there; what is missing or too much
//	touches  its own tables of nf_tables in one network namespace, and the flows of UDP to its ports
//	state    the kernel's; the elements carry the names of their owners
//
// Bridges are elements of sets, published ports elements of maps from protocol,
// address and port of the host to address and port of a container. So a
// thousand of them cost a packet what one costs, and one more is one message.
// The rules themselves never change:
//
//	prerouting, output   to an address of the host, and in a map: to the container
//	forward              onto a bridge: known connections, its own ports, what is published; else dropped
//	postrouting          from a bridge to elsewhere, and back onto the same one: by the host's address
//	guard                a bridge's connection to 127.0.0.0/8: dropped, before anybody leads it elsewhere
//	input, forward       from a bridge to or from 127.0.0.0/8: dropped, but for answers to the host
//
// # Other people's rules
//
// Nothing but our own tables is ever written. In nftables an accept is one
// table's opinion, a drop is final: what the host's own tables, iptables, ufw or
// firewalld drop, stays dropped, and what this table accepts they still decide
// about. Published traffic is forwarded, not input: it meets their rules for
// forwarding, and for input a copy of theirs, which is asked before the port is
// changed (input.go). It is made with the first port where a chain for input
// may drop something, and anew by Reconcile when theirs has changed. See
// Firewalls.
//
// A connection to 127.0.0.1 reaches a published port too: it leaves by the
// bridge, which needs its sysctl route_localnet (kernel/network sets it), and
// with the bridge's address as source. Its cost is that the bridge would let
// containers speak to 127.0.0.1 of the host. That is dropped where it costs
// published connections least: guard is a chain of type nat, the first, which the
// kernel calls for the first packet of a connection alone, and keeps others'
// rules of that type from leading it anywhere; input drops what is of no
// connection, and input and forward what bears such a source. From other links such packets
// are dropped by the kernel itself, and prerouting leaves them to it. IPv6 has no
// such sysctl: nothing is published at ::1 here.
//
// # Privileges
//
// CAP_NET_ADMIN over the network namespace. A Rules must not be used by several
// goroutines at once; several processes may use one table at once.
package rules

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"kiste/fault"
	"kiste/kernel/network"
	"kiste/kernel/network/nft"
)

// A Bridge is what the rules must know of one.
type Bridge struct {
	Name     string // of the link
	Internal bool   // nothing comes in or goes out
	Open4    bool   // others reach ports that are not published, by IPv4
	Open6    bool   // and by IPv6
	Routed4  bool   // packets leave with the containers' own IPv4 addresses
	Routed6  bool   // and IPv6 addresses

	// Subnets are those of the containers. Who asks from there for a port that
	// is published by one of the same bridge, itself perhaps, is seen as the
	// bridge; else the answer would go past the host, which must translate it.
	Subnets []network.Prefix
}

// A Proto is a protocol with ports, by its number: RFC 5237.
type Proto uint8

// The protocols.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	SCTP Proto = 132
)

func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return ""
}

// ParseProto reads "tcp", "udp" or "sctp".
func ParseProto(s string) (Proto, error) {
	for _, p := range []Proto{TCP, UDP, SCTP} {
		if p.String() == s {
			return p, nil
		}
	}
	return 0, &fault.Error{Op: "read protocol", On: s, Kind: fault.Invalid, Err: fmt.Errorf("want tcp, udp or sctp")}
}

// A Port is a published port. It is comparable.
type Port struct {
	Proto    Proto
	Host     network.Addr // of the host; zero: all of To's family
	HostPort uint16
	To       network.Addr // of the container
	ToPort   uint16
	Owner    string // who has it: the container's id; at most 127 bytes
	Unjudged bool   // the host's chains for input have no say about it
	Direct   bool   // others reach ToPort at To itself, too: a routed network
}

// String is "tcp 127.0.0.1:8080 -> 10.66.0.2:80".
func (p Port) String() string {
	host := "*"
	if p.Host.IsValid() {
		host = p.Host.String()
	}
	return fmt.Sprintf("%v %s:%d -> %s:%d", p.Proto, host, p.HostPort, p.To, p.ToPort)
}

// Meets reports whether a packet to the host could be meant for both.
func (p Port) Meets(q Port) bool {
	return p.Proto == q.Proto && p.HostPort == q.HostPort && p.To.Is4() == q.To.Is4() &&
		(!p.Host.IsValid() || !q.Host.IsValid() || p.Host == q.Host)
}

// A State is what the table holds.
type State struct {
	Bridges []Bridge
	Ports   []Port
}

// version is in the comment of the table; it counts the changes of base. A table
// of another version is replaced.
const version = "Kiste's, do not edit; rules 6"

// DefaultName is the table of a host's first store; others need other names.
const DefaultName = "kiste"

// base is the table without elements.
func base(b *nft.Batch, t nft.Table) {
	b.CreateTable(t)
	for _, s := range sets {
		b.AddSet(t, s)
	}
	for _, c := range chains {
		b.AddChain(t, c)
	}
	for _, r := range table() {
		b.AddRule(t, r)
	}
}

// The sets. Of links by name; paths are pairs of links between which packets go
// freely.
const (
	bridges  = "bridges"
	paths    = "paths"
	guarded4 = "guarded4" // nobody reaches what is not published
	guarded6 = "guarded6"
	direct4  = "direct4" // but these, of routed networks
	direct6  = "direct6"
	closed   = "closed" // nothing comes in or goes out
	masq4    = "masquerade4"
	masq6    = "masquerade6"
	ports4   = "ports4"
	ports6   = "ports6"
	near4    = "near4" // which addresses are behind which link
	near6    = "near6"
	any4     = "any4"
	any6     = "any6"
)

var link = []nft.Type{nft.TypeIfname}

var sets = []nft.Set{
	{Name: bridges, Key: link}, {Name: guarded4, Key: link}, {Name: guarded6, Key: link}, {Name: closed, Key: link}, {Name: masq4, Key: link}, {Name: masq6, Key: link},
	{Name: paths, Key: []nft.Type{nft.TypeIfname, nft.TypeIfname}},
	{Name: near4, Key: []nft.Type{nft.TypeIfname, nft.TypeIPv4}, Range: true}, {Name: near6, Key: []nft.Type{nft.TypeIfname, nft.TypeIPv6}, Range: true},
	{Name: ports4, Key: []nft.Type{nft.TypeProto, nft.TypeIPv4, nft.TypeService}, Data: []nft.Type{nft.TypeIPv4, nft.TypeService}},
	{Name: ports6, Key: []nft.Type{nft.TypeProto, nft.TypeIPv6, nft.TypeService}, Data: []nft.Type{nft.TypeIPv6, nft.TypeService}},
	{Name: direct4, Key: []nft.Type{nft.TypeProto, nft.TypeIPv4, nft.TypeService}}, {Name: direct6, Key: []nft.Type{nft.TypeProto, nft.TypeIPv6, nft.TypeService}},
	{Name: any4, Key: []nft.Type{nft.TypeProto, nft.TypeService}, Data: []nft.Type{nft.TypeIPv4, nft.TypeService}},
	{Name: any6, Key: []nft.Type{nft.TypeProto, nft.TypeService}, Data: []nft.Type{nft.TypeIPv6, nft.TypeService}},
	{Name: judged4, Key: []nft.Type{nft.TypeProto, nft.TypeIPv4, nft.TypeService}}, {Name: judgedAny4, Key: []nft.Type{nft.TypeProto, nft.TypeService}},
	{Name: judged6, Key: []nft.Type{nft.TypeProto, nft.TypeIPv6, nft.TypeService}}, {Name: judgedAny6, Key: []nft.Type{nft.TypeProto, nft.TypeService}},
}

// copySets are those that copies of the host's chains for input have too.
func copySets() []nft.Set {
	return slices.DeleteFunc(slices.Clone(sets), func(s nft.Set) bool {
		return !slices.Contains([]string{bridges, judged4, judgedAny4, judged6, judgedAny6}, s.Name)
	})
}

// The chains that others call.
const (
	publish     = "publish"
	inward      = "inward"
	loopback    = "loopback"
	unpublished = "unpublished"
)

var chains = []nft.Chain{
	{Name: publish}, {Name: inward}, {Name: unpublished}, {Name: loopback},
	{Name: "guard", Type: "nat", Hook: nft.Prerouting, Priority: nft.PriorityFirstNAT},
	{Name: "prerouting", Type: "nat", Hook: nft.Prerouting, Priority: nft.PriorityDNAT},
	{Name: "output", Type: "nat", Hook: nft.Output, Priority: nft.PriorityDNAT},
	{Name: "input", Type: "filter", Hook: nft.Input, Priority: nft.PriorityFilter},
	{Name: "forward", Type: "filter", Hook: nft.Forward, Priority: nft.PriorityFilter},
	{Name: "postrouting", Type: "nat", Hook: nft.Postrouting, Priority: nft.PrioritySNAT},
}

// rule puts expressions and lists of them together.
func rule(chain string, parts ...any) nft.Rule {
	r := nft.Rule{Chain: chain}
	for _, p := range parts {
		switch p := p.(type) {
		case nft.Expr:
			r.Do = append(r.Do, p)
		case []nft.Expr:
			r.Do = append(r.Do, p...)
		}
	}
	return r
}

// Where the header of IPv4 has its addresses: RFC 791, section 3.1.
const source4, destination4 = 12, 16

// loopback4 matches an address in 127.0.0.0/8, by its first byte.
func loopback4(offset uint32) []nft.Expr {
	return append(nft.OfFamily(nft.IPv4, nft.R(0)), nft.Payload(nft.Network, offset, 1, nft.R(0)), nft.Is(nft.R(0), []byte{127}))
}

// table is all the rules. Each starts with fresh registers. Where a rule asks
// several things, the one that the kernel answers without a call is first: all
// packets of the host pass input or forward, and all new connections the others.
func table() []nft.Rule {
	r0, r4 := nft.R(0), nft.R(4)
	from, onto := nft.Load(nft.Iifname, r0), nft.Load(nft.Oifname, r0)
	samePath := []nft.Expr{from, nft.Load(nft.Oifname, r4), nft.In(r0, paths)}
	return []nft.Rule{
		rule("guard", loopback4(destination4), from, nft.In(r0, bridges), nft.Drop()),

		rule("input", loopback4(destination4), from, nft.In(r0, bridges), nft.Goto(loopback)),
		rule("input", loopback4(source4), from, nft.In(r0, bridges), nft.Drop()),
		// What answers the host's 127.0.0.1, which left under the bridge's address.
		rule(loopback, nft.Answering(r0), nft.Masqueraded(r0), nft.Accept()),
		rule(loopback, nft.Drop()),

		rule("prerouting", loopback4(destination4), nft.Return()),
		rule("output", nft.OfFamily(nft.IPv6, r0), nft.Destination6(r0), nft.Is(r0, loopback6), nft.Return()),
		rule("prerouting", nft.ToSelf(r0), nft.Jump(publish)),
		rule("output", nft.ToSelf(r0), nft.Jump(publish)),

		to(nft.IPv4, ports4, nft.Destination4, 1), to(nft.IPv4, any4, nil, 0),
		to(nft.IPv6, ports6, nft.Destination6, 4), to(nft.IPv6, any6, nil, 0),

		// Before what is known, since a source of the host's own makes a packet one
		// of its connections.
		rule("forward", loopback4(source4), from, nft.In(r0, bridges), nft.Drop()),
		rule("forward", nft.Known(r0), nft.Accept()),
		rule("forward", nft.Published(r0), from, nft.NotIn(r0, closed), onto, nft.NotIn(r0, closed), nft.Accept()),
		rule("forward", samePath, nft.Accept()),
		rule("forward", from, nft.In(r0, closed), nft.Drop()),
		rule("forward", onto, nft.In(r0, closed), nft.Drop()),
		rule("forward", nft.OfFamily(nft.IPv4, r0), onto, nft.In(r0, guarded4), nft.Jump(unpublished)),
		rule("forward", nft.OfFamily(nft.IPv6, r0), onto, nft.In(r0, guarded6), nft.Jump(unpublished)),
		rule(unpublished, nft.OfFamily(nft.IPv4, r0), portKey(nft.Destination4, 1), nft.In(r0, direct4), nft.Accept()),
		rule(unpublished, nft.OfFamily(nft.IPv6, r0), portKey(nft.Destination6, 4), nft.In(r0, direct6), nft.Accept()),
		rule(unpublished, nft.Drop()),

		rule("postrouting", onto, nft.In(r0, bridges), nft.Goto(inward)),
		rule("postrouting", nft.OfFamily(nft.IPv4, r0), from, nft.In(r0, masq4), nft.Masquerade()),
		rule("postrouting", nft.OfFamily(nft.IPv6, r0), from, nft.In(r0, masq6), nft.Masquerade()),
		// From elsewhere, which is most: neither the host, which has no link, nor a bridge.
		rule(inward, from, nft.IsNot(r0, nowhere), nft.NotIn(r0, bridges), nft.Accept()),
		// By address: where the host filters what its bridges switch (br_netfilter),
		// the link that it came from is not known here.
		rule(inward, nft.Published(r0), nft.OfFamily(nft.IPv4, r0), onto, nft.Source4(r4), nft.In(r0, near4), nft.Masquerade()),
		rule(inward, nft.Published(r0), nft.OfFamily(nft.IPv6, r0), onto, nft.Source6(r4), nft.In(r0, near6), nft.Masquerade()),
		rule(inward, loopback4(source4), nft.Masquerade()),
	}
}

// nowhere is the name of the link of packets that came by none.
var nowhere = make([]byte, 16)

var loopback6 = []byte{15: 1}

// to is the rule of a map of ports: address is nil for those of every address,
// words is its size in registers.
func to(f nft.Family, set string, address func(nft.Register) nft.Expr, words int) nft.Rule {
	port := map[nft.Family]int{nft.IPv4: 1, nft.IPv6: 4}[f] // behind the address, in the data
	return rule(publish, nft.OfFamily(f, nft.R(0)), portKey(address, words), nft.Map(nft.R(0), set, nft.R(0)), nft.To(f, nft.R(0), nft.R(port)))
}

// portKey puts into registers what such a map is asked for.
func portKey(address func(nft.Register) nft.Expr, words int) []nft.Expr {
	all := []nft.Expr{nft.Load(nft.L4Proto, nft.R(0))}
	if address != nil {
		all = append(all, address(nft.R(1)))
	}
	return append(all, nft.DestinationPort(nft.R(1+words)))
}

// elements are those of s, by set.
func elements(s State) map[string][]nft.Element {
	all := map[string][]nft.Element{}
	for _, b := range s.Bridges {
		b.elements(all)
	}
	for _, p := range s.Ports {
		set, e := p.element()
		all[set] = append(all[set], e)
		if !p.Unjudged && !p.Host.IsLoopback() {
			judged := map[string]string{ports4: judged4, ports6: judged6, any4: judgedAny4, any6: judgedAny6}[set]
			all[judged] = append(all[judged], nft.Element{Key: e.Key})
		}
		if set = pick(p.To, direct4, direct6); p.Direct {
			e = nft.Element{Key: nft.Key([]byte{byte(p.Proto)}, p.To.AsSlice(), nft.Port(p.ToPort))}
			if !slices.ContainsFunc(all[set], func(o nft.Element) bool { return bytes.Equal(o.Key, e.Key) }) { // two ports of the host may lead there
				all[set] = append(all[set], e)
			}
		}
	}
	return all
}

func (b Bridge) elements(all map[string][]nft.Element) {
	name := nft.Ifname(b.Name)
	for _, s := range []struct {
		set string
		in  bool
	}{
		{bridges, true}, {guarded4, !b.Open4}, {guarded6, !b.Open6}, {closed, b.Internal}, {masq4, !b.Internal && !b.Routed4}, {masq6, !b.Internal && !b.Routed6},
	} {
		if s.in {
			all[s.set] = append(all[s.set], nft.Element{Key: name})
		}
	}
	all[paths] = append(all[paths], nft.Element{Key: nft.Key(name, name)})
	for _, p := range b.Subnets {
		near := pick(p.Addr(), near4, near6)
		all[near] = append(all[near], nft.Element{Key: nft.Key(name, p.Masked().Addr().AsSlice()), End: nft.Key(name, p.Last().AsSlice())})
	}
}

func (p Port) element() (set string, e nft.Element) {
	proto, port := []byte{byte(p.Proto)}, nft.Port(p.HostPort)
	e.Data = nft.Key(p.To.AsSlice(), nft.Port(p.ToPort))
	e.Comment = p.Owner
	if p.Host.IsValid() {
		e.Key = nft.Key(proto, p.Host.AsSlice(), port)
		return pick(p.To, ports4, ports6), e
	}
	e.Key = nft.Key(proto, port)
	return pick(p.To, any4, any6), e
}

func pick(a network.Addr, v4, v6 string) string {
	if a.Is4() {
		return v4
	}
	return v6
}

// portOf reads an element of a map back.
func portOf(set string, e nft.Element) (Port, bool) {
	p := Port{Owner: e.Comment}
	size := map[string]int{ports4: 4, ports6: 16, any4: 0, any6: 0}[set]
	to := map[string]int{ports4: 4, any4: 4, ports6: 16, any6: 16}[set]
	if to == 0 || len(e.Key) != 8+size || len(e.Data) != to+4 {
		return p, false
	}
	p.Proto = Proto(e.Key[0])
	p.Host, _ = network.AddrFromSlice(e.Key[4 : 4+size])
	p.HostPort = binary.BigEndian.Uint16(e.Key[4+size:])
	p.To, _ = network.AddrFromSlice(e.Data[:to])
	p.ToPort = binary.BigEndian.Uint16(e.Data[to:])
	return p, true
}

func (s State) check() error {
	for _, b := range s.Bridges {
		if err := network.CheckName(b.Name); err != nil {
			return err
		}
	}
	for _, p := range s.Ports {
		if p.Proto.String() == "" || !p.To.IsValid() || p.HostPort == 0 || p.ToPort == 0 || p.Host.IsValid() && p.Host.Is4() != p.To.Is4() {
			return &fault.Error{Op: "publish port", On: p.String(), Kind: fault.Invalid,
				Err: errors.New("want a protocol, ports from 1 to 65535, and addresses of one family")}
		}
		if p.Host.Is6() && p.Host.IsLoopback() {
			return &fault.Error{Op: "publish port", On: p.String(), Kind: fault.Unsupported,
				Err: errors.New("the kernel lets nothing that is for ::1 leave the host, as it does for 127.0.0.1"), Hint: "let a program listen there (container/proxy), or publish it at 127.0.0.1"}
		}
	}
	return nil
}

// Compile is the batch that makes the table with all of s. It is pure.
func Compile(name string, s State) (*nft.Batch, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	var b nft.Batch
	t := named(name)
	base(&b, t)
	place{t, sets, ""}.add(&b, elements(s))
	return &b, nil
}

func named(name string) nft.Table {
	return nft.Table{Family: nft.Inet, Name: name, Comment: version}
}

// Changes is the batch that makes want of have, where the table is there. It is
// pure, and empty where nothing is to be done.
func Changes(name string, have, want State) (*nft.Batch, error) {
	if err := want.check(); err != nil {
		return nil, err
	}
	var b nft.Batch
	place{named(name), sets, ""}.change(&b, elements(have), elements(want))
	return &b, nil
}

// without are those of a that are not the same in b.
func without(a, b []nft.Element) []nft.Element {
	in := make(map[string]nft.Element, len(b))
	for _, e := range b {
		in[string(e.Key)+string(e.End)] = e
	}
	var rest []nft.Element
	for _, e := range a {
		if same, ok := in[string(e.Key)+string(e.End)]; !ok || same.Comment != e.Comment || !bytes.Equal(same.Data, e.Data) {
			rest = append(rest, e)
		}
	}
	return rest
}
