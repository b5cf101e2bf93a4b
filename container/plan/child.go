package plan

import (
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/internal/stub"
	"kiste/kernel/cgroup"
	"kiste/kernel/chroot"
	"kiste/kernel/privilege"
)

// settle is what comes first: wait, enter the namespaces, be root in them.
func (c *compiler) settle() {
	// As long as it is the host's root, and with one thread, which is a
	// hundred times cheaper than to be moved by pid.
	for _, file := range cgroup.Tasks(c.f.Groups) {
		fd := c.slot(file)
		c.child("enter the cgroup of "+file, "linux.cgroupsPath",
			open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0, "O_WRONLY|O_CLOEXEC").to(fd), write(fd, "0"))
	}
	c.child("wait for the parent", "", Call{Name: "recvmsg", Nr: unix.SYS_RECVMSG, Args: []Arg{from(Sock), named(0, "{message}"), named(unix.MSG_CMSG_CLOEXEC, "MSG_CMSG_CLOEXEC")}, Special: ReceiveInbox})
	// Nobody may look into this process while it still has the parent's
	// memory and descriptors: before it joins anything (CVE-2016-9962).
	c.child("let nobody look into this process", "", prctl("PR_SET_DUMPABLE", unix.PR_SET_DUMPABLE, num(0)))
	for slot, name := range c.p.Slots {
		if kind, ok := strings.CutSuffix(name, " namespace"); ok {
			c.child("join the "+name, "linux.namespaces."+kind, call("setns", unix.SYS_SETNS, from(Slot(slot)), num(0)))
		}
	}
	if c.joined["user"] {
		c.child("make the other namespaces", "linux.namespaces", call("unshare", unix.SYS_UNSHARE, c.newFlags()))
	}
	if c.joined["pid"] || c.joined["user"] && c.fresh["pid"] {
		c.forkAgain()
	}
	if c.fresh["user"] || c.joined["user"] {
		c.child("be root of the user namespace", "linux.namespaces.user",
			call("setresgid", unix.SYS_SETRESGID, num(0), num(0), num(0)),
			call("setresuid", unix.SYS_SETRESUID, num(0), num(0), num(0)),
			call("setgroups", unix.SYS_SETGROUPS, num(0), num(0)).mayFail())
	}
	if c.fresh["cgroup"] {
		c.child("make the cgroup namespace, beginning here", "linux.namespaces.cgroup", call("unshare", unix.SYS_UNSHARE, named(unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP")))
	}
	c.child("begin a session", "", call("setsid", unix.SYS_SETSID))
	c.child("make files with the modes that are asked for", "", umask(0))
	if !c.fresh["user"] {
		propagation, text := uint64(unix.MS_REC|unix.MS_PRIVATE), "MS_REC|MS_PRIVATE"
		if p := c.spec.Linux.RootfsPropagation; strings.HasSuffix(p, "slave") || strings.HasSuffix(p, "shared") {
			propagation, text = unix.MS_REC|unix.MS_SLAVE, "MS_REC|MS_SLAVE"
		}
		c.child("keep mounts from the host", "linux.rootfsPropagation",
			call("mount", unix.SYS_MOUNT, named(0, "NULL"), str("/"), named(0, "NULL"), named(propagation, text), named(0, "NULL")))
	}
}

// forkAgain lets a second child, whose parent is the first one's, be the first
// inside of a pid namespace that was joined, or that has to belong to a user
// namespace that was joined. It is the one for which clone(2) gives 0.
func (c *compiler) forkAgain() {
	c.p.Fork2 = true
	flags, text := uint64(unix.CLONE_PARENT)|uint64(unix.SIGCHLD), "CLONE_PARENT|SIGCHLD"
	if c.fresh["pid"] {
		flags, text = flags|unix.CLONE_NEWPID, text+"|CLONE_NEWPID"
	}
	clone := call("clone", unix.SYS_CLONE, named(flags, text), named(0, "NULL"), num(0), num(0), num(0)).want(1)
	clone.OnErr, clone.Errno, clone.Skip = SkipOnErrno, uintptr(unix.EPIPE), 1
	c.child("fork into the pid namespace", "linux.namespaces.pid", clone,
		call("exit_group", unix.SYS_EXIT_GROUP, num(0)),
		write(Sock, Hello))
}

// newFlags are those of unshare(2) for what is to belong to the user namespace
// that was joined, but for the pid namespace.
func (c *compiler) newFlags() Arg {
	var flags uint64
	var names []string
	for kind := range c.fresh {
		if flag := cloneFlag[specs.LinuxNamespaceType(kind)]; flag != unix.CLONE_NEWCGROUP && flag != unix.CLONE_NEWPID {
			flags, names = flags|flag, append(names, "CLONE_NEW"+strings.ToUpper(nsFile(specs.LinuxNamespaceType(kind))))
		}
	}
	slices.Sort(names)
	return named(flags, strings.ReplaceAll(strings.Join(names, "|"), "MNT", "NS"))
}

// fileSystems makes the kernel's own, detached: as long as the host's are to
// be seen, the kernel lets a user namespace mount its own.
func (c *compiler) fileSystems() {
	for i, m := range c.spec.Mounts {
		a := c.parsed[i]
		field := "mounts." + m.Destination
		switch {
		case c.binds[i] != 0:
		case m.Type == "bind":
			c.binds[i] = c.slot("mount " + m.Destination)
			calls := []Call{openTree(m.Source, a.Rec).to(c.binds[i])}
			if below := subpath(a); below != "" {
				calls = c.openBelow(m.Source, below, c.binds[i])
			}
			c.child("take "+m.Source+" for "+m.Destination, field, append(calls, attributes(c.binds[i], a)...)...)
		case m.Type == "cgroup" && c.f.Cgroup.Kind() != "v2":
			c.binds[i] = c.fileSystem(m, "tmpfs", chroot.Parsed{Data: []string{"mode=755", "size=64k"}})
		case m.Type == "cgroup":
			c.binds[i] = c.fileSystem(m, "cgroup2", a)
		default:
			c.binds[i] = c.fileSystem(m, m.Type, a)
		}
		switch m.Type {
		case "proc":
			c.proc = c.binds[i]
		case "devpts":
			c.pts = c.binds[i]
		}
	}
	c.sysctls()
	c.openTerminal()
	c.takeDevices()
}

// openBelow takes a path below source, looked up with source as root.
func (c *compiler) openBelow(source, below string, mount Slot) []Call {
	base, at := c.slot("base "+source), c.slot("below "+below)
	return []Call{
		open(source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, "O_PATH|O_DIRECTORY|O_CLOEXEC").to(base),
		call("openat2", unix.SYS_OPENAT2, from(base), str(below), buf(words(unix.O_PATH|unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS), "{O_PATH|O_CLOEXEC, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS}"), num(24)).to(at),
		openTreeOf(at).to(mount),
	}
}

// fileSystem makes one file system of the kernel.
func (c *compiler) fileSystem(m specs.Mount, fstype string, a chroot.Parsed) Slot {
	fs, mount := c.slot("fs "+m.Destination), c.slot("mount "+m.Destination)
	calls := []Call{fsopen(fstype).to(fs)}
	if m.Source != "" {
		calls = append(calls, fsString(fs, "source", m.Source))
	}
	for _, o := range a.Data {
		key, value, has := strings.Cut(o, "=")
		if has {
			calls = append(calls, fsString(fs, key, value))
		} else {
			calls = append(calls, fsFlag(fs, key))
		}
	}
	calls = append(calls, fsCreate(fs), fsmount(fs, a.Set|a.RecSet).to(mount))
	c.child("make "+fstype+" for "+m.Destination+optionText(m.Options), "mounts."+m.Destination, calls...)
	return mount
}

// attributes are the calls that give a detached bind its options.
func attributes(mount Slot, a chroot.Parsed) []Call {
	var calls []Call
	tree := func(all bool) uint64 {
		if all {
			return unix.AT_RECURSIVE
		}
		return 0
	}
	if a.Propagation != 0 {
		calls = append(calls, setattr(mount, tree(a.PropagationRec), 0, 0, a.Propagation))
	}
	if a.RecSet|a.RecClear != 0 {
		calls = append(calls, setattr(mount, unix.AT_RECURSIVE, a.RecSet, a.RecClear, 0))
	}
	if a.Set|a.Clear != 0 {
		calls = append(calls, setattr(mount, 0, a.Set, a.Clear, 0))
	}
	return calls
}

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

// openTerminal opens one in the container's own devpts and sends the master to
// the parent: no path is followed (CVE-2025-52565).
func (c *compiler) openTerminal() {
	if !c.spec.Process.Terminal || c.pts == 0 {
		return
	}
	master := c.slot("terminal master")
	c.tty = c.slot("terminal")
	c.p.Console = master
	flags := uint64(unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC)
	c.child("open a terminal and send it to the parent", "process.terminal",
		call("openat", unix.SYS_OPENAT, from(c.pts), str("ptmx"), named(flags, "O_RDWR|O_NOCTTY|O_CLOEXEC"), num(0)).to(master),
		call("ioctl", unix.SYS_IOCTL, from(master), named(unix.TIOCSPTLCK, "TIOCSPTLCK"), buf(make([]byte, 4), "[0]")),
		call("ioctl", unix.SYS_IOCTL, from(master), named(unix.TIOCGPTPEER, "TIOCGPTPEER"), named(flags, "O_RDWR|O_NOCTTY|O_CLOEXEC")).to(c.tty),
		Call{Name: "sendmsg", Nr: unix.SYS_SENDMSG, Args: []Arg{from(Sock), named(0, "{terminal}"), named(unix.MSG_NOSIGNAL, "MSG_NOSIGNAL")}, Special: SendConsole},
		call("ioctl", unix.SYS_IOCTL, from(c.tty), named(unix.TIOCSCTTY, "TIOCSCTTY"), num(0)),
		call("fchown", unix.SYS_FCHOWN, from(c.tty), num(uint64(c.spec.Process.User.UID)), num(^uint64(0))).mayFail(),
		call("dup3", unix.SYS_DUP3, from(c.tty), num(0), num(0)),
		call("dup3", unix.SYS_DUP3, from(c.tty), num(1), num(0)),
		call("dup3", unix.SYS_DUP3, from(c.tty), num(2), num(0)))
	c.terminalSize()
}

// terminalSize is set before the program starts, which may ask for it at once.
func (c *compiler) terminalSize() {
	size := c.spec.Process.ConsoleSize
	if size == nil {
		return
	}
	rows, columns := uint16(min(size.Height, 65535)), uint16(min(size.Width, 65535))
	var b []byte
	for _, v := range []uint16{rows, columns, 0, 0} { // struct winsize of ioctl_tty(2), little-endian as all we run on
		b = append(b, byte(v), byte(v>>8))
	}
	c.child(fmt.Sprintf("make the terminal %d by %d", columns, rows), "process.consoleSize",
		call("ioctl", unix.SYS_IOCTL, from(c.tty), named(unix.TIOCSWINSZ, "TIOCSWINSZ"), buf(b, fmt.Sprintf("{%d, %d}", rows, columns))))
}

// standardDevices are those that every container has (runtime-spec,
// config-linux.md, default devices).
var standardDevices = []string{"null", "zero", "full", "random", "urandom", "tty"}

func (c *compiler) hasDev() bool {
	return slices.ContainsFunc(c.spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev" && m.Type == "tmpfs" })
}

func (c *compiler) extraDevices() []specs.LinuxDevice {
	var extra []specs.LinuxDevice
	for _, d := range c.spec.Linux.Devices {
		name, inDev := strings.CutPrefix(d.Path, "/dev/")
		if !inDev || !slices.Contains(standardDevices, name) && name != "ptmx" && name != "console" {
			extra = append(extra, d)
		}
	}
	return extra
}

func deviceMount(d specs.LinuxDevice) chroot.Mount {
	return chroot.Mount{Type: "device", Target: d.Path, Source: fmt.Sprintf("%s %d:%d", d.Type, d.Major, d.Minor), Options: deviceOptions(d)}
}

func deviceOptions(d specs.LinuxDevice) []string {
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(*d.FileMode) & 0o777
	}
	o := []string{"mode=" + octal(uint64(mode))}
	if d.UID != nil {
		o = append(o, fmt.Sprintf("uid=%d", *d.UID))
	}
	if d.GID != nil {
		o = append(o, fmt.Sprintf("gid=%d", *d.GID))
	}
	return o
}

// takeDevices clones the host's nodes: a user namespace may make none, but use
// those that are mounted.
func (c *compiler) takeDevices() {
	if !c.hasDev() {
		if len(c.spec.Linux.MaskedPaths) > 0 {
			c.child("take /dev/null", "linux.maskedPaths", openTree("/dev/null", false).to(c.slot("device /dev/null")))
		}
		return
	}
	for _, name := range standardDevices {
		c.child("take /dev/"+name, "linux.devices", openTree("/dev/"+name, false).to(c.slot("device /dev/"+name)))
	}
	for _, d := range c.extraDevices() {
		if !c.f.Host {
			c.child("take "+d.Path, "linux.devices", openTree(d.Path, false).to(c.slot("device "+d.Path)))
		}
	}
}

func (c *compiler) slotOf(name string) Slot { return Slot(slices.Index(c.p.Slots, name)) }

// attachRoot makes the root the root.
func (c *compiler) attachRoot(root []chroot.Mount) {
	switch {
	case c.root != 0:
		c.child("attach the root", "root", moveTo(c.root, "/"))
	case len(root) == 1 && root[0].Type == "overlay":
		c.overlayHere(root[0])
	case len(root) == 1:
		c.root = c.slot("root")
		a, _ := chroot.ParseOptions(root[0].Options)
		calls := append([]Call{openTree(root[0].Source, true).to(c.root)}, attributes(c.root, a)...)
		c.child("attach "+root[0].Source+" as root", "root", append(calls, moveTo(c.root, "/"))...)
	default:
		c.root = c.slot("root")
		c.child("attach "+c.spec.Root.Path+" as root", "root", openTree(c.spec.Root.Path, true).to(c.root), moveTo(c.root, "/"))
	}
	c.child("pivot into the root and drop the host's", "root",
		call("fchdir", unix.SYS_FCHDIR, from(c.root)),
		call("pivot_root", unix.SYS_PIVOT_ROOT, str("."), str(".")),
		call("umount2", unix.SYS_UMOUNT2, str("."), named(unix.MNT_DETACH, "MNT_DETACH")),
		call("chdir", unix.SYS_CHDIR, str("/")))
}

// overlayHere mounts the overlay in the child. The list of layers may be
// longer than the 255 bytes that fsconfig(2) takes, so it is mount(2), with
// paths relative to the layers' common directory.
func (c *compiler) overlayHere(m chroot.Mount) {
	c.root = c.slot("root")
	base := path.Dir(path.Dir(m.Lower[0]))
	lower := make([]string, len(m.Lower))
	for i, l := range m.Lower {
		if rest, ok := strings.CutPrefix(l, base+"/"); ok {
			l = rest
		}
		lower[i] = chroot.EscapeLayer(l)
	}
	data := "lowerdir=" + strings.Join(lower, ":")
	if m.Upper != "" {
		data += ",upperdir=" + chroot.EscapeLayer(m.Upper) + ",workdir=" + chroot.EscapeLayer(m.Work)
	}
	for _, o := range m.Options {
		if o != "ro" {
			data += "," + o
		}
	}
	c.child(rootText(m), "root",
		call("chdir", unix.SYS_CHDIR, str(base)),
		call("mount", unix.SYS_MOUNT, str("overlay"), str(c.o.Target), str("overlay"), num(0), str(data)),
		open(c.o.Target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, "O_PATH|O_DIRECTORY|O_CLOEXEC").to(c.root))
}

// attach mounts everything else inside the root.
func (c *compiler) attach() {
	for i, m := range c.spec.Mounts {
		target := c.slot("target " + m.Destination)
		strict := slices.Contains([]string{"proc", "sysfs", "cgroup", "devpts", "mqueue"}, m.Type) || m.Destination == "/dev"
		calls := append(c.place(target, m.Destination, strict, c.isFile(m)), moveOn(c.binds[i], target))
		c.child("attach "+m.Destination, "mounts."+m.Destination, calls...)
		if m.Type == "cgroup" && c.f.Cgroup.Kind() != "v2" {
			c.hierarchies(m)
		}
	}
}

// isFile reports whether m is a bind of a file. What is not there yet is one
// that the engine is going to write.
func (c *compiler) isFile(m specs.Mount) bool {
	if m.Type != "bind" || c.f.Kind == nil {
		return false
	}
	kind := c.f.Kind(m.Source)
	return kind == "file" || kind == "" && slices.Contains(m.Options, "bind")
}

// place are the calls that open a mount point, or make it and what is above it
// where it is missing: each directory in the one above, opened before, so that
// no link that the image has or that another container swaps in leads elsewhere
// (CVE-2024-45310). A file may be mounted on a link that leads nowhere, such as
// the /etc/resolv.conf of many images.
func (c *compiler) place(target Slot, at string, strict, file bool) []Call {
	var missing []Call
	above := cwd()
	names := strings.Split(strings.Trim(path.Clean(at), "/"), "/")
	for i, name := range names {
		if i == len(names)-1 && file {
			missing = append(missing, touch(above, name).mayFailWith(uintptr(unix.EEXIST)),
				openIn(above, name, unix.O_PATH|unix.O_NOFOLLOW, "O_PATH|O_NOFOLLOW", 0, "").to(target))
			break
		}
		missing = append(missing, mkdirIn(above, name, 0o755).mayFailWith(uintptr(unix.EEXIST)), openTarget(above, name, strict).to(target))
		above = from(target)
	}
	return append([]Call{openTarget(cwd(), at, strict).to(target).thenSkip(len(missing))}, missing...)
}

// hierarchies mounts those of version 1 in which the container has a group of
// its own, below its cgroup namespace.
func (c *compiler) hierarchies(m specs.Mount) {
	a, _ := chroot.ParseOptions(m.Options)
	ro := a.Set
	dirs := cgroup.Dirs(c.f.Groups)
	for _, h := range c.f.Cgroup.All() {
		if !slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(d, h.Mount+"/") }) {
			continue
		}
		name := path.Base(h.Mount)
		at := specs.Mount{Destination: m.Destination + "/" + name, Source: "cgroup", Options: m.Options}
		fstype, data := "cgroup", h.Controllers
		if h.V2 {
			fstype, data = "cgroup2", nil
		}
		mount := c.fileSystem(at, fstype, chroot.Parsed{Data: data, Set: ro})
		c.child("attach "+at.Destination, "mounts."+m.Destination, mkdir(at.Destination, 0o755), moveTo(mount, at.Destination))
	}
	top := c.slotOf("mount " + m.Destination)
	if ro&unix.MOUNT_ATTR_RDONLY != 0 {
		c.child("make "+m.Destination+" read-only", "mounts."+m.Destination, setattr(top, 0, ro, 0, 0))
	}
}

