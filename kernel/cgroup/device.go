package cgroup

import (
	"fmt"
	"strconv"
	"strings"

	"kiste/fault"
	"kiste/internal/sys"
)

// wrong says what is wrong with r; empty: nothing.
func (r DeviceRule) wrong() string {
	switch {
	case r.Type != 0 && r.Type != 'a' && r.Type != 'b' && r.Type != 'c':
		return "a type is a, b or c"
	case strings.Trim(r.Access, "rwm") != "":
		return "access is made of r, w and m"
	case r.Major < -1 || r.Minor < -1 || r.Major > 1<<32-1 || r.Minor > 1<<32-1:
		return "a number is out of range"
	}
	return ""
}

func (r DeviceRule) access() string {
	if r.Access == "" {
		return "rwm"
	}
	return r.Access
}

// types are the types that the rule speaks of.
func (r DeviceRule) types() []byte {
	if r.Type == 0 || r.Type == 'a' {
		return []byte{'b', 'c'}
	}
	return []byte{r.Type}
}

// everything reports whether the rule speaks of all devices and accesses.
func (r DeviceRule) everything() bool {
	return len(r.types()) == 2 && r.Major < 0 && r.Minor < 0 && bitsOf(r.access()) == 7
}

// String is the rule in the words of devices.allow and devices.deny.
func (r DeviceRule) String() string {
	if r.everything() {
		return "a"
	}
	if r.Type == 0 {
		r.Type = 'a'
	}
	return string(rune(r.Type)) + " " + anyNumber(r.Major) + ":" + anyNumber(r.Minor) + " " + r.access()
}

func anyNumber(n int64) string {
	if n < 0 {
		return "*"
	}
	return strconv.FormatInt(n, 10)
}

// ParseDeviceRule reads a rule as Docker's --device-cgroup-rule and version
// 1's files write it: "c 1:3 rwm", "b *:* m", "a".
func ParseDeviceRule(s string, allow bool) (DeviceRule, error) {
	bad := &fault.Error{Op: "parse device rule", On: s, Kind: fault.Invalid, Err: errText(`want a rule such as "c 1:3 rwm"`)}
	f := strings.Fields(s)
	if len(f) == 0 || len(f) > 3 || len(f[0]) != 1 {
		return DeviceRule{}, bad
	}
	r := DeviceRule{Allow: allow, Type: f[0][0], Major: -1, Minor: -1}
	if len(f) > 1 {
		major, minor, ok := strings.Cut(f[1], ":")
		var err1, err2 error
		r.Major, err1 = parseNumber(major)
		r.Minor, err2 = parseNumber(minor)
		if !ok || err1 != nil || err2 != nil {
			return DeviceRule{}, bad
		}
	}
	if len(f) > 2 {
		r.Access = f[2]
	}
	if len(r.Access) > 3 || r.wrong() != "" {
		return DeviceRule{}, bad
	}
	return r, nil
}

func parseNumber(s string) (int64, error) {
	if s == "*" {
		return -1, nil
	}
	v, err := strconv.ParseUint(s, 10, 32)
	return int64(v), err
}

// Reduce is what the rules come to in a list: whether all devices may be used,
// and the exceptions, of one type each. Version 1 and systemd keep lists. They
// cannot take a device from an exception for many, which is fault.Unsupported.
func Reduce(rules []DeviceRule) (allow bool, except []DeviceRule, err error) {
	l, err := reduce(rules)
	return l.allow, l.except, err
}

// A deviceList is what rules come to in version 1: all devices may be used, or
// none, but for exceptions.
type deviceList struct {
	allow  bool
	except []DeviceRule // of one type each
}

// usualRules is room for those of a container, and one more.
const usualRules = 12

// reduce refuses what version 1 would leave out without a word, as runc does.
func reduce(rules []DeviceRule) (deviceList, error) {
	l := deviceList{except: make([]DeviceRule, 0, usualRules)}
	for _, r := range rules {
		if r.everything() {
			l.allow, l.except = r.Allow, l.except[:0]
			continue
		}
		for _, t := range r.types() {
			r.Type, r.Access = t, r.access()
			if r.Allow != l.allow {
				l.add(r)
			} else if err := l.remove(r); err != nil {
				return l, err
			}
		}
	}
	return l, nil
}

func (l *deviceList) add(r DeviceRule) {
	for i, e := range l.except {
		if e.covers(r) && r.covers(e) {
			l.except[i].Access = accessOf(bitsOf(e.Access) | bitsOf(r.Access))
			return
		}
	}
	l.except = append(l.except, r)
}

