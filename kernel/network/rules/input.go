package rules

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"kiste/fault"
	"kiste/kernel/network"
	"kiste/kernel/network/nft"
)

// A published packet is translated and forwarded: the host's chains for input do
// not see it. So that they decide about published ports all the same, the kernel
// asks a copy of them before it translates: each table with such chains has one
// of ours beside it, of the same family, with these chains, those that they call,
// and their sets, carried over as they are. A chain of the copy is called just
// before the port is changed, for packets to published ports that no bridge of
// ours has sent, and ends as the host's would: what it drops is dropped.

// judged are the sets of published ports that are asked about; they and the
// bridges are in each copy too, under their names with ownPrefix.
const (
	judged4    = "judged4"
	judged6    = "judged6"
	judgedAny4 = "judged-any4"
	judgedAny6 = "judged-any6"
)

const ownPrefix = "kiste-"

// copyVersion begins the comment of a copy; behind it is the hash of all that is
// copied, and what could not be.
const (
	copyOwner   = "Kiste's copy, do not edit; "
	copyVersion = copyOwner + "1 "
)

const copyInfix = "-input-"

// Bounds of what is copied of one table.
const (
	maxRules    = 20000
	maxElements = 1 << 16
)

// copied are the expressions that say the same before a port is changed as they
// do for input. What needs the route (rt, a class of it) does not, nor what
// answers for the host's own programs (synproxy).
var copied = []string{
	"bitwise", "byteorder", "cmp", "connlimit", "counter", "ct", "dynset", "exthdr", "fib", "hash", "immediate", "inner", "last", "limit", "log", "lookup",
	"match", "meta", "numgen", "objref", "osf", "payload", "queue", "quota", "range", "reject", "socket", "target", "xfrm",
}

// metaRouteClass is NFT_META_RTCLASSID of linux/netfilter/nf_tables.h.
const metaRouteClass nft.Meta = 13

// An inputCopy is the copy of one table, to be made.
type inputCopy struct {
	from, table nft.Table
	chains      []inputChain
	rules       []nft.ListedRule // of the chains that are called
	called      []string
	sets        []nft.ListedSet
	elements    map[string][]nft.ListedElement
	objects     []nft.ListedObject
	cannot      string   // why it cannot be made: then nobody comes in; empty: it can
	without     []string // expressions of rules that let through and are left out
	mark        string   // begins the comment of a copy that is the same
}

// An inputChain is a chain at the hook for input.
type inputChain struct {
	nft.Listed
	priority int32 // of its copy
}

