package rules

import (
	"testing"

	"kiste/kernel/network"
	"kiste/kernel/network/nft"
)

// An element that is read is a port that is written the same.
func FuzzPortOf(f *testing.F) {
	to, _ := network.ParseAddr("10.0.0.2")
	set, e := Port{Proto: TCP, HostPort: 80, To: to, ToPort: 8080}.element()
	f.Add(set, e.Key, e.Data)
	f.Fuzz(func(t *testing.T, set string, key, data []byte) {
		p, ok := portOf(set, nft.Element{Key: key, Data: data})
		if !ok {
			return
		}
		again, e := p.element()
		if q, ok := portOf(again, e); again != set || !ok || q != p {
			t.Errorf("%s %x %x is %v, and that is %s %v", set, key, data, p, again, q)
		}
	})
}

func TestMeets(t *testing.T) {
	a := func(s string) network.Addr { a, _ := network.ParseAddr(s); return a }
	all, one, other := Port{Proto: TCP, HostPort: 80, To: a("10.0.0.2")}, Port{Proto: TCP, HostPort: 80, Host: a("192.0.2.1"), To: a("10.0.0.3")}, Port{Proto: TCP, HostPort: 80, Host: a("192.0.2.2"), To: a("10.0.0.3")}
	udp, six := all, Port{Proto: TCP, HostPort: 80, To: a("fd00::2")}
	udp.Proto = UDP
	for _, tt := range []struct {
		a, b Port
		want bool
	}{{all, all, true}, {all, one, true}, {one, other, false}, {one, one, true}, {all, udp, false}, {all, six, false}} {
		if tt.a.Meets(tt.b) != tt.want || tt.b.Meets(tt.a) != tt.want {
			t.Errorf("%v meets %v: %v", tt.a, tt.b, !tt.want)
		}
	}
}
