package namespace

import (
	"errors"
	"strings"
	"testing"

	"kiste/fault"
)

func TestParseIDMaps(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string // empty: refused
	}{
		{"one range", "0:100000:65536", "0:100000:65536"},
		{"one id without a size", "0:1000", "0:1000:1"},
		{"two ranges", "0:1000:1,1:100000:65535", "0:1000:1,1:100000:65535"},
		{"the last id of all", "0:4294967294:1", "0:4294967294:1"},
		{"nothing", "", ""},
		{"beyond 32 bits", "0:4294967296:1", ""},
		{"over the end", "0:4294967295:1", ""},
		{"size zero", "0:1:0", ""},
		{"overlap inside", "0:1000:10,5:2000:10", ""},
		{"overlap outside", "0:1000:10,20:1005:10", ""},
		{"four numbers", "0:1:2:3", ""},
		{"negative", "-1:1:1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseIDMaps(tt.in)
			if tt.want == "" {
				if !errors.Is(err, fault.Invalid) {
					t.Errorf("ParseIDMaps(%q) = %v, %v; want it refused as invalid", tt.in, got, err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Errorf("ParseIDMaps(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

// What ParseIDMaps accepts it must print so that it reads the same again.
func FuzzParseIDMaps(f *testing.F) {
	f.Add("0:1000:1,1:100000:65535")
	f.Fuzz(func(t *testing.T, s string) {
		ms, err := ParseIDMaps(s)
		if err != nil {
			return
		}
		again, err := ParseIDMaps(ms.String())
		if err != nil || again.String() != ms.String() {
			t.Errorf("%q -> %v -> %v, %v", s, ms, again, err)
		}
	})
}

func TestSubordinateTakesTheUsersOwnLines(t *testing.T) {
	text := "ann:100000:65536\n1000:200000:10\nbob:1:1\n# ann:5:5\nann:x:1\nann:4294967295:2\n\n"
	got := parseSubordinate(text, "ann", "1000")
	if len(got) != 2 || got[0] != (Range{100000, 65536}) || got[1] != (Range{200000, 10}) {
		t.Errorf("parseSubordinate = %v", got)
	}
}

// Whatever the file holds, the ranges are usable and few.
func FuzzParseSubordinate(f *testing.F) {
	f.Add("ann:100000:65536\n")
	f.Add(strings.Repeat("ann:1:1\n", 400))
	f.Fuzz(func(t *testing.T, s string) {
		ranges := parseSubordinate(s, "ann")
		if len(ranges) > maxMaps {
			t.Fatalf("%d ranges", len(ranges))
		}
		if err := RootMap(1000, ranges).check(); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	})
}

func TestRootMapPutsRangesAfterRoot(t *testing.T) {
	got := RootMap(1000, []Range{{100000, 10}, {100005, 10}, {200000, 5}}).String()
	if got != "0:1000:1,1:100000:10,11:200000:5" {
		t.Errorf("RootMap = %s; want the overlapping range left out", got)
	}
}

func TestToOutside(t *testing.T) {
	ms := IDMaps{{0, 1000, 1}, {1, 100000, 10}}
	for inside, want := range map[uint32]uint32{0: 1000, 10: 100009} {
		if got, ok := ms.ToOutside(inside); !ok || got != want {
			t.Errorf("ToOutside(%d) = %d, %v; want %d", inside, got, ok, want)
		}
	}
	if _, ok := ms.ToOutside(11); ok {
		t.Error("11 is mapped")
	}
}

func TestClockOffsetsHaveNoNegativeNanoseconds(t *testing.T) {
	if got := offset("boottime", -1500e6); got != "boottime -2 500000000\n" {
		t.Errorf("offset = %q", got)
	}
}

func TestPinNames(t *testing.T) {
	for name, want := range map[string]bool{"blue": true, "a.b-c_1": true, "4711": false, "": false, "../x": false, "-x": false, ".x": false, "a/b": false} {
		if validName(name) != want {
			t.Errorf("validName(%q) = %v", name, !want)
		}
	}
}

func TestCommandsAreShownWithoutControlCharacters(t *testing.T) {
	if got := printable("a\x00b\x1b[2J\xff\u009b"); got != "a b?[2J??" {
		t.Errorf("printable = %q", got)
	}
}
