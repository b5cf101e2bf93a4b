package host

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"kiste/internal/sys"
)

// Distribution gives the host's name for people and its version, from
// os-release(5): "Debian GNU/Linux 12 (bookworm)", "12".
func Distribution() (name, version string) {
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if b, err := sys.ReadFile(path, 64<<10); err == nil {
			return parseOSRelease(string(b))
		}
	}
	return "", ""
}

func parseOSRelease(text string) (name, version string) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if plain, err := strconv.Unquote(value); err == nil {
			value = plain
		}
		switch key {
		case "PRETTY_NAME":
			name = strings.Trim(value, "'")
		case "VERSION_ID":
			version = strings.Trim(value, "'")
		}
	}
	return name, version
}

// Memory is how much this host has, in bytes; 0 where nobody knows.
func Memory() int64 {
	b, err := sys.ReadFile("/proc/meminfo", 64<<10)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// CPUs is how many processors are online.
func CPUs() int {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return 0
	}
	return countList(strings.TrimSpace(string(b)))
}

// countList counts the numbers of a list such as "0-3,8".
func countList(list string) int {
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		low, err := strconv.Atoi(from)
		if err != nil {
			return n
		}
		high := low
		if isRange {
			high, _ = strconv.Atoi(to)
		}
		n += max(high-low+1, 0)
	}
	return n
}

// Forwards reports whether this host passes IPv4 packets on.
func Forwards() bool { return fileHas("/proc/sys/net/ipv4/ip_forward", "1") }

// Machine is the kernel's word for the architecture: "x86_64".
func Machine() string { return sys.Machine() }

// FileSystem is the type of the file system on which path lies or would lie,
// in Docker's word where it has one: "extfs", "xfs"; "<unknown>" of one that is
// not in its table.
func FileSystem(path string) string {
	st, err := sys.Statfs(path)
	switch parent := filepath.Dir(path); {
	case err != nil && parent != path:
		return FileSystem(parent)
	case err != nil:
		return "<unknown>"
	}
	for _, f := range []struct {
		magic int64
		name  string
	}{
		{0xef53, "extfs"}, {0x58465342, "xfs"}, {0x9123683e, "btrfs"}, {0x01021994, "tmpfs"}, {0x794c7630, "overlayfs"}, {0x2fc12fc1, "zfs"},
		{0xf2f52010, "f2fs"}, {0x6969, "nfs"}, {0xca451a4e, "bcachefs"},
	} {
		if int64(uint32(st.Type)) == f.magic {
			return f.name
		}
	}
	return "<unknown>"
}
