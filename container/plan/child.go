package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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
	for slot, name := range c.p.Slots {
		if kind, ok := strings.CutSuffix(name, " namespace"); ok {
			c.child("join the "+name, "linux.namespaces."+kind, call("setns", unix.SYS_SETNS, from(Slot(slot)), num(0)))
		}
	}
	if c.joined["user"] {
		c.child("make the other namespaces", "linux.namespaces", call("unshare", unix.SYS_UNSHARE, named(c.newFlags()&^unix.CLONE_NEWPID, c.flagText())))
	}
	if c.joined["pid"] || c.joined["user"] && c.fresh["pid"] {
		c.p.Fork2 = true
		flags := uint64(unix.CLONE_PARENT) | uint64(unix.SIGCHLD)
		if c.fresh["pid"] {
			flags |= unix.CLONE_NEWPID
		}
		c.child("fork into the pid namespace", "linux.namespaces.pid",
			Call{Name: "clone", Nr: unix.SYS_CLONE, Args: []Arg{named(flags, "CLONE_PARENT|…"), num(0), num(0), num(0), num(0)}, OnErr: ExitOnOK})
	}
	if c.fresh["user"] || c.joined["user"] {
		c.child("be root of the user namespace", "linux.namespaces.user",
			call("setresgid", unix.SYS_SETRESGID, num(0), num(0), num(0)),
			call("setresuid", unix.SYS_SETRESUID, num(0), num(0), num(0)),
			call("setgroups", unix.SYS_SETGROUPS, num(0), num(0)).mayFail())
	}
	// Nobody may look into this process while it still has the parent's
	// memory and descriptors (CVE-2016-9962).
	c.child("let nobody look into this process", "", prctl("PR_SET_DUMPABLE", unix.PR_SET_DUMPABLE, num(0)))
	if c.fresh["cgroup"] {
		c.child("make the cgroup namespace, beginning here", "linux.namespaces.cgroup", call("unshare", unix.SYS_UNSHARE, named(unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP")))
	}
	c.child("begin a session", "", call("setsid", unix.SYS_SETSID))
	if !c.fresh["user"] {
		propagation, text := uint64(unix.MS_REC|unix.MS_PRIVATE), "MS_REC|MS_PRIVATE"
		if p := c.spec.Linux.RootfsPropagation; strings.HasSuffix(p, "slave") || strings.HasSuffix(p, "shared") {
			propagation, text = unix.MS_REC|unix.MS_SLAVE, "MS_REC|MS_SLAVE"
		}
		c.child("keep mounts from the host", "linux.rootfsPropagation",
			call("mount", unix.SYS_MOUNT, named(0, "NULL"), str("/"), named(0, "NULL"), named(propagation, text), named(0, "NULL")))
	}
}

func (c *compiler) newFlags() uint64 {
	var flags uint64
	for kind := range c.fresh {
		if kind != string(specs.CgroupNamespace) {
			flags |= cloneFlag[specs.LinuxNamespaceType(kind)]
		}
	}
	return flags
}

func (c *compiler) flagText() string {
	var names []string
	for kind := range c.fresh {
		names = append(names, "CLONE_NEW:"+kind)
	}
	slices.Sort(names)
	return strings.Join(names, "|")
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
		file := "sys/" + strings.ReplaceAll(name, ".", "/")
		c.child("set "+name+" = "+c.spec.Linux.Sysctl[name], "linux.sysctl",
			call("openat", unix.SYS_OPENAT, from(c.proc), str(file), named(unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, "O_WRONLY|O_NOFOLLOW|O_CLOEXEC"), num(0)).to(fd),
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
		missing := c.makeTarget(m)
		calls := []Call{openTarget(m.Destination, strict).to(target).thenSkip(len(missing) + 1)}
		calls = append(calls, missing...)
		calls = append(calls, openTarget(m.Destination, strict).to(target), moveOn(c.binds[i], target))
		c.child("attach "+m.Destination, "mounts."+m.Destination, calls...)
		if m.Type == "cgroup" && c.f.Cgroup.Kind() != "v2" {
			c.hierarchies(m)
		}
	}
}

// makeTarget are the calls that make a mount point and what is above it.
func (c *compiler) makeTarget(m specs.Mount) []Call {
	var calls []Call
	dirs := strings.Split(strings.Trim(m.Destination, "/"), "/")
	isFile := m.Type == "bind" && c.f.Kind != nil && c.f.Kind(m.Source) == "file"
	for i := range dirs {
		p := "/" + strings.Join(dirs[:i+1], "/")
		if i == len(dirs)-1 && isFile {
			return append(calls, touch(p))
		}
		calls = append(calls, mkdir(p, 0o755).mayFailWith(uintptr(unix.EEXIST)))
	}
	return calls
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
	names := make([]string, 0, 8)
	for _, name := range standardDevices {
		names = append(names, "/dev/"+name)
	}
	for _, d := range c.extraDevices() {
		names = append(names, d.Path)
	}
	for _, name := range names {
		var calls []Call
		for dir := path.Dir(name); dir != "/dev" && dir != "/"; dir = path.Dir(dir) {
			calls = append([]Call{mkdir(dir, 0o755).mayFailWith(uintptr(unix.EEXIST))}, calls...)
		}
		calls = append(calls, touch(name).mayFailWith(uintptr(unix.EEXIST)), moveTo(c.slotOf("device "+name), name))
		c.child("attach "+name, "linux.devices", calls...)
	}
	links := []Call{symlink("/proc/self/fd", "/dev/fd"), symlink("/proc/self/fd/0", "/dev/stdin"), symlink("/proc/self/fd/1", "/dev/stdout"),
		symlink("/proc/self/fd/2", "/dev/stderr"), symlink("/proc/kcore", "/dev/core")}
	if c.pts != 0 {
		links = append(links, symlink("pts/ptmx", "/dev/ptmx"))
	}
	c.child("link /dev/fd, stdin, stdout, stderr, core, ptmx", "linux.devices", links...)
	if c.tty != 0 {
		console := c.slot("console")
		c.child("attach the terminal as /dev/console", "process.terminal", openTreeOf(c.tty).to(console), touch("/dev/console"), moveTo(console, "/dev/console"))
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
func (c *compiler) become() {
	p := c.spec.Process
	c.workdir(p.Cwd)
	if !p.NoNewPrivileges {
		c.filter()
	}
	c.landlock()
	c.identity()
	if c.o.DieWithParent {
		c.child("end with the parent", "", prctl("PR_SET_PDEATHSIG", unix.PR_SET_PDEATHSIG, named(uint64(unix.SIGKILL), "SIGKILL")))
	}
	if p.NoNewPrivileges {
		c.child("gain no privileges by exec", "process.noNewPrivileges", prctl("PR_SET_NO_NEW_PRIVS", unix.PR_SET_NO_NEW_PRIVS, num(1)))
		c.filter()
	}
	c.child("keep no descriptors but 0, 1 and 2", "", call("close_range", unix.SYS_CLOSE_RANGE, num(3), named(uint64(^uint32(0)), "~0"), named(unix.CLOSE_RANGE_CLOEXEC, "CLOSE_RANGE_CLOEXEC")))
	c.exec()
}

// workdir is made where it is missing, as Docker does.
func (c *compiler) workdir(dir string) {
	mask := uint64(0o022)
	if u := c.spec.Process.User.Umask; u != nil {
		mask = uint64(*u)
	}
	calls := []Call{call("umask", unix.SYS_UMASK, named(mask, "0"+octal(mask)))}
	if dir != "/" && dir != "" {
		at := c.slot("working directory")
		var missing []Call
		parts := strings.Split(strings.Trim(dir, "/"), "/")
		for i := range parts {
			missing = append(missing, mkdir("/"+strings.Join(parts[:i+1], "/"), 0o755).mayFailWith(uintptr(unix.EEXIST)))
		}
		calls = append(calls, open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, "O_PATH|O_DIRECTORY|O_CLOEXEC").to(at).thenSkip(len(missing)))
		calls = append(calls, missing...)
	}
	c.child("make the working directory "+dir, "process.cwd", calls...)
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
	if p.Cwd != "" && p.Cwd != "/" {
		c.child("go to "+p.Cwd, "process.cwd", call("chdir", unix.SYS_CHDIR, str(p.Cwd)))
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
	argv, env := Arg{Kind: Vec, List: p.Args}, Arg{Kind: Vec, List: p.Env, Text: fmt.Sprintf("{%d variables}", len(p.Env))}
	calls := make([]Call, 0, len(paths)+1)
	for _, file := range paths {
		x := call("execve", unix.SYS_EXECVE, str(file), argv, env)
		x.OnErr = Note
		calls = append(calls, x)
	}
	c.child("become "+strings.Join(p.Args, " "), "process.args", append(calls, Call{OnErr: FailNoted})...)
}
