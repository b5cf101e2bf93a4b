package cgroup

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"kiste/fault"
	"kiste/internal/sys"
)

// Options say how Compile makes a group. The zero value makes a new one.
type Options struct {
	// Exist allows that the group exists: its limits are set, those not
	// named stay.
	Exist bool

	// Now are the limits in force, where Exist.
	Now Now

	// Adopt allows that the group exists if nobody is in it and it is not
	// frozen. Undo leaves what was there.
	Adopt bool

	// Unit says that systemd makes the group, with the processes that belong
	// there, before the steps are done. Undo removes what systemd leaves.
	Unit bool

	// Owner is the host's user who may use the group as his own in version 2
	// and in the hierarchies without a controller: its directory and the files
	// that the kernel lists for that. 0: root.
	Owner int

	// Account also wants the controllers whose usage is of interest without
	// a limit: cpu, memory, pids and io, as far as the host has them.
	Account bool

	// Join are more controllers that the group shall have, as far as the
	// host has them: "freezer", "name=systemd".
	Join []string

	// Rootless leaves out device rules that the caller may not set. Who is
	// not root on the host can make no device nodes either.
	Rootless bool
}

// Now are limits in force that decide how others are set: -1 is no limit, and
// 0 is not known.
type Now struct {
	Memory int64 // bytes
	Swap   int64 // bytes of swap alone; version 2, elsewhere -1
	Quota  int64 // microseconds of CPU time in each period; version 2
	Period uint64
}

// accounting are the controllers of Options.Account.
var accounting = []string{"cpu", "cpuacct", "memory", "pids", "io", "blkio"}

// Compile translates lim for a group at path ("/kiste/web") of a host with
// layout l into ordered steps. It is pure. The steps do not move a process: see
// AttachSteps, UnifiedDir and Tasks. Errors are fault.Invalid for a bad path
// or value, and fault.Unsupported, naming limit and controller, for what the
// host cannot do.
func Compile(l Layout, group string, lim Limits, o Options) ([]Step, error) {
	group, err := CheckPath(group)
	if err != nil {
		return nil, err
	}
	base, ok := l.Base()
	if !ok {
		return nil, noCgroups("create cgroup")
	}
	wants, err := wantsOf(lim, o)
	if err != nil {
		return nil, err
	}
	c := compiler{group: group, o: o, demands: make([]demand, 0, someHierarchies)}
	c.need(base, "")
	for _, w := range wants {
		if err := c.want(l, w); err != nil {
			return nil, err
		}
	}
	if o.Account {
		c.wish(l, accounting)
	}
	c.wish(l, o.Join)
	if err := c.devices(l, lim.Devices); err != nil {
		return nil, err
	}
	all := l.All()
	steps := make([]Step, 0, len(all)+4) // a directory in each, and few files
	for _, h := range all {
		if d := c.of(h); d.joined {
			steps = c.hierarchy(steps, h, d)
		}
	}
	return steps, nil
}

// A compiler collects what is wanted of each hierarchy.
type compiler struct {
	group   string
	o       Options
	demands []demand
}

// A demand is what is wanted of the hierarchy that is mounted at a place.
type demand struct {
	mount  string
	joined bool // the group has a directory there
	needed []string
	wished []string // for accounting: no error when it cannot be
	writes []Step
}

// someHierarchies is how many most hosts have at most.
const someHierarchies = 12

// of is the demand on h, until the next call of it.
func (c *compiler) of(h Hierarchy) *demand {
	at := slices.IndexFunc(c.demands, func(d demand) bool { return d.mount == h.Mount })
	if at < 0 {
		at = len(c.demands)
		c.demands = append(c.demands, demand{mount: h.Mount})
	}
	return &c.demands[at]
}

func (c *compiler) need(h Hierarchy, controller string) {
	d := c.of(h)
	d.joined = true
	if controller != "" && !slices.Contains(d.needed, controller) {
		d.needed = append(d.needed, controller)
	}
}

// write adds a step in h.
func (c *compiler) write(h Hierarchy, s Step) {
	d := c.of(h)
	d.writes = append(d.writes, s)
}

