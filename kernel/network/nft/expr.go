package nft

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/kernel/network/netlink"
)

// A Register holds 4 bytes; what is longer goes on in the next one.
type Register uint32

// R is register n, of 16.
func R(n int) Register { return Register(unix.NFT_REG32_00 + n) }

func (r Register) String() string { return "r" + strconv.Itoa(int(r)-unix.NFT_REG32_00) }

// An Expr is one expression of a rule. One that does not match ends the rule.
type Expr struct {
	name  string
	text  string
	write func(*netlink.Body)
}

// String is the expression in words: not those of the program nft, but of the
// kernel's machine.
func (e Expr) String() string { return "[" + e.text + "]" }

func expr(name, text string, write func(*netlink.Body)) Expr { return Expr{name, text, write} }

// A Meta is what is known about a packet.
type Meta uint32

// What Load can load.
const (
	Mark    Meta = unix.NFT_META_MARK
	Iif     Meta = unix.NFT_META_IIF
	Iifname Meta = unix.NFT_META_IIFNAME // 16 bytes
	Oifname Meta = unix.NFT_META_OIFNAME // 16 bytes; both are empty where there is none
	NFProto Meta = unix.NFT_META_NFPROTO // one byte: IPv4 or IPv6
	L4Proto Meta = unix.NFT_META_L4PROTO // one byte
	Cgroup  Meta = unix.NFT_META_CGROUP  // the class of net_cls
)

var metas = [...]string{Mark: "mark", Iif: "iif", Iifname: "iifname", Oifname: "oifname", NFProto: "nfproto", L4Proto: "l4proto", Cgroup: "cgroup"}

// Load puts what is known about the packet into registers.
func Load(m Meta, to Register) Expr {
	return expr("meta", fmt.Sprintf("meta %s => %v", metas[m], to), func(b *netlink.Body) {
		b.Big32(unix.NFTA_META_DREG, uint32(to))
		b.Big32(unix.NFTA_META_KEY, uint32(m))
	})
}

// A Header is where a Payload is counted from.
type Header uint32

// The headers.
const (
	Network   Header = unix.NFT_PAYLOAD_NETWORK_HEADER
	Transport Header = unix.NFT_PAYLOAD_TRANSPORT_HEADER
)

// Payload loads size bytes of the packet.
func Payload(h Header, offset, size uint32, to Register) Expr {
	name := map[Header]string{Network: "network", Transport: "transport"}[h]
	return expr("payload", fmt.Sprintf("%s header %d+%d => %v", name, offset, size, to), func(b *netlink.Body) {
		b.Big32(unix.NFTA_PAYLOAD_DREG, uint32(to))
		b.Big32(unix.NFTA_PAYLOAD_BASE, uint32(h))
		b.Big32(unix.NFTA_PAYLOAD_OFFSET, offset)
		b.Big32(unix.NFTA_PAYLOAD_LEN, size)
	})
}

// A Checksum is where a transport header has the sum over all of it.
type Checksum uint32

// The sums: RFC 768, RFC 9293.
const (
	ChecksumUDP Checksum = 6
	ChecksumTCP Checksum = 16
)

// Rewrite writes size bytes of registers into the packet's transport header, and
// corrects its sum. Neither the connection nor its state is known to anybody:
// what comes back has to be changed back.
func Rewrite(offset, size uint32, sum Checksum, from Register) Expr {
	return expr("payload", fmt.Sprintf("transport header %d+%d = %v", offset, size, from), func(b *netlink.Body) {
		b.Big32(unix.NFTA_PAYLOAD_SREG, uint32(from))
		b.Big32(unix.NFTA_PAYLOAD_BASE, uint32(Transport))
		b.Big32(unix.NFTA_PAYLOAD_OFFSET, offset)
		b.Big32(unix.NFTA_PAYLOAD_LEN, size)
		b.Big32(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_INET)
		b.Big32(unix.NFTA_PAYLOAD_CSUM_OFFSET, uint32(sum))
	})
}

// What a header holds where: RFC 791, RFC 8200; ports are at the same place for
// TCP, UDP and SCTP.
func Source4(to Register) Expr         { return Payload(Network, 12, 4, to) }
func Destination4(to Register) Expr    { return Payload(Network, 16, 4, to) }
func Source6(to Register) Expr         { return Payload(Network, 8, 16, to) }
func Destination6(to Register) Expr    { return Payload(Network, 24, 16, to) }
func DestinationPort(to Register) Expr { return Payload(Transport, 2, 2, to) }

// Is matches where registers hold the value, IsNot where they do not.
func Is(r Register, v []byte) Expr    { return compare(unix.NFT_CMP_EQ, "==", r, v) }
func IsNot(r Register, v []byte) Expr { return compare(unix.NFT_CMP_NEQ, "!=", r, v) }