// copies are those of all chains for input that may drop something.
func copies(c *nft.Conn, name string) ([]inputCopy, error) {
	chains, err := c.Chains()
	if err != nil {
		return nil, err
	}
	chains = slices.DeleteFunc(chains, func(l nft.Listed) bool { return l.Type != "filter" || l.Hook != nft.Input || !IsForeign(l.Table) })
	slices.SortStableFunc(chains, func(a, b nft.Listed) int { return cmp.Compare(a.Priority, b.Priority) })
	const room = 40 // between mangle and dstnat
	var all []inputCopy
	for i, l := range chains {
		k := slices.IndexFunc(all, func(o inputCopy) bool { return o.from.Family == l.Table.Family && o.from.Name == l.Table.Name })
		if k < 0 {
			k = len(all)
			all = append(all, inputCopy{from: l.Table, table: nft.Table{Family: l.Table.Family, Name: copyName(name, l.Table.Name)}})
		}
		all[k].chains = append(all[k].chains, inputChain{l, nft.PriorityDNAT - int32(min(len(chains)-i, room))})
	}
	for i := range all {
		if err := all[i].read(c); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(all, func(o inputCopy) bool { return len(o.chains) == 0 }), nil
}

// copyName is the name of the copy of a table; the kernel takes 255 bytes.
func copyName(ours, theirs string) string {
	if name := ours + copyInfix + theirs; len(name) < 200 {
		return name
	}
	return ours + copyInfix + hash(theirs)
}

func hash(s string) string { return fmt.Sprintf("%016x", network.Hash(s)) }

// IsForeign reports whether t is somebody else's, and may have chains for input:
// tables of Kiste are named so that all stores know them.
func IsForeign(t nft.Table) bool {
	return isIP(t.Family) && t.Name != DefaultName && !strings.HasPrefix(t.Name, DefaultName+"-")
}

func isIP(f nft.Family) bool { return f == nft.Inet || f == nft.IPv4 || f == nft.IPv6 }

// read fills o with what its chains are and call; chains that drop nothing are
// left out.
func (o *inputCopy) read(c *nft.Conn) error {
	all, err := c.Rules(o.from)
	if err != nil {
		return err
	}
	sets, err := c.Sets(o.from)
	if err != nil {
		return err
	}
	objects, err := c.Objects(o.from)
	if err != nil {
		return err
	}
	o.elements = map[string][]nft.ListedElement{}
	if len(all) > maxRules {
		o.cannot = fmt.Sprintf("more than %d rules", maxRules)
		all = nil
	}
	seen, named := map[string]bool{}, map[string]bool{}
	var reached []inputChain
	for _, chain := range o.chains {
		drops, err := o.follow(c, chain.Name, all, sets, seen, named)
		if err != nil {
			return err
		}
		if drops || chain.Drop || o.cannot != "" {
			reached = append(reached, chain)
		}
	}
	o.chains = reached
	for _, r := range all {
		if seen[r.Chain] {
			o.rules = append(o.rules, r)
		}
	}
	o.called = slices.Sorted(maps.Keys(seen))
	o.sets = slices.DeleteFunc(sets, func(s nft.ListedSet) bool { _, used := o.elements[s.Name]; return !used })
	o.objects = slices.DeleteFunc(objects, func(x nft.ListedObject) bool { return !named[x.Name] })
	o.judge()
	return nil
}

// follow adds a chain and those that it calls to seen, and what they look into.
// It reports whether one may drop something.
func (o *inputCopy) follow(c *nft.Conn, chain string, all []nft.ListedRule, sets []nft.ListedSet, seen, named map[string]bool) (drops bool, err error) {
	inside := map[string]bool{chain: true} // of this chain
	for queue := []string{chain}; len(queue) > 0; queue = queue[1:] {
		seen[queue[0]] = true
		call := func(next string) {
			if next != "" && !inside[next] {
				inside[next] = true
				queue = append(queue, next)
			}
		}
		for _, r := range all {
			if r.Chain != queue[0] {
				continue
			}
			for _, v := range r.Do {
				drops = drops || v.Drops()
				_, next, _ := v.Verdict()
				call(next)
				named[v.Object()] = true
				elements, err := o.look(c, v.Set(), sets)
				if err != nil {
					return drops, err
				}
				for _, e := range elements {
					drops = drops || e.Drops
					call(e.Chain)
					named[e.Object] = true
				}
			}
		}
	}
	return drops, nil
}

// look reads a set's elements, once.
func (o *inputCopy) look(c *nft.Conn, set string, sets []nft.ListedSet) ([]nft.ListedElement, error) {
	i := slices.IndexFunc(sets, func(s nft.ListedSet) bool { return s.Name == set })
	if known, ok := o.elements[set]; ok || i < 0 {
		return known, nil
	}
	all, err := c.ElementsOf(o.from, sets[i])
	if len(all) > maxElements {
		o.cannot = fmt.Sprintf("set %s has more than %d elements", set, maxElements)
		all = nil
	}
	o.elements[set] = all
	return all, err
}

// judge finds what cannot be copied, and the mark of what can.
func (o *inputCopy) judge() {
	for _, r := range o.rules {
		_, why := expressions(o.from.Family, r)
		switch last := len(r.Do) - 1; {
		case why == "":
		case r.Do[last].Accepts(): // whom it would let through must be let through by another
			o.without = append(o.without, why)
		case o.cannot == "":
			o.cannot = fmt.Sprintf("a rule of chain %s has %q, which nobody but the host can ask", r.Chain, why)
		}
	}
	slices.Sort(o.without)
	o.without = slices.Compact(o.without)
	var b nft.Batch
	o.write(&b, true)
	o.mark = copyVersion + hash(string(b.Bytes()))
	o.table.Comment = o.mark + o.complaint()
}

// Words of a copy's comment.
const (
	closedWord  = " closed: "
	withoutWord = " without: "
)

func (o *inputCopy) complaint() string {
	switch {
	case o.cannot != "":
		return closedWord + o.cannot
	case len(o.without) > 0:
		return withoutWord + strings.Join(o.without, ", ")
	}
	return ""
}

// refuse closes a copy that the kernel does not take.
func (o *inputCopy) refuse(why string) {
	o.cannot = why
	o.table.Comment = o.mark + o.complaint()
}

// expressions are those of a rule of the host's as its copy has them; why names
// one that cannot be copied.
func expressions(f nft.Family, r nft.ListedRule) (do []nft.Expr, why string) {
	for _, v := range r.Do {
		meta, _ := v.Meta()
		name, info := v.Extension()
		switch {
		case name == "REJECT":
			e, ok := reject(f, info)
			if !ok {
				return nil, name
			}
			do = append(do, e)
		case !slices.Contains(copied, v.Name):
			return nil, v.Name
		case v.Name == "meta" && meta == metaRouteClass:
			return nil, "meta rtclassid"
		default:
			do = append(do, v.Expr())
		}
	}
	return do, ""
}

// rejects are the codes of ICMP by the numbers that iptables and ip6tables have
// for them: linux/netfilter_ipv4/ipt_REJECT.h, linux/netfilter_ipv6/ip6t_REJECT.h.
func rejects(f nft.Family) (codes map[byte]uint8, reset byte) { // of TCP
	switch f {
	case nft.IPv4:
		return map[byte]uint8{0: 0, 1: 1, 2: 2, 3: 3, 5: 9, 6: 10, 8: 13}, 7
	case nft.IPv6:
		return map[byte]uint8{0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 7: 5, 8: 6}, 6
	}
	return nil, 0
}

// reject is iptables' target of that name, which the kernel takes only in the
// table filter.
func reject(f nft.Family, info []byte) (nft.Expr, bool) {
	codes, reset := rejects(f)
	if codes == nil || len(info) < 4 {
		return nft.Expr{}, false
	}
	with := info[0] | info[3] // a number of four bytes, in either order, below 256
	if with == reset {
		return nft.RejectWith(true, 0), true
	}
	code, ok := codes[with]
	return nft.RejectWith(false, code), ok
}

// write makes the copy anew. Lasting leaves out how long elements have still to
// live, so that the same host's rules are the same bytes.
func (o *inputCopy) write(b *nft.Batch, lasting bool) {
	t := o.table
	b.AddTable(nft.Table{Family: t.Family, Name: t.Name})
	b.DeleteTable(t)
	b.CreateTable(t)
	for _, s := range copySets() {
		s.Name = ownPrefix + s.Name
		b.AddSet(t, s)
	}
	for i, c := range o.chains {
		for _, name := range []string{asks(i), verdict(i)} {
			b.AddChain(t, nft.Chain{Name: name})
		}
		b.AddChain(t, nft.Chain{Name: fmt.Sprint(ownPrefix, i), Type: "filter", Hook: nft.Prerouting, Priority: c.priority})
	}
	if o.cannot == "" {
		o.writeTheirs(b, lasting)
	}
	for i, c := range o.chains {
		for _, r := range o.guard(i, c) {
			b.AddRule(t, r)
		}
	}
}

func (o *inputCopy) writeTheirs(b *nft.Batch, lasting bool) {
	for _, name := range o.called {
		b.AddChain(o.table, nft.Chain{Name: name})
	}
	for _, x := range o.objects {
		b.AddObjectCopy(o.table, x)
	}
	for _, s := range o.sets {
		b.AddSetCopy(o.table, s)
		list := o.elements[s.Name]
		if lasting {
			list = slices.Clone(list)
			for i := range list {
				list[i] = list[i].Lasting()
			}
		}
		b.AddElementCopies(o.table, s, list)
	}
	for _, r := range o.rules {
		if do, why := expressions(o.table.Family, r); why == "" {
			b.AddCopy(o.table, r, do)
		}
	}
}

// The chains of the i-th chain for input: which packets are asked about, and what
// becomes of them.
func asks(i int) string    { return fmt.Sprint(ownPrefix, i, "-asks") }
func verdict(i int) string { return fmt.Sprint(ownPrefix, i, "-verdict") }

// guard are the rules that ask the copy of a chain.
func (o *inputCopy) guard(i int, c inputChain) []nft.Rule {
	r0, base := nft.R(0), fmt.Sprint(ownPrefix, i)
	all := []nft.Rule{
		rule(base, nft.Load(nft.Iifname, r0), nft.In(r0, ownPrefix+bridges), nft.Return()),
		rule(base, nft.Asking(r0), nft.ToSelf(r0), nft.Goto(asks(i))),
	}
	for _, m := range []struct {
		family  nft.Family
		set     string
		address func(nft.Register) nft.Expr
		words   int
	}{
		{nft.IPv4, judged4, nft.Destination4, 1}, {nft.IPv4, judgedAny4, nil, 0},
		{nft.IPv6, judged6, nft.Destination6, 4}, {nft.IPv6, judgedAny6, nil, 0},
	} {
		key := portKey(m.address, m.words)
		if o.table.Family == nft.Inet { // elsewhere there is no other, and the program nft does not understand the question
			key = append(nft.OfFamily(m.family, r0), key...)
		}
		if o.table.Family == nft.Inet || o.table.Family == m.family {
			all = append(all, rule(asks(i), key, nft.In(r0, ownPrefix+m.set), nft.Goto(verdict(i))))
		}
	}
	if o.cannot == "" {
		all = append(all, rule(verdict(i), nft.Jump(c.Name)))
	}
	if o.cannot != "" || c.Drop {
		all = append(all, rule(verdict(i), nft.Drop()))
	}
	return all
}

// A place is a table that holds elements of a State.
type place struct {
	t      nft.Table
	sets   []nft.Set
	prefix string // of the sets' names
}

func (r *Rules) main() place { return place{r.t, sets, ""} }

func copyPlace(t nft.Table) place { return place{t, copySets(), ownPrefix} }

func (p place) add(b *nft.Batch, all map[string][]nft.Element) {
	for _, s := range p.sets {
		b.AddElements(p.t, p.prefix+s.Name, all[s.Name]...)
	}
}

func (p place) delete(b *nft.Batch, all map[string][]nft.Element) {
	for _, s := range p.sets {
		b.DeleteElements(p.t, p.prefix+s.Name, all[s.Name]...)
	}
}

// change makes want of have.
func (p place) change(b *nft.Batch, have, want map[string][]nft.Element) {
	for _, s := range p.sets {
		b.DeleteElements(p.t, p.prefix+s.Name, without(have[s.Name], want[s.Name])...)
	}
	for _, s := range p.sets {
		b.AddElements(p.t, p.prefix+s.Name, without(want[s.Name], have[s.Name])...)
	}
}

// read is all that is in the sets; no table is fault.NotFound.
func (p place) read(c *nft.Conn) (map[string][]nft.Element, error) {
	all := map[string][]nft.Element{}
	for _, s := range p.sets {
		list, err := c.Elements(p.t, p.prefix+s.Name)
		if err != nil {
			return nil, err
		}
		all[s.Name] = list
	}
	return all, nil
}

// IsCopy reports whether t is the copy of another table that belongs to the one
// of ours with the name.
func IsCopy(name string, t nft.Table) bool { return strings.HasPrefix(t.Name, name+copyInfix) }

// there are the copies that are made, by family and name.
func (r *Rules) there() (map[string]nft.Table, error) {
	all, err := r.conn.Tables()
	found := map[string]nft.Table{}
	for _, t := range all {
		if IsCopy(r.t.Name, t) && strings.HasPrefix(t.Comment, copyOwner) {
			found[t.String()] = t
		}
	}
	return found, err
}

// judges reports whether some of the ports are asked about.
func judges(all map[string][]nft.Element) bool {
	return len(all[judged4])+len(all[judged6])+len(all[judgedAny4])+len(all[judgedAny6]) > 0
}

// wanted are the copies that all needs; those that the kernel did not take are
// closed.
func (r *Rules) wanted(all map[string][]nft.Element, refused map[string]string) ([]inputCopy, error) {
	if !judges(all) {
		return nil, nil
	}
	list, err := copies(r.conn, r.t.Name)
	for i := range list {
		if why, ok := refused[list[i].table.String()]; ok {
			list[i].refuse(why)
		}
	}
	return list, err
}

// addToCopies adds to b what all needs of copies, beside what the main table
// has; anew: it has nothing.
func (r *Rules) addToCopies(b *nft.Batch, all map[string][]nft.Element, anew bool, refused map[string]string) error {
	have, err := r.there()
	if err != nil {
		return err
	}
	if !judges(all) {
		for _, t := range have {
			copyPlace(t).add(b, all)
		}
		return nil
	}
	want, err := r.wanted(all, refused)
	if err != nil {
		return err
	}
	for _, w := range want {
		t := have[w.table.String()]
		delete(have, w.table.String())
		if !strings.HasPrefix(t.Comment, w.mark) {
			w.write(b, false)
			if err := r.fill(b, w.table, anew); err != nil {
				return err
			}
		}
		copyPlace(w.table).add(b, all)
	}
	for _, t := range have {
		b.DeleteTable(t)
	}
	return nil
}

// fill puts what the main table has into a copy.
func (r *Rules) fill(b *nft.Batch, t nft.Table, anew bool) error {
	if anew {
		return nil
	}
	have, err := r.main().read(r.conn)
	if err != nil {
		return err
	}
	copyPlace(t).add(b, have)
	return nil
}

// reconcileCopies makes the copies hold all, and nothing else.
func (r *Rules) reconcileCopies(b *nft.Batch, all map[string][]nft.Element, refused map[string]string) error {
	have, err := r.there()
	if err != nil {
		return err
	}
	want, err := r.wanted(all, refused)
	if err != nil {
		return err
	}
	for _, w := range want {
		t := have[w.table.String()]
		delete(have, w.table.String())
		held, same, err := r.same(w, t)
		if err != nil {
			return err
		}
		if !same {
			w.write(b, false)
		}
		copyPlace(w.table).change(b, held, all)
	}
	for _, t := range have {
		b.DeleteTable(t)
	}
	return nil
}

// same reports whether the table t is the copy w, and what is in its sets.
func (r *Rules) same(w inputCopy, t nft.Table) (held map[string][]nft.Element, same bool, err error) {
	if !strings.HasPrefix(t.Comment, w.mark) {
		return nil, false, nil
	}
	if strings.Contains(t.Comment, closedWord) {
		w.cannot = "it was refused" // then it is not tried again
	}
	var b nft.Batch
	w.write(&b, true)
	n, err := r.conn.CountRules(t, "")
	if err != nil || n != b.Rules() {
		return nil, false, ignoreMissing(err)
	}
	held, err = copyPlace(t).read(r.conn)
	return held, err == nil, ignoreMissing(err)
}

// aboutCopy is the copy that the kernel would not take; empty: the error is about
// something else.
func (r *Rules) aboutCopy(err error) string {
	var f *fault.Error
	if !errors.As(err, &f) || fault.KindOf(err) == fault.Denied || errors.Is(err, syscall.ENOMEM) {
		return ""
	}
	words := strings.Fields(f.On)
	if len(words) < 2 || !strings.HasPrefix(words[1], r.t.Name+copyInfix) {
		return ""
	}
	return words[0] + " " + words[1]
}

// refused notes the copy that the kernel did not take, and why. False: there is
// none, or it was known.
func (r *Rules) refused(err error, refused map[string]string) bool {
	table := r.aboutCopy(err)
	if _, known := refused[table]; known || table == "" {
		return false
	}
	var f *fault.Error
	errors.As(err, &f)
	refused[table] = fmt.Sprintf("the kernel does not take it: %s%s: %v", f.Op, strings.TrimPrefix(f.On, table), f.Err)
	return true
}
