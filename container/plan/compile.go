package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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
	switch {
	case s.Process == nil || len(s.Process.Args) == 0:
		return unsupported("process.args", fault.Invalid, "there is no program to run")
	case s.Linux == nil:
		return unsupported("linux", fault.Invalid, "it is missing")
	case s.Linux.IntelRdt != nil:
		return unsupported("linux.intelRdt", fault.Unsupported, "")
	case s.Process.SelinuxLabel != "":
		return unsupported("process.selinuxLabel", fault.Unsupported, "this host has no SELinux")
	case s.Process.ApparmorProfile != "" && s.Process.ApparmorProfile != "unconfined":
		return unsupported("process.apparmorProfile", fault.Unsupported, "this host has no AppArmor")
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

func (c *compiler) cgroups() error {
	for _, g := range c.f.Groups {
		c.step(Parent, g.String(), g.For).Act = &Act{Kind: ActCgroup, Cgroup: g}
	}
	c.p.Cgroup = cgroup.UnifiedDir(c.f.Groups)
	return nil
}

var cloneFlag = map[specs.LinuxNamespaceType]uint64{
	specs.PIDNamespace: unix.CLONE_NEWPID, specs.NetworkNamespace: unix.CLONE_NEWNET, specs.IPCNamespace: unix.CLONE_NEWIPC,
	specs.UTSNamespace: unix.CLONE_NEWUTS, specs.MountNamespace: unix.CLONE_NEWNS, specs.UserNamespace: unix.CLONE_NEWUSER,
	specs.CgroupNamespace: unix.CLONE_NEWCGROUP,
}

// namespaces splits them into those of the clone and those to join, and adds
// the fork and the maps.
func (c *compiler) namespaces() error {
	var fresh []string
	var joins []specs.LinuxNamespace
	for _, ns := range c.spec.Linux.Namespaces {
		flag, ok := cloneFlag[ns.Type]
		switch {
		case !ok:
			return unsupported("linux.namespaces."+string(ns.Type), fault.Unsupported, "")
		case ns.Path != "":
			joins = append(joins, ns)
			c.joined[string(ns.Type)] = true
			continue
		}
		c.fresh[string(ns.Type)] = true
		fresh = append(fresh, string(ns.Type))
		// The cgroup namespace has to begin in the container's cgroup, so
		// the child makes it once it is there.
		if ns.Type != specs.CgroupNamespace {
			c.p.Flags |= flag
		}
	}
	if !c.fresh["mount"] {
		return unsupported("linux.namespaces", fault.Invalid, "a container needs a mount namespace of its own")
	}
	if c.joined["user"] {
		// What is not joined has to belong to the joined user namespace.
		c.p.Flags = 0
	}
	joins = c.enterFirst(joins)
	slices.Sort(fresh)
	s := c.step(Parent, "fork with new namespaces "+strings.Join(fresh, " "), "linux.namespaces")
	s.Act = &Act{Kind: ActFork}
	switch {
	case c.joined["user"]:
		c.p.UIDs, c.p.GIDs = idMaps(c.o.UIDs), idMaps(c.o.GIDs)
	case c.fresh["user"]:
		c.p.UIDs, c.p.GIDs = idMaps(c.spec.Linux.UIDMappings), idMaps(c.spec.Linux.GIDMappings)
		c.late(fmt.Sprintf("map users %s, groups %s", mapText(c.p.UIDs), mapText(c.p.GIDs)), "linux.uidMappings", Act{Kind: ActMapIDs})
	}
	// The user namespace first: it owns the others.
	slices.SortStableFunc(joins, func(a, b specs.LinuxNamespace) int {
		return boolInt(b.Type == specs.UserNamespace) - boolInt(a.Type == specs.UserNamespace)
	})
	for _, ns := range joins {
		if ns.Type == specs.UserNamespace {
			c.p.Userns = ns.Path
		}
		c.bring(string(ns.Type)+" namespace", "open "+ns.Path, "linux.namespaces."+string(ns.Type), Act{Kind: ActOpen, Path: ns.Path})
	}
	return nil
}

// enterFirst lets the parent's thread enter what a child in a user namespace of
// its own could not, so that the child is born there. It gives the others.
func (c *compiler) enterFirst(joins []specs.LinuxNamespace) []specs.LinuxNamespace {
	if !c.fresh["user"] || !c.f.Host {
		return joins
	}
	for _, ns := range joins {
		c.step(Parent, "enter "+ns.Path+" for the fork", "linux.namespaces."+string(ns.Type)).Act = &Act{Kind: ActEnter, Path: ns.Path, Value: nsFile(ns.Type)}
		delete(c.joined, string(ns.Type))
	}
	return nil
}

// nsFile is the name of a namespace in /proc/PID/ns.
func nsFile(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(t)
}

func idMaps(in []specs.LinuxIDMapping) []IDMap {
	var out []IDMap
	for _, m := range in {
		out = append(out, IDMap{m.ContainerID, m.HostID, m.Size})
	}
	return out
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func mapText(ms []IDMap) string {
	parts := make([]string, len(ms))
	for i, m := range ms {
		parts[i] = fmt.Sprintf("%d→%d×%d", m.Inside, m.Outside, m.Size)
	}
	return strings.Join(parts, ",")
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

// collect lets the parent make the binds, where it has the powers.
func (c *compiler) collect() {
	c.binds = make([]Slot, len(c.spec.Mounts))
	if !c.f.Host {
		return
	}
	for i, m := range c.spec.Mounts {
		b := mountOf(m, c.parsed[i])
		if m.Type == "bind" || m.Type == "overlay" {
			c.binds[i] = c.bring("mount "+m.Destination, "take "+m.Source+" for "+m.Destination+optionText(m.Options), "mounts."+m.Destination,
				Act{Kind: ActBind, Mount: b, IDMap: len(m.UIDMappings) > 0 || c.parsed[i].IDMap != ""})
		}
	}
	for _, d := range c.extraDevices() {
		c.bring("device "+d.Path, "make device "+d.Path, "linux.devices", Act{Kind: ActBind, Mount: deviceMount(d)})
	}
}

// mountOf is a bind or an overlay of the spec as the parent makes it. What a
// spec has no fields for is among the options: "lowerdir+=" for each layer of
// an overlay, and "subpath=" of a bind.
func mountOf(m specs.Mount, a chroot.Parsed) chroot.Mount {
	b := chroot.Mount{Type: m.Type, Source: m.Source, Target: m.Destination, Below: subpath(a)}
	for _, o := range m.Options {
		layer, isLayer := strings.CutPrefix(o, "lowerdir+=")
		switch {
		case isLayer:
			b.Lower = append(b.Lower, layer)
		case !strings.HasPrefix(o, subpathOption):
			b.Options = append(b.Options, o)
		}
	}
	return b
}

const subpathOption = "subpath="

func subpath(a chroot.Parsed) string {
	for _, o := range a.Data {
		if p, ok := strings.CutPrefix(o, subpathOption); ok {
			return p
		}
	}
	return ""
}

func optionText(options []string) string {
	if len(options) == 0 {
		return ""
	}
	return " " + strings.Join(options, ",")
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