// devices fills /dev.
func (c *compiler) devices() {
	if !c.hasDev() {
		return
	}
	for _, name := range standardDevices {
		name = "/dev/" + name
		c.child("attach "+name, "linux.devices", touch(cwd(), name).mayFailWith(uintptr(unix.EEXIST)), moveTo(c.slotOf("device "+name), name))
	}
	for _, d := range c.extraDevices() {
		target := c.slot("target " + d.Path)
		c.child("attach "+d.Path, "linux.devices", append(c.place(target, d.Path, false, true), moveOn(c.slotOf("device "+d.Path), target))...)
	}
	links := []Call{symlink("/proc/self/fd", "/dev/fd"), symlink("/proc/self/fd/0", "/dev/stdin"), symlink("/proc/self/fd/1", "/dev/stdout"),
		symlink("/proc/self/fd/2", "/dev/stderr"), symlink("/proc/kcore", "/dev/core")}
	if c.pts != 0 {
		links = append(links, symlink("pts/ptmx", "/dev/ptmx"))
	}
	c.child("link /dev/fd, stdin, stdout, stderr, core, ptmx", "linux.devices", links...)
	if c.tty != 0 {
		console := c.slot("console")
		c.child("attach the terminal as /dev/console", "process.terminal", openTreeOf(c.tty).to(console), touch(cwd(), "/dev/console"), moveTo(console, "/dev/console"))
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
	if c.o.Keyring != "" {
		c.child("begin a session keyring", "", call("keyctl", unix.SYS_KEYCTL, named(unix.KEYCTL_JOIN_SESSION_KEYRING, "KEYCTL_JOIN_SESSION_KEYRING"), str(c.o.Keyring)).mayFail())
	}
}

// become gives up what the process may not keep, and executes its program.
func (c *compiler) become() error {
	p := c.spec.Process
	c.umask()
	c.child("keep no descriptors but 0, 1 and 2", "", call("close_range", unix.SYS_CLOSE_RANGE, num(3), named(uint64(^uint32(0)), "~0"), named(unix.CLOSE_RANGE_CLOEXEC, "CLOSE_RANGE_CLOEXEC")))
	if err := c.trampoline(); err != nil {
		return err
	}
	if !p.NoNewPrivileges {
		c.filter()
	}
	c.landlock()
	c.identity()
	if c.o.DieWithParent {
		// A parent that is gone by now has closed its end of the socket.
		c.child("end with the parent", "", prctl("PR_SET_PDEATHSIG", unix.PR_SET_PDEATHSIG, named(uint64(unix.SIGKILL), "SIGKILL")),
			call("recvfrom", unix.SYS_RECVFROM, from(Sock), buf(make([]byte, 1), "{}"), num(1), named(unix.MSG_DONTWAIT|unix.MSG_PEEK, "MSG_DONTWAIT|MSG_PEEK"), named(0, "NULL"), named(0, "NULL")).
				want(1).mayFailWith(uintptr(unix.EAGAIN)))
	}
	if p.NoNewPrivileges {
		c.child("gain no privileges by exec", "process.noNewPrivileges", prctl("PR_SET_NO_NEW_PRIVS", unix.PR_SET_NO_NEW_PRIVS, num(1)))
		c.filter()
	}
	c.exec()
	return nil
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

func (c *compiler) umask() {
	mask, field := uint64(0o022), ""
	if u := c.spec.Process.User.Umask; u != nil {
		mask, field = uint64(*u), "process.user.umask"
	}
	c.child("mask 0"+octal(mask)+" of new files' modes", field, umask(mask))
}

func (c *compiler) filter() {
	f := c.o.Filter
	if len(f.Instructions) == 0 {
		return
	}
	c.child(fmt.Sprintf("filter system calls by %d instructions", len(f.Instructions)), "linux.seccomp",
		call("seccomp", unix.SYS_SECCOMP, named(1, "SECCOMP_SET_MODE_FILTER"), named(uint64(f.Flags), hex(uint64(f.Flags))), Arg{Kind: Filter, Bytes: f.Bytes()}))
}

// landlock is one wall more: no device nodes at all, and where the host's
// network or processes are shared, no abstract sockets and no signals across.
// A process that may mount has to be without: Landlock forbids mounting.
func (c *compiler) landlock() {
	caps := c.spec.Process.Capabilities
	if c.o.NoLandlock || c.f.Landlock == 0 || caps != nil && slices.Contains(caps.Bounding, "CAP_SYS_ADMIN") {
		return
	}
	r := privilege.Ruleset{Files: unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_REFER}
	if !c.fresh["network"] {
		r.Scopes |= privilege.ScopeSockets
	}
	if !c.fresh["pid"] {
		r.Scopes |= privilege.ScopeSignals
	}
	r = r.For(c.f.Landlock)
	// Without REFER to handle, any ruleset forbids moving files between
	// directories: worse than no wall.
	if r.Files&unix.LANDLOCK_ACCESS_FS_REFER == 0 {
		return
	}
	ruleset, top := c.slot("ruleset"), c.slot("path")
	attr := r.Attr()
	rule := privilege.PathRule{Path: "/", Allow: unix.LANDLOCK_ACCESS_FS_REFER}.Attr(0, true)
	c.child("let no device nodes be made (Landlock)", "", call("landlock_create_ruleset", unix.SYS_LANDLOCK_CREATE_RULESET, buf(attr, ""), num(uint64(len(attr))), num(0)).to(ruleset),
		open("/", unix.O_PATH|unix.O_CLOEXEC, 0, "O_PATH|O_CLOEXEC").to(top),
		// The rule holds the descriptor: it is written into its bytes.
		call("landlock_add_rule", unix.SYS_LANDLOCK_ADD_RULE, from(ruleset), named(privilege.RulePath, "LANDLOCK_RULE_PATH_BENEATH"), Arg{Kind: Buf, Bytes: rule, Slot: top, Value: 8, Text: "{REFER below <path>}"}, num(0)),
		call("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, from(ruleset), num(0)))
}

// identity sets capabilities, groups and user, in the order in which each is
// still allowed.
func (c *compiler) identity() {
	p := c.spec.Process
	var caps specs.LinuxCapabilities
	if p.Capabilities != nil {
		caps = *p.Capabilities
	}
	bounding, permitted, effective := capsOf(caps.Bounding), capsOf(caps.Permitted), capsOf(caps.Effective)
	var drop []Call
	for n := 0; n <= c.f.LastCap; n++ {
		if !bounding.Has(privilege.Caps(1) << n) {
			drop = append(drop, prctl("PR_CAPBSET_DROP", unix.PR_CAPBSET_DROP, num(uint64(n))))
		}
	}
	if len(drop) > 0 {
		c.child(fmt.Sprintf("give up %d capabilities for good", len(drop)), "process.capabilities.bounding", drop...)
	}
	u := p.User
	calls := []Call{prctl("PR_SET_KEEPCAPS", unix.PR_SET_KEEPCAPS, num(1))}
	// In a user namespace of one id without a helper setgroups is forbidden.
	set := call("setgroups", unix.SYS_SETGROUPS, num(uint64(len(u.AdditionalGids))), buf(groupBytes(u.AdditionalGids), fmt.Sprint(u.AdditionalGids)))
	if len(u.AdditionalGids) == 0 || !c.f.Host && slices.Equal(u.AdditionalGids, []uint32{u.GID}) {
		set = set.mayFail()
	}
	calls = append(calls, set,
		call("setresgid", unix.SYS_SETRESGID, num(uint64(u.GID)), num(uint64(u.GID)), num(uint64(u.GID))),
		call("setresuid", unix.SYS_SETRESUID, num(uint64(u.UID)), num(uint64(u.UID)), num(uint64(u.UID))),
		prctl("PR_SET_KEEPCAPS", unix.PR_SET_KEEPCAPS, num(0)))
	c.child(fmt.Sprintf("become user %d, group %d", u.UID, u.GID), "process.user", calls...)
	// As the user: what it cannot enter, it shall not stand in.
	if c.cwd != 0 {
		c.child("go to "+p.Cwd, "process.cwd", openDir(path.Clean("/"+p.Cwd)).to(c.cwd), call("fchdir", unix.SYS_FCHDIR, from(c.cwd)))
	}
	inheritable := capsOf(caps.Inheritable)
	c.child("keep the capabilities "+permitted.String(), "process.capabilities",
		call("capset", unix.SYS_CAPSET, buf(capHeader(), "{_LINUX_CAPABILITY_VERSION_3}"), buf(capData(effective, permitted, inheritable), "{"+hex(uint64(effective))+" "+hex(uint64(permitted))+" "+hex(uint64(inheritable))+"}")))
	for _, name := range caps.Ambient {
		a := capsOf([]string{name})
		for n := 0; n <= c.f.LastCap; n++ {
			if a.Has(privilege.Caps(1) << n) {
				c.child("keep "+name+" over exec", "process.capabilities.ambient", prctl("PR_CAP_AMBIENT", unix.PR_CAP_AMBIENT, named(unix.PR_CAP_AMBIENT_RAISE, "PR_CAP_AMBIENT_RAISE"), num(uint64(n))))
			}
		}
	}
}

func capsOf(names []string) privilege.Caps {
	caps, _ := privilege.ParseCaps(names)
	return caps
}

func capHeader() []byte { return words(0x20080522) }

func capData(effective, permitted, inheritable privilege.Caps) []byte {
	var b []byte
	for _, shift := range []int{0, 32} {
		for _, set := range []privilege.Caps{effective, permitted, inheritable} {
			b = append(b, byte(set>>shift), byte(set>>(shift+8)), byte(set>>(shift+16)), byte(set>>(shift+24)))
		}
	}
	return b
}

func groupBytes(groups []uint32) []byte {
	b := []byte{}
	for _, g := range groups {
		b = append(b, byte(g), byte(g>>8), byte(g>>16), byte(g>>24))
	}
	return append(b, 0, 0, 0, 0)
}

// exec tries the program in each directory of the search path.
func (c *compiler) exec() {
	p := c.spec.Process
	paths := []string{p.Args[0]}
	if c.o.Search != "" && !strings.Contains(p.Args[0], "/") {
		paths = nil
		for _, dir := range strings.Split(c.o.Search, ":") {
			paths = append(paths, path.Join("/", dir, p.Args[0]))
		}
	}
	calls := make([]Call, 0, 2*len(paths)+1)
	for _, file := range paths {
		calls = append(calls, c.attempt(file)...)
	}
	c.child("become "+strings.Join(p.Args, " "), "process.args", append(calls, Call{OnErr: FailNoted})...)
}

// attempt tries one file.
func (c *compiler) attempt(file string) []Call {
	p := c.spec.Process
	env := Arg{Kind: Vec, List: p.Env, Text: fmt.Sprintf("{%d variables}", len(p.Env))}
	if c.stub == 0 {
		x := call("execve", unix.SYS_EXECVE, str(file), Arg{Kind: Vec, List: p.Args}, env)
		x.OnErr = Note
		return []Call{x}
	}
	may := call("faccessat2", unix.SYS_FACCESSAT2, cwd(), str(file), named(unix.X_OK, "X_OK"), named(unix.AT_EACCESS, "AT_EACCESS"))
	may.OnErr, may.Skip = Note, 1
	return []Call{may, call("execveat", unix.SYS_EXECVEAT, from(c.stub), str(""),
		Arg{Kind: Vec, List: append([]string{file}, p.Args...)}, env, named(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"))}
}

// trampoline puts a tiny program of the host's between this process and the
// container's, where no user namespace keeps the container from writing to the
// file that /proc/PID/exe leads to: else that would be Kiste's own binary
// (CVE-2019-5736). It lies in sealed memory, and says on descriptor 3 why it
// could not become the container's program.
func (c *compiler) trampoline() error {
	if c.fresh["user"] || c.joined["user"] {
		return nil
	}
	program, err := stub.Trampoline(runtime.GOARCH)
	if err != nil {
		return err
	}
	memory, sock := c.slot("memory"), c.slot("socket above")
	c.stub = c.slot("trampoline")
	// Above 3, whatever numbers are free.
	above := func(s Slot) Call {
		return call("fcntl", unix.SYS_FCNTL, from(s), named(unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"), num(10))
	}
	seals := uint64(unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE)
	c.child("keep the host's binary out of reach", "", call("memfd_create", unix.SYS_MEMFD_CREATE, str("kiste"), named(unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING, "MFD_CLOEXEC|MFD_ALLOW_SEALING")).to(memory),
		call("write", unix.SYS_WRITE, from(memory), buf(program, "{the trampoline}"), num(uint64(len(program)))).want(len(program)),
		call("fcntl", unix.SYS_FCNTL, from(memory), named(unix.F_ADD_SEALS, "F_ADD_SEALS"), named(seals, "F_SEAL_SEAL|F_SEAL_SHRINK|F_SEAL_GROW|F_SEAL_WRITE")),
		above(memory).to(c.stub), above(Sock).to(sock),
		call("dup3", unix.SYS_DUP3, from(sock), num(3), num(0)))
	return nil
}
