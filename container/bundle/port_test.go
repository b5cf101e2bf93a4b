package bundle

import (
	"reflect"
	"strings"
	"testing"
)

func TestParsePort(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []Port
		bad  string
	}{
		{in: "80", want: []Port{{Proto: "tcp", Container: 80}}},
		{in: "8080:80", want: []Port{{Proto: "tcp", Container: 80, Host: 8080}}},
		{in: "8080:80/UDP", want: []Port{{Proto: "udp", Container: 80, Host: 8080}}},
		{in: "132:9/sctp", want: []Port{{Proto: "sctp", Container: 9, Host: 132}}},
		{in: "127.0.0.1:8080:80", want: []Port{{Proto: "tcp", Container: 80, Host: 8080, HostIP: "127.0.0.1"}}},
		{in: "127.0.0.1::80", want: []Port{{Proto: "tcp", Container: 80, HostIP: "127.0.0.1"}}},
		{in: "[::1]:8080:80", want: []Port{{Proto: "tcp", Container: 80, Host: 8080, HostIP: "::1"}}},
		{in: "[fd00::5]::53/udp", want: []Port{{Proto: "udp", Container: 53, HostIP: "fd00::5"}}},
		{in: "::1:8080:80", want: []Port{{Proto: "tcp", Container: 80, Host: 8080, HostIP: "::1"}}},
		{in: "7000-7001:8000-8001", want: []Port{{Proto: "tcp", Container: 8000, Host: 7000}, {Proto: "tcp", Container: 8001, Host: 7001}}},
		{in: "7000-7009:80", want: []Port{{Proto: "tcp", Container: 80, Host: 7000, HostLast: 7009}}},
		{in: "8000-8001", want: []Port{{Proto: "tcp", Container: 8000}, {Proto: "tcp", Container: 8001}}},
		{in: "", bad: "no port specified"}, {in: "8080:", bad: "no port specified"}, {in: "x", bad: "invalid containerPort: x"}, {in: "x:80", bad: "invalid hostPort: x"},
		{in: "0:80", bad: "invalid hostPort"}, {in: "65536", bad: "invalid containerPort"}, {in: "80-70", bad: "invalid containerPort"}, {in: "7000-7001:80-85", bad: "invalid ranges specified"},
		{in: "80/icmp", bad: "invalid proto: icmp"}, {in: "example.org:80:80", bad: "invalid IP address: example.org"},
	} {
		got, err := ParsePort(tt.in)
		if tt.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tt.bad) {
				t.Errorf("%q: %v; want %q", tt.in, err, tt.bad)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}

func TestPublished(t *testing.T) {
	image := ImageConfig{ExposedPorts: map[string]struct{}{"80/tcp": {}, "443/tcp": {}, "nonsense": {}}}
	w := Wishes{Ports: []Port{{Proto: "tcp", Container: 80, Host: 8080}, {Proto: "tcp", Container: 80, Host: 8080}}, Expose: []string{"53/udp"}}
	if got := w.Published(image); len(got) != 1 {
		t.Errorf("Published = %+v", got)
	}
	w.PublishAll = true
	var keys []string
	for _, p := range w.Published(image) {
		keys = append(keys, p.Key())
	}
	if got := strings.Join(keys, " "); got != "80/tcp 53/udp 443/tcp" {
		t.Errorf("Published with -P: %s", got)
	}
}