func compare(how uint32, sign string, r Register, v []byte) Expr {
	return expr("cmp", fmt.Sprintf("%v %s %s", r, sign, printable(v)), func(b *netlink.Body) {
		b.Big32(unix.NFTA_CMP_SREG, uint32(r))
		b.Big32(unix.NFTA_CMP_OP, how)
		b.Nest(unix.NFTA_CMP_DATA, value(v))
	})
}

// And keeps the bits of mask in a register.
func And(r Register, mask []byte) Expr {
	return expr("bitwise", fmt.Sprintf("%v &= %s", r, printable(mask)), func(b *netlink.Body) {
		b.Big32(unix.NFTA_BITWISE_SREG, uint32(r))
		b.Big32(unix.NFTA_BITWISE_DREG, uint32(r))
		b.Big32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		b.Nest(unix.NFTA_BITWISE_MASK, value(mask))
		b.Nest(unix.NFTA_BITWISE_XOR, value(make([]byte, len(mask))))
	})
}

// In matches where the set has what registers hold, NotIn where it has not.
func In(r Register, set string) Expr    { return lookup(r, set, 0, "in") }
func NotIn(r Register, set string) Expr { return lookup(r, set, unix.NFT_LOOKUP_F_INV, "not in") }

func lookup(r Register, set string, flags uint32, word string) Expr {
	return expr("lookup", fmt.Sprintf("%v %s @%s", r, word, set), func(b *netlink.Body) {
		b.Text(unix.NFTA_LOOKUP_SET, set)
		b.Big32(unix.NFTA_LOOKUP_SREG, uint32(r))
		b.Big32(unix.NFTA_LOOKUP_FLAGS, flags)
	})
}

// Map matches where the map has what registers hold, and loads its data.
func Map(r Register, set string, to Register) Expr {
	return expr("lookup", fmt.Sprintf("%v in @%s => %v", r, set, to), func(b *netlink.Body) {
		b.Text(unix.NFTA_LOOKUP_SET, set)
		b.Big32(unix.NFTA_LOOKUP_SREG, uint32(r))
		b.Big32(unix.NFTA_LOOKUP_DREG, uint32(to))
	})
}

// Numbers of linux/netfilter/nf_tables.h that package unix lacks.
const (
	fibDreg, fibResult, fibFlags        = 1, 2, 3
	fibResultType, fibDaddr             = 3, 2
	natType, natFamily                  = 1, 2
	natAddrMin, natPortMin              = 3, 5
	natDestination                      = 1
	rejectType, rejectCode              = 1, 2
	rejectICMPX, icmpxAdminProhibited   = 2, 3
	socketKey, socketDreg, socketLevel  = 1, 2, 3
	socketCgroup2                       = 3
	limitRate, limitUnit, limitBurst    = 1, 2, 3
	limitType, limitFlags               = 4, 5
	limitBytes, limitOver               = 1, 1
	ctStateEstablished, ctStateRelated  = 1 << 1, 1 << 2
	ctStatusSNAT, ctStatusDNAT          = 1 << 4, 1 << 5
	ctDreg, ctKey, ctState, ctStatusKey = 1, 2, 0, 2
	ctDirection                         = 1
	verdictDrop, verdictAccept          = 0, 1
)

// ToSelf matches packets to an address of this host.
func ToSelf(scratch Register) []Expr {
	return []Expr{
		expr("fib", fmt.Sprintf("fib daddr type => %v", scratch), func(b *netlink.Body) {
			b.Big32(fibDreg, uint32(scratch))
			b.Big32(fibResult, fibResultType)
			b.Big32(fibFlags, fibDaddr)
		}),
		Is(scratch, number32(unix.RTN_LOCAL)),
	}
}

func ct(key uint32, name string, bits uint32, scratch Register) []Expr {
	return []Expr{
		expr("ct", fmt.Sprintf("ct %s => %v", name, scratch), func(b *netlink.Body) {
			b.Big32(ctDreg, uint32(scratch))
			b.Big32(ctKey, key)
		}),
		And(scratch, number32(bits)),
		IsNot(scratch, number32(0)),
	}
}

// Known matches packets of connections that were let through before.
func Known(scratch Register) []Expr {
	return ct(ctState, "state", ctStateEstablished|ctStateRelated, scratch)
}

// Published matches packets of connections whose destination was changed.
func Published(scratch Register) []Expr { return ct(ctStatusKey, "status", ctStatusDNAT, scratch) }

// Masqueraded matches packets of connections whose source was changed.
func Masqueraded(scratch Register) []Expr { return ct(ctStatusKey, "status", ctStatusSNAT, scratch) }

// Asking matches packets of a connection in the direction of its first one.
func Asking(scratch Register) []Expr { return direction(0, scratch) }

