package lifecycle

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/cgroup/systemd"
)

// A scope is a unit under way: what systemd is asked for once there is a
// process to put in it.
type scope struct {
	unit       systemd.Unit
	properties []systemd.Property
	manager    *systemd.Manager
	attach     func(pid int) error // into what systemd does not know
}

// scoped are the steps of the container's cgroup where systemd makes it.
func (m *making) scoped(l cgroup.Layout, limits cgroup.Limits, o cgroup.Options) ([]cgroup.Step, error) {
	user := ordinary()
	if user && l.Kind() != "v2" {
		return nil, &fault.Error{Op: "use systemd's cgroups", Kind: fault.Unsupported, Err: errors.New("a user's own instance has none of version 1"), Hint: "leave out --systemd-cgroup"}
	}
	unit, err := systemd.ParseUnit(m.spec.Linux.CgroupsPath, m.c.doc.ID, user)
	if err != nil {
		return nil, err
	}
	more, err := systemd.Annotations(m.spec.Annotations)
	if err != nil {
		return nil, err
	}
	manager, err := systemd.Connect(user)
	if err != nil {
		return nil, err
	}
	m.scope = &scope{unit: unit, manager: manager}
	group, err := groupOf(unit, manager)
	if err != nil {
		return nil, err
	}
	if err := unused(l, group); err != nil {
		return nil, err
	}
	o.Unit = true
	steps, err := cgroup.Compile(l, group, limits, o)
	if err != nil {
		return nil, err
	}
	known, steps, err := systemd.Properties(steps, true, manager.Version)
	if err != nil {
		return nil, err
	}
	m.scope.properties = slices.Concat(systemd.Scope(unit, m.c.doc.ID, l.Kind() == "v2"), more, known)
	m.scope.attach = func(pid int) error { return attachUnknown(l, group, steps, pid) }
	m.c.doc.Cgroup, m.c.doc.Hierarchies, m.c.doc.Unit = group, l, &unit
	return steps, nil
}

// ordinary reports whether this is not the host's root: such a user makes no
// device nodes, and has an instance of systemd of his own.
func ordinary() bool { return os.Geteuid() != 0 || host.InUserns() }

// groupOf is the cgroup that the unit gets.
func groupOf(u systemd.Unit, m *systemd.Manager) (string, error) {
	root := "/"
	if u.User {
		var err error
		if root, err = m.Root(); err != nil {
			return "", err
		}
	}
	return u.Group(root)
}

// attachUnknown moves the process into the unified hierarchy's group where
// systemd does not care for that hierarchy, as on some hybrid hosts.
func attachUnknown(l cgroup.Layout, group string, steps []cgroup.Step, pid int) error {
	if l.Kind() != "hybrid" {
		return nil
	}
	if at, err := cgroup.Of(l, pid); err != nil || at == group {
		return err
	}
	dir := cgroup.UnifiedDir(steps)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return cgroup.Do(slices.DeleteFunc(cgroup.AttachSteps(steps, pid), func(s cgroup.Step) bool { return !s.V2 }))
}

// start makes the unit with the process in it.
func (s *scope) start(pid int) (undo func(), err error) {
	if err := s.manager.Start(s.unit.Name, s.properties, pid); err != nil {
		return nil, err
	}
	undo = func() { _ = s.manager.Stop(s.unit.Name) }
	if err := s.attach(pid); err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

// name is the unit's, and "" where systemd makes none.
func (s *scope) name() string {
	if s == nil {
		return ""
	}
	return s.unit.Name
}

// close ends the connection.
func (s *scope) close() {
	if s != nil {
		s.manager.Close()
	}
}

// manager connects with the systemd that made the container's unit. It is nil
// where none did.
func (c *Container) manager() (*systemd.Manager, error) {
	if c.doc.Unit == nil {
		return nil, nil
	}
	return systemd.Connect(c.doc.Unit.User)
}

// stopUnit stops the container's unit, if it has one.
func (c *Container) stopUnit() error {
	m, err := c.manager()
	if m == nil {
		return err
	}
	defer m.Close()
	return m.Stop(c.doc.Unit.Name)
}

// update changes limits, and tells systemd of those that it knows. Under
// version 1 systemd writes the device rules again meanwhile, by which nobody
// should be hit.
func (c *Container) update(g *cgroup.Group, limits cgroup.Limits) error {
	m, err := c.manager()
	if err != nil {
		return err
	}
	if m == nil {
		return g.Update(limits)
	}
	defer m.Close()
	return g.UpdateBy(limits, func(steps []cgroup.Step) ([]cgroup.Step, error) {
		known, steps, err := systemd.Properties(steps, false, m.Version)
		if err != nil {
			return nil, err
		}
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		if v1 := slices.ContainsFunc(steps, func(s cgroup.Step) bool { return !s.V2 }); v1 && !g.Frozen() {
			if err := g.Freeze(ctx); err != nil {
				return nil, err
			}
			defer g.Thaw(ctx)
		}
		return steps, m.Set(c.doc.Unit.Name, known)
	})
}

// mover moves a process into the container's unit where its user may not do so
// himself: who is in a session is not in his instance's part of the tree.
func (c *Container) mover(unified string) (name string, move func(pid int) (func(), error)) {
	u := c.doc.Unit
	if u == nil || !u.User || unified == "" {
		return "", nil
	}
	l := c.doc.Hierarchies
	own, err := cgroup.Of(l, 0)
	if err != nil || canMove(l, own, c.doc.Cgroup) {
		return "", nil
	}
	return u.Name, func(pid int) (func(), error) {
		m, err := c.manager()
		if err != nil {
			return nil, err
		}
		defer m.Close()
		return func() {}, m.Attach(u.Name, path.Join("/", strings.TrimPrefix(unified, l.Unified.Dir(c.doc.Cgroup))), pid)
	}
}

// canMove reports whether this user may move processes from one group to the
// other: cgroups(7) wants the nearest group above both to be his.
func canMove(l cgroup.Layout, from, to string) bool {
	for at := to; ; at = path.Dir(at) {
		if at == "/" || from == at || len(from) > len(at) && from[:len(at)+1] == at+"/" {
			return sys.Access(l.Unified.Dir(at)+"/cgroup.procs", 2) == nil
		}
	}
}

// ownerOf is the host's user who gets the container's cgroup: who its process
// is, where the container has a cgroup namespace of its own and may write the
// file system of cgroups. Source: runtime-spec, "Cgroup ownership".
func ownerOf(s *specs.Spec) int {
	private := slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace && n.Path == "" })
	writable := slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" && !slices.Contains(m.Options, "ro") })
	if !private || !writable || os.Geteuid() != 0 {
		return 0
	}
	uid := s.Process.User.UID
	for _, m := range s.Linux.UIDMappings {
		if uid >= m.ContainerID && uid-m.ContainerID < m.Size {
			return int(m.HostID + uid - m.ContainerID)
		}
	}
	if len(s.Linux.UIDMappings) > 0 {
		return 0
	}
	return int(uid)
}
