package plan

import (
	"path"
	"runtime"

	"golang.org/x/sys/unix"

	"kiste/internal/stub"
)

// labels say under which label the next program is executed. They are written
// through a procfs that nobody else can reach (CVE-2019-16884, CVE-2025-52881).
func (c *compiler) labels() {
	p := c.spec.Process
	if c.confined() && c.attr == 0 {
		fd := c.slot("AppArmor's exec")
		c.child("be confined by "+p.ApparmorProfile, ProfileField,
			c.openAttr("apparmor/exec").to(fd).thenSkip(1), // since Linux 5.8 it has a place of its own
			c.openAttr("exec").to(fd), c.write(fd, "exec "+p.ApparmorProfile))
	}
	if p.SelinuxLabel != "" {
		fd := c.slot("SELinux's exec")
		c.child("be labelled "+p.SelinuxLabel, "process.selinuxLabel", c.openAttr("exec").to(fd), c.write(fd, p.SelinuxLabel))
	}
}

// ProfileField is the field of the steps that give the program its profile.
const ProfileField = "process.apparmorProfile"

// confined reports whether the program has a profile of AppArmor's.
func (c *compiler) confined() bool { return c.spec.Process.ApparmorProfile != "" && has(c.f.AppArmor) }

// has asks one of the facts.
func has(fact func() bool) bool { return fact != nil && fact() }

// confineLate lets the stub ask for the profile, by the directory that it has as
// fd, so that the profile need not allow what is executed first, as with runc.
// Where the filter keeps the stub from that, nil, the stub is confined already.
func (c *compiler) confineLate(fd int) *stub.Label {
	if !c.confined() {
		return nil
	}
	l := &stub.Label{FD: fd, Wish: "exec " + c.spec.Process.ApparmorProfile}
	for _, call := range []struct {
		name string
		args []uint64
	}{
		{"prctl", []uint64{unix.PR_SET_DUMPABLE}},
		{"openat", []uint64{uint64(fd), 0, unix.O_WRONLY}},
		{"write", []uint64{uint64(fd), 0, uint64(len(l.Wish))}},
		{"close", []uint64{uint64(fd)}},
	} {
		if !c.o.Filter.Allows(runtime.GOARCH, call.name, call.args...) {
			return nil
		}
	}
	c.attr = c.slot("attr")
	const flags = unix.O_PATH | unix.O_DIRECTORY
	c.child("let the stub be confined by "+c.spec.Process.ApparmorProfile+" when it executes the program", ProfileField,
		c.openOwn("apparmor", flags).to(c.attr).thenSkip(1), c.openOwn("", flags).to(c.attr))
	return l
}

// labelKeys gives the keys that are made until the next program is executed the label of the container's
// processes, which may not look at others.
func (c *compiler) labelKeys() []Call {
	label := c.spec.Process.SelinuxLabel
	if label == "" {
		return nil
	}
	fd := c.slot("SELinux's keycreate")
	return []Call{c.openAttr("keycreate").to(fd), c.write(fd, label)}
}

func (c *compiler) openAttr(name string) Call { return c.openOwn(name, unix.O_WRONLY) }

// openOwn opens what this process has in its directory attr.
func (c *compiler) openOwn(name string, flags uint64) Call {
	return c.openIn(from(c.procs), path.Join("thread-self/attr", name), flags, unix.RESOLVE_NO_XDEV)
}