func (c *compiler) want(l Layout, w want) error {
	h, ok := place(l, w)
	files := w.v1
	if h.V2 {
		files = w.v2
	}
	switch {
	case w.normal && (!ok || len(files) == 0):
		return nil
	case !ok && len(w.v1) == 0 && l.Unified.Mount == "":
		return unsupported(w.field, w.controller(true), "this host mounts version 1 only")
	case !ok && len(w.v1) == 0:
		return unsupported(w.field, w.controller(true), "the version 2 hierarchy of this host does not have it")
	case !ok && len(w.v2) == 0 && len(l.V1) == 0:
		return unsupported(w.field, w.controller(false), "it exists in version 1 only and this host mounts version 2")
	case !ok:
		return unsupported(w.field, w.controller(len(l.V1) == 0), "no hierarchy of this host has it")
	case len(files) == 0 && h.V2:
		return unsupported(w.field, w.controller(true), "version 2 has no such limit")
	case len(files) == 0:
		return unsupported(w.field, w.controller(false), "version 1 has no such limit")
	}
	if !h.V2 && w.bad1 != "" {
		return invalid(w.field, w.bad1)
	}
	controller := w.controller(h.V2)
	if controller == "cgroup" {
		c.need(h, "") // cgroup.max.depth and the like: every group has them
	} else {
		c.need(h, controller)
	}
	for _, f := range files {
		step := Step{Op: Write, Path: path.Join(h.Dir(c.group), f.Name), Value: f.Value,
			For: w.field, Controller: controller, Or: f.or, Optional: f.optional || w.normal, Try: f.try, V2: h.V2}
		if controller == "cpuset" && !h.V2 {
			step.Above = c.inherit(h, path.Dir(c.group), nil)
		}
		c.write(h, step)
	}
	return nil
}

// place finds the hierarchy for w: a limit of version 1 goes where its
// controller is mounted, else the unified hierarchy must have it.
func place(l Layout, w want) (Hierarchy, bool) {
	for _, h := range l.V1 {
		if w.c1 != "" && h.Has(w.c1) {
			return h, true
		}
	}
	return l.Unified, l.Unified.Mount != "" && w.c2 != "" && (l.Unified.Has(w.c2) || w.c2 == "cgroup")
}

// wish wants controllers where the host has them.
func (c *compiler) wish(l Layout, controllers []string) {
	for _, name := range controllers {
		h, ok := l.Find(name)
		switch {
		case ok && h.V2:
			if d := c.of(h); !slices.Contains(d.needed, name) {
				d.wished = append(d.wished, name)
			}
		case ok:
			c.need(h, name)
		}
	}
}

// devices uses the version 1 controller where it is mounted and a program in
// the unified hierarchy elsewhere. On version 1 a new group that may use all
// devices needs no directory: it is where its maker is.
func (c *compiler) devices(l Layout, rules []DeviceRule) error {
	const field = "linux.resources.devices"
	if rules == nil {
		return nil
	}
	for _, r := range rules {
		if why := r.wrong(); why != "" {
			return invalid(field, why)
		}
	}
	h, ok := l.Find("devices")
	guard := Step{Op: Guard, Path: h.Dir(c.group), Rules: rules, For: field, Controller: "devices", Fresh: !c.o.Exist && !c.o.Adopt && !c.o.Unit}
	switch {
	case c.o.Rootless && (ok || l.Unified.Mount == ""):
		return nil
	case ok:
		list, err := reduce(rules)
		if err != nil {
			return err
		}
		if guard.Rules = list.rules(); list.all() && !c.o.Exist {
			return nil
		}
		c.need(h, "devices")
	case l.Unified.Mount != "" && (len(rules) > mostRules || len(Program(rules)) > mostInstructions):
		return unsupported(field, "devices", "there are too many rules for one program")
	case l.Unified.Mount != "":
		h = l.Unified
		guard.Path, guard.V2, guard.Optional = h.Dir(c.group), true, c.o.Rootless
	default:
		return unsupported(field, "devices", "no hierarchy of this host has it")
	}
	c.write(h, guard)
	return nil
}

// mostRules bounds the work of making a program of them.
const mostRules = 4096

// hierarchy adds the steps in one of them: the directory, the controllers handed
// down to it, then the knobs. What lies above the group is there already for
// all groups but the first: it is looked after only when something fails.
func (c *compiler) hierarchy(steps []Step, h Hierarchy, d *demand) []Step {
	mk := Step{Op: Mkdir, Path: h.Dir(c.group), V2: h.V2, Leaf: true, Above: c.parents(h)}
	switch {
	case c.o.Exist:
		mk.Value = shared
	case c.o.Adopt:
		mk.Value, mk.made = adopt, new(bool)
	case c.o.Unit:
		mk.Value = unit
	}
	steps = append(steps, mk)
	switch {
	case h.V2 && len(d.needed)+len(d.wished) > 0:
		steps = append(steps, Step{Op: Need, Path: path.Join(mk.Path, "cgroup.controllers"), Value: strings.Join(append(slices.Clone(d.needed), d.wished...), " "), V2: true, Above: c.enables(h, d)})
	case h.Has("cpuset") && !h.V2:
		steps = append(steps, c.inherit(h, c.group, d.writes)...)
	}
	for _, s := range d.writes {
		s.made = mk.made
		steps = append(steps, s)
	}
	if c.o.Owner != 0 && (h.V2 || h.named()) {
		steps = append(steps, Step{Op: Own, Path: mk.Path, Value: strconv.Itoa(c.o.Owner), V2: h.V2})
	}
	return steps
}

