package plan

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/kernel/cgroup"
	"kiste/kernel/chroot"
	"kiste/kernel/privilege/selinux"
)

// collect lets the parent make the binds, where it alone has the powers, and
// what has to be filled from the root.
func (c *compiler) collect() {
	for i := range c.mounts {
		m := &c.mounts[i]
		c.ownPropagation(m)
		switch {
		case !c.f.Host:
		case m.bind && c.takenByChild(m):
			c.peers = c.peers || isPeer(m)
		case m.bind || m.Type == "overlay":
			a := Act{Kind: ActBind, Mount: mountOf(m)}
			if !m.bind {
				a.Mount.Options = append(a.Mount.Options, c.context(m.Type)...)
			}
			c.idMap(m, &a)
			m.detached = c.bring("mount "+m.Destination, "take "+m.Source+" for "+m.Destination+optionText(m.Options), m.field, a)
		case m.Type == "cgroup":
			c.collectGroups(m)
		case m.copyUp:
			m.detached = c.bring("mount "+m.Destination, "copy the root's "+m.at+" into a tmpfs"+optionText(m.Options), m.field,
				Act{Kind: ActCopyUp, Mount: chroot.Mount{Type: "tmpfs", Source: m.Source, Target: m.at, Options: append(c.outsideIDs(m), c.context(m.Type)...)}})
		}
	}
	c.collectDevices()
}

// takenByChild reports whether the child can take a bind as well as the parent,
// which is when it has the parent's powers and a copy of its mounts. Then the
// container's mounts are as old as the document lists them: that is the order of
// mountinfo since Linux 6.8. What is below /proc can be another for each who looks.
func (c *compiler) takenByChild(m *mount) bool {
	return c.fresh["mount"] && !c.mapped() && !c.f.Inner && m.IDMap == "" && len(m.UIDMappings) == 0 && !strings.HasPrefix(path.Clean(m.Source)+"/", "/proc/")
}

// isPeer reports whether m has to do with the host's mounts after it is taken.
func isPeer(m *mount) bool {
	return slices.ContainsFunc(m.Propagation, func(p uint64) bool { return p&(unix.MS_SHARED|unix.MS_SLAVE) != 0 })
}

// ownPropagation keeps what is shared inside of a user namespace from being
// shared with the host as well.
func (c *compiler) ownPropagation(m *mount) {
	for i, p := range m.Propagation {
		if c.mapped() && p&unix.MS_SHARED != 0 {
			m.Propagation = slices.Insert(slices.Clone(m.Propagation), i, p&^unix.MS_SHARED|unix.MS_SLAVE)
			return
		}
	}
}

// idMap says by which map the parent shifts a mount's owners: that of the
// container's user namespace, or one of its own.
func (c *compiler) idMap(m *mount, a *Act) {
	own := len(m.UIDMappings) > 0
	ours := c.mapped() && (!own || slices.Equal(idMaps(m.UIDMappings), c.p.UIDs) && slices.Equal(idMaps(m.GIDMappings), c.p.GIDs))
	a.IDMap = own || m.IDMap != ""
	if a.IDMap && !ours {
		a.UIDs, a.GIDs = idMaps(m.UIDMappings), idMaps(m.GIDMappings)
	}
}

// outsideIDs are a tmpfs's options with the ids of the host: it is the parent
// that makes it.
func (c *compiler) outsideIDs(m *mount) []string {
	options := []string{}
	for _, o := range m.Options {
		key, value, _ := strings.Cut(o, "=")
		id, err := strconv.ParseUint(value, 10, 32)
		switch {
		case o == "tmpcopyup" || o == "ro":
			continue
		case key == "uid" && err == nil:
			o = "uid=" + strconv.FormatUint(uint64(Outside(c.p.UIDs, uint32(id))), 10)
		case key == "gid" && err == nil:
			o = "gid=" + strconv.FormatUint(uint64(Outside(c.p.GIDs, uint32(id))), 10)
		}
		options = append(options, o)
	}
	return options
}

// Outside is the id on the host of one in the container.
func Outside(maps []IDMap, id uint32) uint32 {
	for _, m := range maps {
		if id >= m.Inside && id-m.Inside < m.Size {
			return m.Outside + id - m.Inside
		}
	}
	return id
}

