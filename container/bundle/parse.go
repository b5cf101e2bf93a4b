package bundle

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ParseSize reads a number of bytes with an optional unit as Docker does: b,
// k, m, g, t, p (powers of 1024), in either case, also as "kb" and "KiB".
// "-1" is -1.
func ParseSize(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	end := strings.LastIndexAny(s, "0123456789.") + 1
	v, err := strconv.ParseFloat(s[:end], 64)
	shift, ok := sizeShift(strings.ToLower(strings.TrimPrefix(s[end:], " ")))
	if err != nil || !ok || strings.ContainsAny(s[:end], "+-eExX_") || v*float64(int64(1)<<shift) >= 1<<63 {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	return int64(v * float64(int64(1)<<shift)), nil
}

func sizeShift(unit string) (uint, bool) {
	switch unit {
	case "", "b":
		return 0, true
	}
	i := strings.IndexByte("kmgtp", unit[0])
	tail := unit[1:]
	return uint(i+1) * 10, i >= 0 && (tail == "" || tail == "b" || tail == "ib")
}

// ParseDevice reads the value of --device: "HOST[:CONTAINER[:rwm]]" or
// "HOST:rwm".
func ParseDevice(spec string) (Device, error) {
	part := strings.Split(spec, ":")
	d := Device{Source: part[0], Target: part[0], Permissions: "rwm"}
	switch {
	case len(part) > 3 || part[0] == "":
		return Device{}, fmt.Errorf("bad format for path: %s", spec)
	case len(part) == 3:
		d.Target, d.Permissions = part[1], part[2]
		if !deviceMode(d.Permissions) {
			return Device{}, fmt.Errorf("bad mode specified: %s", d.Permissions)
		}
	case len(part) == 2 && deviceMode(part[1]):
		d.Permissions = part[1]
	case len(part) == 2:
		d.Target = part[1]
	}
	for _, p := range []string{d.Source, d.Target} {
		if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
			return Device{}, fmt.Errorf("%s is not an absolute path", p)
		}
	}
	d.Source, d.Target = path.Clean(d.Source), path.Clean(d.Target)
	return d, nil
}

// deviceMode reports whether mode is made of r, w and m, each at most once.
func deviceMode(mode string) bool {
	return mode != "" && len(mode) <= 3 && strings.Trim(mode, "rwm") == "" &&
		strings.Count(mode, "r") < 2 && strings.Count(mode, "w") < 2 && strings.Count(mode, "m") < 2
}

// ParseDeviceRule reads the value of --device-cgroup-rule:
// "TYPE MAJOR:MINOR rwm", with "*" for any number.
func ParseDeviceRule(rule string) (specs.LinuxDeviceCgroup, error) {
	bad := fmt.Errorf("invalid device cgroup format '%s'", rule)
	part := strings.Split(rule, " ")
	if len(part) != 3 || !slices.Contains([]string{"a", "b", "c"}, part[0]) || !deviceMode(part[2]) {
		return specs.LinuxDeviceCgroup{}, bad
	}
	major, minor, ok := strings.Cut(part[1], ":")
	a, err := deviceNumber(major)
	b, err2 := deviceNumber(minor)
	if !ok || err != nil || err2 != nil {
		return specs.LinuxDeviceCgroup{}, bad
	}
	return specs.LinuxDeviceCgroup{Allow: true, Type: part[0], Major: &a, Minor: &b, Access: part[2]}, nil
}

