package host

import (
	"slices"
	"testing"
)

// The table is read by people and by $KISTE_REQUIRE: every row is whole and
// its name its own.
func TestPowersAreWhole(t *testing.T) {
	var names []string
	for _, p := range Powers() {
		p.Have()
		if p.Name == "" || p.Text == "" || p.Remedy == "" || slices.Contains(names, p.Name) {
			t.Errorf("row %+v is not whole or there twice", p.Name)
		}
		names = append(names, p.Name)
	}
}

func TestParseRelease(t *testing.T) {
	for _, tt := range []struct {
		in           string
		major, minor int
	}{
		{"6.12.1-amd64", 6, 12}, {"5.14", 5, 14}, {"6.1-rc3", 6, 1}, {"6.0rc", 6, 0}, {"", 0, 0}, {"x.y", 0, 0},
	} {
		if a, b := parseRelease(tt.in); a != tt.major || b != tt.minor {
			t.Errorf("parseRelease(%q) = %d.%d, want %d.%d", tt.in, a, b, tt.major, tt.minor)
		}
	}
}

// What the start path asks for must cost next to nothing.
func BenchmarkProbes(b *testing.B) {
	for _, p := range []struct {
		name  string
		probe func() bool
	}{
		{"userns", userns}, {"cgroup2", func() bool { return exists("/sys/fs/cgroup/cgroup.controllers") }}, {"idmap", func() bool { return idmapFS("/var") }},
	} {
		b.Run(p.name, func(b *testing.B) {
			for b.Loop() {
				p.probe()
			}
		})
	}
}
