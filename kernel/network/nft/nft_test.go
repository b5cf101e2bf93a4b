package nft_test

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/network"
	"kiste/kernel/network/nft"
)

var tab = nft.Table{Family: nft.Inet, Name: "t", Comment: "a comment"}

// in connects to the packet filter of a new namespace.
func in(t testing.TB) (*network.Namespace, *nft.Conn) {
	t.Helper()
	need.Power(t, host.Root, host.NFT)
	n, err := network.New()
	if err != nil {
		t.Fatal(err)
	}
	var c *nft.Conn
	if err := n.Do(func() (err error) { c, err = nft.Open(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); n.Close() })
	return n, c
}

// shown is what the program nft says of n.
func shown(t *testing.T, n *network.Namespace) string {
	t.Helper()
	need.Program(t, "nft")
	var out []byte
	err := n.Do(func() (err error) { out, err = exec.Command("nft", "list", "ruleset").CombinedOutput(); return err })
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func everything() *nft.Batch {
	var b nft.Batch
	b.CreateTable(tab)
	b.AddSet(tab, nft.Set{Name: "links", Key: []nft.Type{nft.TypeIfname}})
	b.AddSet(tab, nft.Set{Name: "ports", Key: []nft.Type{nft.TypeProto, nft.TypeService}, Data: []nft.Type{nft.TypeIPv4, nft.TypeService}})
	b.AddSet(tab, nft.Set{Name: "near", Key: []nft.Type{nft.TypeIfname, nft.TypeIPv4}, Range: true})
	b.AddSet(tab, nft.Set{Name: "marks", Key: []nft.Type{nft.TypeMark}, Size: 10, Timeout: true})
	b.AddChain(tab, nft.Chain{Name: "sub"})
	b.AddChain(tab, nft.Chain{Name: "in", Type: "filter", Hook: nft.Input, Priority: 10, Drop: true})
	b.AddChain(tab, nft.Chain{Name: "nat", Type: "nat", Hook: nft.Prerouting, Priority: nft.PriorityDNAT})
	b.AddElements(tab, "links", nft.Element{Key: nft.Ifname("eth0")}, nft.Element{Key: nft.Ifname("eth1"), Comment: "second"})
	b.AddElements(tab, "ports", nft.Element{Key: nft.Key([]byte{6}, nft.Port(80)), Data: nft.Key([]byte{10, 0, 0, 2}, nft.Port(8080)), Comment: "web"})
	b.AddElements(tab, "near", nft.Element{Key: nft.Key(nft.Ifname("eth0"), []byte{10, 0, 0, 0}), End: nft.Key(nft.Ifname("eth0"), []byte{10, 0, 0, 255})})
	r := nft.R(0)
	b.AddRule(tab, nft.Rule{Chain: "in", Comment: "known", Do: append(nft.Known(r), nft.Count(), nft.Accept())})
	b.AddRule(tab, nft.Rule{Chain: "in", Do: []nft.Expr{nft.Load(nft.Iifname, r), nft.NotIn(r, "links"), nft.Jump("sub")}})
	b.AddRule(tab, nft.Rule{Chain: "in", Do: []nft.Expr{nft.Load(nft.Mark, r), nft.IsNot(r, []byte{1, 0, 0, 0}), nft.Over(125000, 20000), nft.Reject()}})
	b.AddRule(tab, nft.Rule{Chain: "nat", Do: []nft.Expr{nft.Load(nft.NFProto, r), nft.Is(r, []byte{byte(nft.IPv4)}), nft.Load(nft.L4Proto, r), nft.DestinationPort(nft.R(1)),
		nft.Map(r, "ports", r), nft.To(nft.IPv4, r, nft.R(1))}})
	return &b
}

func TestABatchIsWhatNftShows(t *testing.T) {
	n, c := in(t)
	b := everything()
	if err := c.Do(b); err != nil {
		t.Fatal(err)
	}
	text := shown(t, n)
	for _, want := range []string{
		`comment "a comment"`, `"eth0",`, `"eth1" comment "second"`, `tcp . 80 comment "web" : 10.0.0.2 . 8080`, `"eth0" . 10.0.0.0/24`, "size 10", "flags timeout",
		"type filter hook input priority filter + 10; policy drop;", `ct state established,related counter packets 0 bytes 0 accept comment "known"`,
		"iifname != @links jump sub", "limit rate over 125000 bytes/second burst 20000 bytes reject", "dnat ip to meta l4proto . th dport map @ports",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("nft does not show %q:\n%s", want, text)
		}
	}
	if b.Len() != strings.Count(b.String(), "\n") || !strings.Contains(b.String(), `"eth0"`) {
		t.Errorf("in words:\n%s", b)
	}
}

