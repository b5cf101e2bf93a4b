package plan

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/kernel/cgroup"
	"kiste/kernel/chroot"
)

// cgroups makes the groups before the fork, so that the child is born there.
func (c *compiler) cgroups() error {
	for i := range c.f.Groups {
		if g := &c.f.Groups[i]; !c.inScope(g) {
			c.act(g.String(), g.For, Act{Kind: ActCgroup, Cgroup: g})
		}
	}
	for i := range c.f.Class {
		s := &c.f.Class[i]
		c.act(s.String(), s.For, Act{Kind: ActClass, Class: s})
	}
	if c.f.Scope == "" {
		c.p.Cgroup = cgroup.UnifiedDir(c.f.Groups)
	}
	return nil
}

// inScope reports whether systemd makes the group: in the unified hierarchy,
// and its own.
func (c *compiler) inScope(g *cgroup.Step) bool { return c.f.Scope != "" && g.V2 }

// scope lets systemd make its part of the groups around the child.
func (c *compiler) scope() error {
	if c.f.Scope == "" {
		return nil
	}
	c.act("let systemd make "+c.f.Scope+" with the child in it", "linux.cgroupsPath", Act{Kind: ActScope})
	for i := range c.f.Groups {
		if g := &c.f.Groups[i]; c.inScope(g) {
			c.act(g.String(), g.For, Act{Kind: ActCgroup, Cgroup: g})
		}
	}
	return nil
}

// A cgroupMount is a mount of type "cgroup" that is no single file system.
type cgroupMount struct {
	whole bool   // a bind of what the host has there
	binds []Slot // of version 1: the container's group in each hierarchy; empty: they are mounted anew
	shelf bool   // of version 1: the directory that they lie in is the host's
}

// own reports whether the container sees its own group as the root of all.
func (c *compiler) ownGroups() bool { return c.hasNamespace(specs.CgroupNamespace) }

// collectGroups lets the parent take the groups where they cannot be mounted
// anew: without a cgroup namespace of the container's that would show all.
func (c *compiler) collectGroups(m *mount) {
	switch {
	case c.ownGroups():
	case c.f.Cgroup.Kind() == "v2":
		if c.mapped() || c.f.Inner {
			m.group.whole = true
			m.detached = c.bring("mount "+m.Destination, "take "+c.f.Cgroup.Unified.Mount+" for "+m.Destination+optionText(m.Options), m.field,
				Act{Kind: ActBind, Mount: chroot.Mount{Type: "bind", Source: c.f.Cgroup.Unified.Mount, Target: m.Destination, Options: c.groupOptions(m, "rbind")}})
		}
	default:
		for _, h := range c.hierarchies() {
			m.group.binds = append(m.group.binds, c.bring("group "+h.name, "take "+h.dir+" for "+m.Destination+"/"+h.name, m.field,
				Act{Kind: ActBind, Mount: chroot.Mount{Type: "bind", Source: h.dir, Target: m.Destination + "/" + h.name, Options: c.groupOptions(m, "bind")}}))
		}
	}
}

// groupOptions are those of a bind in place of a cgroup mount.
func (c *compiler) groupOptions(m *mount, first string) []string {
	options := []string{first}
	for _, o := range m.Options {
		if a, _ := chroot.ParseOptions([]string{o}); len(a.Data) == 0 {
			options = append(options, o)
		}
	}
	return options
}

// A hierarchy is one in which the container has a group.
type hierarchy struct {
	cgroup.Hierarchy
	name string // below /sys/fs/cgroup
	dir  string // the group on the host
}

func (c *compiler) hierarchies() []hierarchy {
	dirs, all := cgroup.Dirs(c.f.Groups), c.f.Cgroup.All()
	list := make([]hierarchy, 0, len(all))
	for _, h := range all {
		if i := slices.IndexFunc(dirs, func(d string) bool { return strings.HasPrefix(d, h.Mount+"/") }); i >= 0 {
			list = append(list, hierarchy{h, path.Base(h.Mount), dirs[i]})
		}
	}
	return list
}