// mountOf is a bind or an overlay of the spec as the parent makes it. What a
// spec has no fields for is among the options: "lowerdir+=" for each layer of
// an overlay, and "subpath=" of a bind.
func mountOf(m *mount) chroot.Mount {
	b := chroot.Mount{Type: m.Type, Source: m.Source, Target: m.Destination, Below: subpath(m.Parsed)}
	if m.bind {
		b.Type = "bind"
	}
	for _, o := range m.Options {
		if !overlayOption(&b, o) && !strings.HasPrefix(o, subpathOption) && !propagates(o) {
			b.Options = append(b.Options, o)
		}
	}
	for _, p := range m.Propagation {
		b.Options = append(b.Options, propagationText(p))
	}
	return b
}

func propagates(word string) bool { return propagationOf(word) != 0 }

func propagationText(p uint64) string {
	word := map[uint64]string{unix.MS_PRIVATE: "private", unix.MS_SHARED: "shared", unix.MS_SLAVE: "slave", unix.MS_UNBINDABLE: "unbindable"}[p&^unix.MS_REC]
	if p&unix.MS_REC != 0 {
		return "r" + word
	}
	return word
}

// overlayOption puts the directories of an overlay where there is no limit to
// their length. Layers of data alone, which follow two colons, stay as they are.
func overlayOption(b *chroot.Mount, option string) bool {
	key, value, _ := strings.Cut(option, "=")
	switch {
	case b.Type != "overlay":
		return false
	case key == "lowerdir+":
		b.Lower = append(b.Lower, value)
	case key == "lowerdir" && !strings.Contains(value, "::"):
		b.Lower = append(b.Lower, splitLayers(value)...)
	case key == "upperdir":
		b.Upper = value
	case key == "workdir":
		b.Work = value
	default:
		return false
	}
	return true
}

// splitLayers reads a list as overlayfs does: colons between paths, unless a
// backslash stands before them.
func splitLayers(s string) []string {
	var layers []string
	var layer strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			layer.WriteByte(s[i])
		case s[i] == ':':
			layers = append(layers, layer.String())
			layer.Reset()
		default:
			layer.WriteByte(s[i])
		}
	}
	return append(layers, layer.String())
}

const subpathOption = "subpath="

func subpath(a chroot.Parsed) string {
	for _, o := range a.Data {
		if p, ok := strings.CutPrefix(o, subpathOption); ok {
			return p
		}
	}
	return ""
}

func optionText(options []string) string {
	if len(options) == 0 {
		return ""
	}
	return " " + strings.Join(options, ",")
}

// fileSystems makes the kernel's own, detached: as long as the host's are to
// be seen, the kernel lets a user namespace mount its own.
func (c *compiler) fileSystems() {
	for i := range c.mounts {
		m := &c.mounts[i]
		switch {
		case m.detached != 0:
		case m.bind:
			m.detached = c.slot("mount " + m.Destination)
			calls := []Call{c.openTree(m.Source, m.Rec).to(m.detached)}
			if below := subpath(m.Parsed); below != "" {
				calls = c.openBelow(m.Source, below, m.detached)
			}
			c.take(m, m.Source, calls...)
		case m.Type == "cgroup":
			c.groups(m)
		default:
			c.fileSystem(m, m.Type)
		}
		if m.Set&unix.MOUNT_ATTR_RDONLY != 0 && c.lateReadOnly(m) {
			c.late = append(c.late, readOnly{m.detached, m.Destination, m.field})
		}
		if m.Type == "devpts" {
			c.pts = m.detached
		}
	}
	c.privateProc()
}

// take lets the child take the host's source for m, by calls that put it into m's slot, and
// give it m's options.
func (c *compiler) take(m *mount, source string, calls ...Call) {
	c.child("take "+source+" for "+m.Destination+optionText(m.Options), m.field, append(calls, c.mountAttributes(m.detached, c.ofClone(m))...)...)
}

// ofClone are the attributes that a clone of the host's mount is given. It is
// private where all are that it can be a clone of; else it has to be made so,
// or what is mounted on it would be mounted on the host too.
func (c *compiler) ofClone(m *mount) chroot.Parsed {
	a := m.Parsed
	switch {
	case c.f.Host && c.private() && !slices.ContainsFunc(a.Propagation, func(p uint64) bool { return p&unix.MS_PRIVATE == 0 }):
		a.Propagation = nil
	case c.f.Host && len(a.Propagation) == 0:
		a.Propagation = []uint64{unix.MS_REC | unix.MS_PRIVATE}
	}
	return a
}

