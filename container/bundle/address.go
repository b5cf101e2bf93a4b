package bundle

import (
	"strconv"
	"strings"
)

// isAddress reports whether s is an IP address, as netip.ParseAddr has it. That
// package is not used since it costs every start of a program that links it
// 30 µs.
func isAddress(s string) bool {
	if !strings.Contains(s, ":") {
		return isIPv4(s)
	}
	s, zone, hasZone := strings.Cut(s, "%")
	if hasZone && zone == "" {
		return false
	}
	head, tail, short := strings.Cut(s, "::")
	if !short {
		return groups(s, true) == 8
	}
	if strings.Contains(tail, "::") || strings.HasPrefix(tail, ":") || strings.HasSuffix(head, ":") {
		return false
	}
	before, after := groups(head, false), groups(tail, true)
	return before >= 0 && after >= 0 && before+after < 8
}

// groups counts the groups of 16 bits of a part of an IPv6 address: -1 if it
// is none. The last may be an IPv4 address, which counts twice.
func groups(s string, last bool) int {
	if s == "" {
		return 0
	}
	n := 0
	part := strings.Split(s, ":")
	for i, p := range part {
		if last && i == len(part)-1 && isIPv4(p) {
			return n + 2
		}
		if _, err := strconv.ParseUint(p, 16, 16); err != nil || len(p) > 4 {
			return -1
		}
		n++
	}
	return n
}

func isIPv4(s string) bool {
	part := strings.Split(s, ".")
	for _, p := range part {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != p {
			return false
		}
	}
	return len(part) == 4
}
