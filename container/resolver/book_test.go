package resolver

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func addresses(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

var (
	subnets = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd09::/64")}

	web = Container{ID: "web", Attachments: []Attachment{
		{Network: "n1", Name: "Front", Subnets: subnets, Names: []string{"Web", "4f53cda18c2b", "www"}, Addresses: addresses("10.9.0.2", "fd09::2")},
		{Network: "n2", Name: "back.end", Names: []string{"Web", "inner"}, Addresses: addresses("10.8.0.2")}}}
	web2 = Container{ID: "web2", Attachments: []Attachment{
		{Network: "n1", Name: "Front", Subnets: subnets, Names: []string{"web-2.x", "www"}, Addresses: addresses("10.9.0.3")}}}
	db = Container{ID: "db", Attachments: []Attachment{
		{Network: "n2", Name: "back.end", Names: []string{"db"}, Addresses: addresses("10.8.0.3")}}}
	plain = Container{ID: "plain", Attachments: []Attachment{
		{Network: "n1", Name: "Front", Addresses: addresses("10.9.0.9")}}}
)

func TestWhomContainersFind(t *testing.T) {
	b := write([]Container{web, web2, db, plain})
	const nobody = "nobody"
	for _, tt := range []struct {
		from Container
		name string
		kind dnsmessage.Type
		want string
	}{
		{web, "web-2.x.", dnsmessage.TypeA, "[10.9.0.3]"},
		{web2, "WEB.", dnsmessage.TypeA, "[10.9.0.2]"},
		{web2, "web.", dnsmessage.TypeAAAA, "[fd09::2]"},
		{web2, "4f53cda18c2b.", dnsmessage.TypeA, "[10.9.0.2]"},
		{web2, "www.", dnsmessage.TypeA, "[10.9.0.2 10.9.0.3]"},
		{web2, "www.FRONT.", dnsmessage.TypeA, "[10.9.0.2 10.9.0.3]"},
		{web2, "web-2.x.front.", dnsmessage.TypeA, "[10.9.0.3]"},
		{web2, "web-2.x.", dnsmessage.TypeAAAA, "[]"},
		{web2, "web.", dnsmessage.TypeMX, "[]"},
		{web2, "web.", dnsmessage.TypeHTTPS, "[]"},
		{web2, "web.", dnsmessage.TypeALL, "[10.9.0.2 fd09::2]"},
		{web, "web.", dnsmessage.TypeA, "[10.9.0.2]"},
		{web, "web.back.end.", dnsmessage.TypeA, "[10.8.0.2]"},
		{web, "db.", dnsmessage.TypeA, "[10.8.0.3]"},
		{db, "inner.", dnsmessage.TypeA, "[10.8.0.2]"},
		{db, "www.", dnsmessage.TypeA, nobody},
		{db, "web-2.x.", dnsmessage.TypeA, nobody},
		{web2, "db.", dnsmessage.TypeA, nobody},
		{web2, "db.back.end.", dnsmessage.TypeA, nobody},
		{web2, "web.back.end.", dnsmessage.TypeA, nobody},
		{web2, "web.other.", dnsmessage.TypeA, nobody},
		{web2, "front.", dnsmessage.TypeA, nobody},
		{web2, ".", dnsmessage.TypeA, nobody},
		{plain, "web.", dnsmessage.TypeA, nobody},
		{web, "plain.", dnsmessage.TypeA, nobody},
		{web2, "2.0.9.10.in-addr.arpa.", dnsmessage.TypePTR, "Web.Front."},
		{web2, "3.0.9.10.IN-ADDR.arpa.", dnsmessage.TypePTR, "web-2.x.Front."},
		{web2, "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.9.0.d.f.ip6.arpa.", dnsmessage.TypePTR, "Web.Front."},
		{web2, "7.0.9.10.in-addr.arpa.", dnsmessage.TypePTR, "RCodeNameError"},
		{web2, "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.9.0.d.f.ip6.arpa.", dnsmessage.TypePTR, "RCodeNameError"},
		{web2, "3.0.8.10.in-addr.arpa.", dnsmessage.TypePTR, nobody},
		{db, "3.0.9.10.in-addr.arpa.", dnsmessage.TypePTR, nobody},
		{plain, "2.0.9.10.in-addr.arpa.", dnsmessage.TypePTR, nobody},
		{web2, "0.9.10.in-addr.arpa.", dnsmessage.TypePTR, nobody},
		{web2, "x.0.9.10.in-addr.arpa.", dnsmessage.TypePTR, nobody},
		{web2, "9.0.d.f.ip6.arpa.", dnsmessage.TypePTR, nobody},
		{web2, "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.9.0.d.g.ip6.arpa.", dnsmessage.TypePTR, nobody},
		{web2, "web.", dnsmessage.TypePTR, "[]"},
	} {
		t.Run(tt.from.ID+" asks "+tt.name+tt.kind.String(), func(t *testing.T) {
			f := b.look(&tt.from, dnsmessage.Question{Name: dnsmessage.MustNewName(tt.name), Type: tt.kind, Class: dnsmessage.ClassINET})
			got := nobody
			switch {
			case f.pointer != "":
				got = f.pointer
			case f.rcode != 0 && f.known:
				got = f.rcode.String()
			case f.known:
				slices.SortFunc(f.addresses, netip.Addr.Compare)
				got = fmt.Sprint(f.addresses)
			}
			if got != tt.want {
				t.Errorf("found %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAddressesOfOneNameTakeTurns(t *testing.T) {
	b := write([]Container{web, web2})
	first := map[netip.Addr]int{}
	for range 200 {
		f := b.look(&web, dnsmessage.Question{Name: dnsmessage.MustNewName("www."), Type: dnsmessage.TypeA})
		first[f.addresses[0]]++
	}
	for a, n := range first {
		if len(first) != 2 || n < 50 {
			t.Errorf("%v is the first of 2 in %d of 200 answers", a, n)
		}
	}
}
