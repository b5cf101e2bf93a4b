package plan

import (
	"fmt"
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
	"kiste/internal/pool"
	"kiste/kernel/cgroup"
	"kiste/kernel/cgroup/resctrl"
	"kiste/kernel/chroot"
	"kiste/kernel/privilege"
)

// Facts are what Compile must know of the host. Package process finds them out
// (process.Facts), but for Groups.
type Facts struct {
	// Host: the parent may mount in its mount namespace, so it makes the root
	// and those binds that the child cannot. Else the child does it in its user
	// namespace.
	Host bool

	// Inner: the parent is in a user namespace that is not the first one. It
	// makes no device nodes and id-maps nothing.
	Inner bool

	// Cgroup is what the host mounts; its zero value makes no cgroup.
	Cgroup cgroup.Layout

	// Groups are the steps that make the container's cgroup.
	Groups []cgroup.Step

	// Scope is the name of the unit that systemd makes for the container; the
	// Groups are then of that. Empty: none.
	Scope string

	// Class are the steps of the container's class of cache and memory
	// bandwidth, ClassTasks the files by which it enters that. Empty: none.
	Class      []resctrl.Step
	ClassTasks []string

	// Landlock tells the version in the kernel; 0: none. It is asked where
	// Landlock is wanted. Nil: none.
	Landlock func() int

	// LastCap is the number of the kernel's last capability.
	LastCap int

	// Held tells whether the parent has capabilities: without a user namespace
	// nobody can be given others. Nil: nobody knows.
	Held func(privilege.Caps) bool

	// AppArmor and SELinux tell whether the kernel has them, switched on. They
	// are asked where a profile or a label is given. Nil: it has not.
	AppArmor, SELinux func() bool

	// Profile tells whether AppArmor has a profile of this name. Nil: nobody
	// knows.
	Profile func(name string) bool

	// Kind tells of a path of the host: "dir", "file", or "" if it is not
	// there. Compile asks for masked and read-only paths of /proc and /sys,
	// which are the kernel's and the same in the container, and for sources
	// of binds.
	Kind func(path string) string

	// Limit is the parent's own limit of a resource, RLIMIT_ of getrlimit(2),
	// which its children begin with. Nil: it has none left.
	Limit func(resource int) (soft, hard uint64)

	// Own tells whether the namespace at a path is the one that the parent is
	// in. Nil: none is.
	Own func(path string) bool
}

// Options are what the spec does not say.
type Options struct {
	// Origin tells where a field of the spec comes from; see bundle.Result.
	Origin map[string]string

	// Bundle is the directory at which relative paths of the spec begin.
	Bundle string

	// Program is the file that is executed. Empty: process.args[0], which is
	// looked up.
	Program string

	// Search is the PATH in which the program is looked up in the container.
	// Empty: that of process.env.
	Search string

	// Home is the program's $HOME where process.env has none. Empty: it stays
	// without. See process.Home.
	Home string

	// Filter is the compiled seccomp filter; none has no instructions.
	Filter privilege.Filter

	// NoLandlock leaves the extra wall out.
	NoLandlock bool

	// LogDenials lets the kernel's log have what the extra wall refuses, where
	// audit is on (Linux 6.15).
	LogDenials bool

	// DieWithParent ends the container when the thread that started it ends.
	DieWithParent bool

	// Wait puts a stub between the child and its program, which waits for the
	// word to go on: see Start and Report.
	Wait bool

	// ForkEarly lets a process that joins a pid namespace fork before it has
	// given up anything, where a filter of system calls keeps it from doing so
	// later: until then it is not seen there.
	ForkEarly bool

	// Keep is how many descriptors the program gets beside 0, 1 and 2: from 3
	// on. The parent has them open.
	Keep int

	// NoPivot leaves the host's root below the container's.
	NoPivot bool

	// PlainLines makes the container's terminal end lines with a line feed
	// alone, for a user's terminal that adds the carriage return.
	PlainLines bool

	// Streams are those of 0, 1 and 2 that are to belong to the program's
	// user, so that it can open them again as /dev/stdout: pipes and
	// sockets, never devices of the host. See process.Streams.
	Streams [3]bool

	// MachineID is written to /etc/machine-id of the root; empty: nothing is.
	MachineID string

	// Keyring is the name of a new session keyring; empty: none.
	Keyring string

	// UIDs and GIDs are the maps of the user namespace that the spec joins
	// by a path; it has them nowhere. See process.JoinedMaps.
	UIDs, GIDs []specs.LinuxIDMapping

	// Network is the way into networks of a container with a network namespace of
	// its own.
	Network Network

	// Served says what serves the container's network from outside: see
	// Options.Serve of package process. Empty: nothing.
	Served string

	// Target is an empty directory on which a root is mounted by its path
	// where Facts.Host is false.
	Target string
}

