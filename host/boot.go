package host

import (
	"os"
	"slices"
	"strings"
	"sync"

	"kiste/internal/sys"
)

// BootID names this boot: random(4). "unknown" where /proc is not mounted.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// hostUserns is the inode of the host's user namespace: PROC_USER_INIT_INO of
// linux/proc_ns.h.
const hostUserns = 0xeffffffd

// InUserns reports whether this is not the host's user namespace: that maps
// every id to itself, which takes longer to read than its inode. The kernel is
// asked once: a process of several threads cannot go to another one.
func InUserns() bool { return inUserns() }

var inUserns = sync.OnceValue(func() bool {
	if _, inode, err := sys.InodeOf("/proc/self/ns/user"); err == nil && inode == hostUserns {
		return false
	}
	text, err := sys.ReadKnob("/proc/self/uid_map", 64<<10)
	return err == nil && !slices.Equal(strings.Fields(text), []string{"0", "0", "4294967295"})
})
