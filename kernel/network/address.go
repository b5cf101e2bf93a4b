package network

import (
	"fmt"
	"strconv"
	"strings"

	"kiste/fault"
)

// An Addr is an IPv4 or IPv6 address; the zero value is none. It is comparable.
// It is what package net/netip has, without its zones and without its start-up
// cost, which every container would pay.
type Addr struct {
	b [16]byte // an IPv4 address in the first four
	n uint8    // 0, 4 or 16 bytes
}

// A Prefix is an address with the size of its network: "10.66.0.2/24". The
// zero value is none.
type Prefix struct {
	addr Addr
	bits int
}

// AddrFromSlice is the address of 4 or 16 bytes.
func AddrFromSlice(b []byte) (Addr, bool) {
	if len(b) != 4 && len(b) != 16 {
		return Addr{}, false
	}
	a := Addr{n: uint8(len(b))}
	copy(a.b[:], b)
	return a, true
}

// PrefixFrom puts a network's size to an address.
func PrefixFrom(a Addr, bits int) Prefix { return Prefix{a, bits} }

func (a Addr) IsValid() bool    { return a.n != 0 }
func (a Addr) Is4() bool        { return a.n == 4 }
func (a Addr) Is6() bool        { return a.n == 16 }
func (a Addr) AsSlice() []byte  { return append([]byte{}, a.b[:a.n]...) }
func (a Addr) Less(b Addr) bool { return string(a.b[:a.n]) < string(b.b[:b.n]) }

// IsLoopback reports whether a is in 127.0.0.0/8, or ::1.
func (a Addr) IsLoopback() bool {
	return a.n == 4 && a.b[0] == 127 || a.n == 16 && a.b == [16]byte{15: 1}
}

// Next is the address after a; after the last one comes none.
func (a Addr) Next() Addr {
	for i := int(a.n) - 1; i >= 0; i-- {
		a.b[i]++
		if a.b[i] != 0 {
			return a
		}
	}
	return Addr{}
}

func (p Prefix) Addr() Addr    { return p.addr }
func (p Prefix) Bits() int     { return p.bits }
func (p Prefix) IsValid() bool { return p.addr.n != 0 && p.bits >= 0 && p.bits <= int(p.addr.n)*8 }

// Masked is the network: all bits of the host are 0.
func (p Prefix) Masked() Prefix {
	for i := range int(p.addr.n) {
		keep := min(max(p.bits-8*i, 0), 8)
		p.addr.b[i] &= byte(uint(0xff00) >> keep)
	}
	return p
}

// Contains reports whether a is in p's network.
func (p Prefix) Contains(a Addr) bool {
	return p.IsValid() && a.n == p.addr.n && PrefixFrom(a, p.bits).Masked() == p.Masked()
}

// Overlaps reports whether an address is in both networks.
func (p Prefix) Overlaps(q Prefix) bool {
	if p.bits > q.bits {
		p, q = q, p
	}
	return q.IsValid() && p.Contains(q.addr)
}

func (p Prefix) String() string { return p.addr.String() + "/" + strconv.Itoa(p.bits) }

// ParsePrefix reads "10.66.0.2/24" or "fd00::2/64".
func ParsePrefix(s string) (Prefix, error) {
	address, size, ok := strings.Cut(s, "/")
	a, err := ParseAddr(address)
	bits, err2 := strconv.ParseUint(size, 10, 8)
	p := Prefix{a, int(bits)}
	if !ok || err != nil || err2 != nil || !p.IsValid() || size[0] == '0' && size != "0" {
		return Prefix{}, badAddress(s, "want an address with its network's size, as 10.66.0.2/24")
	}
	return p, nil
}

// ParseAddr reads "10.66.0.2" or "fd00::2", without a zone.
func ParseAddr(s string) (Addr, error) {
	if a, ok := parse4(s); ok {
		return a, nil
	}
	if a, ok := parse6(s); ok {
		return a, nil
	}
	return Addr{}, badAddress(s, "want an address, as 10.66.0.2 or fd00::2")
}

func badAddress(s, want string) error {
	return &fault.Error{Op: "read address", On: s[:min(len(s), 64)], Kind: fault.Invalid, Err: fmt.Errorf("%s", want)}
}

func parse4(s string) (Addr, bool) {
	a := Addr{n: 4}
	for i := range 4 {
		part, rest, more := strings.Cut(s, ".")
		v, err := strconv.ParseUint(part, 10, 8)
		// a leading zero is octal to some readers, so it is nothing to us
		if err != nil || len(part) > 1 && part[0] == '0' || more != (i < 3) {
			return Addr{}, false
		}
		a.b[i], s = byte(v), rest
	}
	return a, true
}

// parse6 reads the two sides of "::", or the one there is: RFC 4291, 2.2.
func parse6(s string) (Addr, bool) {
	left, right, gap := strings.Cut(s, "::")
	l, ok1 := groups(left, !gap)
	r, ok2 := groups(right, true)
	if !ok1 || !ok2 || len(l)+len(r) > 16 || gap == (len(l)+len(r) == 16) {
		return Addr{}, false
	}
	a := Addr{n: 16}
	copy(a.b[:], l)
	copy(a.b[16-len(r):], r)
	return a, true
}

// groups reads "fd00:1:2", the last of which may be an IPv4 address.
func groups(s string, may4 bool) ([]byte, bool) {
	var b []byte
	if s == "" {
		return nil, true
	}
	parts := strings.Split(s, ":")
	for i, p := range parts {
		if len(b) >= 16 {
			return nil, false
		}
		if a, ok := parse4(p); ok && i == len(parts)-1 && may4 {
			b = append(b, a.b[:4]...)
			continue
		}
		v, err := strconv.ParseUint(p, 16, 16)
		if err != nil || len(p) > 4 {
			return nil, false
		}
		b = append(b, byte(v>>8), byte(v))
	}
	return b, true
}

// String is the form of RFC 5952.
func (a Addr) String() string {
	switch a.n {
	case 0:
		return "no address"
	case 4:
		return fmt.Sprintf("%d.%d.%d.%d", a.b[0], a.b[1], a.b[2], a.b[3])
	}
	group := func(i int) uint64 { return uint64(a.b[2*i])<<8 | uint64(a.b[2*i+1]) }
	from, to := longestGap(group)
	var s strings.Builder
	for i := 0; i < 8; i++ {
		if i == from {
			s.WriteString("::")
			i = to - 1
			continue
		}
		if i > 0 && i != to {
			s.WriteByte(':')
		}
		s.WriteString(strconv.FormatUint(group(i), 16))
	}
	return s.String()
}

// longestGap finds the first longest run of at least two zero groups.
func longestGap(group func(int) uint64) (from, to int) {
	from, to = -1, -1
	for i := 0; i < 8; i++ {
		j := i
		for j < 8 && group(j) == 0 {
			j++
		}
		if j-i > 1 && j-i > to-from {
			from, to = i, j
		}
		i = max(i, j-1)
	}
	return from, to
}

// Last is the last address of p's network.
func (p Prefix) Last() Addr {
	a := p.addr
	for i := range int(a.n) {
		keep := min(max(p.bits-8*i, 0), 8)
		a.b[i] |= byte(0xff >> keep)
	}
	return a
}

// After is the first address behind p's network; behind the last there is none.
func (p Prefix) After() Addr { return p.Last().Next() }