// above are the groups above the group, from the top, without the root.
func (c *compiler) above() []string {
	var groups []string
	for at := path.Dir(c.group); at != "/"; at = path.Dir(at) {
		groups = append(groups, at)
	}
	slices.Reverse(groups)
	return groups
}

// parents make the groups above.
func (c *compiler) parents(h Hierarchy) []Step {
	var steps []Step
	for _, at := range c.above() {
		steps = append(steps, Step{Op: Mkdir, Path: h.Dir(at), Value: shared, V2: h.V2})
		if h.Has("cpuset") && !h.V2 {
			steps = append(steps, c.inherit(h, at, nil)...)
		}
	}
	return steps
}

// inherit fills the cpuset of one group from that of the group above, but for
// what writes say.
func (c *compiler) inherit(h Hierarchy, group string, writes []Step) []Step {
	var steps []Step
	if group == "/" {
		return nil
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		file := path.Join(h.Dir(group), name)
		if !slices.ContainsFunc(writes, func(s Step) bool { return s.Path == file }) {
			steps = append(steps, Step{Op: Inherit, Path: file})
		}
	}
	return steps
}

// enables hand the controllers on from all groups above, from the top.
func (c *compiler) enables(h Hierarchy, d *demand) []Step {
	var steps []Step
	for _, at := range append([]string{"/"}, c.above()...) {
		for _, e := range []struct {
			controllers []string
			optional    bool
		}{{d.needed, false}, {d.wished, true}} {
			if len(e.controllers) > 0 {
				steps = append(steps, Step{Op: Enable, Path: path.Join(h.Dir(at), "cgroup.subtree_control"), Value: "+" + strings.Join(e.controllers, " +"), V2: true, Optional: e.optional})
			}
		}
	}
	return steps
}

// Dirs are the directories of the group that steps make, the unified one
// first.
func Dirs(steps []Step) []string {
	var dirs []string
	for _, s := range steps {
		if s.Op == Mkdir && s.Leaf {
			dirs = append(dirs, s.Path)
		}
	}
	return dirs
}

// UnifiedDir is the directory of the group in the unified hierarchy, for
// CLONE_INTO_CGROUP. It is empty where there is none.
func UnifiedDir(steps []Step) string {
	for _, s := range steps {
		if s.Op == Mkdir && s.Leaf && s.V2 {
			return s.Path
		}
	}
	return ""
}

// Tasks are the version 1 files into which a process with one thread, or a
// thread that is about to fork or to exec, writes "0" to get itself in without
// the price of AttachSteps.
func Tasks(steps []Step) []string {
	var files []string
	for _, s := range steps {
		if s.Op == Mkdir && s.Leaf && !s.V2 {
			files = append(files, path.Join(s.Path, "tasks"))
		}
	}
	return files
}

// Enter moves the calling thread, which must be locked to its goroutine, into
// the version 1 directories that steps make, so that what it forks is born
// there. Leave moves it back and must be called on the same thread: Go never
// ends a process's first thread, which would hold the group for ever.
func Enter(l Layout, steps []Step) (leave func() error, err error) {
	const self = "/proc/thread-self/cgroup"
	table, err := sys.ReadKnob(self, 1<<20)
	if err != nil {
		return nil, &fault.Error{Op: "read", On: self, Err: err}
	}
	var back []string
	leave = func() error {
		for _, f := range back {
			if err := sys.WriteKnob(f, "0"); err != nil {
				return wrap("leave cgroup for", f, err)
			}
		}
		return nil
	}
	for _, f := range Tasks(steps) {
		if err := sys.WriteKnob(f, "0"); err != nil {
			leave()
			return nil, wrap("enter cgroup", path.Dir(f), err)
		}
		for _, h := range l.V1 {
			if old, ok := parseMembership(table, h); ok && strings.HasPrefix(f, h.Mount+"/") {
				back = append(back, path.Join(h.Dir(old), "tasks"))
			}
		}
	}
	return leave, nil
}

// AttachSteps move the process pid with all its threads into the group that
// steps make. Zero is the caller.
func AttachSteps(steps []Step, pid int) []Step {
	var out []Step
	for _, s := range steps {
		if s.Op == Mkdir && s.Leaf {
			out = append(out, attachTo(s.Path, pid, s.V2))
		}
	}
	return out
}

func attachTo(dir string, pid int, v2 bool) Step {
	return Step{Op: Attach, Path: path.Join(dir, "cgroup.procs"), Value: strconv.Itoa(pid), V2: v2}
}

func invalid(field, why string) error {
	return &fault.Error{Op: "limit", On: strings.TrimPrefix(field, "linux.resources."), Kind: fault.Invalid, Err: errText(why)}
}

// errText is an error that is only its text.
type errText string

func (e errText) Error() string { return string(e) }
