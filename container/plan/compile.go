package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
	"kiste/kernel/cgroup"
	"kiste/kernel/chroot"
	"kiste/kernel/privilege"
)

// Facts are what Compile must know of the host.
type Facts struct {
	// Host: the parent has the host's powers, so it makes the root and the
	// binds, and id-maps them. Else the child does it in its user namespace.
	Host bool

	// Cgroup is what the host mounts; its zero value makes no cgroup.
	Cgroup cgroup.Layout

	// Groups are the steps that make the container's cgroup.
	Groups []cgroup.Step

	// Landlock is the version in the kernel; 0: none.
	Landlock int

	// LastCap is the number of the kernel's last capability.
	LastCap int

	// Kind tells of a path of the host: "dir", "file", or "" if it is not
	// there. Compile asks for masked and read-only paths of /proc and /sys,
	// which are the kernel's and the same in the container, and for sources
	// of binds.
	Kind func(path string) string
}

// Options are what the spec does not say.
type Options struct {
	// Origin tells where a field of the spec comes from; see bundle.Result.
	Origin map[string]string

	// Search is the PATH in which the program is looked up in the
	// container; empty: it has a slash.
	Search string

	// Filter is the compiled seccomp filter; none has no instructions.
	Filter privilege.Filter

	// NoLandlock leaves the extra wall out.
	NoLandlock bool

	// DieWithParent ends the container when the thread that started it ends.
	DieWithParent bool

	// Wait puts a stub between the child and its program, which waits for the
	// word to go on: see Start and Report.
	Wait bool

	// Keep is how many descriptors the program gets beside 0, 1 and 2: from 3
	// on. The parent has them open.
	Keep int

	// PlainLines makes the container's terminal end lines with a line feed
	// alone, for a user's terminal that adds the carriage return.
	PlainLines bool

	// Keyring is the name of a new session keyring; empty: none.
	Keyring string

	// UIDs and GIDs are the maps of the user namespace that the spec joins
	// by a path; it has them nowhere.
	UIDs, GIDs []specs.LinuxIDMapping

	// Target is an empty directory on which a root is mounted by its path
	// where Facts.Host is false.
	Target string
}

// Compile makes the plan. It is pure, but for what Facts.Kind looks up. A
// field that this version cannot carry out is fault.Unsupported and named.
func Compile(spec *specs.Spec, root []chroot.Mount, o Options, f Facts) (*Plan, error) {
	c := &compiler{spec: spec, o: o, f: f, p: &Plan{Slots: []string{""}}, joined: map[string]bool{}, fresh: map[string]bool{}}
	if err := c.check(); err != nil {
		return nil, err
	}
	for _, part := range []func() error{c.cgroups, c.namespaces, c.limits} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	c.bringRoot(root)
	c.collect()
	c.step(Parent, "let the child go on", "").Act = &Act{Kind: ActRelease}
	c.settle()
	c.fileSystems()
	c.attachRoot(root)
	c.attach()
	c.devices()
	c.workdir()
	c.paths()
	c.names()
	if err := c.become(); err != nil {
		return nil, err
	}
	c.sort()
	return c.p, nil
}

type compiler struct {
	spec   *specs.Spec
	o      Options
	f      Facts
	p      *Plan
	joined map[string]bool // kinds of namespaces that exist already
	fresh  map[string]bool
	parsed []chroot.Parsed
	binds  []Slot // by index of spec.Mounts: the detached mount
	root   Slot
	proc   Slot
	pts    Slot
	tty    Slot // the terminal's slave
	cwd    Slot
	stub   Slot // the trampoline; 0: none is needed
	mapped bool // the root is brought id-mapped by the parent
}

// check refuses what later steps would trip over.
func (c *compiler) check() error {
	s := c.spec
	if err := c.checkProcess(); err != nil {
		return err
	}
	switch {
	case s.Linux == nil:
		return unsupported("linux", fault.Invalid, "it is missing")
	case s.Linux.IntelRdt != nil:
		return unsupported("linux.intelRdt", fault.Unsupported, "")
	case s.Hooks != nil:
		return unsupported("hooks", fault.Unsupported, "")
	}
	for _, m := range s.Mounts {
		if path.Clean(m.Destination) == "/proc" && m.Type != "proc" && (m.Type != "bind" || path.Clean(m.Source) != "/proc") {
			return unsupported("mounts./proc", fault.Invalid, "only the kernel's own can be there")
		}
		a, err := chroot.ParseOptions(m.Options)
		if err != nil {
			return unsupported("mounts."+m.Destination, fault.Invalid, err.Error())
		}
		c.parsed = append(c.parsed, a)
	}
	return nil
}

func unsupported(field string, kind fault.Kind, why string) error {
	e := &fault.Error{Op: "carry out", On: field, Kind: kind}
	if why != "" {
		e.Err = fmt.Errorf("%s", why)
	}
	return e
}

// step adds one; its pointer is good until the next.
func (c *compiler) step(side Side, text, field string) *Step {
	if from := c.o.Origin[field]; field != "" && from != "" {
		field += ": " + from
	}
	c.p.Steps = append(c.p.Steps, Step{Side: side, Text: text, Field: field})
	return &c.p.Steps[len(c.p.Steps)-1]
}

// child adds a step of the child with its calls.
func (c *compiler) child(text, field string, calls ...Call) { c.step(Child, text, field).Calls = calls }

func (c *compiler) slot(name string) Slot {
	c.p.Slots = append(c.p.Slots, name)
	return Slot(len(c.p.Slots) - 1)
}

// bring adds a late act of the parent whose descriptor the child gets.
func (c *compiler) bring(name, text, field string, a Act) Slot {
	a.FD = c.slot(name)
	c.p.Inbox++
	s := c.step(Parent, text, field)
	s.Act, s.Late = &a, true
	return a.FD
}

func (c *compiler) late(text, field string, a Act) {
	s := c.step(Parent, text, field)
	s.Act, s.Late = &a, true
}

func (c *compiler) limits() error {
	for _, r := range c.spec.Process.Rlimits {
		name := strings.ToLower(strings.TrimPrefix(r.Type, "RLIMIT_"))
		if _, err := privilege.RlimitNumber(name); err != nil {
			return unsupported("process.rlimits", fault.Invalid, r.Type+" is not a limit that this kernel knows")
		}
		l := privilege.Rlimit{Name: name, Soft: r.Soft, Hard: r.Hard}
		c.late("limit "+l.String(), "process.rlimits", Act{Kind: ActRlimit, Rlimit: l})
	}
	if adj := c.spec.Process.OOMScoreAdj; adj != nil {
		c.late(fmt.Sprintf("write %d to oom_score_adj", *adj), "process.oomScoreAdj", Act{Kind: ActOOM, Value: fmt.Sprint(*adj)})
	}
	return nil
}

// sort puts the parent's steps that happen while the child waits before the
// child's, which is the order in which they happen.
func (c *compiler) sort() {
	rank := func(s Step) int {
		switch {
		case s.Side == Child:
			return 3
		case s.Act.Kind == ActRelease:
			return 2
		case s.Late:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(c.p.Steps, func(a, b Step) int { return rank(a) - rank(b) })
}

func (c *compiler) slotOf(name string) Slot { return Slot(slices.Index(c.p.Slots, name)) }
