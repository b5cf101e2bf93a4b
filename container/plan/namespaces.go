package plan

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/cgroup"
	"kiste/kernel/namespace"
)

func cloneFlag(kind string) uint64 { return uint64(namespace.FlagOf(kind)) }

// namespaces splits them into those of the clone and those to join, and adds
// the fork and the maps.
func (c *compiler) namespaces() error {
	joins, err := c.sortNamespaces()
	if err != nil {
		return err
	}
	if err := c.checkNamespaces(); err != nil {
		return err
	}
	c.p.OwnMemory = c.joined["time"] || c.visited()
	switch {
	case c.joined["user"], c.unshares():
		// What is not joined has to belong to the joined user namespace.
		c.p.Flags = 0
	case c.fresh["time"]:
		c.p.Flags &^= unix.CLONE_NEWPID // the first process in it is the one that the child forks
	}
	joins = c.enterFirst(joins)
	fresh := slices.Sorted(maps.Keys(c.fresh))
	c.act("fork with new namespaces "+strings.Join(fresh, " "), "linux.namespaces", Act{Kind: ActFork})
	c.phase++
	if c.unshares() {
		joins = c.unshareFirst(joins)
	}
	switch {
	case c.joined["user"]:
		c.p.UIDs, c.p.GIDs = idMaps(c.o.UIDs), idMaps(c.o.GIDs)
	case c.fresh["user"]:
		c.p.UIDs, c.p.GIDs = idMaps(c.linux.UIDMappings), idMaps(c.linux.GIDMappings)
		c.act(fmt.Sprintf("map users %s, groups %s", mapText(c.p.UIDs), mapText(c.p.GIDs)), "linux.uidMappings", Act{Kind: ActMapIDs})
	}
	// Whoever has the powers of the host loses them with the user namespace,
	// and an ordinary user gets some there.
	slices.SortStableFunc(joins, func(a, b specs.LinuxNamespace) int {
		last := boolInt(a.Type == specs.UserNamespace) - boolInt(b.Type == specs.UserNamespace)
		if !c.f.Host {
			last = -last
		}
		return last
	})
	for _, ns := range joins {
		if ns.Type == specs.UserNamespace {
			c.p.Userns = ns.Path
		}
		fd := c.bring(string(ns.Type)+" namespace", "open "+ns.Path, "linux.namespaces."+string(ns.Type), Act{Kind: ActOpen, Path: ns.Path})
		c.joins = append(c.joins, join{string(ns.Type), fd})
	}
	return nil
}

// A join is a namespace whose descriptor the child gets.
type join struct {
	kind string
	fd   Slot
}

// unshares reports whether the child makes its user namespace itself: not
// before it has joined a time namespace, which neither a thread among others
// can nor the root of a user namespace may.
func (c *compiler) unshares() bool { return c.fresh["user"] && c.joined["time"] }

// unshareFirst lets the child join the time namespace and then make the others,
// before the parent does anything else. It gives the other joins.
func (c *compiler) unshareFirst(joins []specs.LinuxNamespace) []specs.LinuxNamespace {
	return slices.DeleteFunc(joins, func(ns specs.LinuxNamespace) bool {
		if ns.Type != specs.TimeNamespace {
			return false
		}
		fd := c.slot("time namespace")
		c.child("join the time namespace", "linux.namespaces.time", c.open(ns.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0, "O_RDONLY|O_CLOEXEC").to(fd),
			c.call("setns", unix.SYS_SETNS, from(fd), named(unix.CLONE_NEWTIME, "CLONE_NEWTIME")))
		c.child("make the other namespaces", "linux.namespaces", c.call("unshare", unix.SYS_UNSHARE, c.newFlags()), c.write(Sock, Ready))
		c.phase++
		return true
	})
}

// sortNamespaces sets the flags of the clone and gives what is to be joined.
func (c *compiler) sortNamespaces() (joins []specs.LinuxNamespace, err error) {
	for _, ns := range c.linux.Namespaces {
		kind := string(ns.Type)
		flag := cloneFlag(kind)
		switch {
		case flag == 0:
			return nil, refused("linux.namespaces", fault.Invalid, "namespace %q does not exist", kind)
		case c.fresh[kind] || c.joined[kind]:
			return nil, refused("linux.namespaces", fault.Invalid, "malformed spec file: duplicated ns %q", kind)
		case ns.Path != "":
			if hasZero(ns.Path) || !path.IsAbs(ns.Path) {
				return nil, refused("linux.namespaces."+kind, fault.Invalid, "%q is not an absolute path", ns.Path)
			}
			joins = append(joins, ns)
			c.joined[kind] = true
			continue
		}
		c.fresh[kind] = true
		// The cgroup namespace has to begin in the container's cgroup, so
		// the child makes it once it is there, as well as that of time.
		if ns.Type != specs.CgroupNamespace && ns.Type != specs.TimeNamespace {
			c.p.Flags |= flag
		}
	}
	return joins, nil
}

