package plan

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/kernel/chroot"
)

// paths masks what says too much and makes read-only what would do too much.
// The sources are the null device and an empty directory of the kernel's or our
// own, never files of the image (CVE-2025-31133).
func (c *compiler) paths() {
	for _, p := range c.linux.ReadonlyPaths {
		c.readOnlyPath(p)
	}
	seen := map[string]bool{}
	for i, p := range c.linux.MaskedPaths {
		at := path.Clean("/" + p)
		if seen[at] {
			continue
		}
		seen[at] = true
		switch c.kernelKind(at) {
		case "file":
			mask, calls := c.nullMask(make([]Call, 0, someCalls), i)
			c.child("mask "+p, "linux.maskedPaths", append(calls, c.cover(mask, at))...)
		case "dir":
			c.maskDir(p, at)
		case unknown:
			c.maskEither(i, p, at)
		}
	}
	for _, r := range c.late {
		c.child("make "+r.at+" read-only", r.field, c.setattr(r.mount, 0, unix.MOUNT_ATTR_RDONLY, 0, 0))
	}
	if c.spec.Root.Readonly {
		c.child("make the root read-only", "root.readonly", c.setattr(c.root, 0, unix.MOUNT_ATTR_RDONLY, 0, 0))
	}
}

// unknown is the kind of what only the container will show.
const unknown = "unknown"

// kernelKind is the kind of a path that is the kernel's, and so the same on the
// host.
func (c *compiler) kernelKind(at string) string {
	for _, top := range []string{"/proc", "/sys"} {
		if strings.HasPrefix(at, top+"/") && c.isKernels(top) {
			return c.kind(at)
		}
	}
	return unknown
}

// isKernels reports whether there is the kernel's file system at top.
func (c *compiler) isKernels(top string) bool { return c.kernels(top) != 0 }

// kernels is the mount of the kernel's file system at top; 0: something else
// is there.
func (c *compiler) kernels(top string) Slot {
	is, known := c.tops[top]
	if known {
		return is
	}
	for _, m := range c.mounts { // the last is above the others
		if m.at == top {
			is = 0
			if m.Type == "proc" || m.Type == "sysfs" || m.bind && m.Source == top {
				is = m.detached
			}
		}
	}
	c.tops[top] = is
	return is
}

// below is the path of at from a descriptor: what is the kernel's is looked up in
// the kernel's mount itself, wherever that is by now, since somebody else may
// have another name for the root and swap the directory that it is mounted on for
// a link (CVE-2023-28642).
func (c *compiler) below(at string) (dir Arg, rest string) {
	for _, top := range []string{"/proc", "/sys"} {
		if rest, has := strings.CutPrefix(at, top+"/"); has && c.isKernels(top) {
			return from(c.kernels(top)), rest
		}
	}
	return cwd(), at
}

// cover attaches a detached mount at a path, if that is there.
func (c *compiler) cover(mount Slot, at string) Call {
	dir, rest := c.below(at)
	return c.moveTo(mount, dir, rest).mayFailWith(uintptr(unix.ENOENT))
}

// readOnlyPath covers a path by itself, read-only.
func (c *compiler) readOnlyPath(p string) {
	at := path.Clean("/" + p)
	fixed := c.slot("read-only " + p)
	switch c.kernelKind(at) {
	case "":
		return
	case unknown:
		// Looked up once: somebody may swap it for a link meanwhile.
		target := c.slot("target " + p)
		open := c.openTarget(cwd(), at, false).to(target)
		open.OnErr, open.Errno, open.Skip = SkipOnErrno, uintptr(unix.ENOENT), 3
		c.child("make "+p+" read-only", "linux.readonlyPaths", open, c.openTreeRec(from(target), "").to(fixed),
			c.setattr(fixed, unix.AT_RECURSIVE, unix.MOUNT_ATTR_RDONLY, 0, 0), c.moveOn(fixed, target))
	default:
		dir, rest := c.below(at)
		take := c.openTreeRec(dir, rest).to(fixed)
		take.OnErr, take.Errno, take.Skip = SkipOnErrno, uintptr(unix.ENOENT), 2
		c.child("make "+p+" read-only", "linux.readonlyPaths", take,
			c.setattr(fixed, unix.AT_RECURSIVE, unix.MOUNT_ATTR_RDONLY, 0, 0), c.moveTo(fixed, dir, rest))
	}
}