func (l *deviceList) remove(r DeviceRule) error {
	var left []DeviceRule
	for _, e := range l.except {
		common := bitsOf(e.Access) & bitsOf(r.Access)
		switch {
		case common == 0 || !e.meets(r):
		case r.covers(e):
			e.Access = accessOf(bitsOf(e.Access) &^ common)
		default:
			return unsupported("linux.resources.devices", "devices", fmt.Sprintf("version 1 cannot take %q out of %q", r, e))
		}
		if e.Access != "" {
			left = append(left, e)
		}
	}
	l.except = left
	return nil
}

// covers reports whether r speaks of all devices that e speaks of, of the same
// type.
func (r DeviceRule) covers(e DeviceRule) bool {
	return r.Type == e.Type && (r.Major < 0 || r.Major == e.Major) && (r.Minor < 0 || r.Minor == e.Minor)
}

// meets reports whether there is a device that both speak of.
func (r DeviceRule) meets(e DeviceRule) bool {
	return r.Type == e.Type && (r.Major < 0 || e.Major < 0 || r.Major == e.Major) && (r.Minor < 0 || e.Minor < 0 || r.Minor == e.Minor)
}

// all reports whether all devices may be used.
func (l deviceList) all() bool { return l.allow && len(l.except) == 0 }

// rules are those that come to the list: one for all, then the exceptions.
func (l deviceList) rules() []DeviceRule {
	return append(append(make([]DeviceRule, 0, usualRules), DeviceRule{Allow: l.allow, Major: -1, Minor: -1}), l.except...)
}

// accessBits are the bits of bpf_cgroup_dev_ctx.access_type.
var accessBits = []struct {
	letter byte
	bit    int32
}{{'r', devRead}, {'w', devWrit}, {'m', devMknod}}

func bitsOf(access string) (bits int32) {
	for _, a := range accessBits {
		if strings.IndexByte(access, a.letter) >= 0 {
			bits |= a.bit
		}
	}
	return bits
}

func accessOf(bits int32) string {
	var access []byte
	for _, a := range accessBits {
		if bits&a.bit != 0 {
			access = append(access, a.letter)
		}
	}
	return string(access)
}

// guard puts the step's rules in force.
func (s Step) guard() error {
	put := s.listDevices
	if s.V2 {
		put = s.attachProgram
	}
	err := put()
	if s.Optional && fault.KindOf(err) == fault.Denied {
		return nil
	}
	return err
}

// listDevices writes reduced rules to the files of version 1. In a group that
// has an allow list already only the difference is written, new rules before
// old ones go, so that nobody inside is ever denied what both lists allow.
func (s Step) listDevices() error {
	all, except := s.Rules[0], s.Rules[1:]
	if !s.fresh() && !all.Allow {
		text, err := sys.ReadKnob(s.Path+"/devices.list", maxFile)
		if err != nil {
			return denied("read", s.Path+"/devices.list", err)
		}
		if now, ok := parseDeviceList(text); ok {
			if err := s.listed("devices.allow", without(except, now)); err != nil {
				return err
			}
			return s.listed("devices.deny", without(now, except))
		}
	}
	for _, part := range []struct {
		allow bool
		rules []DeviceRule
	}{{all.Allow, s.Rules[:1]}, {!all.Allow, except}} {
		file := "devices.deny"
		if part.allow {
			file = "devices.allow"
		}
		if err := s.listed(file, part.rules); err != nil {
			return err
		}
	}
	return nil
}

func (s Step) listed(file string, rules []DeviceRule) error {
	if len(rules) == 0 {
		return nil
	}
	values := make([]string, len(rules))
	for i, r := range rules {
		values[i] = r.String()
	}
	done, err := sys.WriteKnobs(s.Path+"/"+file, values)
	if err == nil {
		return nil
	}
	e := denied("set devices to "+strconv.Quote(values[done])+" in", s.Path+"/"+file, err).(*fault.Error)
	if fault.KindOf(err) == fault.Denied {
		e.Hint = "the group above does not allow that, or this is no root on the host"
	}
	return e
}

// parseDeviceList reads the devices.list of version 1. It is not ok where all
// devices are allowed: then the exceptions are not told.
func parseDeviceList(text string) (rules []DeviceRule, ok bool) {
	for line := range strings.Lines(text) {
		r, err := ParseDeviceRule(line, true)
		if err != nil || r.everything() {
			return nil, false
		}
		rules = append(rules, r)
	}
	return rules, true
}

// without is what rules allow and those of other, of the same devices, do not.
func without(rules, other []DeviceRule) []DeviceRule {
	var left []DeviceRule
	for _, r := range rules {
		bits := bitsOf(r.Access)
		for _, o := range other {
			if o.covers(r) && r.covers(o) {
				bits &^= bitsOf(o.Access)
			}
		}
		if r.Access = accessOf(bits); bits != 0 {
			left = append(left, r)
		}
	}
	return left
}
