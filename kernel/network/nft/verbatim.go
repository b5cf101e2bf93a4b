package nft

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/network/netlink"
)

// What somebody else has written can be written again, in another table of the
// same family, in the kernel's own form: a Verbatim expression, set or object is
// not understood, but carried over.

// A Verbatim is an expression as the kernel tells of it.
type Verbatim struct {
	Name string
	Data []byte
}

// A ListedSet is a set or a map of anybody's, without its elements.
type ListedSet struct {
	Name       string
	Verdicts   bool // a map to verdicts
	Range      bool // its elements are where ranges begin and end
	attributes []netlink.Attribute
}

// A ListedElement is one of a ListedSet.
type ListedElement struct {
	Chain      string // of a map to verdicts: where it jumps to
	Object     string // of a map to objects
	Drops      bool   // of a map to verdicts
	attributes []netlink.Attribute
}

// A ListedObject is a counter, quota, limit … with a name.
type ListedObject struct {
	Name       string
	attributes []netlink.Attribute
}

// Expr is the expression for a rule of ours. What it has counted so far is left
// out.
func (v Verbatim) Expr() Expr {
	return expr(v.Name, "copy of "+v.Name, func(b *netlink.Body) { *b = append(*b, fresh(v.Name, v.Data)...) })
}

// counts are what changes in an expression while packets pass, by its name: the
// number of the attribute, 0 for all.
func counts() map[string]uint16 {
	return map[string]uint16{"counter": 0, "last": 0, "quota": quotaConsumed}
}

// Numbers of linux/netfilter/nf_tables.h that package unix lacks.
const (
	quotaConsumed  = 4
	setExpression  = 17
	setExpressions = 18
	elementExprs   = 11
)

// fresh is an expression's data as it was before the first packet.
func fresh(name string, data []byte) []byte {
	kind, changes := counts()[name]
	switch {
	case !changes:
		return data
	case kind == 0:
		return nil
	}
	var b netlink.Body
	attributes, _ := netlink.Parse(data)
	for _, a := range attributes {
		if a.Kind != kind {
			b.Add(a.Kind, a.Data)
		}
	}
	return b
}

// number is the value of an attribute of the expression.
func (v Verbatim) number(kind uint16) uint32 { return netlink.Big32(netlink.Find(v.Data, kind)) }

// Verdict is what an immediate expression decides; a chain is where it goes on.
func (v Verbatim) Verdict() (code int32, chain string, ok bool) {
	if v.Name != "immediate" || v.number(unix.NFTA_IMMEDIATE_DREG) != unix.NFT_REG_VERDICT {
		return 0, "", false
	}
	return verdictOf(netlink.Find(v.Data, unix.NFTA_IMMEDIATE_DATA))
}

func verdictOf(data []byte) (code int32, chain string, ok bool) {
	verdict := netlink.Find(data, unix.NFTA_DATA_VERDICT)
	return int32(netlink.Big32(netlink.Find(verdict, unix.NFTA_VERDICT_CODE))), netlink.Text(netlink.Find(verdict, unix.NFTA_VERDICT_CHAIN)), verdict != nil
}

// Accepts reports whether it lets the packet through.
func (v Verbatim) Accepts() bool {
	code, _, ok := v.Verdict()
	return ok && code == verdictAccept
}

// Drops reports whether the packet may end in it.
func (v Verbatim) Drops() bool {
	switch code, _, ok := v.Verdict(); v.Name {
	case "immediate":
		return ok && code == verdictDrop
	case "reject", "queue", "target", "synproxy":
		return true
	}
	return false
}

// Set is the set that it looks into or writes to; empty: none.
func (v Verbatim) Set() string {
	kind, ok := map[string]uint16{"lookup": unix.NFTA_LOOKUP_SET, "dynset": unix.NFTA_DYNSET_SET_NAME, "objref": unix.NFTA_OBJREF_SET_NAME}[v.Name]
	if !ok {
		return ""
	}
	return netlink.Text(netlink.Find(v.Data, kind))
}

// Object is the object that it names; empty: none.
func (v Verbatim) Object() string {
	if v.Name != "objref" {
		return ""
	}
	return netlink.Text(netlink.Find(v.Data, unix.NFTA_OBJREF_IMM_NAME))
}

