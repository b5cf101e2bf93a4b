package plan

import (
	"golang.org/x/sys/unix"
)

// labels say under which label the next program is executed. They are written
// through a procfs that nobody else can reach (CVE-2019-16884, CVE-2025-52881).
func (c *compiler) labels() {
	p := c.spec.Process
	if p.ApparmorProfile != "" && c.f.AppArmor {
		fd := c.slot("AppArmor's exec")
		c.child("be confined by "+p.ApparmorProfile, "process.apparmorProfile",
			c.openAttr("apparmor/exec").to(fd).thenSkip(1), // since Linux 5.8 it has a place of its own
			c.openAttr("exec").to(fd), write(fd, "exec "+p.ApparmorProfile))
	}
	if p.SelinuxLabel != "" {
		fd := c.slot("SELinux's exec")
		c.child("be labelled "+p.SelinuxLabel, "process.selinuxLabel", c.openAttr("exec").to(fd), write(fd, p.SelinuxLabel))
	}
}

// labelKeys gives the keys that are made until the next program is executed the label of the container's
// processes, which may not look at others.
func (c *compiler) labelKeys() []Call {
	label := c.spec.Process.SelinuxLabel
	if label == "" {
		return nil
	}
	fd := c.slot("SELinux's keycreate")
	return []Call{c.openAttr("keycreate").to(fd), write(fd, label)}
}

func (c *compiler) openAttr(name string) Call {
	return openIn(from(c.procs), "thread-self/attr/"+name, unix.O_WRONLY, unix.RESOLVE_NO_XDEV)
}
