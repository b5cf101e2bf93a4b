package cgroup

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"kiste/fault"
)

// rules reads device rules: "+c 1:3 rw" allows, "-a" denies.
func rules(t *testing.T, text string) []DeviceRule {
	t.Helper()
	var out []DeviceRule
	for _, s := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		s = strings.TrimSpace(s)
		r, err := ParseDeviceRule(s[1:], s[0] == '+')
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func show(rules []DeviceRule) string {
	var out []string
	for _, r := range rules {
		sign := "-"
		if r.Allow {
			sign = "+"
		}
		out = append(out, sign+r.String())
	}
	return strings.Join(out, ", ")
}

func TestReduce(t *testing.T) {
	for _, tt := range []struct{ name, rules, want string }{
		{"no rules deny all", "", "-a"},
		{"all is allowed", "+a", "+a"},
		{"what stands before all is forgotten", "+c 1:3 r, -a, +c 1:5 r", "-a, +c 1:5 r"},
		{"rules of one device add up", "-a, +c 1:3 r, +c 1:3 w", "-a, +c 1:3 rw"},
		{"no type is both types", "-a, +a 1:3 r", "-a, +b 1:3 r, +c 1:3 r"},
		{"a denial takes accesses", "-a, +c 1:3 rwm, -c 1:3 w", "-a, +c 1:3 rm"},
		{"a denial of many takes one", "-a, +c 1:3 rw, +c 1:5 m, -c 1:* rwm", "-a"},
		{"a denial of nothing", "-a, +c 1:3 r, -c 1:3 w, -b 1:* r, -c 2:* r", "-a, +c 1:3 r"},
		{"all but one", "+a, -c 1:3 w", "+a, -c 1:3 w"},
		{"all but one, which comes back", "+a, -c 1:3 rw, +c *:3 w", "+a, -c 1:3 r"},
		{"many beside one", "-a, +c 1:3 rw, +c 1:* m", "-a, +c 1:3 rw, +c 1:* m"},
		{"one out of many", "-a, +c 1:* rw, -c 1:3 r", ""},
		{"one out of all characters", "-a, +c *:* rwm, -c 1:3 r", ""},
		{"a crossing", "-a, +c 1:* rw, -c *:3 r", ""},
		{"the other access of one out of many", "-a, +c 1:* m, -c 1:3 rw", "-a, +c 1:* m"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := reduce(rules(t, tt.rules))
			if tt.want == "" {
				if !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "devices") {
					t.Errorf("got %s, %v; want it refused", show(l.rules()), err)
				}
				return
			}
			if err != nil || show(l.rules()) != tt.want {
				t.Errorf("got %s, %v; want %s", show(l.rules()), err, tt.want)
			}
		})
	}
}

// What rules come to says of each device what the rules in their order say.
func FuzzReduce(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 250, 7, 9, 100})
	f.Fuzz(func(t *testing.T, b []byte) {
		var rules []DeviceRule
		for ; len(b) >= 2; b = b[2:] {
			n, m := int(b[0]), int(b[1])
			rules = append(rules, DeviceRule{Allow: n&1 == 0, Type: "abc"[n>>1%3], Major: int64(n>>3%3) - 1, Minor: int64(n>>5%3) - 1, Access: accessOf(int32(m%7 + 1))})
		}
		l, err := reduce(rules)
		if err != nil {
			return
		}
		for _, typ := range []byte("bc") {
			for number := range 4 {
				for _, bit := range []int32{devRead, devWrit, devMknod} {
					device := DeviceRule{Type: typ, Major: int64(number & 1), Minor: int64(number >> 1), Access: accessOf(bit)}
					if want, got := lastWord(rules, device), lastWord(l.rules(), device); want != got {
						t.Errorf("%s is %s: %q allowed %v, not %v", show(rules), show(l.rules()), device, got, want)
					}
				}
			}
		}
	})
}

