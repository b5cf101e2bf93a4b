package nft

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/kernel/network/netlink"
)

// A Batch is a transaction as data. The zero value is empty.
type Batch struct{ ops []op }

type op struct {
	what, on string // for the error: "create chain", "inet kiste: publish"
	line     string // for people
	request  netlink.Request
}

// String lists what b does, a line each.
func (b *Batch) String() string {
	var s strings.Builder
	for _, o := range b.ops {
		s.WriteString(o.line)
		s.WriteByte('\n')
	}
	return s.String()
}

// Len is the number of changes.
func (b *Batch) Len() int { return len(b.ops) }

// Rules is the number of rules that are added.
func (b *Batch) Rules() (n int) {
	for _, o := range b.ops {
		if o.request.Kind == kind(unix.NFT_MSG_NEWRULE) {
			n++
		}
	}
	return n
}

func (b *Batch) add(message, flags uint16, what string, t Table, name, line string, body netlink.Body) {
	on := t.String()
	if name != "" {
		on += " " + name
	}
	if line == "" {
		line = name
	}
	b.ops = append(b.ops, op{what, on, strings.TrimSpace(what + " " + t.String() + " " + line), netlink.Request{Kind: kind(message), Flags: flags, Body: body}})
}

// Numbers of linux/netfilter/nf_tables.h that package unix lacks.
const (
	tableUserdata = 6
	setConcat     = 0x80
	descParts     = 2
	partSize      = 1
	elementEnd    = 10
)

// AddTable creates t; one that exists is kept as it is.
func (b *Batch) AddTable(t Table) {
	m := head(t.Family)
	m.Text(unix.NFTA_TABLE_NAME, t.Name)
	m.Big32(unix.NFTA_TABLE_FLAGS, 0)
	if t.Comment != "" {
		m.Add(tableUserdata, comment(t.Comment))
	}
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "create table", t, "", "", m)
}

// CreateTable creates t; one that exists is fault.Exists.
func (b *Batch) CreateTable(t Table) {
	b.AddTable(t)
	b.ops[len(b.ops)-1].request.Flags |= unix.NLM_F_EXCL
}

// DeleteTable deletes t with all that is in it.
func (b *Batch) DeleteTable(t Table) {
	m := head(t.Family)
	m.Text(unix.NFTA_TABLE_NAME, t.Name)
	b.add(unix.NFT_MSG_DELTABLE, 0, "delete table", t, "", "", m)
}

// DeleteEmptyTable deletes t where nothing is in it: else it is fault.Conflict.
func (b *Batch) DeleteEmptyTable(t Table) {
	b.DeleteTable(t)
	b.ops[len(b.ops)-1].request.Flags |= unix.NLM_F_NONREC
}

// AddChain creates a chain of t; one that exists is kept.
func (b *Batch) AddChain(t Table, c Chain) {
	m := head(t.Family)
	m.Text(unix.NFTA_CHAIN_TABLE, t.Name)
	m.Text(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Type != "" {
		m.Nest(unix.NFTA_CHAIN_HOOK, func(h *netlink.Body) {
			h.Big32(unix.NFTA_HOOK_HOOKNUM, uint32(c.Hook))
			h.Big32(unix.NFTA_HOOK_PRIORITY, uint32(c.Priority))
			if c.Device != "" {
				h.Text(unix.NFTA_HOOK_DEV, c.Device)
			}
		})
		m.Big32(unix.NFTA_CHAIN_POLICY, policy(c.Drop))
		m.Text(unix.NFTA_CHAIN_TYPE, c.Type)
	}
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, "create chain", t, c.Name, c.String(), m)
}

func policy(drop bool) uint32 {
	if drop {
		return verdictDrop
	}
	return verdictAccept
}

// DeleteChain deletes a chain that no rule names, with its rules.
func (b *Batch) DeleteChain(t Table, name string) {
	m := head(t.Family)
	m.Text(unix.NFTA_CHAIN_TABLE, t.Name)
	m.Text(unix.NFTA_CHAIN_NAME, name)
	b.add(unix.NFT_MSG_DELCHAIN, 0, "delete chain", t, name, "", m)
}

// AddSet creates a set or a map of t; one that exists is kept.
func (b *Batch) AddSet(t Table, s Set) {
	m := head(t.Family)
	m.Text(unix.NFTA_SET_TABLE, t.Name)
	m.Text(unix.NFTA_SET_NAME, s.Name)
	m.Big32(unix.NFTA_SET_FLAGS, s.flags())
	number, size := join(s.Key)
	m.Big32(unix.NFTA_SET_KEY_TYPE, number)
	m.Big32(unix.NFTA_SET_KEY_LEN, size)
	if len(s.Data) > 0 {
		number, size := join(s.Data)
		m.Big32(unix.NFTA_SET_DATA_TYPE, number)
		m.Big32(unix.NFTA_SET_DATA_LEN, size)
	}
	if s.Size > 0 || s.Range {
		m.Nest(unix.NFTA_SET_DESC, s.describe)
	}
	m.Big32(unix.NFTA_SET_ID, uint32(len(b.ops)+1))
	m.Add(unix.NFTA_SET_USERDATA, s.order())
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, "create set", t, s.Name, s.String(), m)
}

