package network

import (
	"errors"
	"path"
	"testing"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/network/netlink"
)

func TestParseRate(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Rate // 0: refused
	}{
		{"10mbit", 1250000}, {"1gbit", 125000000}, {"500kbit", 62500}, {"1mbps", 1000000}, {"8000", 1000},
		{"8000bit", 1000}, {"1.5mbit", 187500}, {"1Mbit", 125000}, {"8kibit", 1024}, {"100kbps", 100000},
		{"", 0}, {"mbit", 0}, {"-1mbit", 0}, {"0", 0}, {"nan", 0}, {"infbit", 0}, {"10mb", 0}, {"1e30", 0}, {"10 mbit", 0},
	} {
		got, err := ParseRate(tt.in)
		if got != tt.want || (tt.want == 0) != errors.Is(err, fault.Invalid) {
			t.Errorf("ParseRate(%q) = %d, %v; want %d", tt.in, got, err, tt.want)
		}
	}
}

// What ParseRate accepts it must print so that it reads the same again.
func FuzzParseRate(f *testing.F) {
	f.Add("10mbit")
	f.Add("1.5mbps")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRate(s)
		if err != nil || r >= 1<<48 { // above, a float has no room for each byte
			return
		}
		if again, err := ParseRate(r.String()); err != nil || again != r {
			t.Errorf("%q -> %d -> %s -> %d, %v", s, r, r, again, err)
		}
	})
}

// Whatever comes, the parsers end and stay within it.
func FuzzParseLink(f *testing.F) {
	b := ifinfo(1, 1, 1)
	b.Text(unix.IFLA_IFNAME, "eth0")
	f.Add([]byte(b))
	filter := filterAt(1)
	filter.Nest(tcaOptions, func(o *netlink.Body) { o.Text(tcaBPFName, shortcutName); o.U32(tcaBPFID, 7) })
	if name, id := parseFilter(filter); name != shortcutName || id != 7 {
		f.Errorf("a filter is read as %q, %d", name, id)
	}
	f.Add([]byte(filter))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = parseLink(data)
		_, _, _ = parseAddress(data)
		_, _ = parseRoute(data)
		_, _ = parseFilter(data)
	})
}

func TestLinkNames(t *testing.T) {
	for name, want := range map[string]bool{"eth0": true, "a234567890123456": false, "": false, "a/b": false, "a b": false, "..": false, "x%d": false} {
		if (CheckName(name) == nil) != want {
			t.Errorf("CheckName(%q) accepts it: %v", name, !want)
		}
	}
}

func TestMACs(t *testing.T) {
	for mac, want := range map[string]bool{"02:00:0a:42:00:02": true, "03:00:00:00:00:00": false, "02:00": false, "02:00:0a:42:00:0g": false, "02:00:0a:42:00:+2": false} {
		if _, err := parseMAC(mac); (err == nil) != want {
			t.Errorf("parseMAC(%q) accepts it: %v", mac, !want)
		}
	}
}

func addr(t *testing.T, s string) Addr {
	t.Helper()
	a, err := ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestLeaseNames(t *testing.T) {
	if got := leaseName(addr(t, "10.66.0.2")); got != "k0a420002" {
		t.Errorf("leaseName = %s", got)
	}
	if got := leaseName(addr(t, "fd00::2")); len(got) > maxName {
		t.Errorf("leaseName = %s, too long", got)
	}
}

// Whatever is asked for, it is a file of the link and no other that is written.
func FuzzSysctl(f *testing.F) {
	f.Add("net.ipv4.conf.IFNAME.log_martians=1")
	f.Add("net.ipv6.neigh.IFNAME.../../x=1")
	f.Fuzz(func(t *testing.T, s string) {
		file, _, err := Endpoint{Name: "eth0"}.sysctl(s)
		if err != nil {
			return
		}
		if ok, _ := path.Match("/proc/sys/net/*/*/eth0/[a-z0-9_]*", file); !ok || path.Clean(file) != file {
			t.Errorf("%q is written to %q", s, file)
		}
	})
}
