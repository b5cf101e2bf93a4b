package plan

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/kernel/chroot"
)

// sysctls are written through the new, detached procfs, where nobody can have
// put anything else in the way (CVE-2025-52881).
func (c *compiler) sysctls() {
	names := make([]string, 0, len(c.spec.Linux.Sysctl))
	for name := range c.spec.Linux.Sysctl {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fd := c.slot("sysctl " + name)
		// Where the host's procfs is used it still lies at its place.
		dir, file := cwd(), "/proc/sys/"+strings.ReplaceAll(name, ".", "/")
		if c.proc != 0 {
			dir, file = from(c.proc), strings.TrimPrefix(file, "/proc/")
		}
		c.child("set "+name+" = "+c.spec.Linux.Sysctl[name], "linux.sysctl",
			call("openat", unix.SYS_OPENAT, dir, str(file), named(unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, "O_WRONLY|O_NOFOLLOW|O_CLOEXEC"), num(0)).to(fd),
			write(fd, c.spec.Linux.Sysctl[name]))
	}
}

// paths masks what says too much and makes read-only what would do too much.
// The sources are the host's null device and one empty directory of our own,
// never files of the container (CVE-2025-31133).
func (c *compiler) paths() {
	empty := Slot(0)
	for _, p := range c.spec.Linux.MaskedPaths {
		switch c.kindOf(p) {
		case "file":
			mask := c.slot("mask " + p)
			c.child("mask "+p, "linux.maskedPaths", openTreeOf(c.slotOf("device /dev/null")).to(mask), moveTo(mask, p).mayFailWith(uintptr(unix.ENOENT)))
		case "dir":
			if empty == 0 {
				empty = c.fileSystem(specs.Mount{Destination: "masked paths", Source: "tmpfs"}, "tmpfs", chroot.Parsed{
					Data: []string{"size=0", "nr_inodes=2", "mode=755"}, Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC})
				c.p.Steps[len(c.p.Steps)-1].Field = "linux.maskedPaths"
				c.child("mask "+p, "linux.maskedPaths", moveTo(empty, p).mayFailWith(uintptr(unix.ENOENT)))
				continue
			}
			mask := c.slot("mask " + p)
			c.child("mask "+p, "linux.maskedPaths", openTreeOf(empty).to(mask), moveTo(mask, p).mayFailWith(uintptr(unix.ENOENT)))
		}
	}
	for _, p := range c.spec.Linux.ReadonlyPaths {
		if c.kindOf(p) == "" {
			continue
		}
		fixed := c.slot("read-only " + p)
		c.child("make "+p+" read-only", "linux.readonlyPaths", openTree(p, true).to(fixed),
			setattr(fixed, unix.AT_RECURSIVE, unix.MOUNT_ATTR_RDONLY, 0, 0), moveTo(fixed, p))
	}
	if c.spec.Root != nil && c.spec.Root.Readonly {
		c.child("make the root read-only", "root.readonly", setattr(c.root, 0, unix.MOUNT_ATTR_RDONLY, 0, 0))
	}
}

func (c *compiler) kindOf(p string) string {
	if c.f.Kind == nil {
		return ""
	}
	return c.f.Kind(p)
}

func (c *compiler) names() {
	for _, n := range []struct {
		call, field, value string
		nr                 uintptr
	}{
		{"sethostname", "hostname", c.spec.Hostname, unix.SYS_SETHOSTNAME},
		{"setdomainname", "domainname", c.spec.Domainname, unix.SYS_SETDOMAINNAME},
	} {
		if n.value != "" && c.fresh["uts"] {
			c.child("set the "+n.field+" to "+n.value, n.field, call(n.call, n.nr, str(n.value), num(uint64(len(n.value)))))
		}
	}
	c.keyring()
}

func (c *compiler) keyring() {
	if c.o.Keyring != "" {
		c.child("begin a session keyring", "", call("keyctl", unix.SYS_KEYCTL, named(unix.KEYCTL_JOIN_SESSION_KEYRING, "KEYCTL_JOIN_SESSION_KEYRING"), str(c.o.Keyring)).mayFail())
	}
}

// workdir is made where it is missing, as Docker does, while the root can still
// be written.
func (c *compiler) workdir() {
	dir := path.Clean("/" + c.spec.Process.Cwd)
	if dir == "/" {
		return
	}
	c.cwd = c.slot("working directory")
	c.child("make the working directory "+dir, "process.cwd", c.place(c.cwd, dir, false, false)...)
}