// Extension is the name of an extension of xtables and its data, of a match or a
// target that iptables wrote.
func (v Verbatim) Extension() (name string, info []byte) {
	switch v.Name {
	case "match":
		return netlink.Text(netlink.Find(v.Data, unix.NFTA_MATCH_NAME)), netlink.Find(v.Data, unix.NFTA_MATCH_INFO)
	case "target":
		return netlink.Text(netlink.Find(v.Data, unix.NFTA_TARGET_NAME)), netlink.Find(v.Data, unix.NFTA_TARGET_INFO)
	}
	return "", nil
}

// Meta is what a meta expression loads.
func (v Verbatim) Meta() (Meta, bool) {
	return Meta(v.number(unix.NFTA_META_KEY)), v.Name == "meta" && netlink.Find(v.Data, unix.NFTA_META_DREG) != nil
}

// RejectWith drops the packet and tells its sender so: with a reset of TCP, or
// with the code of an ICMP of the table's family.
func RejectWith(reset bool, code uint8) Expr {
	return expr("reject", fmt.Sprintf("reject reset %v code %d", reset, code), func(b *netlink.Body) {
		kind := uint32(unix.NFT_REJECT_ICMP_UNREACH)
		if reset {
			kind = unix.NFT_REJECT_TCP_RST
		}
		b.Big32(rejectType, kind)
		b.U8(rejectCode, code)
	})
}

