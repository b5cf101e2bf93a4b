// Package nft writes the kernel's packet filter, nf_tables, without the program
// nft.
//
//	takes    tables, chains, sets, elements and rules, as data
//	gives    a Batch, done in one transaction; what tables, chains and sets hold, also to be copied; news of changes
//	touches  a netlink socket of NETLINK_NETFILTER in one network namespace
//	state    the kernel's: nothing is kept in files
//
// A rule is a list of expressions over registers, as the kernel runs them: one
// loads 4 bytes of the packet, the next compares them, or looks them up in a
// set. The program nft compiles its language into these;
// nft --debug=netlink shows how, and "nft list ruleset" shows what this package
// wrote:
//
//	nft add table inet kiste
//	nft 'add chain inet kiste out { type nat hook postrouting priority 100; }'
//	nft add rule inet kiste out oifname eth0 masquerade
//
// A Batch is all or nothing. Its error names the object that the kernel did not
// like, and is fault.NotFound where something that it builds on is not there.
//
// # Privileges
//
// CAP_NET_ADMIN in the user namespace that owns the network namespace. A Conn
// must not be used by several goroutines at once. What is not here: flowtables,
// stateful objects, ranges of a key that is no concatenation.
package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/network/netlink"
)

// A Family is whose packets a table sees.
type Family uint8

// The families.
const (
	Inet   Family = unix.NFPROTO_INET // IPv4 and IPv6
	IPv4   Family = unix.NFPROTO_IPV4
	IPv6   Family = unix.NFPROTO_IPV6
	ARP    Family = unix.NFPROTO_ARP
	Netdev Family = unix.NFPROTO_NETDEV
	Bridge Family = unix.NFPROTO_BRIDGE
)

var families = [...]string{Inet: "inet", IPv4: "ip", IPv6: "ip6", ARP: "arp", Netdev: "netdev", Bridge: "bridge"}

func (f Family) String() string {
	if int(f) >= len(families) {
		return ""
	}
	return families[f]
}

// A Table holds chains and sets.
type Table struct {
	Family  Family
	Name    string
	Comment string
}

func (t Table) String() string { return t.Family.String() + " " + t.Name }

// A Hook is where in a packet's way a chain is called. The numbers are those of
// the families inet, ip and ip6; Ingress is that of netdev.
type Hook uint32

// The hooks.
const (
	Prerouting  Hook = unix.NF_INET_PRE_ROUTING
	Input       Hook = unix.NF_INET_LOCAL_IN
	Forward     Hook = unix.NF_INET_FORWARD
	Output      Hook = unix.NF_INET_LOCAL_OUT
	Postrouting Hook = unix.NF_INET_POST_ROUTING
	Ingress     Hook = unix.NF_NETDEV_INGRESS
	Egress      Hook = unix.NF_NETDEV_EGRESS
)

var hooks = []string{"prerouting", "input", "forward", "output", "postrouting"}

func (h Hook) String() string {
	if int(h) < len(hooks) {
		return hooks[h]
	}
	return fmt.Sprint(uint32(h))
}

// Priorities of chains at a hook: the smaller one is called first.
const (
	PriorityRaw      = -300
	PriorityFirstNAT = -199 // the least of type nat
	PriorityDNAT     = -100
	PriorityFilter   = 0
	PrioritySNAT     = 100
)

// A Chain holds rules. Without a Type it is called by other chains alone.
type Chain struct {
	Name     string
	Type     string // "filter", "nat", "route"; empty: not at a hook
	Hook     Hook
	Priority int32
	Device   string // of families with devices: the link
	Drop     bool   // what no rule decides about is dropped
}

func (c Chain) String() string {
	if c.Type == "" {
		return "chain " + c.Name
	}
	s := fmt.Sprintf("chain %s { type %s hook %v priority %d", c.Name, c.Type, c.Hook, c.Priority)
	if c.Device != "" {
		s += " device " + c.Device
	}
	return s + "; policy " + map[bool]string{true: "drop", false: "accept"}[c.Drop] + " }"
}

// A Type is that of a value in a set. The numbers are those of the program nft,
// which prints by them; the kernel knows only sizes.
type Type uint32

// The types.
const (
	TypeIPv4    Type = 7
	TypeIPv6    Type = 8
	TypeProto   Type = 12 // of layer 4: one byte
	TypeService Type = 13 // a port
	TypeMark    Type = 19
	TypeIfname  Type = 41
	TypeVerdict Type = 0xffffff00
)

var types = [...]struct {
	number Type
	name   string
	size   int
}{
	{TypeIPv4, "ipv4_addr", 4}, {TypeIPv6, "ipv6_addr", 16}, {TypeProto, "inet_proto", 1}, {TypeService, "inet_service", 2},
	{TypeMark, "mark", 4}, {TypeIfname, "ifname", 16}, {TypeVerdict, "verdict", 16},
}

// size is how many bytes a value has.
func (t Type) size() int {
	for _, known := range types {
		if known.number == t {
			return known.size
		}
	}
	return 0
}

func (t Type) name() string {
	for _, known := range types {
		if known.number == t {
			return known.name
		}
	}
	return ""
}

// typeBits is how far the program nft shifts the first of two types.
const typeBits = 6

