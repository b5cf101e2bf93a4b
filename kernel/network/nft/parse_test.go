package nft

import (
	"testing"

	"kiste/kernel/network/netlink"
)

var t0 = Table{Family: Inet, Name: "t"}

// Whatever comes, the parsers end and stay within it.
func FuzzParse(f *testing.F) {
	var b Batch
	t := Table{Family: Inet, Name: "t", Comment: "c"}
	b.AddTable(t)
	b.AddChain(t, Chain{Name: "in", Type: "filter", Hook: Input})
	b.AddElements(t, "s", Element{Key: Key(Ifname("a"), []byte{1, 2, 3, 4}), End: Ifname("b"), Data: Port(1), Comment: "x"})
	b.AddRule(t, Rule{Chain: "in", Do: []Expr{Drop()}, Comment: "why"})
	b.AddRule(t, Rule{Chain: "in", Do: []Expr{Load(L4Proto, R(0)), Is(R(0), []byte{6}), In(R(0), "s"), Count(), Jump("in")}})
	b.AddSet(t, Set{Name: "s", Key: []Type{TypeService}})
	for _, o := range b.ops {
		f.Add(o.request.Kind, []byte(o.request.Body))
	}
	f.Add(uint16(0), []byte{0, 0, 0, 0, 6, 0, 6, 0, 0, 255})
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		_, _ = parseTable(data)
		_, _ = parseChain(data)
		_, _ = parseRule(data)
		all, _ := parseElements(data)
		for _, e := range all {
			_ = printable(e.Key) + printable(e.Data) + e.Comment
		}
		var again Batch
		r, _ := parseRule(data)
		for _, v := range r.Do {
			_, _, _ = v.Verdict()
			_, _ = v.Extension()
			_, _ = v.Meta()
			_ = v.Set() + v.Object()
			_ = v.Drops() || v.Accepts()
			r.Chain += v.Expr().String()
		}
		if f, ok := parseFlow(data); ok {
			_ = f.Changed()
		}
		again.AddCopy(t0, r, nil)
		s, _ := parseSet(data)
		again.AddSetCopy(t0, s)
		o, _ := parseObject(data)
		again.AddObjectCopy(t0, o)
		listed, _ := parseListedElements(data)
		for i := range listed {
			listed[i] = listed[i].Lasting()
		}
		again.AddElementCopies(t0, s, listed)
		_ = again.Bytes()
		_, _ = parseChange(netlink.Message{Kind: kind, Data: data})
	})
}

// What is written in a message is read from it.
func TestElementsComeBack(t *testing.T) {
	var b Batch
	e := Element{Key: Ifname("eth0"), Data: Port(80), Comment: "web"}
	b.AddElements(Table{Family: Inet, Name: "t"}, "s", e)
	got, err := parseElements(b.ops[0].request.Body)
	if err != nil || len(got) != 1 || string(got[0].Key) != string(e.Key) || string(got[0].Data) != string(e.Data) || got[0].Comment != "web" {
		t.Errorf("%+v, %v", got, err)
	}
	b.AddRule(Table{Family: Inet, Name: "t"}, Rule{Chain: "in", Do: []Expr{Drop()}, Comment: "why"})
	if r, err := parseRule(b.ops[1].request.Body); err != nil || r.Chain != "in" || r.Comment != "why" || len(r.Do) != 1 || !r.Do[0].Drops() {
		t.Errorf("%+v, %v", r, err)
	}
	c, ok := parseChange(netlink.Message{Kind: b.ops[0].request.Kind, Data: b.ops[0].request.Body})
	if !ok || c.Set != "s" || c.Table.Name != "t" {
		t.Errorf("%+v", c)
	}
}