// Answering matches packets of a connection in the other direction.
func Answering(scratch Register) []Expr { return direction(1, scratch) }

func direction(is byte, scratch Register) []Expr {
	return []Expr{
		expr("ct", fmt.Sprintf("ct direction => %v", scratch), func(b *netlink.Body) {
			b.Big32(ctDreg, uint32(scratch))
			b.Big32(ctKey, ctDirection)
		}),
		Is(scratch, []byte{is}),
	}
}

// OfFamily matches packets of IPv4 or IPv6.
func OfFamily(f Family, scratch Register) []Expr {
	return []Expr{Load(NFProto, scratch), Is(scratch, []byte{byte(f)})}
}

// To changes the destination of a connection to the address and the port in
// registers. In a chain of type nat at prerouting or output.
func To(f Family, address, port Register) Expr {
	return expr("nat", fmt.Sprintf("dnat %v to %v port %v", f, address, port), func(b *netlink.Body) {
		b.Big32(natType, natDestination)
		b.Big32(natFamily, uint32(f))
		b.Big32(natAddrMin, uint32(address))
		b.Big32(natPortMin, uint32(port))
	})
}

// Masquerade changes the source of a connection to the address of the link that
// it leaves by. In a chain of type nat at postrouting.
func Masquerade() Expr { return expr("masq", "masquerade", func(*netlink.Body) {}) }

// Put puts a value into registers.
func Put(r Register, v []byte) Expr {
	return expr("immediate", fmt.Sprintf("%v = %s", r, printable(v)), func(b *netlink.Body) {
		b.Big32(unix.NFTA_IMMEDIATE_DREG, uint32(r))
		b.Nest(unix.NFTA_IMMEDIATE_DATA, value(v))
	})
}

// Verdicts: what becomes of a packet. Jump goes on in another chain and comes
// back, Return goes back.
func Accept() Expr { return verdict("accept", verdictAccept, "") }
func Drop() Expr   { return verdict("drop", verdictDrop, "") }
func Return() Expr { return verdict("return", unix.NFT_RETURN, "") }
func Jump(chain string) Expr {
	return verdict("jump "+chain, unix.NFT_JUMP, chain)
}

// Goto goes on in another chain and does not come back.
func Goto(chain string) Expr {
	return verdict("goto "+chain, unix.NFT_GOTO, chain)
}

func verdict(text string, code int32, chain string) Expr {
	return expr("immediate", text, func(b *netlink.Body) {
		b.Big32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		b.Nest(unix.NFTA_IMMEDIATE_DATA, func(d *netlink.Body) {
			d.Nest(unix.NFTA_DATA_VERDICT, func(v *netlink.Body) {
				v.Big32(unix.NFTA_VERDICT_CODE, uint32(code))
				if chain != "" {
					v.Text(unix.NFTA_VERDICT_CHAIN, chain)
				}
			})
		})
	})
}

// Reject drops the packet and tells its sender that it was not permitted.
func Reject() Expr {
	return expr("reject", "reject", func(b *netlink.Body) {
		b.Big32(rejectType, rejectICMPX)
		b.U8(rejectCode, icmpxAdminProhibited)
	})
}

// Count counts packets and bytes that come so far.
func Count() Expr { return expr("counter", "count", func(*netlink.Body) {}) }

// Over matches what is more than so many bytes in a second, beyond burst bytes
// at once.
func Over(bytes uint64, burst uint32) Expr {
	return expr("limit", fmt.Sprintf("over %d bytes/s burst %d", bytes, burst), func(b *netlink.Body) {
		b.Big64(limitRate, bytes)
		b.Big64(limitUnit, 1)
		b.Big32(limitBurst, burst)
		b.Big32(limitType, limitBytes)
		b.Big32(limitFlags, limitOver)
	})
}

// OfCgroup matches packets whose socket was made in a group of version 2, or
// below it: its id, the inode of its directory, and its depth.
func OfCgroup(id uint64, depth uint32, scratch Register) []Expr {
	return []Expr{
		expr("socket", fmt.Sprintf("socket cgroup level %d => %v", depth, scratch), func(b *netlink.Body) {
			b.Big32(socketKey, socketCgroup2)
			b.Big32(socketDreg, uint32(scratch))
			b.Big32(socketLevel, depth)
		}),
		Is(scratch, number64(id)),
	}
}

// printable shows a value: a name as text, the rest in hexadecimal.
func printable(v []byte) string {
	s := strings.TrimRight(string(v), "\x00")
	if len(v) >= 16 && s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 && r != 0 || r > 0x7e }) {
		return strconv.Quote(strings.ReplaceAll(s, "\x00", ""))
	}
	return "0x" + hex.EncodeToString(v)
}
