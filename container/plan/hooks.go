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
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0
}

// hooks lets the parent run those that come before the pivot: they find the
// host's files, and the container's below the root's path.
func (c *compiler) hooks() {
	if !c.hooked() {
		return
	}
	h := c.spec.Hooks
	c.child("go back to the host's root, and let the hooks run", "hooks",
		call("fchdir", unix.SYS_FCHDIR, from(c.above)), chrootHere(), call("fchdir", unix.SYS_FCHDIR, from(c.root)), write(Sock, Ready))
	c.phase++
	for _, k := range []struct {
		kind  string
		hooks []specs.Hook
	}{
		{"prestart", h.Prestart}, {"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer},
	} {
		if len(k.hooks) > 0 {
			c.act("run the "+k.kind+" hooks", "hooks."+k.kind, Act{Kind: ActHooks, Value: k.kind})
		}
	}
	c.release()
	c.child("wait for the hooks", "hooks", c.hearByte())
	c.above = 0
	c.pivot()
}
