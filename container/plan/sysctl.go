package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/fault"
)

// ipcSysctls are those of an IPC namespace, beside fs.mqueue.*: see
// ipc_namespaces(7).
var ipcSysctls = []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}

// dotted is the name of a sysctl with dots between its parts, where the one
// with slashes may be meant: sysctl.d(5) says that the first of either decides.
func dotted(name string) string {
	first := strings.IndexAny(name, "./")
	if first < 0 || name[first] == '.' {
		return name
	}
	return swapped(name)
}

func swapped(name string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}

// checkSysctls lets only those be set that belong to one of the container's own
// namespaces.
func (c *compiler) checkSysctls() error {
	for _, key := range slices.Sorted(maps.Keys(c.linux.Sysctl)) {
		if err := c.checkSysctl(dotted(key)); err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) checkSysctl(s string) error {
	no := func(format string, args ...any) error { return refused("linux.sysctl", fault.Invalid, format, args...) }
	for part := range strings.SplitSeq(swapped(s), "/") {
		if part == "" || part == "." || part == ".." || hasZero(part) {
			return no("sysctl %q has no valid name", s)
		}
	}
	switch {
	case slices.Contains(ipcSysctls, s) || strings.HasPrefix(s, "fs.mqueue."):
		if !c.hasNamespace(specs.IPCNamespace) {
			return no("sysctl %q is not allowed in the hosts ipc namespace", s)
		}
	case strings.HasPrefix(s, "net."):
		if !c.ownNetwork() {
			return no("sysctl %q not allowed in host network namespace", s)
		}
	case s == "kernel.domainname" && c.hasNamespace(specs.UTSNamespace):
	case s == "kernel.hostname" && c.hasNamespace(specs.UTSNamespace):
		return no("sysctl %q is not allowed as it conflicts with the OCI %q field", s, "hostname")
	case strings.HasPrefix(s, "user."):
		if !c.hasNamespace(specs.UserNamespace) {
			return no("setting ucounts without a user namespace not allowed: %v", s)
		}
	default:
		return no("sysctl %q is not in a separate kernel namespace", s)
	}
	return nil
}

// ownNetwork reports whether the container has a network that is not the
// parent's.
func (c *compiler) ownNetwork() bool {
	for _, n := range c.linux.Namespaces {
		if n.Type == specs.NetworkNamespace {
			return n.Path == "" || c.f.Own == nil || !c.f.Own(n.Path)
		}
	}
	return false
}

// sysctls are written when the hooks have made the network's links, through a
// procfs that nobody else can reach (CVE-2025-52881).
func (c *compiler) sysctls() {
	for _, key := range slices.Sorted(maps.Keys(c.linux.Sysctl)) {
		value, fd := c.linux.Sysctl[key], c.slot("sysctl "+key)
		c.child("set "+key+" = "+value, "linux.sysctl",
			c.openIn(from(c.procs), "sys/"+swapped(dotted(key)), unix.O_WRONLY, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV).to(fd),
			c.write(fd, value))
	}
}