// lateReadOnly: things are put into it before.
func (c *compiler) lateReadOnly(m *mount) bool {
	return m.Type == "tmpfs" || m.Type == "cgroup" && c.f.Cgroup.Kind() != "v2" && !m.group.whole && !m.group.shelf
}

// privateProc is where sysctls and labels are written: the container's procfs
// before anybody can cover it, else the host's, which nobody of the container
// could. One that shows processes alone is not enough.
func (c *compiler) privateProc() {
	if len(c.linux.Sysctl) == 0 && !c.labelled() {
		return
	}
	for _, m := range c.mounts {
		if m.Type == "proc" && !m.bind && !slices.ContainsFunc(m.Data, func(o string) bool { return strings.HasPrefix(o, "subset=") }) {
			c.procs = m.detached
			return
		}
	}
	c.procs = c.slot("procfs")
	c.child("hold on to procfs", "", c.open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, "O_PATH|O_DIRECTORY|O_CLOEXEC").to(c.procs))
}

func (c *compiler) labelled() bool {
	p := c.spec.Process
	return p.SelinuxLabel != "" || c.confined()
}

// openBelow takes a path below source, looked up with source as root.
func (c *compiler) openBelow(source, below string, mount Slot) []Call {
	base, at := c.slot("base "+source), c.slot("below "+below)
	return []Call{
		c.open(source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, "O_PATH|O_DIRECTORY|O_CLOEXEC").to(base),
		c.call("openat2", unix.SYS_OPENAT2, from(base), str(below), Arg{Kind: Buf, Form: How, Bytes: words(unix.O_PATH|unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)}, num(24)).to(at),
		c.openTreeOf(at).to(mount),
	}
}

// pseudo are the kernel's file systems of which there is one for many mounts:
// "ro" is the mount's alone.
var pseudo = []string{"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"}

// fileSystem makes one of the kernel's file systems for m.
func (c *compiler) fileSystem(m *mount, fstype string) {
	a := m.Parsed
	if c.lateReadOnly(m) {
		a.Set &^= unix.MOUNT_ATTR_RDONLY
	}
	m.detached = c.make(fstype, m.Source, m.Destination, m.field, a, m.Options)
	c.labelQueue(m)
	if len(a.Propagation) > 0 {
		c.child("make "+m.Destination+" "+propagationText(a.Propagation[len(a.Propagation)-1]), m.field, c.propagation(m.detached, a)...)
	}
}

// make makes a file system and gives the slot of its detached mount.
func (c *compiler) make(fstype, source, at, field string, a chroot.Parsed, options []string) Slot {
	fs, mount := c.slot("fs "+at), c.slot("mount "+at)
	data := c.dataOf(fstype, a)
	calls := append(make([]Call, 0, someCalls), c.fsopen(fstype).to(fs))
	if source != "" {
		calls = append(calls, c.fsString(fs, "source", source))
	}
	for _, o := range data {
		key, value, has := strings.Cut(o, "=")
		if has {
			calls = append(calls, c.fsString(fs, key, value))
		} else {
			calls = append(calls, c.fsFlag(fs, key))
		}
	}
	calls = append(calls, c.fsCreate(fs), c.fsmount(fs, a.Set|a.RecSet).to(mount))
	if fstype == "sysfs" && c.mayBindSysfs() {
		calls = c.orBind(calls, "/sys", mount, a)
	}
	c.child("make "+fstype+" for "+at+optionText(options), field, calls...)
	return mount
}

// mayBindSysfs reports whether a sysfs may be the host's, with all that is mounted
// on it: see orBind.
func (c *compiler) mayBindSysfs() bool { return c.mapped() || c.f.Inner }

// orBind takes the host's file system at path where calls may not make one: a
// sysfs shows a network, and who does not own that may not mount it.
func (c *compiler) orBind(calls []Call, path string, mount Slot, a chroot.Parsed) []Call {
	a.RecSet |= a.Set & unix.MOUNT_ATTR_RDONLY
	instead := append([]Call{c.openTree(path, true).to(mount)}, c.mountAttributes(mount, a)...)
	last := len(calls) - 1
	calls[0].OnErr, calls[0].Errno, calls[0].Skip = SkipOnErrno, uintptr(unix.EPERM), last
	calls[last] = calls[last].thenSkip(len(instead))
	return append(calls, instead...)
}