// nullMask is a mount of the null device for masked path i, and adds the call that
// makes it: of the container's own, which has just been made, or where /dev was
// not empty of the host's, which has been taken before.
func (c *compiler) nullMask(calls []Call, i int) (mask Slot, with []Call) {
	if len(c.nulls) > 0 {
		return c.nulls[i], calls
	}
	mask = c.slot("mask " + c.linux.MaskedPaths[i])
	return mask, append(calls, c.call("open_tree", unix.SYS_OPEN_TREE, from(c.dev), str("null"), named(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC")).to(mask))
}

// emptyDir are the options of a directory that has nothing and takes nothing.
func emptyDir() chroot.Parsed {
	return chroot.Parsed{Data: []string{"size=0", "nr_inodes=2", "mode=755"}, Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
}

// maskDir covers a directory by one empty one for all: the kernel's own, in which
// nobody can make anything, where that is hidden behind the cgroups, else a file
// system of its own, which makes a start take a fortieth longer. Kernels before
// 6.15 clone only what is mounted: there the first that is found gets the one
// itself.
func (c *compiler) maskDir(p, at string) {
	if c.hollow != 0 {
		mask := c.slot("mask " + p)
		c.child("mask "+p, "linux.maskedPaths", c.openTreeOf(c.hollow).to(mask), c.setattr(mask, 0, emptyDir().Set, 0, 0), c.cover(mask, at))
		return
	}
	if c.empty == 0 {
		c.empty = c.make("tmpfs", "tmpfs", "masked paths", "linux.maskedPaths", emptyDir(), nil)
		c.child("mask "+p, "linux.maskedPaths", c.cover(c.empty, at))
		return
	}
	mask := c.slot("mask " + p)
	take, cover := c.openTreeOf(c.empty).to(mask), c.cover(mask, at)
	take.OnErr, take.Errno, take.Skip = SkipOnErrno, uintptr(unix.EINVAL), 1
	cover.Skip, cover.SkipOnOK = 1, true
	c.child("mask "+p, "linux.maskedPaths", take, cover, c.cover(c.empty, at))
}

// maskEither masks a path of which nobody knows whether it is there and what
// it is.
func (c *compiler) maskEither(i int, p, at string) {
	target, dir := c.slot("target "+p), c.slot("mask "+p+" as directory")
	fs, a := c.slot("fs "+p), emptyDir()
	calls := []Call{c.fsopen("tmpfs").to(fs)}
	for _, o := range append([]string{"source=tmpfs"}, c.dataOf("tmpfs", a)...) {
		key, value, _ := strings.Cut(o, "=")
		calls = append(calls, c.fsString(fs, key, value))
	}
	calls = append(calls, c.fsCreate(fs), c.fsmount(fs, a.Set).to(dir), c.moveOn(dir, target))
	mask, take := c.nullMask(nil, i)
	calls = append(append(take, c.moveOn(mask, target).thenSkip(len(calls))), calls...)
	open := c.openTarget(cwd(), at, false).to(target)
	open.OnErr, open.Errno, open.Skip = SkipOnErrno, uintptr(unix.ENOENT), len(calls)
	c.child("mask "+p, "linux.maskedPaths", append([]Call{open}, calls...)...)
}

func (c *compiler) names() {
	for _, n := range []struct {
		call, field, value string
		nr                 uintptr
	}{
		{"sethostname", "hostname", c.spec.Hostname, unix.SYS_SETHOSTNAME},
		{"setdomainname", "domainname", c.spec.Domainname, unix.SYS_SETDOMAINNAME},
	} {
		if n.value != "" {
			c.child("set the "+n.field+" to "+n.value, n.field, c.call(n.call, n.nr, str(n.value), num(uint64(len(n.value)))))
		}
	}
	c.keyring()
}

// keyring begins a session keyring, so that the container cannot search the
// engine's, and lets its members find it, as runc does. Best effort: the kernel
// may have none left for this user.
func (c *compiler) keyring() {
	if c.o.Keyring == "" {
		return
	}
	ring := c.slot("keyring")
	// All to who possesses it, and to its user to view, read, search and link.
	perm := uint64(0x3f1b0000)
	if c.mapped() {
		perm = 0x3f130008 // and to others to search
	}
	join := c.call("keyctl", unix.SYS_KEYCTL, named(unix.KEYCTL_JOIN_SESSION_KEYRING, "KEYCTL_JOIN_SESSION_KEYRING"), str(c.o.Keyring)).to(ring)
	join.OnErr, join.Skip = SkipOnErr, 1
	c.child("begin a session keyring", "", append(c.labelKeys(), join,
		c.call("keyctl", unix.SYS_KEYCTL, named(unix.KEYCTL_SETPERM, "KEYCTL_SETPERM"), from(ring), named(perm, hex(perm))).mayFail())...)
}

// workdir is made where it is missing, as Docker does, while the root can still
// be written.
func (c *compiler) workdir() {
	dir := path.Clean("/" + c.spec.Process.Cwd)
	if dir == "/" {
		return
	}
	c.child("make the working directory "+dir, "process.cwd", c.place(make([]Call, 0, someCalls), c.slot("working directory"), dir, false, false)...)
}

// enterWorkdir goes there with the powers that the child still has.
func (c *compiler) enterWorkdir() {
	dir := path.Clean("/" + c.spec.Process.Cwd)
	if dir == "/" {
		return
	}
	c.cwd = c.slot("working directory")
	open := c.openDir(dir).to(c.cwd)
	open.OnErr, open.Errno, open.Skip = SkipOnErrno, uintptr(unix.EACCES), 1
	c.child("go to "+c.spec.Process.Cwd, "process.cwd", open, c.call("fchdir", unix.SYS_FCHDIR, from(c.cwd)))
}

// enterWorkdirLate goes there as the user, where root was denied it: a file
// system of the user's may do so.
func (c *compiler) enterWorkdirLate() {
	if c.cwd == 0 {
		return
	}
	buffer := make([]byte, 4096)
	elsewhere := c.call("getcwd", unix.SYS_GETCWD, buf(buffer, "{}"), num(uint64(len(buffer)))).want(len("/x") + 1).thenSkip(2)
	c.child("else go to "+c.spec.Process.Cwd+" as the user", "process.cwd", elsewhere,
		c.openDir(path.Clean("/"+c.spec.Process.Cwd)).to(c.cwd), c.call("fchdir", unix.SYS_FCHDIR, from(c.cwd)))
}