func deviceNumber(s string) (int64, error) {
	if s == "*" {
		return -1, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return int64(n), err
}

// ParseThrottle reads "PATH:RATE" of --device-read-bps and its kin. Sizes:
// RATE may have a unit.
func ParseThrottle(spec string, sizes bool) (Throttle, error) {
	form := "<device-path>:<number>. Number must be a positive integer"
	if sizes {
		form = "<device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
	}
	bad := fmt.Errorf("invalid rate for device: %s. The correct format is %s", spec, form)
	file, rate, ok := strings.Cut(spec, ":")
	switch {
	case !ok || file == "":
		return Throttle{}, fmt.Errorf("bad format: %s", spec)
	case !strings.HasPrefix(file, "/dev/"):
		return Throttle{}, fmt.Errorf("bad format for device path: %s", spec)
	case !sizes:
		n, err := strconv.ParseUint(rate, 10, 64)
		if err != nil {
			return Throttle{}, bad
		}
		return Throttle{file, n}, nil
	}
	n, err := ParseSize(rate)
	if err != nil || n < 0 {
		return Throttle{}, bad
	}
	return Throttle{file, uint64(n)}, nil
}

// ParseWeightDevice reads "PATH:WEIGHT" of --blkio-weight-device; the weight is
// 10 to 1000, or 0.
func ParseWeightDevice(spec string) (Throttle, error) {
	t, err := ParseThrottle(spec, false)
	if err == nil && t.Rate != 0 && (t.Rate < 10 || t.Rate > 1000) {
		err = fmt.Errorf("invalid weight for device: %s", spec)
	}
	return t, err
}

// ParseCPUs reads the value of --cpus, such as "1.5", in billionths of a CPU.
func ParseCPUs(s string) (int64, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	if len(fraction) > 9 {
		return 0, errors.New("value is too precise")
	}
	n, err := strconv.ParseUint("0"+whole+(fraction + "000000000")[:9], 10, 63)
	if err != nil || s == "" || s == "." {
		return 0, fmt.Errorf("failed to parse %v as a rational number", s)
	}
	return int64(n), nil
}

// ulimits are the names that --ulimit takes, as setrlimit(2) has them without
// RLIMIT_.
const ulimits = " core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack "

// ParseUlimit reads the value of --ulimit: "NAME=SOFT[:HARD]", -1 for no limit.
func ParseUlimit(spec string) (specs.POSIXRlimit, error) {
	name, value, ok := strings.Cut(spec, "=")
	switch {
	case !ok:
		return specs.POSIXRlimit{}, fmt.Errorf("invalid ulimit argument: %s", spec)
	case name == "" || strings.Contains(name, " ") || !strings.Contains(ulimits, " "+name+" "):
		return specs.POSIXRlimit{}, fmt.Errorf("invalid ulimit type: %s", name)
	case strings.Count(value, ":") > 1:
		return specs.POSIXRlimit{}, fmt.Errorf("too many limit value arguments - %s, can only have up to two, `soft[:hard]`", value)
	}
	first, second, two := strings.Cut(value, ":")
	if !two {
		second = first
	}
	soft, err := ulimitValue(first)
	if err != nil {
		return specs.POSIXRlimit{}, err
	}
	hard, err := ulimitValue(second)
	if err != nil {
		return specs.POSIXRlimit{}, err
	}
	if soft > hard {
		return specs.POSIXRlimit{}, fmt.Errorf("ulimit soft limit must be less than or equal to hard limit: %s > %s", first, second)
	}
	return specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: soft, Hard: hard}, nil
}

func ulimitValue(s string) (uint64, error) {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < -1 {
		return 0, fmt.Errorf("invalid ulimit value: %q", s)
	}
	return uint64(v), nil
}

// ParseEnv reads the value of -e: "KEY=VALUE", or "KEY" for lookup's value. What
// lookup does not know stays a bare "KEY", which removes the image's.
func ParseEnv(s string, lookup func(string) (string, bool)) (string, error) {
	key, _, has := strings.Cut(s, "=")
	if key == "" || strings.ContainsRune(s, 0) {
		return "", fmt.Errorf("invalid environment variable: %s", s)
	}
	if value, ok := lookup(key); !has && ok {
		return key + "=" + value, nil
	}
	return s, nil
}

// The bounds of env and label files.
const (
	maxLine  = 64 << 10
	maxPairs = 1 << 20
)

// ParseEnvFile reads an --env-file or --label-file: a "KEY[=VALUE]" a line,
// values as they are, quotes and all; "#" begins a comment line. A bare KEY has
// lookup's value, or none at all. With a nil lookup (labels) it is kept.
func ParseEnvFile(data []byte, lookup func(string) (string, bool)) ([]string, error) {
	text := strings.TrimPrefix(string(data), "\uFEFF")
	var pairs []string
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if !utf8.ValidString(line) {
			return nil, fmt.Errorf("invalid utf8 bytes at line %d: %v", number, []byte(line[:min(len(line), 32)]))
		}
		line = strings.TrimLeft(line, " \t\v\f\r\u0085\u00A0")
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, has := strings.Cut(line, "=")
		switch {
		case len(line) > maxLine || len(pairs) >= maxPairs:
			return nil, fmt.Errorf("line %d is too long", number)
		case key == "":
			return nil, fmt.Errorf("no variable name on line '%s'", line)
		case strings.ContainsAny(key, " \t"):
			return nil, fmt.Errorf("variable '%s' contains whitespaces", key)
		case strings.ContainsRune(line, 0):
			return nil, fmt.Errorf("variable '%s' contains a zero byte", key)
		case has || lookup == nil:
			pairs = append(pairs, line)
			continue
		}
		if value, ok := lookup(key); ok {
			pairs = append(pairs, key+"="+value)
		}
	}
	return pairs, nil
}