// protocolOf is the one protocol of layer 4 that a rule is about; 0: any. An
// extension of xtables must be told, and the kernel does not tell us.
func protocolOf(list []Verbatim) (proto byte) {
	for i, v := range list[:max(0, len(list)-1)] {
		meta, loads := v.Meta()
		header := v.Name == "payload" && v.number(unix.NFTA_PAYLOAD_BASE) == uint32(Network) && v.number(unix.NFTA_PAYLOAD_OFFSET) == 9 && v.number(unix.NFTA_PAYLOAD_LEN) == 1
		next := list[i+1]
		value := netlink.Find(netlink.Find(next.Data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
		if (loads && meta == L4Proto || header) && next.Name == "cmp" && next.number(unix.NFTA_CMP_OP) == unix.NFT_CMP_EQ && len(value) == 1 {
			return value[0]
		}
	}
	return 0
}

// Sets lists the sets and maps of a table.
func (c *Conn) Sets(t Table) ([]ListedSet, error) {
	m := head(t.Family)
	m.Text(unix.NFTA_SET_TABLE, t.Name)
	return list(c, unix.NFT_MSG_GETSET, "list sets of "+t.String(), m, parseSet)
}

// ElementsOf lists what is in a set of anybody's.
func (c *Conn) ElementsOf(t Table, s ListedSet) ([]ListedElement, error) {
	return elements(c, t, s.Name, parseListedElements)
}

// Objects lists the objects of a table.
func (c *Conn) Objects(t Table) ([]ListedObject, error) {
	m := head(t.Family)
	m.Text(unix.NFTA_OBJ_TABLE, t.Name)
	return list(c, unix.NFT_MSG_GETOBJ, "list objects of "+t.String(), m, parseObject)
}

func parseVerbatim(data []byte) (all []Verbatim, err error) {
	list, err := netlink.Parse(data)
	for _, e := range list {
		all = append(all, Verbatim{netlink.Text(netlink.Find(e.Data, unix.NFTA_EXPR_NAME)), netlink.Find(e.Data, unix.NFTA_EXPR_DATA)})
	}
	return all, err
}

// Bits of a set that belong to a rule of its owner's.
const setOwned = unix.NFT_SET_ANONYMOUS | unix.NFT_SET_CONSTANT

// setKept are the attributes of a set that say what it is.
var setKept = []uint16{
	unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_POLICY, unix.NFTA_SET_DESC,
	unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_GC_INTERVAL, unix.NFTA_SET_USERDATA, unix.NFTA_SET_OBJ_TYPE, setExpression, setExpressions,
}

func parseSet(data []byte) (ListedSet, error) {
	_, attributes, err := body(data)
	var s ListedSet
	for _, a := range attributes {
		switch {
		case a.Kind == unix.NFTA_SET_NAME:
			s.Name = netlink.Text(a.Data)
		case a.Kind == unix.NFTA_SET_FLAGS:
			flags := netlink.Big32(a.Data)
			s.Range = flags&unix.NFT_SET_INTERVAL != 0 && flags&setConcat == 0
			var b netlink.Body
			b.Big32(unix.NFTA_SET_FLAGS, flags&^setOwned)
			s.attributes = append(s.attributes, netlink.Attribute{Kind: a.Kind, Data: b[unix.SizeofRtAttr:]})
		case slices.Contains(setKept, a.Kind):
			s.Verdicts = s.Verdicts || a.Kind == unix.NFTA_SET_DATA_TYPE && netlink.Big32(a.Data) == uint32(TypeVerdict)
			s.attributes = append(s.attributes, a)
		}
	}
	return s, err
}

// elementKept are the attributes of an element that say what it is.
var elementKept = []uint16{
	unix.NFTA_SET_ELEM_KEY, unix.NFTA_SET_ELEM_DATA, unix.NFTA_SET_ELEM_FLAGS, unix.NFTA_SET_ELEM_TIMEOUT, unix.NFTA_SET_ELEM_EXPIRATION,
	unix.NFTA_SET_ELEM_EXPR, unix.NFTA_SET_ELEM_OBJREF, elementEnd, elementExprs,
}

func parseListedElements(data []byte) ([]ListedElement, error) {
	_, attributes, err := body(data)
	var all []ListedElement
	for _, a := range attributes {
		if a.Kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		list, err := netlink.Parse(a.Data)
		if err != nil {
			return all, err
		}
		for _, e := range list {
			one, err := parseListedElement(e.Data)
			if err != nil {
				return all, err
			}
			all = append(all, one)
		}
	}
	return all, err
}

func parseListedElement(data []byte) (ListedElement, error) {
	attributes, err := netlink.Parse(data)
	var e ListedElement
	for _, a := range attributes {
		if !slices.Contains(elementKept, a.Kind) {
			continue
		}
		switch a.Kind {
		case unix.NFTA_SET_ELEM_DATA:
			code, chain, ok := verdictOf(a.Data)
			e.Chain, e.Drops = chain, ok && code == verdictDrop
		case unix.NFTA_SET_ELEM_OBJREF:
			e.Object = netlink.Text(a.Data)
		case unix.NFTA_SET_ELEM_EXPR:
			a.Data = freshExpr(a.Data)
		case elementExprs:
			a.Data = freshExprs(a.Data)
		}
		e.attributes = append(e.attributes, a)
	}
	return e, err
}

// freshExpr is an expression of an element as it was before the first packet.
func freshExpr(data []byte) []byte {
	name := netlink.Text(netlink.Find(data, unix.NFTA_EXPR_NAME))
	var b netlink.Body
	b.Text(unix.NFTA_EXPR_NAME, name)
	b.Nest(unix.NFTA_EXPR_DATA, func(d *netlink.Body) { *d = append(*d, fresh(name, netlink.Find(data, unix.NFTA_EXPR_DATA))...) })
	return b
}

func freshExprs(data []byte) []byte {
	var b netlink.Body
	list, _ := netlink.Parse(data)
	for _, e := range list {
		b.Nest(unix.NFTA_LIST_ELEM, func(one *netlink.Body) { *one = append(*one, freshExpr(e.Data)...) })
	}
	return b
}

func parseObject(data []byte) (ListedObject, error) {
	_, attributes, err := body(data)
	var o ListedObject
	names := map[uint32]string{objectCounter: "counter", objectQuota: "quota"}
	name := ""
	for _, a := range attributes {
		switch a.Kind {
		case unix.NFTA_OBJ_NAME:
			o.Name = netlink.Text(a.Data)
			o.attributes = append(o.attributes, a)
		case unix.NFTA_OBJ_TYPE:
			name = names[netlink.Big32(a.Data)]
			o.attributes = append(o.attributes, a)
		case unix.NFTA_OBJ_DATA:
			o.attributes = append(o.attributes, netlink.Attribute{Kind: a.Kind, Data: fresh(name, a.Data)})
		}
	}
	return o, err
}

// Types of objects: linux/netfilter/nf_tables.h.
const (
	objectCounter = 1
	objectQuota   = 2
)

// AddCopy puts a rule of somebody else's at the end of the chain with the same
// name. Do are its expressions, changed perhaps.
func (b *Batch) AddCopy(t Table, r ListedRule, do []Expr) {
	b.AddRule(t, Rule{Chain: r.Chain, Do: do})
	if !slices.ContainsFunc(r.Do, func(v Verbatim) bool { return v.Name == "match" || v.Name == "target" }) {
		return
	}
	o := &b.ops[len(b.ops)-1]
	m := netlink.Body(o.request.Body)
	m.Nest(unix.NFTA_RULE_COMPAT, func(c *netlink.Body) {
		c.Big32(unix.NFTA_RULE_COMPAT_PROTO, uint32(protocolOf(r.Do)))
		c.Big32(unix.NFTA_RULE_COMPAT_FLAGS, 0)
	})
	o.request.Body = m
}

// AddSetCopy creates a set of somebody else's under the same name.
func (b *Batch) AddSetCopy(t Table, s ListedSet) {
	m := head(t.Family)
	m.Text(unix.NFTA_SET_TABLE, t.Name)
	m.Text(unix.NFTA_SET_NAME, s.Name)
	for _, a := range s.attributes {
		m.Add(a.Kind, a.Data)
	}
	m.Big32(unix.NFTA_SET_ID, uint32(len(b.ops)+1))
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, "create set", t, s.Name, "set "+s.Name, m)
}

// AddObjectCopy creates an object of somebody else's under the same name.
func (b *Batch) AddObjectCopy(t Table, o ListedObject) {
	m := head(t.Family)
	m.Text(unix.NFTA_OBJ_TABLE, t.Name)
	for _, a := range o.attributes {
		m.Add(a.Kind, a.Data)
	}
	b.add(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, "create object", t, o.Name, "object "+o.Name, m)
}

// copiesBytes bounds the elements of one message: their list is an attribute,
// whose size has 16 bits.
const copiesBytes = 32 << 10

// AddElementCopies puts elements of somebody else's into the set with the same
// name.
func (b *Batch) AddElementCopies(t Table, s ListedSet, all []ListedElement) {
	if s.Range { // the end of a range before the beginning of the next
		all = slices.Clone(all)
		slices.SortStableFunc(all, func(x, y ListedElement) int {
			if n := bytes.Compare(x.key(), y.key()); n != 0 {
				return n
			}
			return int(y.flags()&1) - int(x.flags()&1)
		})
	}
	for len(all) > 0 {
		m := head(t.Family)
		m.Text(unix.NFTA_SET_ELEM_LIST_TABLE, t.Name)
		m.Text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		n := 0
		m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(l *netlink.Body) {
			for ; n < len(all) && (n == 0 || len(*l) < copiesBytes); n++ {
				l.Nest(unix.NFTA_LIST_ELEM, func(one *netlink.Body) {
					for _, a := range all[n].attributes {
						one.Add(a.Kind, a.Data)
					}
				})
			}
		})
		b.add(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, "add to", t, s.Name, fmt.Sprintf("%s { %d elements }", s.Name, n), m)
		all = all[n:]
	}
}

