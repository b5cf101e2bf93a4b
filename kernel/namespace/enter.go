package namespace

import (
	"slices"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// EnterOptions say how Enter enters. The zero value becomes root in a user
// namespace and runs $SHELL.
type EnterOptions struct {
	// KeepIDs stays with the ids that this process has, in a user namespace
	// too.
	KeepIDs bool

	// Args is the command; its path is looked up inside.
	Args []string
}

// Enter runs a command in the namespaces targets, all of one process or one
// name: see Targets. It returns as Run does. A user namespace of our own is
// passed over, since nobody may join where he is.
func Enter(targets []Target, o EnterOptions) (code int, err error) {
	targets = slices.DeleteFunc(slices.Clone(targets), isOurUser)
	fds, err := openTargets(targets)
	defer closeAll(fds)
	if err != nil {
		return 0, err
	}
	var s script
	s.unshareFS()
	if foreignOwner(targets, fds) {
		// User comes last where it does not own the others: in it the
		// rights to join them are gone.
		targets, fds = userLast(targets, fds)
	}
	s.join(targets, fds)
	if !o.KeepIDs && slices.ContainsFunc(targets, func(t Target) bool { return t.Kind.Name == "user" }) {
		s.becomeRootInside()
	}
	s.forkFor(nil, targets)
	s.exec(o.Args)
	if slices.ContainsFunc(targets, func(t Target) bool { return t.Kind.Parent }) {
		return s.fork(func(int) error { return &fault.Error{Op: "enter namespaces", Kind: fault.Conflict} })
	}
	return 0, s.here()
}

func isOurUser(t Target) bool {
	if t.Kind.Name != "user" {
		return false
	}
	_, there, err1 := sys.InodeOf(t.Path)
	_, here, err2 := sys.InodeOf("/proc/self/ns/user")
	return err1 == nil && err2 == nil && here == there
}

// foreignOwner reports whether a user namespace is among fds, and another of
// them belongs to a different one.
func foreignOwner(targets []Target, fds []int) bool {
	user := slices.IndexFunc(targets, func(t Target) bool { return t.Kind.Name == "user" })
	if user < 0 {
		return false
	}
	_, own, err := sys.Inode(fds[user])
	for i, fd := range fds {
		if i == user || err != nil {
			continue
		}
		owner, e := sys.NamespaceOwner(fd)
		if e != nil {
			return true
		}
		_, inode, _ := sys.Inode(owner)
		closeAll([]int{owner})
		if inode != own {
			return true
		}
	}
	return false
}

func userLast(targets []Target, fds []int) ([]Target, []int) {
	i := slices.IndexFunc(targets, func(t Target) bool { return t.Kind.Name == "user" })
	t, fd := targets[i], fds[i]
	targets, fds = slices.Delete(slices.Clone(targets), i, i+1), slices.Delete(slices.Clone(fds), i, i+1)
	return append(targets, t), append(fds, fd)
}

// becomeRootInside takes the ids 0, as nsenter(1) does; where 0 is not mapped
// or setgroups(2) is off the ids stay.
func (s *script) becomeRootInside() {
	s.add("leave all groups", unix.SYS_SETGROUPS, sys.Number(0), sys.Number(0)).OnErr = sys.Ignore
	s.add("become group 0", unix.SYS_SETRESGID, sys.Number(0), sys.Number(0), sys.Number(0)).OnErr = sys.Ignore
	s.add("become user 0", unix.SYS_SETRESUID, sys.Number(0), sys.Number(0), sys.Number(0)).OnErr = sys.Ignore
}
