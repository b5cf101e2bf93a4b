package plan

import (
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/fault"
)

// CompileHook makes the plan of a hook's program in the namespaces that the
// parent is in, or where there is a target in those of a container: there it
// joins by the pidfd in the slot Container, as the root of them all. Dir is its
// working directory; an empty one is the parent's, and the container's root.
func CompileHook(h specs.Hook, dir string, t *Target) (*Plan, error) {
	if h.Path == "" {
		return nil, &fault.Error{Op: "run hook", Kind: fault.Invalid, Err: errors.New("it has no path")}
	}
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	c := &compiler{spec: &specs.Spec{Process: &specs.Process{Args: args, Env: h.Env}}, linux: &specs.Linux{}, p: &Plan{Slots: []string{""}}, fresh: map[string]bool{}}
	c.act("fork", "", Act{Kind: ActFork})
	if t != nil {
		c.joinAll(*t)
	}
	c.child("begin a session", "", c.call("setsid", unix.SYS_SETSID))
	if dir != "" {
		c.child("go to "+dir, "", c.call("chdir", unix.SYS_CHDIR, str(dir)))
	}
	c.keepDescriptors()
	c.env = h.Env
	c.child("become "+h.Path, "hooks", append(c.attempt(nil, h.Path), Call{OnErr: FailNoted})...)
	return c.p, nil
}

func (c *compiler) joinAll(t Target) {
	c.enterCgroups(t.Tasks)
	c.p.Cgroup, c.alone = t.Cgroup, t.Alone
	c.join(t.Namespaces)
}