func TestParseNetworkRate(t *testing.T) {
	for in, want := range map[string]NetworkRate{
		"10mbit": {1250000, true, true}, "8kbit:egress": {1000, true, false}, "8kbit:ingress": {1000, false, true}, "8kbit:egress:ingress": {1000, true, true},
		"none": {0, true, true}, "0:ingress": {0, false, true},
		"8kbit:up": {}, "8kbit:egress:up": {}, "8kbit::": {}, "fast": {}, "": {}, ":egress": {},
	} {
		got, err := ParseNetworkRate(in)
		if got != want || (err != nil) != (want == NetworkRate{}) {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func TestChangeRates(t *testing.T) {
	for _, tt := range []struct{ was, by, want string }{
		{"", "10mbit", "10mbit"}, {"10mbit", "8kbit:egress", "8kbit:egress 10mbit:ingress"}, {"8kbit:egress 10mbit:ingress", "none:ingress", "8kbit:egress"},
		{"8kbit:egress", "8kbit:ingress", "8kbit"}, {"10mbit", "none", ""}, {"10mbit", "0:egress 0:ingress", ""}, {"", "none", ""},
	} {
		w := Wishes{NetworkRates: strings.Fields(tt.was)}
		w.ChangeRates(strings.Fields(tt.by))
		if got := strings.Join(w.NetworkRates, " "); got != tt.want {
			t.Errorf("%q changed by %q is %q; want %q", tt.was, tt.by, got, tt.want)
		}
	}
}

// What is accepted is in force, and the same again where it is kept.
func FuzzParseNetworkRate(f *testing.F) {
	f.Add("10mbit:egress", "none")
	f.Add("8kbit", "1mbps:ingress:egress")
	f.Fuzz(func(t *testing.T, a, b string) {
		w := Wishes{NetworkRates: []string{a}}
		if CheckNetworkRates(a) != nil || CheckNetworkRates(b) != nil {
			return
		}
		both := Wishes{NetworkRates: []string{a, b}}
		sends, receives := both.Rates()
		if max(sends, receives) >= 1<<48 { // above, a float has no room for each byte
			return
		}
		w.ChangeRates([]string{b})
		if out, in := w.Rates(); out != sends || in != receives {
			t.Errorf("%q and %q are %d and %d, and kept as %q: %d and %d", a, b, sends, receives, w.NetworkRates, out, in)
		}
	})
}

func TestParseNetwork(t *testing.T) {
	for _, tt := range []struct {
		in   []string
		bad  string
		last NetworkWish
		kind string
	}{
		{in: []string{"web"}, kind: Bridge, last: NetworkWish{Name: "web"}},
		{in: []string{"bridge", "web"}, kind: Bridge, last: NetworkWish{Name: "web"}},
		{in: []string{"name=web,ip=10.0.0.2,ip6=FD00::2,alias=a,alias=b,mac-address=02-00-00-00-00-01,gw-priority=-3,link-local-ip=169.254.1.1"}, kind: Bridge,
			last: NetworkWish{Name: "web", IP: "10.0.0.2", IP6: "fd00::2", Aliases: []string{"a", "b"}, MAC: "02:00:00:00:00:01", Priority: -3, LinkLocal: []string{"169.254.1.1"}}},
		{in: []string{"name=web,driver-opt=com.docker.network.endpoint.ifname=web0"}, kind: Bridge, last: NetworkWish{Name: "web", Options: map[string]string{"com.docker.network.endpoint.ifname": "web0"}}},
		{in: []string{"slirp4netns:mtu=1400,enable_ipv6=true"}, kind: Slirp}, {in: []string{"pasta:-T,5000"}, kind: Pasta}, {in: []string{"pasta"}, kind: Pasta},
		{in: []string{"none"}, kind: None}, {in: []string{"host"}, kind: HostNS}, {in: []string{"container:x"}, kind: Container}, {in: []string{"ns:/a"}, kind: Path},
		{in: []string{"web", "host"}, bad: "cannot attach both"}, {in: []string{"none", "web"}, bad: "cannot attach both"}, {in: []string{"web", "web"}, bad: "specified multiple times"},
		{in: []string{"ip=10.0.0.2"}, bad: "network name missing"}, {in: []string{"name=web,colour=red"}, bad: "invalid field key colour"}, {in: []string{"name=web,ip=fd00::2"}, bad: "invalid IPv4 address"},
		{in: []string{"name=web,ip6=1.2.3.4"}, bad: "invalid IPv6 address"}, {in: []string{"name=host,ip=10.0.0.1"}, bad: "supported only for networks"}, {in: []string{"a b"}, bad: "there is no network"},
	} {
		var w Wishes
		var err error
		for _, s := range tt.in {
			if err == nil {
				err = ParseNetwork(&w, s)
			}
		}
		if tt.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tt.bad) {
				t.Errorf("%q: %v; want %q", tt.in, err, tt.bad)
			}
			continue
		}
		var last NetworkWish
		if n := len(w.Networks); n > 0 {
			last = w.Networks[n-1]
		}
		if err != nil || w.Network.Kind != tt.kind || !reflect.DeepEqual(last, tt.last) {
			t.Errorf("%q: %+v %+v, %v", tt.in, w.Network, last, err)
		}
	}
}

// Whatever is written, the ports that come of it are ports, and their text is
// read as the same again.
func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"80", "8080:80/udp", "127.0.0.1:8000-8009:80-89", "[::1]:1:2/sctp", "::", "1-65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ports, err := ParsePort(s)
		if err != nil {
			return
		}
		if len(ports) == 0 || len(ports) > 65535 {
			t.Fatalf("%q: %d ports", s, len(ports))
		}
		for _, p := range ports {
			if p.Container == 0 || p.HostLast != 0 && p.HostLast <= p.Host {
				t.Fatalf("%q: %+v", s, p)
			}
		}
		p := ports[0]
		text := p.HostPort() + ":" + p.Key()
		if p.HostIP != "" {
			text = "[" + p.HostIP + "]:" + text
		}
		if again, err := ParsePort(text); err != nil || len(again) != 1 || again[0] != p {
			t.Fatalf("%q -> %+v -> %q -> %+v, %v", s, p, text, again, err)
		}
	})
}

func FuzzParseNetwork(f *testing.F) {
	f.Add("web")
	f.Add("name=web,ip=10.0.0.2,\"alias=a,b\",gw-priority=1")
	f.Fuzz(func(t *testing.T, s string) {
		var w Wishes
		if ParseNetwork(&w, s) != nil {
			return
		}
		if (w.Network.Kind == Bridge) != (len(w.Networks) == 1) {
			t.Fatalf("%q: %+v", s, w)
		}
		if _, err := w.Places(); err != nil && w.Network.Kind != Default {
			t.Fatalf("%q: %v", s, err)
		}
	})
}
