package plan

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/kernel/chroot"
)

// bringRoot lets the parent make the root, where it has the powers.
func (c *compiler) bringRoot(root []chroot.Mount) {
	if !c.f.Host || len(root) == 0 {
		return
	}
	c.mapped = c.fresh["user"] || c.joined["user"]
	text := rootText(root[0])
	if c.mapped {
		text += ", id-mapped"
	}
	c.root = c.bring("root", text, "root", Act{Kind: ActRoot, Mount: root[0], IDMap: c.mapped})
}

func rootText(m chroot.Mount) string {
	if m.Type == "overlay" {
		return fmt.Sprintf("mount overlay of %d layers as root", len(m.Lower))
	}
	return "mount " + m.Source + " as root"
}

// attachRoot makes the root the root.
func (c *compiler) attachRoot(root []chroot.Mount) {
	switch {
	case c.root != 0:
		c.child("attach the root", "root", moveTo(c.root, "/"))
	case len(root) == 1 && root[0].Type == "overlay":
		c.overlayHere(root[0])
	case len(root) == 1:
		c.root = c.slot("root")
		a, _ := chroot.ParseOptions(root[0].Options)
		calls := append([]Call{openTree(root[0].Source, true).to(c.root)}, attributes(c.root, a)...)
		c.child("attach "+root[0].Source+" as root", "root", append(calls, moveTo(c.root, "/"))...)
	default:
		c.root = c.slot("root")
		c.child("attach "+c.spec.Root.Path+" as root", "root", openTree(c.spec.Root.Path, true).to(c.root), moveTo(c.root, "/"))
	}
	c.child("pivot into the root and drop the host's", "root",
		call("fchdir", unix.SYS_FCHDIR, from(c.root)),
		call("pivot_root", unix.SYS_PIVOT_ROOT, str("."), str(".")),
		call("umount2", unix.SYS_UMOUNT2, str("."), named(unix.MNT_DETACH, "MNT_DETACH")),
		call("chdir", unix.SYS_CHDIR, str("/")))
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
			data += "," + o
		}
	}
	c.child(rootText(m), "root",
		call("chdir", unix.SYS_CHDIR, str(base)),
		call("mount", unix.SYS_MOUNT, str("overlay"), str(c.o.Target), str("overlay"), num(0), str(data)),
		open(c.o.Target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, "O_PATH|O_DIRECTORY|O_CLOEXEC").to(c.root))
}
