package network

import (
	"net/netip"
	"testing"
)

// net/netip is the reference.
func checkAgainstNetip(t *testing.T, s string) {
	t.Helper()
	want, wantErr := netip.ParseAddr(s)
	if wantErr == nil && want.Zone() != "" {
		return
	}
	got, err := ParseAddr(s)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("ParseAddr(%q) = %v, %v; net/netip: %v, %v", s, got, err, want, wantErr)
	}
	if err == nil && !want.Is4In6() && (got.String() != want.String() || got.Next().IsValid() != want.Next().IsValid() || got.IsLoopback() != want.IsLoopback()) {
		t.Errorf("ParseAddr(%q) = %v; net/netip: %v", s, got, want)
	}
}

func checkPrefix(t *testing.T, s string) {
	t.Helper()
	want, wantErr := netip.ParsePrefix(s)
	got, err := ParsePrefix(s)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("ParsePrefix(%q) = %v, %v; net/netip: %v, %v", s, got, err, want, wantErr)
	}
	if err == nil && !want.Addr().Is4In6() && got.Masked().String() != want.Masked().String() {
		t.Errorf("Masked of %q = %v; net/netip: %v", s, got.Masked(), want.Masked())
	}
}

func TestAddressesAsNetipReadsThem(t *testing.T) {
	for _, s := range []string{"10.66.0.2", "0.0.0.0", "255.255.255.255", "01.2.3.4", "1.2.3", "1.2.3.4.5", "256.1.1.1", "", ":", "::", "::1", "1::",
		"fd00::2", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "1::2::3", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:1.2.3.4", "::1.2.3.4", "1.2.3.4::", "12345::",
		"1:0:0:2:0:0:0:3", "1:0:2:0:3:0:4:0", "0:0:1::", "::ffff:1.2.3.4", ":::", "1:", ":1", "1:::2", "+1::"} {
		checkAgainstNetip(t, s)
	}
	for _, s := range []string{"10.66.0.2/24", "10.1.2.3/0", "10.1.2.3/32", "10.1.2.3/33", "10.1.2.3/", "10.1.2.3", "10.1.2.3/01", "fd00::2/64", "fd00:1:2:3::/61", "::/129", "::1/128", "::1/+1"} {
		checkPrefix(t, s)
	}
}

func FuzzParseAddr(f *testing.F) {
	f.Add("fd00::1.2.3.4")
	f.Add("10.66.0.2/24")
	f.Fuzz(func(t *testing.T, s string) {
		checkAgainstNetip(t, s)
		checkPrefix(t, s)
	})
}

func TestOverlaps(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"10.66.0.1/24", "10.66.0.200/32", true}, {"10.66.0.1/24", "10.0.0.0/8", true}, {"10.66.0.1/24", "10.66.1.1/24", false},
		{"0.0.0.0/0", "10.66.1.1/24", true}, {"::/0", "10.66.1.1/24", false},
	} {
		a, err1 := ParsePrefix(tt.a)
		b, err2 := ParsePrefix(tt.b)
		if err1 != nil || err2 != nil || a.Overlaps(b) != tt.want || b.Overlaps(a) != tt.want {
			t.Errorf("%s and %s overlap: %v", tt.a, tt.b, !tt.want)
		}
	}
}