// join is the number and the size of a concatenation: each but a lone value
// takes whole registers.
func join(list []Type) (number, size uint32) {
	for _, t := range list {
		if len(list) == 1 {
			return uint32(t), uint32(t.size())
		}
		number = number<<typeBits | uint32(t)
		size += uint32(t.size()+3) &^ 3
	}
	return number, size
}

func typeNames(list []Type) string {
	names := make([]string, len(list))
	for i, t := range list {
		names[i] = t.name()
	}
	return strings.Join(names, " . ")
}

// Key concatenates values as sets and maps have them: each in whole registers,
// unless it is alone.
func Key(values ...[]byte) []byte {
	if len(values) == 1 {
		return values[0]
	}
	var b []byte
	for _, v := range values {
		b = append(b, v...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

// Ifname is a link's name as a value.
func Ifname(name string) []byte { return append([]byte(name), make([]byte, max(0, 16-len(name)))...) }

// Port is a port as a value.
func Port(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

// A Set holds elements: values alone, or with Data a map from one to another.
type Set struct {
	Name    string
	Key     []Type
	Data    []Type // empty: no map
	Timeout bool   // elements may end by themselves
	Dynamic bool   // rules may add elements
	Range   bool   // elements go from Key to End, in each part of a concatenation
	Size    uint32 // most elements; 0: no limit
}

func (s Set) String() string {
	kind, data := "set ", ""
	if len(s.Data) > 0 {
		kind, data = "map ", " : "+typeNames(s.Data)
	}
	return kind + s.Name + " { type " + typeNames(s.Key) + data + " }"
}

// An Element is of a set, or of a map.
type Element struct {
	Key     []byte
	End     []byte // of a set with Range: the last key
	Data    []byte // of a map
	Comment string // at most 127 bytes
}

// maxComment is what the program nft reads.
const maxComment = 127

// A Rule is a list of expressions, done in order as long as they match.
type Rule struct {
	Chain   string
	Do      []Expr
	Comment string
}

func (r Rule) String() string {
	words := make([]string, len(r.Do))
	for i, e := range r.Do {
		words[i] = e.String()
	}
	return "rule " + r.Chain + " " + strings.Join(words, " ")
}

// A Conn speaks with the packet filter of one network namespace.
type Conn struct{ socket *netlink.Socket }

// Open connects to that of the calling thread. A kernel without nf_tables shows
// itself when a Batch is done: fault.Unsupported.
func Open() (*Conn, error) {
	s, err := netlink.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, &fault.Error{Op: "open netlink socket of the packet filter", Err: err, Hint: hint(err)}
	}
	return On(s), nil
}

// On is a Conn over a socket of NETLINK_NETFILTER, which is the Conn's from here
// on.
func On(s *netlink.Socket) *Conn { return &Conn{s} }

// Close gives the descriptor back.
func (c *Conn) Close() error { return c.socket.Close() }

// Do does all of b in one transaction, or nothing of it.
func (c *Conn) Do(b *Batch) error { return c.DoAt(b, 0) }

// DoAt is Do, where nobody has changed the packet filter since it had the
// generation; else it is syscall.ERESTART. 0: whatever the generation is.
func (c *Conn) DoAt(b *Batch, generation uint32) error {
	if len(b.ops) == 0 {
		return nil
	}
	begin := netlink.Body(slices.Clone(batchEdge))
	if generation != 0 {
		begin.Big32(unix.NFNL_BATCH_GENID, generation)
	}
	requests := make([]netlink.Request, 0, len(b.ops)+2)
	requests = append(requests, netlink.Request{Kind: unix.NFNL_MSG_BATCH_BEGIN, Body: begin})
	for i := range b.ops {
		requests = append(requests, b.ops[i].request)
	}
	// It is the last request that is acknowledged, and the end of a batch is not.
	_, at, err := c.socket.DoUntil(append(requests, netlink.Request{Kind: unix.NFNL_MSG_BATCH_END, Body: batchEdge}), len(requests)-1)
	if err == nil {
		return nil
	}
	op, on := "change the packet filter", ""
	if at > 0 && at <= len(b.ops) {
		op, on = b.ops[at-1].what, b.ops[at-1].on
	}
	return &fault.Error{Op: op, On: on, Kind: kindOf(err), Err: err, Hint: hint(err)}
}

func kindOf(err error) fault.Kind {
	switch {
	case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.EPROTONOSUPPORT):
		return fault.Unsupported
	case errors.Is(err, syscall.ENOENT):
		return fault.NotFound
	}
	return fault.KindOf(err)
}

func hint(err error) string {
	switch kindOf(err) {
	case fault.Denied:
		return "CAP_NET_ADMIN is needed over this network namespace: be root"
	case fault.Unsupported:
		return "modprobe nf_tables; boot a kernel with CONFIG_NF_TABLES_INET and CONFIG_NFT_NAT"
	}
	return ""
}

// batchEdge is the body of both ends of a batch: a struct nfgenmsg that names
// the subsystem.
var batchEdge = []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES}

// head is a struct nfgenmsg.
func head(f Family) netlink.Body { return netlink.Body{byte(f), 0, 0, 0} }

func kind(message uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | message }
