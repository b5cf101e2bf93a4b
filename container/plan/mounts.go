package plan

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/kernel/chroot"
)

// collect lets the parent make the binds, where it has the powers.
func (c *compiler) collect() {
	c.binds = make([]Slot, len(c.spec.Mounts))
	if !c.f.Host {
		return
	}
	for i, m := range c.spec.Mounts {
		b := mountOf(m, c.parsed[i])
		if m.Type == "bind" || m.Type == "overlay" {
			c.binds[i] = c.bring("mount "+m.Destination, "take "+m.Source+" for "+m.Destination+optionText(m.Options), "mounts."+m.Destination,
				Act{Kind: ActBind, Mount: b, IDMap: len(m.UIDMappings) > 0 || c.parsed[i].IDMap != ""})
		}
	}
	for _, d := range c.extraDevices() {
		c.bring("device "+d.Path, "make device "+d.Path, "linux.devices", Act{Kind: ActBind, Mount: deviceMount(d)})
	}
}

// mountOf is a bind or an overlay of the spec as the parent makes it. What a
// spec has no fields for is among the options: "lowerdir+=" for each layer of
// an overlay, and "subpath=" of a bind.
func mountOf(m specs.Mount, a chroot.Parsed) chroot.Mount {
	b := chroot.Mount{Type: m.Type, Source: m.Source, Target: m.Destination, Below: subpath(a)}
	for _, o := range m.Options {
		layer, isLayer := strings.CutPrefix(o, "lowerdir+=")
		switch {
		case isLayer:
			b.Lower = append(b.Lower, layer)
		case !strings.HasPrefix(o, subpathOption):
			b.Options = append(b.Options, o)
		}
	}
	return b
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
			// Read-only when the hierarchies have their places in it.
			c.binds[i] = c.fileSystem(m, "tmpfs", chroot.Parsed{Data: []string{"mode=755", "size=64k"}, Set: a.Set &^ unix.MOUNT_ATTR_RDONLY})
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
