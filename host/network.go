package host

import (
	"bytes"
	"os/exec"
	"strconv"
	"strings"

	"kiste/internal/sys"
)

// maxRoutes bounds what is read of a table of routes, in bytes.
const maxRoutes = 1 << 20

// HasIPv6Route reports whether the host has a way out by IPv6: a default route
// that is not the loopback's. Source: linux/ipv6_route.h.
func HasIPv6Route() bool {
	text, err := sys.ReadFile("/proc/net/ipv6_route", maxRoutes)
	if err != nil {
		return false
	}
	return hasDefault6(string(text))
}

func hasDefault6(table string) bool {
	const all = "00000000000000000000000000000000"
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) == 10 && f[0] == all && f[1] == "00" && f[9] != "lo" {
			return true
		}
	}
	return false
}

// FirstUserPort is the lowest port that needs no privilege to listen at: ip(7).
func FirstUserPort() int {
	text, err := sys.ReadKnob("/proc/sys/net/ipv4/ip_unprivileged_port_start", 16)
	n, bad := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || bad != nil {
		return 1024
	}
	return n
}

// PastaVersion is the day of the pasta that is installed, as a number: 20240726;
// 0 where there is none, or one that does not say.
func PastaVersion() int {
	out, err := exec.Command("pasta", "--version").CombinedOutput()
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return pastaDay(string(line))
}

// pastaDay finds the day in a version: "pasta 2024_07_26.57a21d2",
// "pasta 0.0~git20240726.57a21d2-1".
func pastaDay(version string) int {
	digits := 0
	day := 0
	for _, c := range strings.ReplaceAll(version, "_", "") + " " {
		switch {
		case c >= '0' && c <= '9' && digits < 8:
			day, digits = day*10+int(c-'0'), digits+1
		case digits == 8:
			return day
		default:
			day, digits = 0, 0
		}
	}
	return 0
}
