package cgroup

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"kiste/fault"
	"kiste/internal/sys"
)

// Parent is the group below which Kiste puts its own on a host that is ours.
const Parent = "/kiste"

// leaf is the group below a limited one in which version 2 keeps the
// processes, so that further groups fit beside it.
const leaf = "main"

// For is where a runtime makes the group that a spec's cgroupsPath asks for, and
// the layout to use with it: a path with a slash before it begins at the root,
// another one, and name where there is none, at the cgroup that the caller is
// in, so that what limits the caller limits the group. On version 2 that is the
// one above, since a group with processes cannot hand controllers on. As in
// runc.
func For(l Layout, cgroupsPath, name string) (Layout, string, error) {
	group := cgroupsPath
	if group == "" {
		group = name
	}
	clean, err := CheckPath(path.Clean("/" + group))
	if err != nil || strings.HasPrefix(group, "/") {
		return l, clean, err
	}
	ownOf, err := Membership(l)
	if err != nil {
		return l, "", err
	}
	if l.Kind() == "v2" {
		own, ok := ownOf(l.Unified)
		if !ok || strings.HasPrefix(own, "/..") {
			return l, "", &fault.Error{Op: "find cgroup of this process", Kind: fault.Unsupported, Hint: "give an absolute cgroupsPath"}
		}
		return l, path.Join(path.Dir(own), clean), nil
	}
	l.V1 = slices.Clone(l.V1)
	for _, h := range append([]*Hierarchy{&l.Unified}, pointers(l.V1)...) {
		if own, ok := ownOf(*h); ok && !strings.HasPrefix(own, "/..") && h.Mount != "" {
			h.Below = strings.TrimPrefix(h.Dir(own), h.Mount)
		}
	}
	return l, clean, nil
}

// Membership tells in which cgroups of l the caller is.
func Membership(l Layout) (func(Hierarchy) (string, bool), error) {
	if all := l.All(); len(all) > 0 && !slices.ContainsFunc(all, func(h Hierarchy) bool { return h.own == "" }) {
		return func(h Hierarchy) (string, bool) { return h.own, true }, nil
	}
	const self = "/proc/self/cgroup"
	table, err := sys.ReadKnob(self, 1<<20)
	if err != nil {
		return nil, &fault.Error{Op: "read", On: self, Err: err}
	}
	return func(h Hierarchy) (string, bool) { return parseMembership(table, h) }, nil
}

func pointers[T any](list []T) []*T {
	out := make([]*T, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out
}

// Place is the path below which the caller may make groups: Parent for who may
// write the root, else one below the cgroup that was delegated to the caller.
// Who stands in a group of Kiste's already gets that one, so that limits nest.
// Errors are Delegated's.
func Place(l Layout) (string, error) {
	if own, err := Of(l, 0); err == nil && Ours(own) && writable(l, own) {
		return Outer(own), nil
	}
	return Delegated(l)
}

// Ours reports whether the group at path is one that Kiste made.
func Ours(group string) bool { _, ok := familyOf(group); return ok }

// familyOf is the path of the outermost parent of groups of Kiste's above
// group: "/a/kiste" of "/a/kiste/run-1/main".
func familyOf(group string) (string, bool) {
	above, _, ok := strings.Cut(group, Parent+"/")
	return above + Parent, ok
}

// Outer is the group that limits the processes of group: itself, or on version
// 2 the one above the leaf that holds the processes.
func Outer(group string) string {
	if path.Base(group) == leaf {
		return path.Dir(group)
	}
	return group
}

// Leaf is the path at which the processes of group belong: below it on
// version 2, where a group with processes cannot hand controllers on, else
// group itself.
func Leaf(l Layout, group string) string {
	if l.Kind() == "v2" {
		return path.Join(group, leaf)
	}
	return group
}

// Delegated tells whether and where the caller may make groups. Otherwise its
// error says why not: fault.Unsupported without cgroups, else fault.Denied.
// Who is in a group of ours is told where that one's family is. Source: systemd's
// CGROUP_DELEGATION.
func Delegated(l Layout) (string, error) {
	base, ok := l.Base()
	if !ok {
		return "", noCgroups("create cgroup")
	}
	if writable(l, "/") {
		return Parent, nil
	}
	no := func(why, hint string) error {
		return &fault.Error{Op: "create cgroup", Kind: fault.Denied, Err: errText(why), Hint: hint}
	}
	const ask = "run it in a cgroup of your own: systemd-run --user --scope -p Delegate=yes kiste …, or as root"
	if errors.Is(sys.Access(base.Dir("/"), 2), syscall.EROFS) {
		return "", no("cgroups are mounted read-only here, as in a container", "")
	}
	if !base.V2 || len(l.V1) > 0 {
		return "", no("this host mounts cgroup version 1, which belongs to root", "run as root, or boot with systemd.unified_cgroup_hierarchy=1")
	}
	own, err := Of(l, 0)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(own, "/..") {
		return "", no("this process is in a cgroup outside its cgroup namespace", "")
	}
	if !writable(l, own) {
		return "", no("cgroup "+own+" is not delegated to this user", ask)
	}
	if family, ok := familyOf(own); ok {
		return family, nil
	}
	for at := own; at != "/" && writable(l, at); at = path.Dir(at) {
		procs, err := sys.ReadKnob(base.Dir(at)+"/cgroup.procs", 64)
		if err == nil && strings.TrimSpace(procs) == "" {
			return path.Join(at, path.Base(Parent)), nil
		}
	}
	return "", no("cgroup "+own+" is delegated, but holds processes itself", "move them into a group below it first: mkdir "+base.Dir(own)+"/main")
}

// writable reports whether the caller may make groups in the group at path
// and move processes there, in all hierarchies.
func writable(l Layout, group string) bool {
	const w = 2 // W_OK
	hierarchies := l.All()
	if os.Geteuid() == 0 {
		hierarchies = hierarchies[:min(1, len(hierarchies))] // they are all root's, or all read-only
	}
	for _, h := range hierarchies {
		dir := h.Dir(group)
		if there, _ := sys.Look(dir); !there && !h.V2 {
			continue // made when a limit needs it
		}
		if sys.Access(dir, w) != nil || sys.Access(dir+"/cgroup.procs", w) != nil {
			return false
		}
	}
	return true
}

// Sweep removes the empty groups below parent that are named PREFIX-PID or
// PREFIX.N-PID, with one of prefixes and a process that is gone. Errors are none:
// whoever comes next sweeps again.
func Sweep(l Layout, parent string, prefixes ...string) {
	base, ok := l.Base()
	if !ok {
		return
	}
	entries, err := os.ReadDir(base.Dir(parent))
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !abandoned(e.Name(), prefixes) {
			continue
		}
		if g, err := Open(l, path.Join(parent, e.Name())); err == nil {
			g.rmdir()
		}
	}
}

// Tidy removes the group at parent itself where it is empty: the last one
// turns off the light.
func Tidy(l Layout, parent string) {
	for _, h := range l.All() {
		sys.Rmdir(h.Dir(parent)) // ENOTEMPTY, EBUSY: it is in use
	}
}

func abandoned(name string, prefixes []string) bool {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return false
	}
	head, _, _ := strings.Cut(name[:i], ".") // "run.2-1234"
	n, err := parseNumber(name[i+1:])
	return slices.Contains(prefixes, head) && err == nil && n > 0 && !sys.Alive(int(n))
}
