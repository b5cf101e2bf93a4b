package cgroup

import (
	"path"
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

	// Account also wants the controllers whose usage is of interest without
	// a limit: cpu, memory, pids and io, as far as the host has them.
	Account bool

	// Memory is the limit in force, where Exist, and 0 or -1 where there is
	// none: it decides whether version 1 takes the new memory limit or the
	// new swap limit first.
	Memory int64
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
	c := compiler{group: group, o: o, needed: map[string][]string{}, wished: map[string][]string{}, writes: map[string][]Step{}}
	c.need(base, "")
	for _, w := range wants {
		if err := c.want(l, w); err != nil {
			return nil, err
		}
	}
	if o.Account {
		c.account(l)
	}
	if err := c.devices(l, lim.Devices); err != nil {
		return nil, err
	}
	var steps []Step
	for _, h := range l.All() {
		if _, ok := c.needed[h.Mount]; ok {
			steps = append(steps, c.hierarchy(h)...)
		}
	}
	return steps, nil
}

// A compiler collects by mount point which controllers are needed there and
// what is to be written.
type compiler struct {
	group  string
	o      Options
	needed map[string][]string
	wished map[string][]string // for accounting: no error when it cannot be
	writes map[string][]Step
}

func (c *compiler) need(h Hierarchy, controller string) {
	have := c.needed[h.Mount]
	if controller != "" && !contains(have, controller) {
		have = append(have, controller)
	}
	c.needed[h.Mount] = have
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
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
	controller := w.controller(h.V2)
	if controller == "cgroup" {
		c.need(h, "") // cgroup.max.depth and the like: every group has them
	} else {
		c.need(h, controller)
	}
	for _, f := range files {
		c.writes[h.Mount] = append(c.writes[h.Mount], Step{Op: Write, Path: path.Join(h.Dir(c.group), f.Name), Value: f.Value,
			For: w.field, Controller: controller, Or: f.or, Optional: f.optional || w.normal, V2: h.V2})
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

func (c *compiler) account(l Layout) {
	for _, name := range accounting {
		h, ok := l.Find(name)
		switch {
		case ok && h.V2 && !contains(c.needed[h.Mount], name):
			c.wished[h.Mount] = append(c.wished[h.Mount], name)
		case ok:
			c.need(h, name)
		}
	}
}

// devices uses the version 1 controller where it is mounted and a program in
// the unified hierarchy elsewhere.
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
	switch {
	case ok:
		c.need(h, "devices")
		dir := h.Dir(c.group)
		add := func(file, value string) {
			c.writes[h.Mount] = append(c.writes[h.Mount], Step{Op: Write, Path: path.Join(dir, file), Value: value, For: field, Controller: "devices"})
		}
		if len(rules) == 0 || rules[0].Allow || rules[0].v1()[0] != "a" {
			add("devices.deny", "a") // a new group allows all: a list begins with nothing
		}
		for _, r := range rules {
			for _, v := range r.v1() {
				add(r.file(), v)
			}
		}
	case l.Unified.Mount != "":
		c.writes[l.Unified.Mount] = append(c.writes[l.Unified.Mount],
			Step{Op: Guard, Path: l.Unified.Dir(c.group), Rules: rules, For: field, Controller: "devices", V2: true})
	default:
		return unsupported(field, "devices", "no hierarchy of this host has it")
	}
	return nil
}

// hierarchy is the steps in one of them: directories from the top, controllers
// handed down, then the knobs.
func (c *compiler) hierarchy(h Hierarchy) []Step {
	var steps []Step
	parts := strings.Split(strings.Trim(c.group, "/"), "/")
	at := "/"
	for i, part := range parts {
		if h.V2 {
			steps = append(steps, enables(h.Dir(at), c.needed[h.Mount], false)...)
			steps = append(steps, enables(h.Dir(at), c.wished[h.Mount], true)...)
		}
		at = path.Join(at, part)
		leaf := i == len(parts)-1
		mk := Step{Op: Mkdir, Path: h.Dir(at), V2: h.V2, Leaf: leaf}
		if !leaf || c.o.Exist {
			mk.Value = shared
		}
		steps = append(steps, mk)
		if h.Has("cpuset") && !h.V2 {
			steps = append(steps, Step{Op: Inherit, Path: path.Join(h.Dir(at), "cpuset.cpus")},
				Step{Op: Inherit, Path: path.Join(h.Dir(at), "cpuset.mems")})
		}
	}
	return append(steps, c.writes[h.Mount]...)
}

// enables is the step that hands controllers on from the group dir.
func enables(dir string, controllers []string, optional bool) []Step {
	if len(controllers) == 0 {
		return nil
	}
	return []Step{{Op: Enable, Path: path.Join(dir, "cgroup.subtree_control"), Value: "+" + strings.Join(controllers, " +"), V2: true, Optional: optional}}
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