func TestListsAreWhatWasWritten(t *testing.T) {
	_, c := in(t)
	if err := c.Do(everything()); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Table(nft.Inet, "t"); err != nil || got != tab {
		t.Errorf("table %+v, %v", got, err)
	}
	chains, err := c.Chains()
	if err != nil || len(chains) != 3 || chains[1].Chain != (nft.Chain{Name: "in", Type: "filter", Hook: nft.Input, Priority: 10, Drop: true}) {
		t.Errorf("chains %+v, %v", chains, err)
	}
	ports, err := c.Elements(tab, "ports")
	if err != nil || len(ports) != 1 || ports[0].Comment != "web" || string(ports[0].Key) != "\x06\x00\x00\x00\x00\x50\x00\x00" || string(ports[0].Data) != "\x0a\x00\x00\x02\x1f\x90\x00\x00" {
		t.Errorf("elements %+v, %v", ports, err)
	}
	near, err := c.Elements(tab, "near")
	if err != nil || len(near) != 1 || near[0].End[19] != 255 {
		t.Errorf("ranges %+v, %v", near, err)
	}
	if rules, err := c.CountRules(tab, "in"); err != nil || rules != 3 {
		t.Errorf("%d rules, %v", rules, err)
	}
	if sets, err := c.CountSets(tab); err != nil || sets != 4 {
		t.Errorf("%d sets, %v", sets, err)
	}
	if _, err := c.Elements(tab, "none"); !errors.Is(err, fault.NotFound) {
		t.Errorf("a set that is not there: %v", err)
	}
	if _, err := c.Table(nft.Inet, "none"); !errors.Is(err, fault.NotFound) {
		t.Errorf("a table that is not there: %v", err)
	}
}

func TestABatchIsDoneWhollyOrNotAtAll(t *testing.T) {
	n, c := in(t)
	b := everything()
	b.AddElements(tab, "nosuchset", nft.Element{Key: []byte{1, 2, 3, 4}})
	b.AddChain(tab, nft.Chain{Name: "later"})
	err := c.Do(b)
	if !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "nosuchset") {
		t.Errorf("the error is %v; want it to name the set", err)
	}
	if text := shown(t, n); text != "" {
		t.Errorf("something stays:\n%s", text)
	}
	if err := errors.Join(c.Do(everything()), c.Do(&nft.Batch{})); err != nil {
		t.Error(err)
	}
	if err := c.Do(everything()); !errors.Is(err, fault.Exists) || !strings.Contains(err.Error(), "create table") {
		t.Errorf("a table that is there: %v", err)
	}
	var d nft.Batch
	d.DeleteElements(tab, "links", nft.Element{Key: nft.Ifname("eth0")})
	d.Flush(tab, "in")
	d.DeleteChain(tab, "sub")
	if err := c.Do(&d); err != nil || strings.Contains(shown(t, n), "sub") || strings.Contains(shown(t, n), `"eth0",`) {
		t.Errorf("%v, left:\n%s", err, shown(t, n))
	}
}

func TestWhoMayNotIsTold(t *testing.T) {
	_, c := in(t)
	var b nft.Batch
	b.AddChain(tab, nft.Chain{Name: "in", Type: "filter", Hook: nft.Input})
	if err := c.Do(&b); !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "inet t in") {
		t.Errorf("a chain of no table: %v", err)
	}
	b = nft.Batch{}
	b.AddTable(tab)
	b.AddChain(tab, nft.Chain{Name: "in", Type: "nosuchtype", Hook: nft.Input})
	if err := c.Do(&b); err == nil {
		t.Error("a type of chain that there is not")
	}
}

func ExampleBatch() {
	var b nft.Batch
	t := nft.Table{Family: nft.Inet, Name: "guard"}
	b.AddTable(t)
	b.AddChain(t, nft.Chain{Name: "in", Type: "filter", Hook: nft.Input})
	b.AddRule(t, nft.Rule{Chain: "in", Do: []nft.Expr{nft.Load(nft.L4Proto, nft.R(0)), nft.Is(nft.R(0), []byte{6}),
		nft.DestinationPort(nft.R(0)), nft.Is(nft.R(0), nft.Port(23)), nft.Drop()}})
	fmt.Println(b.Len(), "changes in one transaction")
	// Output: 3 changes in one transaction
}
