package privilege

import (
	"fmt"
	"math/bits"
	"sort"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// Caps is a set of capabilities: bit n is capability n of capabilities(7).
type Caps uint64

// DefaultCaps are the fourteen that Docker gives to a container.
const DefaultCaps Caps = 1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<13 | 1<<18 | 1<<27 | 1<<29 | 1<<31

// caps names every capability by its number and says what it is good for.
var caps = [...]struct{ name, text string }{
	{"CAP_CHOWN", "may give files to any user and group"},
	{"CAP_DAC_OVERRIDE", "may read, write and search files whatever their permission bits say"},
	{"CAP_DAC_READ_SEARCH", "may read any file and directory, and open files by handle"},
	{"CAP_FOWNER", "may do what only a file's owner may: chmod, utime, attributes"},
	{"CAP_FSETID", "keeps setuid and setgid bits when it changes a file"},
	{"CAP_KILL", "may send signals to processes of any user"},
	{"CAP_SETGID", "may become any group and set its supplementary groups"},
	{"CAP_SETUID", "may become any user"},
	{"CAP_SETPCAP", "may drop capabilities from its bounding set and change securebits"},
	{"CAP_LINUX_IMMUTABLE", "may set files append-only or immutable"},
	{"CAP_NET_BIND_SERVICE", "may bind ports below 1024"},
	{"CAP_NET_BROADCAST", "has no effect in today's kernels"},
	{"CAP_NET_ADMIN", "may change links, addresses, routes and firewalls of its network namespace"},
	{"CAP_NET_RAW", "may open raw and packet sockets: ping, and forging and reading of packets"},
	{"CAP_IPC_LOCK", "may lock any amount of memory"},
	{"CAP_IPC_OWNER", "may use System V IPC objects of any user"},
	{"CAP_SYS_MODULE", "may load code into the kernel: nothing holds it then"},
	{"CAP_SYS_RAWIO", "may reach I/O ports and physical memory: nothing holds it then"},
	{"CAP_SYS_CHROOT", "may call chroot, and enter mount namespaces"},
	{"CAP_SYS_PTRACE", "may trace, read and change processes of any user"},
	{"CAP_SYS_PACCT", "may switch process accounting"},
	{"CAP_SYS_ADMIN", "may mount file systems and do most of what root may"},
	{"CAP_SYS_BOOT", "may reboot, and load another kernel"},
	{"CAP_SYS_NICE", "may raise priorities, and bind processes of others to CPUs"},
	{"CAP_SYS_RESOURCE", "may exceed resource limits and disk quotas"},
	{"CAP_SYS_TIME", "may set the clock"},
	{"CAP_SYS_TTY_CONFIG", "may hang up terminals and configure consoles"},
	{"CAP_MKNOD", "may make device nodes"},
	{"CAP_LEASE", "may take leases on any file"},
	{"CAP_AUDIT_WRITE", "may write to the audit log"},
	{"CAP_AUDIT_CONTROL", "may configure auditing"},
	{"CAP_SETFCAP", "may give capabilities to program files"},
	{"CAP_MAC_OVERRIDE", "may override mandatory access control (Smack)"},
	{"CAP_MAC_ADMIN", "may configure mandatory access control (Smack)"},
	{"CAP_SYSLOG", "may read and clear the kernel's log, and see kernel addresses"},
	{"CAP_WAKE_ALARM", "may wake the machine from suspend"},
	{"CAP_BLOCK_SUSPEND", "may keep the machine from suspending"},
	{"CAP_AUDIT_READ", "may read the audit log"},
	{"CAP_PERFMON", "may observe the whole machine's performance events"},
	{"CAP_BPF", "may load BPF programs"},
	{"CAP_CHECKPOINT_RESTORE", "may checkpoint and restore processes, and choose process ids"},
}

// lastCap is the highest capability that the running kernel knows: prctl(2)
// refuses to say whether another is in the bounding set.
var lastCap = sync.OnceValue(func() int {
	unknown := sort.Search(64, func(n int) bool {
		_, err := sys.Prctl(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		return err != nil
	})
	if unknown == 0 {
		return len(caps) - 1
	}
	return unknown - 1
})

// LastCap is the highest capability of the running kernel; where nobody says,
// the highest known here.
func LastCap() int { return lastCap() }

// AllCaps is every capability of the running kernel.
func AllCaps() Caps { return Caps(1)<<(LastCap()+1) - 1 }

// Has reports whether all of x is in c.
func (c Caps) Has(x Caps) bool { return c&x == x }

// Names lists c as OCI writes it, "CAP_CHOWN", by number. A capability newer
// than this program is "CAP_41".
func (c Caps) Names() []string {
	names := make([]string, 0, bits.OnesCount64(uint64(c)))
	for n := range 64 {
		if c&(1<<n) != 0 {
			names = append(names, capName(n))
		}
	}
	return names
}

// String is c as capsh(1) writes it: "cap_chown,cap_kill", or "none".
func (c Caps) String() string {
	if c == 0 {
		return "none"
	}
	return strings.ToLower(strings.Join(c.Names(), ","))
}

// Text says in words what each capability of c that is known here is good for.
func (c Caps) Text() []string {
	var lines []string
	for n := range 64 {
		if c&(1<<n) != 0 && n < len(caps) {
			lines = append(lines, caps[n].text)
		}
	}
	return lines
}

func capName(n int) string {
	if n < len(caps) {
		return caps[n].name
	}
	return "CAP_" + strconv.Itoa(n)
}

// ParseCap is the set that one name means: CAP_CHOWN, chown, CAP_41, or ALL
// for every capability of the running kernel. Errors are fault.Invalid, worded
// as Docker's.
func ParseCap(name string) (Caps, error) {
	full := strings.ToUpper(name)
	if full == "ALL" {
		return AllCaps(), nil
	}
	if !strings.HasPrefix(full, "CAP_") {
		full = "CAP_" + full
	}
	n := capNumber(full)
	switch {
	case n < 0:
		return 0, badCap(name, fmt.Errorf("unknown capability: %q", full))
	case n > LastCap():
		return 0, badCap(name, fmt.Errorf("capability not supported by your kernel or not available in the current environment: %q", full))
	}
	return 1 << n, nil
}

func capNumber(full string) int {
	for n := range caps {
		if caps[n].name == full {
			return n
		}
	}
	digits, _ := strings.CutPrefix(full, "CAP_")
	if n, err := strconv.Atoi(digits); err == nil && n >= len(caps) && n < 64 && full == capName(n) {
		return n
	}
	return -1
}

func badCap(name string, err error) error {
	return &fault.Error{Op: "use capability", On: name, Kind: fault.Invalid, Err: err,
		Hint: `names are as in capabilities(7), with or without "CAP_", or ALL`}
}

// ParseCaps is the union of names, each as ParseCap takes it.
func ParseCaps(names []string) (Caps, error) {
	var set Caps
	for _, name := range names {
		c, err := ParseCap(name)
		if err != nil {
			return 0, err
		}
		set |= c
	}
	return set, nil
}

// Adjust is Docker's --cap-add and --cap-drop on base. ALL in add means every
// capability but those dropped by name; ALL in drop means nothing but those
// added; else drop is taken away first and add wins.
func Adjust(base Caps, add, drop []string) (Caps, error) {
	plus, err := ParseCaps(add)
	if err != nil {
		return 0, err
	}
	minus, err := ParseCaps(drop)
	if err != nil {
		return 0, err
	}
	switch {
	case hasAll(add):
		named, err := ParseCaps(withoutAll(drop))
		return AllCaps() &^ named, err
	case hasAll(drop):
		return plus, nil
	}
	return base&^minus | plus, nil
}

func hasAll(names []string) bool { return len(withoutAll(names)) < len(names) }

func withoutAll(names []string) []string {
	var rest []string
	for _, name := range names {
		if !strings.EqualFold(name, "ALL") {
			rest = append(rest, name)
		}
	}
	return rest
}