func (s Set) describe(d *netlink.Body) {
	if s.Size > 0 {
		d.Big32(unix.NFTA_SET_DESC_SIZE, s.Size)
	}
	if !s.Range {
		return
	}
	d.Nest(descParts, func(parts *netlink.Body) {
		for _, t := range s.Key {
			parts.Nest(unix.NFTA_LIST_ELEM, func(one *netlink.Body) { one.Big32(partSize, uint32(t.size())) })
		}
	})
}

// order tells the program nft how to print: in which byte order keys and data
// are, 1 for this machine's and 2 for the network's.
func (s Set) order() []byte {
	const key, data = 0, 1
	b := append([]byte{key, 4}, number32(orderOf(s.Key))...)
	if len(s.Data) > 0 {
		b = append(append(b, data, 4), number32(orderOf(s.Data))...)
	}
	return b
}

func orderOf(list []Type) uint32 {
	if len(list) == 1 && (list[0] == TypeIfname || list[0] == TypeMark) {
		return 1
	}
	return 2
}

func (s Set) flags() uint32 {
	var f uint32
	if len(s.Data) > 0 {
		f |= unix.NFT_SET_MAP
	}
	if s.Timeout {
		f |= unix.NFT_SET_TIMEOUT
	}
	if s.Dynamic {
		f |= unix.NFT_SET_EVAL
	}
	if s.Range {
		f |= unix.NFT_SET_INTERVAL | setConcat
	}
	return f
}

// perMessage bounds how many elements go in one message: the list of them is an
// attribute, whose size has 16 bits.
const perMessage = 200

// AddElements puts elements into a set. One that is there with the same data is
// kept; with other data it is fault.Exists.
func (b *Batch) AddElements(t Table, set string, elements ...Element) {
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, "add to", t, set, elements)
}

// DeleteElements takes elements out of a set; one that is not there is
// fault.NotFound.
func (b *Batch) DeleteElements(t Table, set string, elements ...Element) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, "delete from", t, set, elements)
}

func (b *Batch) elements(message, flags uint16, what string, t Table, set string, list []Element) {
	for len(list) > 0 {
		n := min(len(list), perMessage)
		m := head(t.Family)
		m.Text(unix.NFTA_SET_ELEM_LIST_TABLE, t.Name)
		m.Text(unix.NFTA_SET_ELEM_LIST_SET, set)
		m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(l *netlink.Body) {
			for _, e := range list[:n] {
				l.Nest(unix.NFTA_LIST_ELEM, e.write)
			}
		})
		b.add(message, flags, what, t, set, lines(set, list[:n]), m)
		list = list[n:]
	}
}

func lines(set string, list []Element) string {
	words := make([]string, len(list))
	for i, e := range list {
		words[i] = printable(e.Key)
		if e.End != nil {
			words[i] += "-" + printable(e.End)
		}
		if e.Data != nil {
			words[i] += " : " + printable(e.Data)
		}
		if e.Comment != "" {
			words[i] += " # " + e.Comment
		}
	}
	return set + " { " + strings.Join(words, ", ") + " }"
}

func (e Element) write(b *netlink.Body) {
	b.Nest(unix.NFTA_SET_ELEM_KEY, value(e.Key))
	if e.End != nil {
		b.Nest(elementEnd, value(e.End))
	}
	if e.Data != nil {
		b.Nest(unix.NFTA_SET_ELEM_DATA, value(e.Data))
	}
	if e.Comment != "" {
		b.Add(unix.NFTA_SET_ELEM_USERDATA, comment(e.Comment))
	}
}

func value(v []byte) func(*netlink.Body) {
	return func(b *netlink.Body) { b.Add(unix.NFTA_DATA_VALUE, v) }
}

// comment is userdata as the program nft writes it: kind 0, the length with the
// zero, the text.
func comment(s string) []byte {
	s = s[:min(len(s), maxComment)]
	return append(append([]byte{0, byte(len(s) + 1)}, s...), 0)
}

// AddRule puts a rule at the end of its chain.
func (b *Batch) AddRule(t Table, r Rule) {
	m := head(t.Family)
	m.Text(unix.NFTA_RULE_TABLE, t.Name)
	m.Text(unix.NFTA_RULE_CHAIN, r.Chain)
	m.Nest(unix.NFTA_RULE_EXPRESSIONS, func(list *netlink.Body) {
		for _, e := range r.Do {
			list.Nest(unix.NFTA_LIST_ELEM, func(one *netlink.Body) {
				one.Text(unix.NFTA_EXPR_NAME, e.name)
				one.Nest(unix.NFTA_EXPR_DATA, e.write)
			})
		}
	})
	if r.Comment != "" {
		m.Add(unix.NFTA_RULE_USERDATA, comment(r.Comment))
	}
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, "add rule to", t, r.Chain, strings.TrimPrefix(r.String(), "rule "), m)
}

// Flush deletes all rules of a chain.
func (b *Batch) Flush(t Table, chain string) {
	m := head(t.Family)
	m.Text(unix.NFTA_RULE_TABLE, t.Name)
	m.Text(unix.NFTA_RULE_CHAIN, chain)
	b.add(unix.NFT_MSG_DELRULE, 0, "flush chain", t, chain, "", m)
}

// number32 is a number as registers have it.
func number32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func number64(v uint64) []byte { return binary.NativeEndian.AppendUint64(nil, v) }

// Append adds all that other does.
func (b *Batch) Append(other *Batch) { b.ops = append(b.ops, other.ops...) }
