package proxying

import (
	"testing"

	"kiste/engine"
	"kiste/store"
)

func TestTranslate(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   engine.ProxiedPort
		want string // where it listens, and leads; empty: it is refused
	}{
		{"at ::1, to IPv4", engine.ProxiedPort{Proto: "tcp", IP: "::1", Host: 8080, To: "10.66.0.2", Port: 80}, "[::1]:8080/tcp 10.66.0.2:80"},
		{"to IPv6", engine.ProxiedPort{Proto: "udp", IP: "0.0.0.0", Host: 53, To: "fd00::2", Port: 53}, "0.0.0.0:53/udp [fd00::2]:53"},
		{"nowhere", engine.ProxiedPort{Proto: "tcp", IP: "::1", Host: 8080, Port: 80}, "[::1]:8080/tcp invalid AddrPort"},
		{"no address of the host", engine.ProxiedPort{Proto: "tcp", Host: 8080, To: "10.66.0.2", Port: 80}, ""},
		{"no port", engine.ProxiedPort{Proto: "tcp", IP: "::1", To: "10.66.0.2", Port: 80}, ""},
		{"no protocol of ours", engine.ProxiedPort{Proto: "sctp", IP: "::1", Host: 1, To: "10.66.0.2", Port: 80}, ""},
		{"no address of the container", engine.ProxiedPort{Proto: "tcp", IP: "::1", Host: 1, To: "web", Port: 80}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := translatePort(tt.in)
			got := p.String() + " " + p.To.String()
			if err != nil {
				got = ""
			}
			if got != tt.want {
				t.Errorf("%+v is %q, %v; want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

// What a document says is a port at which somebody can listen, or refused.
func FuzzTranslate(f *testing.F) {
	f.Add([]byte(`{"ID":"a","Process":{"PID":1,"Start":2},"Ports":[{"Proto":"tcp","IP":"::1","Host":8080,"To":"10.66.0.2","Port":80}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d engine.Proxied
		if store.Decode(text, &d) != nil {
			return
		}
		c, err := translate(&d)
		if err != nil {
			return
		}
		for _, p := range c.Ports {
			if !p.Host.IsValid() || p.HostPort == 0 || p.To.IsValid() != (p.To.Port() != 0) {
				t.Errorf("%q is %v, which leads to %v", text, p, p.To)
			}
		}
	})
}