// ParseLabel reads the value of --label or --annotation: "KEY[=VALUE]".
func ParseLabel(s string) (key, value string, err error) {
	key, value, _ = strings.Cut(s, "=")
	if strings.TrimSpace(key) == "" {
		return "", "", fmt.Errorf("invalid label '%s': empty name", s)
	}
	return key, value, nil
}

// ParseHost reads the value of --add-host: "NAME:IP" or "NAME=IP"; the IP may
// stand in brackets or be "host-gateway".
func ParseHost(s string) (Host, error) {
	i := strings.IndexAny(s, ":=")
	if i <= 0 || strings.ContainsAny(s, " \t\r\n#\x00") {
		return Host{}, fmt.Errorf("bad format for add-host: %q", s)
	}
	h := Host{Name: s[:i], IP: s[i+1:]}
	if bare, ok := strings.CutPrefix(h.IP, "["); ok && strings.HasSuffix(bare, "]") {
		h.IP = strings.TrimSuffix(bare, "]")
	}
	if !isAddress(h.IP) && h.IP != "host-gateway" {
		return Host{}, fmt.Errorf("invalid IP address in add-host: %q", h.IP)
	}
	return h, nil
}

// CheckDNS refuses a --dns that is no address.
func CheckDNS(s string) error {
	if !isAddress(s) || CheckLine(s) != nil {
		return fmt.Errorf("%s is not an ip address", s)
	}
	return nil
}

// CheckLine refuses a word that would break the line of a file it goes to.
func CheckLine(s string) error {
	if s == "" || strings.ContainsAny(s, " \t\r\n\x00") {
		return fmt.Errorf("%q is not one word", s)
	}
	return nil
}

// ParseSysctl reads the value of --sysctl, "NAME=VALUE", and refuses names that
// are not of one namespace, and values that would be a second line of a
// sysctl file (CVE-2022-0811).
func ParseSysctl(s string) (name, value string, err error) {
	name, value, ok := strings.Cut(s, "=")
	name = strings.ReplaceAll(name, "/", ".")
	if !ok || sysctlSpace(name) == "" || strings.Contains(name, "..") || !plainName(name) {
		return "", "", fmt.Errorf("sysctl '%s' is not allowed", s)
	}
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f || c == '+' {
			return "", "", fmt.Errorf("sysctl '%s' is not allowed: its value has a character that no sysctl takes", name)
		}
	}
	return name, value, nil
}

func plainName(name string) bool {
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-", c) >= 0) {
			return false
		}
	}
	return true
}

// sysctlSpace is the kind of namespace that a sysctl is of, or "".
func sysctlSpace(name string) specs.LinuxNamespaceType {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
		"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		return specs.IPCNamespace
	case "kernel.domainname":
		return specs.UTSNamespace
	}
	switch {
	case strings.HasPrefix(name, "net."):
		return specs.NetworkNamespace
	case strings.HasPrefix(name, "fs.mqueue."):
		return specs.IPCNamespace
	}
	return ""
}

// ParseSecurity adds the value of one --security-opt to s.
func ParseSecurity(s *Security, opt string) error {
	key, value, ok := strings.Cut(opt, "=")
	if !ok {
		key, value, ok = strings.Cut(opt, ":")
	}
	if (!ok || value == "") && key != "no-new-privileges" {
		return fmt.Errorf("invalid --security-opt: %q", opt)
	}
	switch key {
	case "no-new-privileges":
		if !ok {
			value = "true"
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid --security-opt: %q", opt)
		}
		s.NoNewPrivileges = on
	case "seccomp":
		s.Seccomp = value
		if value == "default" || value == "builtin" {
			s.Seccomp = ""
		}
	case "systempaths":
		if value != "unconfined" {
			return fmt.Errorf("invalid --security-opt: %q", opt)
		}
		s.SystemPaths = true
	case "apparmor":
		s.AppArmor = value
	case "label":
		s.Label = append(s.Label, value)
	case "landlock":
		if value != "off" && value != "on" {
			return fmt.Errorf("invalid --security-opt: %q", opt)
		}
		s.NoLandlock = value == "off"
	case "denials":
		if value != "log" && value != "off" {
			return fmt.Errorf("invalid --security-opt: %q", opt)
		}
		s.LogDenials = value == "log"
	default:
		return fmt.Errorf("invalid --security-opt 1: %q", opt)
	}
	return nil
}