// dataOf are the options of a file system as such, with the container's label.
func (c *compiler) dataOf(fstype string, a chroot.Parsed) []string {
	data := slices.Clone(a.Data)
	if fstype == "overlay" {
		data = nil
		var m chroot.Mount
		m.Type = "overlay"
		for _, o := range a.Data {
			if !overlayOption(&m, o) {
				data = append(data, o)
			}
		}
		for _, l := range m.Lower {
			data = append(data, "lowerdir+="+l)
		}
		if m.Upper != "" {
			data = append(data, "upperdir="+m.Upper, "workdir="+m.Work)
		}
	}
	for _, name := range a.Super() {
		if name != "ro" || !slices.Contains(pseudo, fstype) {
			data = append(data, name)
		}
	}
	return append(data, c.context(fstype)...)
}

// context is the option of a file system with the container's label, as runc has it: those that show
// the kernel have labels of the policy's, and a queue is labelled when it is there.
func (c *compiler) context(fstype string) []string {
	label, key := c.linux.MountLabel, c.spec.Annotations[selinux.ContextType]
	if label == "" || slices.Contains([]string{"proc", "sysfs", "mqueue", "cgroup", "cgroup2"}, fstype) {
		return nil
	}
	return []string{cmp.Or(key, "context") + "=" + label}
}

