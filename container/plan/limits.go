package plan

import (
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/privilege"
)

// limits lets the parent allow what the child will limit itself to, and make
// the container more or less dear to the kernel.
func (c *compiler) limits() error {
	for _, r := range c.spec.Process.Rlimits {
		l, err := rlimitOf(r)
		if err != nil {
			return err
		}
		c.act("allow "+l.Name+" to be as high as "+amount(l.Hard), "process.rlimits", Act{Kind: ActRlimit, Rlimit: l})
	}
	if adj := c.spec.Process.OOMScoreAdj; adj != nil {
		if *adj < -1000 || *adj > 1000 {
			return refused("process.oomScoreAdj", fault.Invalid, "%d is not between -1000 and 1000", *adj)
		}
		c.act("write "+strconv.Itoa(*adj)+" to oom_score_adj", "process.oomScoreAdj", Act{Kind: ActOOM, Value: strconv.Itoa(*adj)})
	}
	c.openMany()
	return nil
}

// openPerPath is how many descriptors the child opens for a mount or a path, at
// most.
const openPerPath = 8

// openMany lets the child open what a document with many mounts asks for,
// before the program has its own limit again.
func (c *compiler) openMany() {
	if c.f.Limit == nil {
		return
	}
	soft, hard := c.f.Limit(unix.RLIMIT_NOFILE)
	many := openPerPath * uint64(len(c.spec.Mounts)+len(c.linux.Devices)+len(c.linux.MaskedPaths)+len(c.linux.ReadonlyPaths))
	if many < soft || soft == hard {
		return
	}
	c.files = privilege.Rlimit{Resource: unix.RLIMIT_NOFILE, Soft: soft, Hard: hard}
	c.child("open as many files as may be", "mounts", c.setLimit(noFile, privilege.Rlimit{Resource: unix.RLIMIT_NOFILE, Soft: hard, Hard: hard}))
}

const noFile = "RLIMIT_NOFILE"

func rlimitOf(r specs.POSIXRlimit) (privilege.Rlimit, error) {
	n, err := privilege.RlimitNumber(r.Type)
	switch {
	case err != nil || len(r.Type) < 8 || r.Type[:7] != "RLIMIT_":
		return privilege.Rlimit{}, refused("process.rlimits", fault.Invalid, "%s is not a limit that this kernel knows", r.Type)
	case r.Soft > r.Hard:
		return privilege.Rlimit{}, refused("process.rlimits", fault.Invalid, "the soft limit of %s is above the hard one", r.Type)
	}
	return privilege.Rlimit{Resource: n, Name: privilege.RlimitName(n), Soft: r.Soft, Hard: r.Hard}, nil
}

func amount(n uint64) string {
	if n == privilege.Infinity {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// rlimits are set when nothing more is opened or written: a limit is for the
// program, not for its start. Of several of one kind the last counts.
func (c *compiler) rlimits() {
	var calls []Call
	own := func(r specs.POSIXRlimit) bool { return r.Type == noFile }
	if c.files.Hard > 0 && !slices.ContainsFunc(c.spec.Process.Rlimits, own) {
		c.child("open no more files than before", "", c.setLimit(noFile, c.files))
	}
	for i, r := range c.spec.Process.Rlimits {
		l, _ := rlimitOf(r)
		if slices.ContainsFunc(c.spec.Process.Rlimits[i+1:], func(o specs.POSIXRlimit) bool { return o.Type == r.Type }) {
			continue
		}
		calls = append(calls, c.setLimit(r.Type, l))
	}
	if len(calls) > 0 {
		c.child("set "+strconv.Itoa(len(calls))+" limits", "process.rlimits", calls...)
	}
}

func (c *compiler) setLimit(name string, l privilege.Rlimit) Call {
	return c.call("prlimit64", unix.SYS_PRLIMIT64, num(0), named(uint64(l.Resource), name),
		buf(words(l.Soft, l.Hard), "{"+amount(l.Soft)+", "+amount(l.Hard)+"}"), named(0, "NULL"))
}