// ParseNamespace reads the value of --pid, --ipc, --uts, --userns, --cgroupns or
// --network (named by kind). "ns:PATH" joins what a path holds.
func ParseNamespace(kind, value string) (Namespace, error) {
	word, rest, has := strings.Cut(value, ":")
	switch {
	case word == "container" && has && rest != "":
		if !slices.Contains([]string{"network", "pid", "ipc", "userns"}, kind) {
			break
		}
		return Namespace{Container, rest}, nil
	case word == "ns" && has && path.IsAbs(rest) && !strings.ContainsRune(rest, 0):
		return Namespace{Path, path.Clean(rest)}, nil
	case value == "" || value == "default":
		return Namespace{}, nil
	case value == HostNS:
		return Namespace{Kind: HostNS}, nil
	case value == Private:
		return Namespace{Kind: Private}, nil
	case kind == "network" && (word == Pasta || word == Slirp):
		return Namespace{word, rest}, nil
	case kind == "network" && value == None:
		return Namespace{Kind: None}, nil
	case kind == "ipc" && (value == Shareable || value == None):
		return Namespace{Kind: value}, nil
	case kind == "userns" && value == "auto":
		return Namespace{Kind: Private}, nil
	case kind == "userns" && value == KeepID:
		return Namespace{Kind: KeepID}, nil
	}
	return Namespace{}, badNamespace(kind, value)
}

func badNamespace(kind, value string) error {
	switch kind {
	case "network":
		return fmt.Errorf("there is no network %q here: it can be none, host, container:NAME or ns:PATH", value)
	case "userns":
		return errors.New("--userns: invalid USER mode")
	case "cgroupns":
		return errors.New("--cgroupns: invalid CGROUP mode")
	}
	return fmt.Errorf("--%s: invalid %s mode", kind, strings.ToUpper(kind))
}

// ParsePlatform refuses what is not "os/arch[/variant]".
func ParsePlatform(s string) error {
	part := strings.Split(s, "/")
	if len(part) < 1 || len(part) > 3 || slices.Contains(part, "") || !plainName(strings.Join(part, "")) {
		return fmt.Errorf("%q is an invalid platform: want os/arch[/variant]", s)
	}
	return nil
}

// ParsePull reads the value of --pull.
func ParsePull(s string) (string, error) {
	if !slices.Contains([]string{"always", "missing", "never"}, s) {
		return "", fmt.Errorf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", s)
	}
	return s, nil
}

// ParseUmask reads an octal umask.
func ParseUmask(s string) (uint32, error) {
	v, err := strconv.ParseUint(s, 8, 32)
	if err != nil || v > 0o777 {
		return 0, fmt.Errorf("invalid umask: %s", s)
	}
	return uint32(v), nil
}

// CheckCPUSet refuses what is no list of numbers and ranges, such as "0-3,7".
func CheckCPUSet(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(from, 10, 13)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(to, 10, 13)
		}
		if err != nil || b < a {
			return fmt.Errorf("invalid value %s for cpuset: want a list such as 0-3 or 0,1", s)
		}
	}
	return nil
}

// ParseSignal gives a signal's name as "SIGTERM" for a name in either case,
// with or without "SIG", or a number from 1 to 64.
func ParseSignal(s string) (string, error) {
	names := signals()
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && n >= 1 && n <= 64 {
		if n < uint64(len(names)) {
			return "SIG" + names[n], nil
		}
		return "SIGRTMIN+" + strconv.FormatUint(n-34, 10), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if slices.Contains(names[1:], name) {
		return "SIG" + name, nil
	}
	if n, ok := realtime(name); ok {
		return "SIGRTMIN+" + strconv.Itoa(n), nil
	}
	return "", fmt.Errorf("invalid signal: %s", s)
}

// SignalNumber is the number of a signal that ParseSignal takes.
func SignalNumber(s string) (int, error) {
	name, err := ParseSignal(s)
	if err != nil {
		return 0, err
	}
	if n, ok := realtime(strings.TrimPrefix(name, "SIG")); ok {
		return 34 + n, nil
	}
	return slices.Index(signals(), strings.TrimPrefix(name, "SIG")), nil
}

// realtime is n of "RTMIN+n", or 30-n of "RTMAX-n".
func realtime(name string) (int, bool) {
	base, n := 0, "0"
	switch {
	case name == "RTMIN":
	case name == "RTMAX":
		base = 30
	case strings.HasPrefix(name, "RTMIN+"):
		n = name[len("RTMIN+"):]
	case strings.HasPrefix(name, "RTMAX-"):
		base, n = 30, name[len("RTMAX-"):]
	default:
		return 0, false
	}
	v, err := strconv.ParseUint(n, 10, 8)
	if base == 30 {
		return 30 - int(v), err == nil && v <= 30
	}
	return int(v), err == nil && v <= 30
}

// signals are the names of signals by number on the architectures that Kiste
// runs on, from signal(7). 32 and 33 are the C library's.
func signals() []string {
	return strings.Split("0 HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS 32 33", " ")
}
