package plan

import (
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/kernel/chroot"
)

// standardDevices are those that every container has (runtime-spec,
// config-linux.md, default devices).
var standardDevices = []struct {
	name         string
	major, minor uint32
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

// devMount is what is mounted on /dev; nil: nothing.
func (c *compiler) devMount() *mount {
	for i := range slices.Backward(c.mounts) {
		if c.mounts[i].at == "/dev" {
			return &c.mounts[i]
		}
	}
	return nil
}

// furnished reports whether /dev is to be filled: not where it is the host's.
func (c *compiler) furnished() bool {
	m := c.devMount()
	return m == nil || !m.bind
}

// freshDev reports whether /dev is empty.
func (c *compiler) freshDev() bool {
	m := c.devMount()
	return m != nil && m.Type == "tmpfs" && !m.copyUp
}

// A device is a node to make.
type device struct {
	specs.LinuxDevice
	at       string
	standard bool // and nobody says how it should be
	mount    Slot // where it is not made but mounted
}

// deviceList are the standard devices that the spec does not describe itself,
// and those of the spec. The terminal's are made otherwise.
func (c *compiler) deviceList() []device {
	list := make([]device, 0, len(standardDevices)+len(c.linux.Devices))
	mode := fs.FileMode(0o666)
	for _, s := range standardDevices {
		at := "/dev/" + s.name
		if !slices.ContainsFunc(c.linux.Devices, func(d specs.LinuxDevice) bool { return path.Clean(d.Path) == at }) {
			list = append(list, device{LinuxDevice: specs.LinuxDevice{Path: at, Type: "c", Major: int64(s.major), Minor: int64(s.minor), FileMode: &mode}, at: at, standard: true})
		}
	}
	for _, d := range c.linux.Devices {
		at := path.Clean("/" + d.Path)
		if at != "/dev/ptmx" && (at != "/dev/console" || !c.spec.Process.Terminal) {
			list = append(list, device{LinuxDevice: d, at: at})
		}
	}
	return list
}

// makesNodes: the child is root of the first user namespace, and makes device
// nodes itself. Else they are mounted.
func (c *compiler) makesNodes() bool { return c.f.Host && !c.f.Inner && !c.mapped() }

// collectDevices lets the parent make the nodes that a user namespace may not
// make, where it has the powers.
func (c *compiler) collectDevices() {
	if !c.furnished() {
		return
	}
	c.nodes = c.deviceList()
	if !c.f.Host || c.f.Inner || c.makesNodes() {
		return
	}
	for i := range c.nodes {
		if d := &c.nodes[i]; !d.standard {
			d.mount = c.bring("device "+d.Path, "make device "+d.Path, "linux.devices", Act{Kind: ActBind, Mount: deviceMount(d.LinuxDevice)})
		}
	}
}

func deviceMount(d specs.LinuxDevice) chroot.Mount {
	return chroot.Mount{Type: "device", Target: d.Path, Source: fmt.Sprintf("%s %d:%d", d.Type, d.Major, d.Minor), Options: deviceOptions(d)}
}

func deviceOptions(d specs.LinuxDevice) []string {
	o := []string{"mode=" + octal(modeOf(d))}
	if d.UID != nil {
		o = append(o, fmt.Sprintf("uid=%d", *d.UID))
	}
	if d.GID != nil {
		o = append(o, fmt.Sprintf("gid=%d", *d.GID))
	}
	return o
}

// modeOf are the permissions of a device; the kind of file, which some engines
// write there too, is its type's.
func modeOf(d specs.LinuxDevice) uint64 {
	if d.FileMode == nil {
		return 0o666
	}
	return uint64(*d.FileMode) & 0o7777
}

// takeDevices clones the host's nodes: a user namespace may make none, but use
// those that are mounted. The null device is what paths are masked with.
func (c *compiler) takeDevices() {
	for i := range c.nodes {
		d := &c.nodes[i]
		if d.mount == 0 && !c.makesNodes() {
			d.mount = c.slot("device " + d.Path)
			c.child("take "+d.Path, "linux.devices", c.openTree(d.Path, false).to(d.mount))
		}
	}
	if c.freshDev() {
		return
	}
	// Read-only, or the container could change the mode of the host's.
	for _, p := range c.linux.MaskedPaths {
		null := c.slot("null for " + p)
		c.nulls = append(c.nulls, null)
		c.child("take /dev/null for "+p, "linux.maskedPaths", c.openTree("/dev/null", false).to(null), c.setattr(null, 0, unix.MOUNT_ATTR_RDONLY, 0, 0))
	}
}

// devices fills /dev.
func (c *compiler) devices() {
	if !c.furnished() {
		return
	}
	c.openDev()
	for _, d := range c.nodes {
		c.node(d)
	}
	links := [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"}, {"pts/ptmx", "ptmx"}}
	calls := make([]Call, 0, someCalls)
	if !c.freshDev() {
		calls = append(calls, c.unlinkIn(from(c.dev), "ptmx").mayFailWith(uintptr(unix.ENOENT)))
	}
	for _, l := range links {
		calls = append(calls, c.symlinkIn(l[0], from(c.dev), l[1]).mayFailWith(uintptr(unix.EEXIST)))
	}
	c.child("link /dev/fd, stdin, stdout, stderr, core, ptmx", "linux.devices", calls...)
}

// openDev finds /dev: the mount that is there, or a directory of the root.
func (c *compiler) openDev() {
	if m := c.devMount(); m != nil {
		c.dev = m.detached
		return
	}
	c.dev = c.slot("/dev")
	c.child("open /dev", "linux.devices", c.place(make([]Call, 0, someCalls), c.dev, "/dev", true, false)...)
}

// node makes one node, or mounts it. What is there already stays.
func (c *compiler) node(d device) {
	field := "linux.devices"
	if d.mount != 0 {
		target := c.slot("target " + d.Path)
		c.child("attach "+d.Path, field, append(c.placeNode(make([]Call, 0, someCalls), target, d.at), c.moveOn(d.mount, target))...)
		return
	}
	dir, calls := c.dev, make([]Call, 0, someCalls)
	if path.Dir(d.at) != "/dev" {
		dir = c.slot("above " + d.Path)
		calls = c.place(calls, dir, path.Dir(d.at), false, false)
	}
	number := uint64(0)
	if d.Type != "p" {
		number = unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	}
	name := path.Base(d.at)
	make := c.call("mknodat", unix.SYS_MKNODAT, from(dir), str(name), Arg{Kind: Num, Form: Node, Value: nodeKind(d.Type) | modeOf(d.LinuxDevice)},
		Arg{Kind: Num, Form: Device, Value: number})
	uid, gid := orZero(d.UID), orZero(d.GID)
	if uid == 0 && gid == 0 {
		c.child("make "+d.Path, field, append(calls, make.mayFailWith(uintptr(unix.EEXIST)))...)
		return
	}
	make.OnErr, make.Errno, make.Skip = SkipOnErrno, uintptr(unix.EEXIST), 1
	c.child("make "+d.Path, field, append(calls, make,
		c.call("fchownat", unix.SYS_FCHOWNAT, from(dir), str(name), num(uint64(uid)), num(uint64(gid)), named(unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW")))...)
}

// placeNode adds the calls that open the place of a node below /dev, which may
// be no link.
func (c *compiler) placeNode(calls []Call, target Slot, at string) []Call {
	if path.Dir(at) != "/dev" {
		return c.place(calls, target, at, false, true)
	}
	return append(calls, c.touch(from(c.dev), path.Base(at)).mayFailWith(uintptr(unix.EEXIST)),
		c.openIn(from(c.dev), path.Base(at), unix.O_PATH|unix.O_NOFOLLOW, 0).to(target))
}

func orZero(id *uint32) uint32 {
	if id == nil {
		return 0
	}
	return *id
}

// nodeKind is the kind of a device as mknod(2) has it.
func nodeKind(kind string) uint64 {
	switch kind {
	case "c", "u":
		return unix.S_IFCHR
	case "b":
		return unix.S_IFBLK
	case "p":
		return unix.S_IFIFO
	}
	return 0
}

func nodeName(kind uint64) string {
	switch kind {
	case unix.S_IFCHR:
		return "S_IFCHR"
	case unix.S_IFBLK:
		return "S_IFBLK"
	case unix.S_IFIFO:
		return "S_IFIFO"
	}
	return ""
}

// NodeMounts are the paths of the device nodes that a container with this spec
// does not have in its /dev but mounted: in a user namespace.
func NodeMounts(s *specs.Spec) []string {
	if !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace }) {
		return nil
	}
	var all []string
	for _, d := range standardDevices {
		all = append(all, "/dev/"+d.name)
	}
	for _, d := range s.Linux.Devices {
		if at := path.Clean("/" + d.Path); !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	return all
}