// onShelf reports whether the directory of version 1's mounts can be the host's,
// which has a place for each: where nobody puts anything else there, and the child may take it
// without what is mounted on it. A tmpfs of the container's own costs more
// calls, and the kernel one more file system to look through whenever a group with
// memory of its own ends (docs/design/0004-what-a-start-costs.md).
func (c *compiler) onShelf(m *mount) bool {
	readOnly := (m.Set|m.RecSet)&unix.MOUNT_ATTR_RDONLY != 0
	return c.f.Cgroup.Shelf != "" && readOnly && c.takenByChild(m) && !isPeer(m) && c.linux.MountLabel == "" && !c.hasBelow(m.at)
}

// hasBelow reports whether something else of the document's has its place below dir.
func (c *compiler) hasBelow(dir string) bool {
	below := func(at string) bool { return strings.HasPrefix(at, dir+"/") }
	return slices.ContainsFunc(c.mounts, func(m mount) bool { return below(m.at) }) ||
		slices.ContainsFunc(c.linux.Devices, func(d specs.LinuxDevice) bool { return below(path.Clean(d.Path)) })
}

// groups makes the mount of version 2, or the directory for those of version 1.
func (c *compiler) groups(m *mount) {
	if c.f.Cgroup.Kind() == "v2" && !c.ownGroups() && c.mapped() {
		// It is the host's, and never writable (CVE-2023-25809).
		at := c.f.Cgroup.Unified.Mount
		m.detached, m.group.whole = c.slot("mount "+m.Destination), true
		a := m.Parsed
		a.RecSet |= unix.MOUNT_ATTR_RDONLY
		c.child("take "+at+" for "+m.Destination, m.field, append([]Call{c.openTree(at, true).to(m.detached)}, c.mountAttributes(m.detached, a)...)...)
		return
	}
	if c.f.Cgroup.Kind() == "v2" {
		c.fileSystem(m, "cgroup2")
		return
	}
	if c.onShelf(m) {
		m.detached, m.group.shelf = c.slot("mount "+m.Destination), true
		c.take(m, c.f.Cgroup.Shelf, c.openTree(c.f.Cgroup.Shelf, false).to(m.detached))
		return
	}
	top := mount{Mount: m.Mount, field: m.field, Parsed: chroot.Parsed{Data: []string{"mode=755", "size=64k"}, Set: m.Set &^ unix.MOUNT_ATTR_RDONLY, Propagation: m.Propagation}}
	c.fileSystem(&top, "tmpfs")
	m.detached = top.detached
}

// attachGroups mounts the hierarchies of version 1 in which the container has
// a group of its own.
func (c *compiler) attachGroups(m *mount) {
	if c.f.Cgroup.Kind() == "v2" {
		return
	}
	for i, h := range c.hierarchies() {
		at, top := m.at+"/"+h.name, from(m.detached) // which is attached: see cgroup.Hold
		calls := make([]Call, 0, someCalls)
		if !m.group.shelf {
			calls = c.shelve(calls, top, h.name)
		}
		if len(m.group.binds) > 0 {
			c.child("attach "+at, m.field, append(calls, c.moveTo(m.group.binds[i], top, h.name))...)
			continue
		}
		fstype, data := "cgroup", h.Controllers
		if h.V2 {
			fstype, data = "cgroup2", nil
		}
		fs := c.make(fstype, "cgroup", at, m.field, chroot.Parsed{Data: data, Set: m.Set | m.RecSet&unix.MOUNT_ATTR_RDONLY}, m.Options)
		c.child("attach "+at, m.field, append(calls, c.moveTo(fs, top, h.name))...)
	}
}

// shelve adds the calls that make the place of a hierarchy in top, and a link for each of several
// controllers.
func (c *compiler) shelve(calls []Call, top Arg, name string) []Call {
	calls = append(calls, c.mkdirIn(top, name, 0o755))
	for word := range strings.SplitSeq(name, ",") {
		if word != name {
			calls = append(calls, c.symlinkIn(name, top, word))
		}
	}
	return calls
}
