package plan

import (
	"fmt"
	"path"
	"slices"

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
	bounding, permitted, effective := capsOf(caps.Bounding), capsOf(caps.Permitted), capsOf(caps.Effective)
	var drop []Call
	for n := 0; n <= c.f.LastCap; n++ {
		if !bounding.Has(privilege.Caps(1) << n) {
			drop = append(drop, prctl("PR_CAPBSET_DROP", unix.PR_CAPBSET_DROP, num(uint64(n))))
		}
	}
	if len(drop) > 0 {
		c.child(fmt.Sprintf("give up %d capabilities for good", len(drop)), "process.capabilities.bounding", drop...)
	}
	u := p.User
	calls := []Call{prctl("PR_SET_KEEPCAPS", unix.PR_SET_KEEPCAPS, num(1))}
	// In a user namespace of one id without a helper setgroups is forbidden.
	set := call("setgroups", unix.SYS_SETGROUPS, num(uint64(len(u.AdditionalGids))), buf(groupBytes(u.AdditionalGids), fmt.Sprint(u.AdditionalGids)))
	if len(u.AdditionalGids) == 0 || !c.f.Host && slices.Equal(u.AdditionalGids, []uint32{u.GID}) {
		set = set.mayFail()
	}
	calls = append(calls, set,
		call("setresgid", unix.SYS_SETRESGID, num(uint64(u.GID)), num(uint64(u.GID)), num(uint64(u.GID))),
		call("setresuid", unix.SYS_SETRESUID, num(uint64(u.UID)), num(uint64(u.UID)), num(uint64(u.UID))),
		prctl("PR_SET_KEEPCAPS", unix.PR_SET_KEEPCAPS, num(0)))
	c.child(fmt.Sprintf("become user %d, group %d", u.UID, u.GID), "process.user", calls...)
	// As the user: what it cannot enter, it shall not stand in.
	if c.cwd != 0 {
		c.child("go to "+p.Cwd, "process.cwd", openDir(path.Clean("/"+p.Cwd)).to(c.cwd), call("fchdir", unix.SYS_FCHDIR, from(c.cwd)))
	}
	inheritable := capsOf(caps.Inheritable)
	c.child("keep the capabilities "+permitted.String(), "process.capabilities",
		call("capset", unix.SYS_CAPSET, buf(capHeader(), "{_LINUX_CAPABILITY_VERSION_3}"), buf(capData(effective, permitted, inheritable), "{"+hex(uint64(effective))+" "+hex(uint64(permitted))+" "+hex(uint64(inheritable))+"}")))
	for _, name := range caps.Ambient {
		a := capsOf([]string{name})
		for n := 0; n <= c.f.LastCap; n++ {
			if a.Has(privilege.Caps(1) << n) {
				c.child("keep "+name+" over exec", "process.capabilities.ambient", prctl("PR_CAP_AMBIENT", unix.PR_CAP_AMBIENT, named(unix.PR_CAP_AMBIENT_RAISE, "PR_CAP_AMBIENT_RAISE"), num(uint64(n))).mayFailWith(uintptr(unix.EPERM)))
			}
		}
	}
}

func capsOf(names []string) privilege.Caps {
	caps, _ := privilege.ParseCaps(names)
	return caps
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
