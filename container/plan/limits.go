package plan

import (
	"fmt"
	"slices"

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
		c.act(fmt.Sprintf("allow %s to be as high as %s", l.Name, amount(l.Hard)), "process.rlimits", Act{Kind: ActRlimit, Rlimit: l})
	}
	if adj := c.spec.Process.OOMScoreAdj; adj != nil {
		if *adj < -1000 || *adj > 1000 {
			return refused("process.oomScoreAdj", fault.Invalid, "%d is not between -1000 and 1000", *adj)
		}
		c.act(fmt.Sprintf("write %d to oom_score_adj", *adj), "process.oomScoreAdj", Act{Kind: ActOOM, Value: fmt.Sprint(*adj)})
	}
	return nil
}

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
	return fmt.Sprint(n)
}

// rlimits are set when nothing more is opened or written: a limit is for the
// program, not for its start. Of several of one kind the last counts.
func (c *compiler) rlimits() {
	var calls []Call
	for i, r := range c.spec.Process.Rlimits {
		l, _ := rlimitOf(r)
		if slices.ContainsFunc(c.spec.Process.Rlimits[i+1:], func(o specs.POSIXRlimit) bool { return o.Type == r.Type }) {
			continue
		}
		calls = append(calls, setLimit(r.Type, l))
	}
	if len(calls) > 0 {
		c.child(fmt.Sprintf("set %d limits", len(calls)), "process.rlimits", calls...)
	}
}

func setLimit(name string, l privilege.Rlimit) Call {
	return call("prlimit64", unix.SYS_PRLIMIT64, num(0), named(uint64(l.Resource), name),
		buf(words(l.Soft, l.Hard), "{"+amount(l.Soft)+", "+amount(l.Hard)+"}"), named(0, "NULL"))
}
