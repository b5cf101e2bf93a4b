package privilege

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Offsets into struct seccomp_data of linux/seccomp.h.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// program is the whole filter: which architecture, then a search for the
// number. A call of an architecture that is not covered kills the process.
func (c *compiler) program() []Instruction {
	a := &assembler{}
	kill := a.ret(retKillProcess)
	next := kill
	for _, table := range slices.Backward(c.tables()) {
		search := a.then(Instruction{Op: opLoad, K: offNumber}, a.search(table.arch, table.spans))
		next = a.branch(opEQ, table.arch.audit, search, next)
	}
	a.then(Instruction{Op: opLoad, K: offArch}, next)
	return a.program()
}

// A table is all that happens to the numbers of one AUDIT_ARCH_.
type table struct {
	arch  arch
	spans []span
}

// tables are the native architecture's and the others'. The numbers of x32
// lie above those of amd64, in the same table; without x32 they kill.
func (c *compiler) tables() []table {
	var out []table
	for i, arch := range c.archs {
		switch arch.goarch {
		case "x32":
			amd64 := &out[0]
			amd64.spans = merge(append(below(amd64.spans, x32Bit), c.spans(x32Bit, i)...))
		case "amd64":
			spans := c.spans(0, i)
			last := spans[len(spans)-1].ret
			spans = append(below(spans, x32Bit), span{lo: x32Bit, ret: retKillProcess}, span{lo: noCall, ret: last})
			out = append(out, table{arch, spans})
		default:
			out = append(out, table{arch, c.spans(0, i)})
		}
	}
	return out
}

// below are the spans that begin below limit.
func below(spans []span, limit uint32) []span {
	return slices.DeleteFunc(spans, func(s span) bool { return s.lo >= limit })
}

// search is a binary search for the number in the accumulator.
func (a *assembler) search(arch arch, spans []span) label {
	if len(spans) == 1 {
		return a.leaf(arch, spans[0])
	}
	if hole(spans) {
		outer := a.leaf(arch, spans[0])
		inner := a.leaf(arch, spans[1])
		return a.branch(opEQ, spans[1].lo, inner, outer)
	}
	middle := len(spans) / 2
	right := a.search(arch, spans[middle:])
	left := a.search(arch, spans[:middle])
	return a.branch(opGE, spans[middle].lo, right, left)
}

// hole reports whether spans are one number amid a span of others.
func hole(spans []span) bool {
	return len(spans) == 3 && spans[2].lo == spans[1].lo+1 &&
		spans[0].rules == nil && spans[2].rules == nil && spans[0].ret == spans[2].ret
}

// leaf is what happens to a span's numbers: its rules one after the other,
// then its return.
func (a *assembler) leaf(arch arch, s span) label {
	arch.wide = s.wide
	next := a.ret(s.ret)
	for end := len(s.rules); end > 0; {
		start := end - 1
		for start > 0 && alike(arch, s.rules[start-1], s.rules[end-1]) {
			start--
		}
		if end-start > 1 {
			next = a.oneOf(arch, s.rules[start:end], next)
		} else {
			next = a.rule(arch, s.rules[start], next)
		}
		end = start
	}
	return next
}

// alike reports whether two rules do the same when one argument has a value
// and may so be one search.
func alike(arch arch, x, y rule) bool {
	if x.ret != y.ret || len(x.conds) != 1 || len(y.conds) != 1 {
		return false
	}
	p, q := x.conds[0], y.conds[0]
	return p.op == specs.OpEqualTo && q.op == specs.OpEqualTo && p.arg == q.arg &&
		(!arch.wide || p.value>>32 == q.value>>32)
}

// oneOf is a search for the argument among the values of rules that are alike.
func (a *assembler) oneOf(arch arch, rules []rule, next label) label {
	var values []uint32
	for _, r := range rules {
		values = append(values, uint32(r.conds[0].value))
	}
	slices.Sort(values)
	values = slices.Compact(values)
	first := rules[0]
	found := a.among(values, a.ret(first.ret), next)
	return a.upperEqual(arch, first.conds[0].arg, uint32(first.conds[0].value>>32), a.load(arch, first.conds[0].arg, false, found), next)
}

// among branches to yes when the accumulator is one of the sorted values.
func (a *assembler) among(values []uint32, yes, no label) label {
	first, last := values[0], values[len(values)-1]
	switch {
	case len(values) == 1:
		return a.branch(opEQ, first, yes, no)
	case last-first == uint32(len(values)-1): // all from first to last
		return a.branch(opGE, first, a.branch(opGT, last, no, yes), no)
	}
	middle := len(values) / 2
	right := a.among(values[middle:], yes, no)
	left := a.among(values[:middle], yes, no)
	return a.branch(opGE, values[middle], right, left)
}

// rule returns when all its conditions hold, else goes on at next.
func (a *assembler) rule(arch arch, r rule, next label) label {
	yes := a.ret(r.ret)
	for _, cond := range slices.Backward(r.conds) {
		yes = a.condition(arch, cond, yes, next)
	}
	return yes
}

// condition is one comparison of 64 bits in halves; of 32 where the
// architecture has no more.
func (a *assembler) condition(arch arch, c condition, yes, no label) label {
	high, low := uint32(c.value>>32), uint32(c.value)
	switch c.op {
	case specs.OpNotEqual:
		yes, no = no, yes
		fallthrough
	case specs.OpEqualTo:
		return a.upperEqual(arch, c.arg, high, a.load(arch, c.arg, false, a.branch(opEQ, low, yes, no)), no)
	case specs.OpMaskedEqual:
		return a.masked(arch, c, yes, no)
	case specs.OpLessEqual:
		yes, no = no, yes
		fallthrough
	case specs.OpGreaterThan:
		return a.above(arch, c.arg, high, a.load(arch, c.arg, false, a.branch(opGT, low, yes, no)), yes, no)
	case specs.OpLessThan:
		yes, no = no, yes
	}
	return a.above(arch, c.arg, high, a.load(arch, c.arg, false, a.branch(opGE, low, yes, no)), yes, no)
}

// upperEqual goes to lower when the argument's upper half is high.
func (a *assembler) upperEqual(arch arch, arg uint, high uint32, lower, no label) label {
	if !arch.wide {
		return lower
	}
	return a.load(arch, arg, true, a.branch(opEQ, high, lower, no))
}

// above goes to lower when the argument's upper half is high, to yes when it
// is more and to no when it is less.
func (a *assembler) above(arch arch, arg uint, high uint32, lower, yes, no label) label {
	if !arch.wide {
		return lower
	}
	equal := a.branch(opEQ, high, lower, no)
	return a.load(arch, arg, true, a.branch(opGT, high, yes, equal))
}

func (a *assembler) masked(arch arch, c condition, yes, no label) label {
	if mask := uint32(c.value); mask != 0 {
		yes = a.branch(opEQ, uint32(c.two), yes, no)
		yes = a.load(arch, c.arg, false, a.then(Instruction{Op: opAnd, K: mask}, yes))
	}
	if mask := uint32(c.value >> 32); mask != 0 && arch.wide {
		yes = a.branch(opEQ, uint32(c.two>>32), yes, no)
		yes = a.load(arch, c.arg, true, a.then(Instruction{Op: opAnd, K: mask}, yes))
	}
	return yes
}

// load puts a half of an argument into the accumulator and goes on at next.
func (a *assembler) load(arch arch, arg uint, upper bool, next label) label {
	k := offArgs + 8*uint32(arg)
	if upper != arch.big {
		k += 4
	}
	return a.then(Instruction{Op: opLoad, K: k}, next)
}
