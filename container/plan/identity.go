package plan

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/kernel/privilege"
)

// identity sets capabilities, groups and user, in the order in which each is
// still allowed.
func (c *compiler) identity() {
	p := c.spec.Process
	var caps specs.LinuxCapabilities
	if p.Capabilities != nil {
		caps = *p.Capabilities
	}
	bounding, permitted, effective := c.caps(caps.Bounding), c.caps(caps.Permitted), c.caps(caps.Effective)
	drop := make([]Call, 0, 64)
	for n := 0; n <= c.f.LastCap; n++ {
		if !bounding.Has(privilege.Caps(1) << n) {
			drop = append(drop, c.prctl("PR_CAPBSET_DROP", unix.PR_CAPBSET_DROP, num(uint64(n))))
		}
	}
	if len(drop) > 0 {
		c.child("give up "+strconv.Itoa(len(drop))+" capabilities for good", "process.capabilities.bounding", drop...)
	}
	c.user()
	c.enterWorkdirLate()
	inheritable := c.caps(caps.Inheritable)
	c.child("keep the capabilities "+permitted.String(), "process.capabilities",
		c.call("capset", unix.SYS_CAPSET, buf(capHeader(), "{_LINUX_CAPABILITY_VERSION_3}"), Arg{Kind: Buf, Form: Caps, Bytes: capData(effective, permitted, inheritable)}))
	for _, name := range caps.Ambient {
		a := c.caps([]string{name})
		for n := 0; n <= c.f.LastCap; n++ {
			if a.Has(privilege.Caps(1) << n) {
				c.child("keep "+name+" over exec", "process.capabilities.ambient", c.prctl("PR_CAP_AMBIENT", unix.PR_CAP_AMBIENT, named(unix.PR_CAP_AMBIENT_RAISE, "PR_CAP_AMBIENT_RAISE"), num(uint64(n))).mayFailWith(uintptr(unix.EPERM)))
			}
		}
	}
	if len(c.unknownCaps) > 0 {
		c.warn("ignoring unknown or unavailable capabilities: %v", c.unknownCaps)
	}
}

// user gives the streams to the program's user, and becomes it.
func (c *compiler) user() {
	u := c.spec.Process.User
	for fd, own := range c.o.Streams {
		if own {
			// Of what cannot be given away nothing is lost.
			c.child("give stream "+strconv.Itoa(fd)+" to user "+decimal(u.UID), "process.user", c.call("fchown", unix.SYS_FCHOWN, num(uint64(fd)), num(uint64(u.UID)), num(^uint64(0))).mayFail())
		}
	}
	calls := append(make([]Call, 0, someCalls), c.prctl("PR_SET_KEEPCAPS", unix.PR_SET_KEEPCAPS, num(1)))
	// In a user namespace of one id without a helper setgroups is forbidden,
	// so an ordinary user's engine asks in vain; runc passes that over too.
	set := c.call("setgroups", unix.SYS_SETGROUPS, num(uint64(len(u.AdditionalGids))), Arg{Kind: Buf, Form: Groups, Bytes: groupBytes(u.AdditionalGids)})
	if len(u.AdditionalGids) == 0 || !c.f.Host {
		set = set.mayFail()
	}
	calls = append(calls, set,
		c.call("setresgid", unix.SYS_SETRESGID, num(uint64(u.GID)), num(uint64(u.GID)), num(uint64(u.GID))),
		c.call("setresuid", unix.SYS_SETRESUID, num(uint64(u.UID)), num(uint64(u.UID)), num(uint64(u.UID))),
		c.prctl("PR_SET_KEEPCAPS", unix.PR_SET_KEEPCAPS, num(0)))
	c.child("become user "+decimal(u.UID)+", group "+decimal(u.GID), "process.user", calls...)
}

// caps is the set of names. One that the kernel does not know, or that cannot be
// granted, is passed over with a warning (runtime-spec, config.md, process
// capabilities): engines send all that they know.
func (c *compiler) caps(names []string) privilege.Caps {
	var set privilege.Caps
	for _, name := range names {
		one, err := privilege.ParseCap(name)
		beyond := c.f.Held != nil && len(c.p.UIDs) == 0 && !c.f.Held(one)
		if err != nil || !strings.HasPrefix(name, "CAP_") || beyond {
			if !slices.Contains(c.unknownCaps, name) {
				c.unknownCaps = append(c.unknownCaps, name)
			}
			continue
		}
		set |= one
	}
	return set
}

func capHeader() []byte { return words(0x20080522) }

func capData(effective, permitted, inheritable privilege.Caps) []byte {
	var b []byte
	for _, shift := range []int{0, 32} {
		for _, set := range []privilege.Caps{effective, permitted, inheritable} {
			b = append(b, byte(set>>shift), byte(set>>(shift+8)), byte(set>>(shift+16)), byte(set>>(shift+24)))
		}
	}
	return b
}

func groupBytes(groups []uint32) []byte {
	b := []byte{}
	for _, g := range groups {
		b = append(b, byte(g), byte(g>>8), byte(g>>16), byte(g>>24))
	}
	return append(b, 0, 0, 0, 0)
}
