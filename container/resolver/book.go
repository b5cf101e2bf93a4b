package resolver

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"kiste/container/process"
)

// A Container is one that asks, and that others ask for.
type Container struct {
	ID      string
	Process process.Identity // in whose network namespace it asks

	// Attachments are its networks, those that are asked first first.
	Attachments []Attachment

	// Servers are asked what is not found; none: the host's.
	Servers []netip.Addr

	// Closed: nothing is asked outside, since all its networks are internal.
	Closed bool

	// Qualified: names of one label are not asked outside, since the container's
	// resolv.conf has ndots above 0 and will ask again with its search domains.
	Qualified bool
}

// An Attachment is a container's place on a network.
type Attachment struct {
	Network string // its id
	Name    string // the network's
	Subnets []netip.Prefix

	// Names are those by which its peers find it here, its own first. None:
	// nobody finds it here, and it finds nobody.
	Names     []string
	Addresses []netip.Addr
}

// A circle is whom the containers of one network find there.
type circle struct {
	name    string // in small letters
	subnets []netip.Prefix
	names   map[string][]netip.Addr
	reverse map[netip.Addr]string // with the last dot
}

// A book is whom everybody finds. It does not change.
type book map[string]*circle // by id

// write writes the book of these containers.
func write(all []Container) book {
	b := book{}
	for _, c := range all {
		for _, a := range c.Attachments {
			if len(a.Names) > 0 {
				b.enter(a)
			}
		}
	}
	return b
}

func (b book) enter(a Attachment) {
	n := b[a.Network]
	if n == nil {
		n = &circle{name: strings.ToLower(a.Name), names: map[string][]netip.Addr{}, reverse: map[netip.Addr]string{}}
		b[a.Network] = n
	}
	for _, s := range a.Subnets {
		if !slices.Contains(n.subnets, s) {
			n.subnets = append(n.subnets, s)
		}
	}
	for _, name := range a.Names {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		for _, ip := range a.Addresses {
			if have := n.names[name]; len(have) < maxAddresses && !slices.Contains(have, ip.Unmap()) {
				n.names[name] = append(have, ip.Unmap())
			}
		}
	}
	for _, ip := range a.Addresses {
		if _, taken := n.reverse[ip.Unmap()]; !taken {
			n.reverse[ip.Unmap()] = a.Names[0] + "." + a.Name + "."
		}
	}
}

// A found is what the book says of a question. Without known nobody of whom it
// tells is meant.
type found struct {
	known bool
	reply
}

// look looks up what the container asks.
func (b book) look(c *Container, q dnsmessage.Question) found {
	var small [255]byte
	name := lowered(&q.Name, small[:0])
	if q.Type == dnsmessage.TypePTR {
		if ip, ok := reversed(string(name)); ok {
			return b.whose(c, ip)
		}
	}
	all, known := b.addresses(c, name)
	return found{known, reply{addresses: ofType(all, q.Type)}}
}

// lowered is a name in small letters, without its last dot.
func lowered(n *dnsmessage.Name, into []byte) []byte {
	for _, c := range n.Data[:n.Length] {
		into = append(into, lower(c))
	}
	if l := len(into); l > 0 && into[l-1] == '.' {
		into = into[:l-1]
	}
	return into
}

// addresses are those of a name: on any of the container's networks; else what
// follows a dot may be the name of the network that is meant.
func (b book) addresses(c *Container, name []byte) ([]netip.Addr, bool) {
	for cut := len(name); cut > 0; cut = bytes.LastIndexByte(name[:cut], '.') {
		for i := range c.Attachments {
			a := &c.Attachments[i]
			n := b[a.Network]
			if n == nil || len(a.Names) == 0 || cut < len(name) && n.name != string(name[cut+1:]) {
				continue
			}
			if all, ok := n.names[string(name[:cut])]; ok {
				return all, true
			}
		}
	}
	return nil, false
}

func ofType(all []netip.Addr, t dnsmessage.Type) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		if a.Is4() && t == dnsmessage.TypeA || a.Is6() && t == dnsmessage.TypeAAAA || t == dnsmessage.TypeALL {
			out = append(out, a)
		}
	}
	shuffle(out)
	return out
}

// whose tells whose an address is. One of a subnet that nobody has is nobody's
// outside either.
func (b book) whose(c *Container, ip netip.Addr) found {
	inside := false
	for _, a := range c.Attachments {
		n := b[a.Network]
		if n == nil || len(a.Names) == 0 {
			continue
		}
		if name, ok := n.reverse[ip]; ok {
			return found{true, reply{pointer: name}}
		}
		inside = inside || slices.ContainsFunc(n.subnets, func(p netip.Prefix) bool { return p.Contains(ip) })
	}
	return found{inside, reply{rcode: dnsmessage.RCodeNameError}}
}

const (
	reverse4 = ".in-addr.arpa"
	reverse6 = ".ip6.arpa"
)

// reversed is the address that a name in small letters is the reverse of:
// RFC 1035 3.5, RFC 3596 2.5.
func reversed(name string) (netip.Addr, bool) {
	if labels, ok := strings.CutSuffix(name, reverse4); ok {
		part := strings.Split(labels, ".")
		slices.Reverse(part)
		ip, err := netip.ParseAddr(strings.Join(part, "."))
		return ip, err == nil && ip.Is4()
	}
	labels, ok := strings.CutSuffix(name, reverse6)
	const size = 32*2 - 1 // digits and the dots between them
	if !ok || len(labels) != size {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		digit, known := hexDigit(labels[size-1-2*i])
		if !known || i > 0 && labels[size-2*i] != '.' {
			return netip.Addr{}, false
		}
		b[i/2] = b[i/2]<<4 | digit
	}
	return netip.AddrFrom16(b), true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