// labelQueue gives a file system of message queues, which has no such option, the container's label.
// It belongs to who has made the IPC namespace, which is this process: where that is nobody inside, the
// queues keep the label that the policy gives them.
func (c *compiler) labelQueue(m *mount) {
	label := c.linux.MountLabel
	if label == "" || m.Type != "mqueue" {
		return
	}
	dir := c.slot("top of " + m.Destination)
	set := c.setLabel(dir, label).mayFailWith(uintptr(unix.ENOTSUP))
	if c.mapped() {
		set = set.mayFailWith(uintptr(unix.EPERM))
	}
	c.child("label "+m.Destination+" "+label, "linux.mountLabel",
		c.call("openat", unix.SYS_OPENAT, from(m.detached), str("."), named(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_RDONLY|O_DIRECTORY|O_CLOEXEC"), num(0)).to(dir), set)
}

// setLabel is the call that gives what is open a label.
func (c *compiler) setLabel(of Slot, label string) Call {
	return c.call("fsetxattr", unix.SYS_FSETXATTR, from(of), str(selinux.Attribute), str(label), num(uint64(len(label))), num(0))
}

// mountAttributes are the calls that give a detached bind its options.
func (c *compiler) mountAttributes(mount Slot, a chroot.Parsed) []Call {
	calls := c.propagation(mount, a)
	if a.RecSet|a.RecClear != 0 {
		calls = append(calls, c.setattr(mount, unix.AT_RECURSIVE, a.RecSet, a.RecClear, 0))
	}
	if a.Set|a.Clear != 0 {
		calls = append(calls, c.setattr(mount, 0, a.Set, a.Clear, 0))
	}
	return calls
}

func (c *compiler) propagation(mount Slot, a chroot.Parsed) []Call {
	var calls []Call
	for _, p := range a.Propagation {
		flags := uint64(0)
		if p&unix.MS_REC != 0 {
			flags = unix.AT_RECURSIVE
		}
		calls = append(calls, c.setattr(mount, flags, 0, 0, p&^unix.MS_REC))
	}
	return calls
}

// strictly are the types whose place may not be a link: what the container
// takes for the kernel's has to be where the kernel's should be.
var strictly = []string{"proc", "sysfs", "cgroup", "devpts", "mqueue"}

// attach mounts everything else inside the root.
func (c *compiler) attach() {
	var empty []*mount // the last ones, where they are tmpfs in which is only what was attached since
	var sysfs Slot     // one of its own, where it is attached by now
	for _, m := range c.attachOrder() {
		if c.calls > maxCalls {
			return // it is going to be refused
		}
		target := c.slot("target " + m.Destination)
		strict := slices.Contains(strictly, m.Type) || m.at == "/dev" || inProc(m.at)
		calls := make([]Call, 0, someCalls)
		keeps := m.Type == "tmpfs" && !m.copyUp && !slices.ContainsFunc(m.Data, func(o string) bool { return strings.HasPrefix(o, "mode=") })
		var in *mount // the one of them that m goes into
		at := func(place string) int { return slices.IndexFunc(empty, func(e *mount) bool { return e.at == place }) }
		if dir := at(path.Dir(m.at)); dir >= 0 && at(m.at) < 0 {
			in = empty[dir]
		} else {
			empty = nil
		}
		switch isFile := c.isFile(m); {
		case sysfs != 0 && m.at == cgroup.UsualMount:
			c.hollow = target
			calls = append(calls, c.openTarget(from(sysfs), strings.TrimPrefix(m.at, "/sys/"), true).to(target))
		case in != nil && !isFile && !keeps:
			calls = c.placeIn(calls, in.detached, target, path.Base(m.at), strict)
		case keeps:
			calls = c.keepMode(m, c.place(calls, target, m.at, strict, isFile), target)
		default:
			calls = c.place(calls, target, m.at, strict, isFile)
		}
		if m.Type == "tmpfs" && !m.copyUp {
			empty = append(empty, m)
		}
		if m.at == "/sys" {
			if sysfs = 0; m.Type == "sysfs" && !c.mayBindSysfs() {
				sysfs = m.detached
			}
		}
		c.child("attach "+m.Destination, m.field, append(calls, c.moveOn(m.detached, target))...)
		if m.Type == "cgroup" {
			c.attachGroups(m)
		}
	}
}

// placeIn is place for a directory that is mostly to be made, in one that is
// open.
func (c *compiler) placeIn(calls []Call, dir, target Slot, name string, strict bool) []Call {
	return append(calls, c.mkdirIn(from(dir), name, 0o755).mayFailWith(uintptr(unix.EEXIST)), c.openTarget(from(dir), name, strict).to(target))
}

// attachOrder is that of the spec, in which they are also made, but for procfs,
// which comes last: what would be mounted on a link to its files finds nothing
// there yet. Below /proc no path is a link: see openTarget.
func (c *compiler) attachOrder() []*mount {
	order := make([]*mount, len(c.mounts))
	for i := range c.mounts {
		order[i] = &c.mounts[i]
	}
	slices.SortStableFunc(order, func(a, b *mount) int { return boolInt(inProc(a.at)) - boolInt(inProc(b.at)) })
	return order
}

// keepMode gives a tmpfs the mode of the directory that it covers. Of place's
// calls the first opens the target, and the others make it where there is none.
func (c *compiler) keepMode(m *mount, place []Call, target Slot) []Call {
	dir := c.slot("top of " + m.Destination)
	stat := make([]byte, 256) // struct statx
	return append([]Call{place[0].skipOnError(3),
		c.call("statx", unix.SYS_STATX, from(target), str(""), named(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"), named(unix.STATX_MODE, "STATX_MODE"), buf(stat, "{mode}")),
		c.call("openat", unix.SYS_OPENAT, from(m.detached), str("."), named(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_RDONLY|O_DIRECTORY|O_CLOEXEC"), num(0)).to(dir),
		c.call("fchmod", unix.SYS_FCHMOD, from(dir), Arg{Kind: FromBuf, Bytes: stat, Value: statxMode, Text: "{mode}"}).thenSkip(len(place) - 1),
	}, place[1:]...)
}

// statxMode is where struct statx has its mode, before 16 spare bits.
const statxMode = 28

// isFile reports whether m is a bind of a file. What is not there yet is one
// that the engine is going to write.
func (c *compiler) isFile(m *mount) bool {
	if !m.bind || c.f.Kind == nil {
		return false
	}
	kind := c.f.Kind(m.Source)
	return kind == "file" || kind == "" && slices.Contains(m.Options, "bind")
}

// place adds the calls that open a mount point, or make it and what is above it
// where it is missing: each directory in the one above, opened before, so that
// no link that the image has or that another container swaps in leads elsewhere
// (CVE-2024-45310). A file may be mounted on a link that leads nowhere, such as
// the /etc/resolv.conf of many images.
func (c *compiler) place(calls []Call, target Slot, at string, strict, file bool) []Call {
	above := cwd()
	names := strings.Split(strings.Trim(path.Clean(at), "/"), "/")
	calls = append(calls, c.openTarget(above, at, strict).to(target).thenSkip(2*len(names)))
	for i, name := range names {
		if i == len(names)-1 && file {
			calls = append(calls, c.touch(above, name).mayFailWith(uintptr(unix.EEXIST)),
				c.openIn(above, name, unix.O_PATH|unix.O_NOFOLLOW, 0).to(target))
			break
		}
		calls = append(calls, c.mkdirIn(above, name, 0o755).mayFailWith(uintptr(unix.EEXIST)), c.openTarget(above, name, strict).to(target))
		above = from(target)
	}
	return calls
}
