package plan

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Ready is the message of a child that waits for hooks.
const Ready = "ready"

// hooked reports whether there are hooks between the mounts and the pivot.
func (c *compiler) hooked() bool {
	h := c.spec.Hooks
	return h != nil && len(prestart(h))+len(h.CreateRuntime)+len(h.CreateContainer) > 0
}

func prestart(h *specs.Hooks) []specs.Hook {
	//lint:ignore SA1019 Docker has its networks made by these
	return h.Prestart
}

// hooks lets the parent run those that come before the pivot: they find the
// host's files, and the container's below the root's path.
func (c *compiler) hooks() {
	if !c.hooked() {
		return
	}
	h := c.spec.Hooks
	c.child("go back to the host's root, and let the hooks run", "hooks",
		append(append([]Call{c.call("fchdir", unix.SYS_FCHDIR, from(c.above)), c.chrootHere(), c.call("fchdir", unix.SYS_FCHDIR, from(c.root))}, c.dumpable(1)...), c.write(Sock, Ready))...)
	c.phase++
	for _, k := range []struct {
		kind  string
		hooks []specs.Hook
	}{
		{"prestart", prestart(h)}, {"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer},
	} {
		if len(k.hooks) > 0 {
			c.act("run the "+k.kind+" hooks", "hooks."+k.kind, Act{Kind: ActHooks, Value: k.kind})
		}
	}
	c.release()
	c.child("wait for the hooks", "hooks", append([]Call{c.hearByte()}, c.dumpable(0)...)...)
	c.pivot()
}

// dumpable lets an ordinary user's hooks find the process, which has no powers
// over one that nobody may look into. There is nobody else in its namespaces
// yet, unless it has joined them.
func (c *compiler) dumpable(yes uint64) []Call {
	if c.f.Host || len(c.joins) > 0 {
		return nil
	}
	return []Call{c.prctl("PR_SET_DUMPABLE", unix.PR_SET_DUMPABLE, num(yes))}
}