// The program says of each device what the rules in their order say.
func FuzzProgram(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 250, 7, 9, 100})
	f.Fuzz(func(t *testing.T, b []byte) {
		var rules []DeviceRule
		for ; len(b) >= 2; b = b[2:] {
			n, m := int(b[0]), int(b[1])
			rules = append(rules, DeviceRule{Allow: n&1 == 0, Type: "abc"[n>>1%3], Major: int64(n>>3%4) - 1, Minor: int64(n>>5%4) - 1, Access: accessOf(int32(m%7 + 1))})
		}
		p := Program(rules)
		for typ, letter := range map[uint32]byte{devBlock: 'b', devChar: 'c', 7: 'x'} {
			for number := range 16 {
				for asked := int32(1); asked <= devAll; asked++ {
					major, minor := uint32(number&3), uint32(number>>2)
					want := true
					for _, bit := range []int32{devRead, devWrit, devMknod} {
						device := DeviceRule{Type: letter, Major: int64(major), Minor: int64(minor), Access: accessOf(bit)}
						want = want && (asked&bit == 0 || lastWord(rules, device))
					}
					if got := interpret(t, p, typ|uint32(asked)<<16, major, minor); got != want {
						t.Fatalf("%s: %c %d:%d %s allowed %v, want %v", show(rules), letter, major, minor, accessOf(asked), got, want)
					}
				}
			}
		}
	})
}

// interpret runs the instructions that a device program is made of.
func interpret(t *testing.T, p []uint64, access, major, minor uint32) bool {
	t.Helper()
	r := [11]uint64{}
	context := map[int16]uint32{0: access, 4: major, 8: minor}
	for at := 0; at < len(p); at++ {
		op, dst, src, off, imm := uint8(p[at]), p[at]>>8&15, p[at]>>12&15, int16(p[at]>>16), uint32(p[at]>>32)
		switch op {
		case loadWord:
			r[dst] = uint64(context[off])
		case moveImm:
			r[dst] = uint64(int64(int32(imm)))
		case moveReg32:
			r[dst] = uint64(uint32(r[src]))
		case andImm:
			r[dst] = uint64(uint32(r[dst]) & imm)
		case shiftImm:
			r[dst] = uint64(uint32(r[dst]) >> imm)
		case jumpNE:
			if uint32(r[dst]) != imm {
				at += int(off)
			}
		case jump:
			at += int(off)
		case exit:
			return r[0] != 0
		default:
			t.Fatalf("instruction %#x", p[at])
		}
	}
	t.Fatal("the program has no end")
	return false
}

// A list that no program can hold is refused, soon.
func TestTooManyDeviceRules(t *testing.T) {
	var rules []DeviceRule
	for n := range int64(1000) {
		rules = append(rules, DeviceRule{Allow: true, Type: 'c', Major: n, Minor: -1, Access: "r"}, DeviceRule{Allow: true, Type: 'c', Major: -1, Minor: n, Access: "w"})
	}
	if _, err := Compile(unified(), "a", Limits{Devices: rules}, Options{}); !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "too many") {
		t.Errorf("got %v", err)
	}
	many := make([]DeviceRule, 5000)
	if _, err := Compile(unified(), "a", Limits{Devices: many}, Options{}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("got %v", err)
	}
	some := rules[:0:0]
	for n := range int64(3000) {
		some = append(some, DeviceRule{Allow: true, Type: 'b', Major: 8, Minor: n, Access: "rw"})
	}
	if _, err := Compile(unified(), "a", Limits{Devices: some}, Options{}); err != nil {
		t.Errorf("3000 disks: %v", err)
	}
}

// lastWord is what the last rule says that speaks of the device.
func lastWord(rules []DeviceRule, device DeviceRule) bool {
	for _, r := range slices.Backward(rules) {
		for _, typ := range r.types() {
			if r.Type = typ; r.covers(device) && bitsOf(r.access())&bitsOf(device.Access) != 0 {
				return r.Allow
			}
		}
	}
	return false
}

func TestDeviceListDifference(t *testing.T) {
	now, ok := parseDeviceList("c 1:3 rwm\nb *:* m\nc 136:* rw\n")
	if !ok {
		t.Fatal("not read")
	}
	want := rules(t, "+c 1:3 r, +b *:* m, +c 5:2 rw")
	if got := show(without(want, now)) + " / " + show(without(now, want)); got != "+c 5:2 rw / +c 1:3 wm, +c 136:* rw" {
		t.Errorf("add / remove: %s", got)
	}
	for _, text := range []string{"a *:* rwm\n", "c 1:3\nx", "garbage"} {
		if got, ok := parseDeviceList(text); ok {
			t.Errorf("%q was read as %s", text, show(got))
		}
	}
}

func TestDefaultDevicesAreReducible(t *testing.T) {
	l, err := reduce(append([]DeviceRule{{Major: -1, Minor: -1}}, DefaultDevices()...))
	if err != nil || len(l.except) != 11 {
		t.Errorf("%s, %v", show(l.rules()), err)
	}
	if fmt.Sprint(l.except[2]) != "c 1:3 rwm" {
		t.Errorf("%v", l.except)
	}
}
