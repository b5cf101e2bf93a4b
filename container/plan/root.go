package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/kernel/chroot"
)

// rootWithContext is the root with the container's label, where it is a file system of its own.
func (c *compiler) rootWithContext(root []chroot.Mount) []chroot.Mount {
	if len(root) == 0 || root[0].Type != "overlay" {
		return root
	}
	m := root[0]
	m.Options = slices.Concat(m.Options, c.context(m.Type))
	return []chroot.Mount{m}
}

// bringRoot lets the parent make the root, where it has the powers.
func (c *compiler) bringRoot(root []chroot.Mount) {
	if !c.f.Host {
		return
	}
	m := c.plainRoot()
	if len(root) > 0 {
		m = root[0]
	}
	a, _ := chroot.ParseOptions(m.Options)
	mapped := a.IDMap != "" && c.mapped()
	text := rootText(m)
	if mapped {
		text += ", id-mapped"
	}
	c.root = c.bring("root", text, "root", Act{Kind: ActRoot, Mount: m, IDMap: mapped})
}

// plainRoot is the directory that the spec names, with all that is mounted
// below it.
func (c *compiler) plainRoot() chroot.Mount {
	propagation := "rprivate"
	if propagationOf(c.linux.RootfsPropagation)&unix.MS_SLAVE != 0 {
		propagation = "rslave"
	}
	return chroot.Mount{Type: "bind", Source: c.abs(c.spec.Root.Path), Target: "/", Options: []string{"rbind", propagation}}
}

func rootText(m chroot.Mount) string {
	if m.Type == "overlay" {
		return fmt.Sprintf("mount overlay of %d layers as root", len(m.Lower))
	}
	return "mount " + m.Source + " as root"
}

// propagationOf is a word of the spec as unix.MS_ bits; 0: there is no such.
func propagationOf(word string) uint64 {
	a, _ := chroot.ParseOptions([]string{word})
	if len(a.Propagation) == 0 {
		return 0
	}
	return a.Propagation[0]
}

// attachRoot makes the root the root. Where hooks want to find it below a path
// of the host, it is attached there, and entered by chroot(2) until they have
// run.
func (c *compiler) attachRoot(root []chroot.Mount) {
	if c.hooked() || c.unmounted() {
		c.rootAt = c.abs(c.spec.Root.Path)
	}
	if c.unmounted() {
		c.p.Visible = c.rootAt
	}
	switch {
	case c.root != 0:
		c.moveRoot("attach the root")
	case len(root) == 1 && root[0].Type == "overlay":
		c.overlayHere(root[0])
	default:
		m := c.plainRoot()
		if len(root) == 1 {
			m = root[0]
		}
		c.root = c.slot("root")
		a, _ := chroot.ParseOptions(m.Options)
		calls := append([]Call{c.openTree(m.Source, true).to(c.root)}, c.mountAttributes(c.root, a)...)
		c.moveRoot("attach "+m.Source+" as root", calls...)
	}
	if c.unmounted() {
		// Where its parent is shared, what comes below would be mounted in
		// other namespaces as well.
		c.child("keep what is below the root from other namespaces", "root", c.setattr(c.root, 0, 0, 0, unix.MS_PRIVATE))
	}
	if c.rootAt == "" {
		c.pivot()
		return
	}
	enter := []Call{c.call("fchdir", unix.SYS_FCHDIR, from(c.root)), c.chrootHere(), c.chdirRoot()}
	if c.hooked() {
		c.above = c.slot("host's root")
		enter = append([]Call{c.open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, "O_PATH|O_DIRECTORY|O_CLOEXEC").to(c.above)}, enter...)
	}
	c.child("enter the root", "root", enter...)
}

// moveRoot attaches the detached root.
func (c *compiler) moveRoot(text string, calls ...Call) {
	at := "/"
	if c.rootAt != "" {
		at = c.rootAt
		text += " at " + at
	}
	c.child(text, "root", append(calls, c.moveTo(c.root, cwd(), at))...)
}

func (c *compiler) chrootHere() Call { return c.call("chroot", unix.SYS_CHROOT, str(".")) }
func (c *compiler) chdirRoot() Call  { return c.call("chdir", unix.SYS_CHDIR, str("/")) }

// pivot drops the host's root. Without it, for a root on an initramfs, which the
// kernel does not let go, the new one lies over the host's and hides it.
// pivot makes the root the root for good.
func (c *compiler) pivot() {
	if c.unmounted() {
		c.child("enter the root", "root", c.call("fchdir", unix.SYS_FCHDIR, from(c.root)), c.chrootHere(), c.chdirRoot())
		return
	}
	if c.o.NoPivot {
		calls := []Call{c.call("fchdir", unix.SYS_FCHDIR, from(c.root))}
		if c.rootAt != "" {
			calls = append(calls, c.call("mount", unix.SYS_MOUNT, str("."), str("/"), num(0), named(unix.MS_MOVE, "MS_MOVE"), num(0)))
		}
		c.child("go into the root, over the host's", "root", append(calls, c.chrootHere(), c.chdirRoot())...)
		return
	}
	c.child("pivot into the root and drop the host's", "root",
		c.call("fchdir", unix.SYS_FCHDIR, from(c.root)),
		c.call("pivot_root", unix.SYS_PIVOT_ROOT, str("."), str(".")),
		c.call("umount2", unix.SYS_UMOUNT2, str("."), named(unix.MNT_DETACH, "MNT_DETACH")),
		c.chdirRoot())
}

// overlayHere mounts the overlay in the child. The list of layers may be
// longer than the 255 bytes that fsconfig(2) takes, so it is mount(2), with
// paths relative to the layers' common directory.
func (c *compiler) overlayHere(m chroot.Mount) {
	c.root = c.slot("root")
	base := path.Dir(path.Dir(m.Lower[0]))
	lower := make([]string, len(m.Lower))
	for i, l := range m.Lower {
		if rest, ok := strings.CutPrefix(l, base+"/"); ok {
			l = rest
		}
		lower[i] = chroot.EscapeLayer(l)
	}
	data := "lowerdir=" + strings.Join(lower, ":")
	if m.Upper != "" {
		data += ",upperdir=" + chroot.EscapeLayer(m.Upper) + ",workdir=" + chroot.EscapeLayer(m.Work)
	}
	for _, o := range m.Options {
		if o != "ro" {
			data += "," + chroot.PageOption(o)
		}
	}
	c.child(rootText(m), "root",
		c.call("chdir", unix.SYS_CHDIR, str(base)),
		c.call("mount", unix.SYS_MOUNT, str("overlay"), str(c.o.Target), str("overlay"), num(0), str(data)),
		c.open(c.o.Target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, "O_PATH|O_DIRECTORY|O_CLOEXEC").to(c.root))
}

// propagate gives the root its kind of propagation, when everything is below
// it: on a shared mount everything would become shared.
func (c *compiler) propagate() {
	p := propagationOf(c.linux.RootfsPropagation)
	kind := p &^ unix.MS_REC
	if kind != unix.MS_SHARED && kind != unix.MS_UNBINDABLE {
		return
	}
	flags := uint64(0)
	if p&unix.MS_REC != 0 {
		flags = unix.AT_RECURSIVE
	}
	c.child("make the root "+c.linux.RootfsPropagation, "linux.rootfsPropagation", c.setattr(c.root, flags, 0, 0, kind))
}
