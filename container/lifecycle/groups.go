package lifecycle

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"reflect"
	"strconv"
	"strings"
	"time"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"

	"golang.org/x/sys/unix"
)

// groups are the steps that make the container's cgroup. From here on the
// document names it, so what others use must not get so far.
func (m *making) groups(l cgroup.Layout) (cgroup.Layout, []cgroup.Step, error) {
	if m.o.NoCgroup {
		return l, nil, nil
	}
	limits, err := cgroup.FromSpec(m.spec.Linux.Resources)
	if err != nil {
		return l, nil, err
	}
	limits.Devices = append(limits.Devices, cgroup.DefaultDevices()...)
	o := cgroup.Options{Account: true, Owner: ownerOf(m.spec), Rootless: ordinary()}
	if m.o.Systemd {
		steps, err := m.scoped(l, limits, o)
		return l, steps, err
	}
	l, group, err := cgroup.For(l, m.spec.Linux.CgroupsPath, m.c.doc.ID)
	if err != nil {
		return l, nil, err
	}
	in := l
	if m.o.Tolerant && m.spec.Linux.CgroupsPath == "" {
		if in = permitted(l, group); in.Kind() == "none" && l.Kind() != "none" {
			return l, nil, m.unlimited()
		}
	}
	o.Adopt, o.Join = true, []string{"name=systemd"}
	steps, err := cgroup.Compile(in, group, limits, o)
	if err != nil {
		return l, nil, err
	}
	if err := unused(l, group); err != nil {
		return l, nil, err
	}
	m.c.doc.Cgroup, m.c.doc.Hierarchies = group, in
	return l, steps, nil
}

// permitted are the hierarchies of l in which this process may make the group.
func permitted(l cgroup.Layout, group string) cgroup.Layout {
	may := func(h cgroup.Hierarchy) bool { return sys.Access(path.Dir(h.Dir(group)), unix.W_OK) == nil }
	var in cgroup.Layout
	if l.Unified.Mount != "" && may(l.Unified) {
		in.Unified = l.Unified
	}
	for _, h := range l.V1 {
		if may(h) {
			in.V1 = append(in.V1, h)
		}
	}
	return in
}

// unlimited refuses a spec with limits, where there can be no cgroup.
func (m *making) unlimited() error {
	r := m.spec.Linux.Resources
	if r == nil {
		return nil
	}
	limits := *r
	limits.Devices = nil
	l, err := cgroup.FromSpec(&limits)
	if err == nil && !reflect.ValueOf(l).IsZero() {
		err = &fault.Error{Op: "limit container", On: "linux.resources", Kind: fault.Denied, Err: errors.New("no permission to make a cgroup"),
			Hint: "leave the limits out, or start it in a cgroup of your own: systemd-run --user --scope -p Delegate=yes …"}
	}
	return err
}

// unused refuses a cgroup that others use. Where it is not in the base
// hierarchy it is hardly elsewhere, and the steps that make it find that.
func unused(l cgroup.Layout, group string) error {
	if base, ok := l.Base(); ok {
		if there, _ := sys.Look(base.Dir(group)); !there {
			return nil
		}
	}
	g, err := cgroup.Open(l, group)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	pids, err := g.Procs()
	switch {
	case err != nil:
		return err
	case len(pids) > 0:
		return &fault.Error{Op: "use cgroup", On: group, Kind: fault.Conflict, Err: errors.New("container's cgroup is not empty: " + strconv.Itoa(len(pids)) + " process(es) found")}
	case g.Frozen():
		return &fault.Error{Op: "use cgroup", On: group, Kind: fault.Conflict, Err: errors.New("container's cgroup unexpectedly frozen")}
	}
	return nil
}

// execGroups are where one more process enters the container's cgroup: the
// directory of version 2, and the files of version 1.
func (c *Container) execGroups(sub map[string]string) (unified string, tasks []string, err error) {
	if c.doc.Cgroup == "" {
		return "", nil, nil
	}
	l := c.doc.Hierarchies
	for _, h := range l.All() {
		wish := subOf(sub, h)
		group, err := below(c.doc.Cgroup, wish)
		if err != nil {
			return "", nil, err
		}
		dir := h.Dir(group)
		if _, _, err := sys.InodeOf(dir); errors.Is(err, fs.ErrNotExist) && wish == "" {
			continue // the container has none there
		} else if err != nil {
			return "", nil, &fault.Error{Op: "use cgroup", On: group, Err: err}
		}
		if h.V2 {
			unified = c.leaf(l, h, dir, sub)
		} else {
			tasks = append(tasks, path.Join(dir, "tasks"))
		}
	}
	return unified, tasks, nil
}

// leaf is where a process enters the group dir of version 2. Whoever has asked
// for a path gets that.
func (c *Container) leaf(l cgroup.Layout, h cgroup.Hierarchy, dir string, sub map[string]string) string {
	if _, asked := sub[""]; asked {
		return dir
	}
	return cgroup.Entrance(l, h, c.doc.Cgroup, c.doc.PID)
}

// subOf is the path that is wished for in h.
func subOf(sub map[string]string, h cgroup.Hierarchy) string {
	for _, controller := range h.Controllers {
		if p, ok := sub[controller]; ok && !h.V2 {
			return p
		}
	}
	return sub[""]
}

// below refuses a path that leads out of the group.
func below(group, sub string) (string, error) {
	at := path.Join(group, sub)
	if at != group && !strings.HasPrefix(at, group+"/") {
		return "", &fault.Error{Op: "use cgroup", On: sub, Kind: fault.Invalid, Err: errors.New("bad sub cgroup path: it leads out of the container's")}
	}
	return at, nil
}

// group is the container's cgroup. It is fault.NotFound where there is none.
func (c *Container) group() (*cgroup.Group, error) {
	if c.doc.Cgroup == "" {
		return nil, &fault.Error{Op: "find cgroup of container", On: c.doc.ID, Kind: fault.NotFound}
	}
	return cgroup.Open(c.doc.Hierarchies, c.doc.Cgroup)
}

// patience is how long the end of processes that are killed is waited for:
// one in a call that cannot be interrupted may take its time.
const patience = 10 * time.Second

// removeGroup ends whatever is in the cgroup and removes it.
func (c *Container) removeGroup() error {
	if c.doc.Cgroup != "" && cgroup.Discard(c.doc.Hierarchies, c.doc.Cgroup) {
		return c.stopUnit()
	}
	g, err := c.group()
	if errors.Is(err, fault.NotFound) {
		return c.stopUnit()
	}
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	return errors.Join(g.End(ctx), c.stopUnit())
}
