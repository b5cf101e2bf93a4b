package cli

import (
	"errors"
	"testing"

	"kiste/fault"
	"kiste/kernel/cgroup"
)

func TestDeviceRateTakesDeviceAndRate(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want uint64 // 0: refused
		size bool
	}{
		{"8:0:1M", 1 << 20, true},
		{"8:0:1000", 1000, false},
		{"8:0:1M", 0, false},
		{"8:0", 0, true},
		{"/dev/null:1M", 0, true}, // not a block device
		{"/nonexistent:1M", 0, true},
		{"8:0:-1", 0, true},
		{"", 0, true},
	} {
		var rates []cgroup.Rate
		err := deviceRateVar(&rates, tt.size)(tt.in)
		if (err == nil) != (tt.want != 0) || err == nil && rates[0].Rate != tt.want {
			t.Errorf("%q: %v, %v; want %d", tt.in, rates, err, tt.want)
		}
	}
}

func TestNamesOfGroupsStayBelowTheParent(t *testing.T) {
	for in, want := range map[string]string{
		"web": "/kiste/web", "a/b": "/kiste/a/b", "/web/": "/kiste/web",
		"..": "", "a/../..": "", "": "", "12": "", "a b": "", "cgroup.procs": "", "tasks": "",
	} {
		got, err := namedGroup("/kiste", in)
		if got != want || (want == "") != errors.Is(err, fault.Invalid) {
			t.Errorf("namedGroup(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestHumanSize(t *testing.T) {
	for in, want := range map[int64]string{-1: "no limit", 0: "0B", 1023: "1023B", 1536: "1.5K", 64 << 20: "64M", 5 << 40: "5T"} {
		if got := humanSize(in); got != want {
			t.Errorf("humanSize(%d) = %q, want %q", in, got, want)
		}
	}
}
