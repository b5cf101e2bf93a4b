package lifecycle

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"kiste/fault"
	"kiste/kernel/cgroup"
)

// groups are the steps that make the container's cgroup.
func (m *making) groups(l cgroup.Layout) ([]cgroup.Step, error) {
	limits, err := cgroup.FromSpec(m.spec.Linux.Resources)
	if err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		limits.Devices = append(limits.Devices, cgroup.DefaultDevices()...)
	}
	group, err := groupPath(l, m.spec.Linux.CgroupsPath, m.c.doc.ID)
	if err != nil {
		return nil, err
	}
	exists, err := usable(l, group)
	if err != nil {
		return nil, err
	}
	m.c.doc.Cgroup = group
	return cgroup.Compile(l, group, limits, cgroup.Options{Exist: exists, Account: true})
}

// groupPath is where runc puts the cgroup: a path that begins with a slash is
// below the roots of the hierarchies; another one is below this process's
// cgroup, and on version 2 beside it, where a cgroup with processes can have
// none below; no path at all is one of the container's id below the roots.
func groupPath(l cgroup.Layout, wish, id string) (string, error) {
	switch {
	case wish == "":
		return "/" + id, nil
	case path.IsAbs(wish):
		return path.Clean(wish), nil
	}
	own, err := cgroup.Of(l, 0)
	if err != nil {
		return "", err
	}
	if l.Kind() == "v2" {
		own = path.Dir(own)
	}
	return path.Join(own, path.Join("/", wish)), nil
}

// usable refuses a cgroup that others use, and reports whether it is there.
func usable(l cgroup.Layout, group string) (exists bool, err error) {
	g, err := cgroup.Open(l, group)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	pids, err := g.Procs()
	switch {
	case err != nil:
		return false, err
	case len(pids) > 0:
		return false, &fault.Error{Op: "use cgroup", On: group, Kind: fault.Conflict, Err: errors.New("container's cgroup is not empty")}
	case g.Frozen():
		return false, &fault.Error{Op: "use cgroup", On: group, Kind: fault.Conflict, Err: errors.New("container's cgroup unexpectedly frozen")}
	}
	return true, nil
}

// execGroups are where one more process enters the container's cgroup: the
// directory of version 2, and the files of version 1.
func (c *Container) execGroups(sub map[string]string) (unified string, tasks []string, err error) {
	if c.doc.Cgroup == "" {
		return "", nil, nil
	}
	l, err := cgroup.Detect()
	if err != nil {
		return "", nil, err
	}
	for _, h := range l.All() {
		wish := subOf(sub, h)
		group, err := below(c.doc.Cgroup, wish)
		if err != nil {
			return "", nil, err
		}
		dir := h.Dir(group)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && wish == "" {
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

// leaf is where a process may enter the group dir of version 2: one that hands
// controllers on has its processes in groups below, and then the container's
// own process is in a good one. Whoever has asked for a path gets that.
func (c *Container) leaf(l cgroup.Layout, h cgroup.Hierarchy, dir string, sub map[string]string) string {
	if _, asked := sub[""]; asked || !cgroup.HandsOn(dir) {
		return dir
	}
	own, err := cgroup.Of(l, c.doc.PID)
	if err != nil || !strings.HasPrefix(own, c.doc.Cgroup+"/") {
		return dir
	}
	return h.Dir(own)
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
	l, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	return cgroup.Open(l, c.doc.Cgroup)
}

// patience is how long the end of processes that are killed is waited for:
// one in a call that cannot be interrupted may take its time.
const patience = 10 * time.Second

// removeGroup ends whatever is in the cgroup and removes it.
func (c *Container) removeGroup() error {
	g, err := c.group()
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	if err := g.Kill(ctx); err != nil {
		return err
	}
	if g.Frozen() {
		if err := g.Thaw(ctx); err != nil {
			return err
		}
	}
	return g.Remove(ctx)
}