// Compile makes the plan. The root is made of the given mounts; without any it
// is the directory spec.Root.Path. Compile is pure, but for what the functions
// of Facts look up. A field that cannot be carried out is named by the error:
// fault.Invalid, or fault.Unsupported where it is this host that cannot. What
// is passed over, as runc does, is among the plan's Warnings.
func Compile(spec *specs.Spec, root []chroot.Mount, o Options, f Facts) (*Plan, error) {
	c := &compiler{spec: spec, linux: spec.Linux, o: o, f: f, p: &Plan{Slots: append(make([]string, 0, usualSlots), ""), Steps: make([]Step, 0, usualSteps)}, joined: map[string]bool{}, fresh: map[string]bool{}, tops: map[string]Slot{}}
	if c.linux == nil {
		c.linux = &specs.Linux{}
	}
	for _, part := range []func() error{c.check, c.cgroups, c.namespaces, c.checkServed, c.scope, c.limits} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	root = c.rootWithContext(root)
	c.bringRoot(root)
	c.collect()
	if c.bornInNetwork() {
		c.links()
		c.served()
	}
	c.release()
	c.settle()
	c.fileSystems()
	if c.peers {
		c.keepMounts()
	}
	c.takeDevices()
	c.attachRoot(root)
	c.attach()
	c.devices()
	c.machineID()
	c.terminal()
	c.hooks()
	c.workdir()
	c.sysctls()
	c.paths()
	c.propagate()
	c.names()
	if err := c.become(); err != nil {
		return nil, err
	}
	if c.calls > maxCalls {
		return nil, refused("the document", fault.Invalid, "it asks for %d system calls, and %d are the most", c.calls, maxCalls)
	}
	c.sort()
	return c.p, nil
}

// What a plan mostly has, so that its lists need not grow.
const usualSlots, usualSteps = 64, 112

type compiler struct {
	spec   *specs.Spec
	linux  *specs.Linux // never nil
	o      Options
	f      Facts
	p      *Plan
	phase  int // of the steps to come
	calls  int // so far
	args   pool.Of[Arg]
	kept   pool.Of[Call]
	acts   pool.Of[Act]
	joined map[string]bool // kinds of namespaces that exist already
	fresh  map[string]bool
	joins  []join
	tops   map[string]Slot // the kernel's mounts by their places; 0: another's
	mounts []mount
	peers  bool // the child takes binds that are to stay peers or slaves of the host's
	root   Slot
	rootAt string // where on the host the root is attached before it becomes the root; empty: nowhere
	above  Slot   // the host's root, to go back to for hooks
	procs  Slot   // a procfs that nobody else can reach
	pts    Slot
	tty    Slot // the terminal's slave
	nodes  []device
	nulls  []Slot // the host's null device for each masked path; empty: the container's is good
	empty  Slot   // an empty directory that is mounted somewhere
	dev    Slot   // the container's /dev
	cwd    Slot   // the working directory; 0: it is /
	stub   Slot   // the trampoline; 0: none is needed
	late   []readOnly

	files     privilege.Rlimit // of the program, while the child may open more; 0: it may not
	attr      Slot             // of this process in procfs, through which the stub asks for its program's label; 0: this process asks
	forkLate  bool             // the stub forks into the pid namespace
	hollow    Slot             // the kernel's own empty directory below /sys, where something is mounted on it; 0: it is not open
	groupsTop Slot             // where all hierarchies are mounted on the host; 0: it is not open
	memory    Slot             // the tasks file of the memory cgroup, which is entered last; 0: it is not

	env         []string
	alone       bool // nobody is where the child goes
	unknownCaps []string
}

// A readOnly is a mount that becomes so when everything is in it.
type readOnly struct {
	mount Slot
	at    string
	field string
}

func (c *compiler) warn(format string, args ...any) {
	c.p.Warnings = append(c.p.Warnings, fmt.Sprintf(format, args...))
}

func refused(field string, kind fault.Kind, format string, args ...any) error {
	return &fault.Error{Op: "carry out", On: field, Kind: kind, Err: fmt.Errorf(format, args...)}
}

// mapped reports whether the container has a user namespace of its own.
func (c *compiler) mapped() bool { return c.fresh["user"] || c.joined["user"] }

// abs is a path of the spec on the host.
func (c *compiler) abs(p string) string {
	if !path.IsAbs(p) {
		p = path.Join(c.o.Bundle, p)
	}
	return p
}

// step adds one; its pointer is good until the next.
func (c *compiler) step(side Side, text, field string) *Step {
	if from := c.o.Origin[field]; field != "" && from != "" {
		field += ": " + from
	}
	c.p.Steps = append(c.p.Steps, Step{Side: side, Text: text, Field: field, phase: c.phase})
	return &c.p.Steps[len(c.p.Steps)-1]
}

// child adds a step of the child with its calls.
func (c *compiler) child(text, field string, calls ...Call) {
	if c.calls += len(calls); c.calls <= maxCalls {
		c.step(Child, text, field).Calls = c.kept.Keep(calls, usualCalls)
	}
}

// act adds a step of the parent.
func (c *compiler) act(text, field string, a Act) {
	c.step(Parent, text, field).Act = &c.acts.Keep([]Act{a}, usualActs)[0]
}

func (c *compiler) slot(name string) Slot {
	c.p.Slots = append(c.p.Slots, name)
	return Slot(len(c.p.Slots) - 1)
}

// bring adds an act of the parent whose descriptor the child gets.
func (c *compiler) bring(name, text, field string, a Act) Slot {
	a.FD = c.slot(name)
	c.p.Inbox = append(c.p.Inbox, a.FD)
	c.act(text, field, a)
	return a.FD
}

// release ends what the parent does while the child waits.
func (c *compiler) release() { c.act("let the child go on", "", Act{Kind: ActRelease}) }

// kind is that of a path on the host.
func (c *compiler) kind(p string) string {
	if c.f.Kind == nil {
		return ""
	}
	return c.f.Kind(p)
}

// sort puts the parent's steps before the child's of the same phase, which is
// the order in which they happen.
func (c *compiler) sort() {
	rank := func(s Step) int { return 2*s.phase + boolInt(s.Side == Child) }
	slices.SortStableFunc(c.p.Steps, func(a, b Step) int { return rank(a) - rank(b) })
}