func (e ListedElement) find(kind uint16) []byte {
	i := slices.IndexFunc(e.attributes, func(a netlink.Attribute) bool { return a.Kind == kind })
	if i < 0 {
		return nil
	}
	return e.attributes[i].Data
}

func (e ListedElement) key() []byte {
	return netlink.Find(e.find(unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)
}

func (e ListedElement) flags() uint32 { return netlink.Big32(e.find(unix.NFTA_SET_ELEM_FLAGS)) }

// Lasting is e without what is left of its time, which changes by itself.
func (e ListedElement) Lasting() ListedElement {
	e.attributes = slices.DeleteFunc(slices.Clone(e.attributes), func(a netlink.Attribute) bool { return a.Kind == unix.NFTA_SET_ELEM_EXPIRATION })
	return e
}

// Bytes is all that b asks for, to compare it with another.
func (b *Batch) Bytes() []byte {
	var all []byte
	for _, o := range b.ops {
		all = append(append(all, byte(o.request.Kind), byte(o.request.Kind>>8)), o.request.Body...)
	}
	return all
}

// Generation is a number that changes with each change of the packet filter.
func (c *Conn) Generation() (uint32, error) {
	answers, err := c.socket.Ask(kind(unix.NFT_MSG_GETGEN), 0, head(0))
	if err == nil && len(answers) == 0 {
		err = netlink.ErrShort()
	}
	if err != nil {
		return 0, &fault.Error{Op: "ask for the packet filter's generation", Kind: kindOf(err), Err: err, Hint: hint(err)}
	}
	_, attributes, err := body(answers[0].Data)
	for _, a := range attributes {
		if a.Kind == unix.NFTA_GEN_ID {
			return netlink.Big32(a.Data), nil
		}
	}
	return 0, err
}