// checkNamespaces looks at what has to go together.
func (c *compiler) checkNamespaces() error {
	mappings := len(c.linux.UIDMappings) + len(c.linux.GIDMappings)
	switch {
	case c.unmounted() && (!c.f.Host || c.mapped()):
		return refused("linux.namespaces", fault.Invalid, "a container with a user namespace needs a mount namespace too: it has no powers over the host's")
	case !c.mapped() && mappings > 0:
		return refused("linux.uidMappings", fault.Invalid, "user namespace mappings specified, but user namespace isn't enabled in the config")
	case c.fresh["user"] && (len(c.linux.UIDMappings) == 0 || len(c.linux.GIDMappings) == 0):
		return refused("linux.uidMappings", fault.Invalid, "user namespaces enabled, but no mappings of users and groups specified")
	case c.joined["user"] && mappings > 0 && !(sameMaps(c.linux.UIDMappings, c.o.UIDs) && sameMaps(c.linux.GIDMappings, c.o.GIDs)):
		return refused("linux.uidMappings", fault.Invalid, "user namespaces enabled, but both namespace path and non-matching mapping specified -- you may only provide one")
	case !c.f.Host && !c.mapped():
		return refused("linux.namespaces", fault.Invalid, "rootless container requires user namespaces")
	}
	if c.unmounted() {
		c.warn("a container without a mount namespace can leave its root")
	}
	for _, m := range slices.Concat(c.linux.UIDMappings, c.linux.GIDMappings) {
		if m.Size == 0 || m.ContainerID > math.MaxUint32-m.Size || m.HostID > math.MaxUint32-m.Size {
			return refused("linux.uidMappings", fault.Invalid, "%d ids from %d on cannot be mapped to %d", m.Size, m.ContainerID, m.HostID)
		}
	}
	return nil
}

// unmounted reports whether the container has the parent's mount namespace: its
// mounts are the host's then, below the root's path, and it enters them by
// chroot(2).
func (c *compiler) unmounted() bool { return !c.hasNamespace(specs.MountNamespace) }

// sameMaps compares without regard to the order.
func sameMaps(a, b []specs.LinuxIDMapping) bool {
	byID := func(x, y specs.LinuxIDMapping) int { return cmp.Compare(x.ContainerID, y.ContainerID) }
	return slices.Equal(slices.SortedFunc(slices.Values(a), byID), slices.SortedFunc(slices.Values(b), byID))
}

// enterFirst lets the parent's thread enter what a child in a user namespace of
// its own could not, so that the child is born there. It gives the others.
func (c *compiler) enterFirst(joins []specs.LinuxNamespace) []specs.LinuxNamespace {
	if !c.fresh["user"] || !c.f.Host {
		return joins
	}
	var rest []specs.LinuxNamespace
	for _, ns := range joins {
		if ns.Type == specs.TimeNamespace {
			rest = append(rest, ns) // see unshares
			continue
		}
		c.act("enter "+ns.Path+" for the fork", "linux.namespaces."+string(ns.Type), Act{Kind: ActEnter, Path: ns.Path, Value: namespace.File(string(ns.Type))})
		delete(c.joined, string(ns.Type))
	}
	return rest
}

