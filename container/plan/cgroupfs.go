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

func (c *compiler) cgroups() error {
	for _, g := range c.f.Groups {
		c.step(Parent, g.String(), g.For).Act = &Act{Kind: ActCgroup, Cgroup: g}
	}
	c.p.Cgroup = cgroup.UnifiedDir(c.f.Groups)
	return nil
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