func idMaps(in []specs.LinuxIDMapping) []IDMap {
	var out []IDMap
	for _, m := range in {
		out = append(out, IDMap{m.ContainerID, m.HostID, m.Size})
	}
	return out
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func mapText(ms []IDMap) string {
	parts := make([]string, len(ms))
	for i, m := range ms {
		parts[i] = fmt.Sprintf("%d→%d×%d", m.Inside, m.Outside, m.Size)
	}
	return strings.Join(parts, ",")
}

// visited reports whether the parent, an ordinary user, brings the network in: by
// /proc, where it finds no process that nobody may look into. With the parent's
// memory this one would be such as soon as another child has said so of itself.
func (c *compiler) visited() bool { return c.o.Served != "" || c.o.Network.Host != "" }

// settle is what comes first: wait, enter the namespaces, be root in them.
func (c *compiler) settle() {
	if c.visited() {
		c.child("let the parent find this process", "", c.prctl("PR_SET_DUMPABLE", unix.PR_SET_DUMPABLE, num(1)))
	}
	c.enterCgroups(c.earlyTasks())
	c.enterBy(c.f.ClassTasks, "class", "linux.intelRdt")
	c.awaitParent()
	c.newTime()
	// Nobody may look into this process while it still has the parent's
	// memory and descriptors: before it joins anything (CVE-2016-9962).
	c.child("let nobody look into this process", "", c.prctl("PR_SET_DUMPABLE", unix.PR_SET_DUMPABLE, num(0)))
	for _, j := range c.joins {
		c.child("join the "+j.kind+" namespace", "linux.namespaces."+j.kind, c.call("setns", unix.SYS_SETNS, from(j.fd), named(cloneFlag(j.kind), flagText(j.kind))))
	}
	if c.joined["user"] {
		if flags := c.newFlags(); flags.Value != 0 {
			c.child("make the other namespaces", "linux.namespaces", c.call("unshare", unix.SYS_UNSHARE, flags))
		}
	}
	if c.joined["pid"] || c.fresh["pid"] && c.p.Flags&unix.CLONE_NEWPID == 0 || c.fresh["time"] {
		c.forkAgain()
	}
	if c.fresh["user"] || c.joined["user"] {
		c.beRoot()
	}
	if c.fresh["cgroup"] {
		c.child("make the cgroup namespace, beginning here", "linux.namespaces.cgroup", c.call("unshare", unix.SYS_UNSHARE, named(unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP")))
	}
	c.affinity("", "")
	c.child("begin a session", "", c.call("setsid", unix.SYS_SETSID))
	c.child("make files with the modes that are asked for", "", c.umask(0))
	if !c.peers {
		c.keepMounts()
	}
	c.loopback()
	if !c.bornInNetwork() {
		c.links()
	}
}

// keepMounts lets no mount of this namespace be one of the host's too. In a
// namespace that belongs to another user namespace they are born as slaves: what
// the host mounted on a device of its own would be the container's. Where the child
// takes a bind that is to stay a peer or a slave of the host's, it comes after that.
func (c *compiler) keepMounts() {
	if c.unmounted() {
		return
	}
	propagation, text := uint64(unix.MS_REC|unix.MS_PRIVATE), "MS_REC|MS_PRIVATE"
	if c.slaves() {
		propagation, text = unix.MS_REC|unix.MS_SLAVE, "MS_REC|MS_SLAVE"
	}
	c.child("keep mounts from the host", "linux.rootfsPropagation",
		c.call("mount", unix.SYS_MOUNT, named(0, "NULL"), str("/"), named(0, "NULL"), named(propagation, text), named(0, "NULL")))
}

// slaves reports whether the mounts of this namespace become slaves of the host's.
func (c *compiler) slaves() bool {
	p := propagationOf(c.linux.RootfsPropagation) &^ unix.MS_REC
	return p == unix.MS_SLAVE || p == unix.MS_SHARED
}

// private reports whether all mounts are private when the child takes its binds.
func (c *compiler) private() bool { return !c.peers && !c.slaves() }

// loopback switches a new network's on, which the kernel leaves off.
func (c *compiler) loopback() {
	if !c.fresh["network"] {
		return
	}
	sock := c.slot("socket")
	request := make([]byte, 40) // struct ifreq of netdevice(7): a name of 16 bytes, then the flags
	copy(request, "lo")
	request[16] = unix.IFF_UP
	c.child("switch loopback on", networkField,
		c.call("socket", unix.SYS_SOCKET, named(unix.AF_UNIX, "AF_UNIX"), named(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, "SOCK_DGRAM|SOCK_CLOEXEC"), num(0)).to(sock),
		c.call("ioctl", unix.SYS_IOCTL, from(sock), named(unix.SIOCSIFFLAGS, "SIOCSIFFLAGS"), buf(request, "{lo, IFF_UP}")))
}

// awaitParent takes what the parent sends, at once, before it goes on.
func (c *compiler) awaitParent() {
	wait := Call{Name: "recvmsg", Nr: unix.SYS_RECVMSG, Args: []Arg{from(Sock), named(0, "{message}"), named(unix.MSG_CMSG_CLOEXEC, "MSG_CMSG_CLOEXEC")}, Special: ReceiveInbox}
	c.child("wait for the parent", "", slices.Repeat([]Call{wait}, max(1, (len(c.p.Inbox)+InboxSize-1)/InboxSize))...)
}

// earlyTasks are the files by which the child enters its cgroups of version 1
// before anything else. That of the memory comes last, where no cgroup namespace
// has to begin in it: else the kernel's own memory for mounts and namespaces,
// some hundred kilobytes, would have to fit into the container's limit too.
func (c *compiler) earlyTasks() []string {
	files := cgroup.Tasks(c.f.Groups)
	memory, ok := c.f.Cgroup.Find("memory")
	if !ok || memory.V2 || c.fresh["cgroup"] {
		return files
	}
	return slices.DeleteFunc(files, func(file string) bool {
		late := strings.HasPrefix(file, memory.Mount+"/")
		if late {
			c.memory = c.slot(file)
			c.child("open "+file, "linux.cgroupsPath", c.openTasks(make([]Call, 0, someCalls), file, c.memory)...)
		}
		return late
	})
}

// enterMemory enters that cgroup.
func (c *compiler) enterMemory() {
	if c.memory != 0 {
		c.child("enter the cgroup of "+c.p.Slots[c.memory], "linux.cgroupsPath", c.write(c.memory, "0"))
	}
}

// enterCgroups writes 0 into files of version 1 as long as the child is the
// host's root, and with one thread, which is a hundred times cheaper than to be
// moved by pid.
func (c *compiler) enterCgroups(files []string) { c.enterBy(files, "cgroup", "linux.cgroupsPath") }

func (c *compiler) enterBy(files []string, what, field string) {
	for _, file := range files {
		fd := c.slot(file)
		c.child("enter the "+what+" of "+file, field, append(c.openTasks(make([]Call, 0, someCalls), file, fd), c.write(fd, "0"))...)
	}
}

// openTasks adds the calls that open the file by which a group is entered. Those of cgroups are
// looked up from where all hierarchies are mounted: see cgroup.Hold.
func (c *compiler) openTasks(calls []Call, file string, fd Slot) []Call {
	const flags, text = unix.O_WRONLY | unix.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"
	rest, below := strings.CutPrefix(file, cgroup.UsualMount+"/")
	if !below {
		return append(calls, c.open(file, flags, 0, text).to(fd))
	}
	if c.groupsTop == 0 {
		c.groupsTop = c.slot(cgroup.UsualMount)
		calls = append(calls, c.open(cgroup.UsualMount, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, "O_PATH|O_DIRECTORY|O_CLOEXEC").to(c.groupsTop))
	}
	return append(calls, c.openAt(from(c.groupsTop), rest, flags, 0, text).to(fd))
}

// forkAgain lets a second child, whose parent is the first one's, be the first
// inside of a pid namespace that was joined, or that has to belong to a user
// namespace that was joined, and of a new time namespace. It is the one for
// which clone(2) gives 0.
func (c *compiler) forkAgain() {
	c.p.Fork2 = true
	flags, text := uint64(unix.CLONE_PARENT)|uint64(unix.SIGCHLD), "CLONE_PARENT|SIGCHLD"
	if c.fresh["pid"] && c.p.Flags&unix.CLONE_NEWPID == 0 {
		flags, text = flags|unix.CLONE_NEWPID, text+"|CLONE_NEWPID"
	}
	clone := c.call("clone", unix.SYS_CLONE, named(flags, text), named(0, "NULL"), num(0), num(0), num(0)).want(1)
	clone.OnErr, clone.Errno, clone.Skip = SkipOnErrno, uintptr(unix.EPIPE), 1
	c.child("fork once more", "linux.namespaces", clone,
		c.call("exit_group", unix.SYS_EXIT_GROUP, num(0)),
		c.write(Sock, Hello), c.hearByte())
}

// hearByte waits until the parent has written down who the child is, and fails
// when the parent is gone.
func (c *compiler) hearByte() Call {
	return c.call("recvfrom", unix.SYS_RECVFROM, from(Sock), buf(make([]byte, 1), "{}"), num(1), num(0), named(0, "NULL"), named(0, "NULL")).want(1)
}

// flagText is the name of the flag of a kind of namespaces: "CLONE_NEWNS".
func flagText(kind string) string {
	return strings.ReplaceAll("CLONE_NEW"+strings.ToUpper(namespace.File(kind)), "MNT", "NS")
}

// newFlags are those of unshare(2) for what is to belong to the user namespace
// that was joined, but for the pid namespace.
func (c *compiler) newFlags() Arg {
	var flags uint64
	var names []string
	for kind := range c.fresh {
		if flag := cloneFlag(kind); flag&(unix.CLONE_NEWCGROUP|unix.CLONE_NEWPID|unix.CLONE_NEWTIME) == 0 {
			flags, names = flags|flag, append(names, flagText(kind))
		}
	}
	slices.Sort(names)
	return named(flags, strings.Join(names, "|"))
}
