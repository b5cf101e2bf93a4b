package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Group is a cgroup that exists: one directory in each hierarchy that has
// it. It is running, frozen, or gone:
//
//	          Freeze                Remove, when empty
//	running ─────────▶ frozen      ────────────────────▶ gone
//	        ◀─────────
//	           Thaw
//
// Kill works in both states. The state is the kernel's alone.
type Group struct {
	Path string // "/kiste/web"

	layout Layout
	dirs   []dir // the unified one first
}

// A dir is a group's directory in one hierarchy.
type dir struct {
	path string
	h    Hierarchy
}

// Open finds the group at path in the hierarchies of l. It is fault.NotFound
// where none has it.
func Open(l Layout, group string) (*Group, error) {
	p, err := CheckPath(group)
	if err != nil {
		return nil, err
	}
	g := &Group{Path: p, layout: l}
	for _, h := range l.All() {
		d := h.Dir(p)
		if there, _ := sys.Look(d); there {
			g.dirs = append(g.dirs, dir{d, h})
		}
	}
	if len(g.dirs) == 0 {
		return nil, &fault.Error{Op: "open cgroup", On: p, Kind: fault.NotFound, Err: syscall.ENOENT, Hint: `"kiste cgroup show" lists the groups`}
	}
	return g, nil
}

// Create compiles lim for a new group at path and does the steps.
func Create(l Layout, group string, lim Limits, o Options) (*Group, error) {
	steps, err := Compile(l, group, lim, o)
	if err != nil {
		return nil, err
	}
	if err := Do(steps); err != nil {
		return nil, err
	}
	return Open(l, group)
}

// Dirs are the group's directories, the unified one first.
func (g *Group) Dirs() []string {
	var out []string
	for _, d := range g.dirs {
		out = append(out, d.path)
	}
	return out
}

// Dir is the group's directory in the unified hierarchy, for
// CLONE_INTO_CGROUP, or "".
func (g *Group) Dir() string {
	if d, ok := g.unified(); ok {
		return d.path
	}
	return ""
}

func (g *Group) unified() (dir, bool) {
	for _, d := range g.dirs {
		if d.h.V2 {
			return d, true
		}
	}
	return dir{}, false
}

// with is the group's directory that has controller's files.
func (g *Group) with(controller string) (dir, bool) {
	h, ok := g.layout.Find(controller)
	if !ok {
		return dir{}, false
	}
	for _, d := range g.dirs {
		if d.h.Mount == h.Mount {
			return d, true
		}
	}
	return dir{}, false
}

// Entrance is the directory in h, of version 2, in which one more process may enter
// the group: one that hands controllers on has its processes in groups below,
// and then that of the process pid is a good one.
func Entrance(l Layout, h Hierarchy, group string, pid int) string {
	dir := h.Dir(group)
	if !HandsOn(dir) {
		return dir
	}
	own, err := Of(l, pid)
	if err != nil || !strings.HasPrefix(own, group+"/") {
		return dir
	}
	return h.Dir(own)
}

// HandsOn reports whether the group at dir, of version 2, hands controllers on
// to groups below it, so that no process can enter it.
func HandsOn(dir string) bool {
	text, err := sys.ReadKnob(dir+"/cgroup.subtree_control", 4096)
	return err == nil && strings.TrimSpace(text) != ""
}

// Attach moves the process pid, zero for the caller, into the group.
func (g *Group) Attach(pid int) error {
	for _, d := range g.dirs {
		if err := attachTo(d.path, pid, d.h.V2).Do(); err != nil {
			return err
		}
	}
	return nil
}

// Procs are the processes in the group and below it.
func (g *Group) Procs() ([]int, error) {
	var pids []int
	for _, d := range g.dirs {
		more, err := procsBelow(d.path)
		if err != nil {
			return nil, &fault.Error{Op: "list processes of cgroup", On: g.Path, Err: err}
		}
		pids = append(pids, more...)
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// procsBelow are the processes in the group dir of one hierarchy and below it.
func procsBelow(dir string) (pids []int, err error) {
	err = walk(dir, func(at string) error {
		b, err := sys.ReadKnob(path.Join(at, "cgroup.procs"), 1<<20)
		for _, n := range numbers(b) {
			if n > 0 { // 0: a process of another pid namespace
				pids = append(pids, n)
			}
		}
		if errors.Is(err, syscall.EOPNOTSUPP) {
			return nil // a threaded group: its processes are counted above
		}
		return err
	})
	return pids, err
}

func numbers(text string) []int {
	var out []int
	for w := range strings.FieldsSeq(text) {
		if n, err := strconv.Atoi(w); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// maxDepth bounds the walk: a container may make groups in its own.
const maxDepth = 64

// walk calls f for dir and the groups below it, the deepest first. What
// vanishes meanwhile is no error.
func walk(dir string, f func(at string) error) error { return walkTo(dir, f, maxDepth) }

func walkTo(dir string, f func(at string) error, depth int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return gone(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if depth == 0 {
			return &fault.Error{Op: "walk cgroups below", On: dir, Kind: fault.Invalid, Err: errText("they are nested too deep")}
		}
		if err := walkTo(path.Join(dir, e.Name()), f, depth-1); err != nil {
			return err
		}
	}
	return gone(f(dir))
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return err
}

// Update changes the limits that lim names and leaves the others. Where a
// limit needs a hierarchy in which the group has no directory yet, it gets one
// and its processes are moved.
func (g *Group) Update(lim Limits) error { return g.UpdateBy(lim, nil) }

// UpdateBy is Update that shows the steps before they are done, and does those
// that it gets back. Nil: nobody looks.
func (g *Group) UpdateBy(lim Limits, show func([]Step) ([]Step, error)) error {
	if err := g.checkUsage(lim.Memory); err != nil {
		return err
	}
	steps, err := Compile(g.layout, g.Path, lim, Options{Exist: true, Now: g.Now()})
	if err == nil && show != nil {
		steps, err = show(steps)
	}
	if err != nil {
		return err
	}
	if err := doAll(steps); err != nil {
		return err
	}
	later, err := Open(g.layout, g.Path)
	if err != nil || len(later.dirs) == len(g.dirs) {
		return err
	}
	old := g.dirs
	g.dirs = later.dirs
	return g.spread(old)
}

// spread moves the group's processes into those directories that are not
// among old.
func (g *Group) spread(old []dir) error {
	pids, err := (&Group{Path: g.Path, layout: g.layout, dirs: old}).Procs()
	if err != nil {
		return err
	}
	for _, d := range g.dirs {
		if slices.ContainsFunc(old, func(o dir) bool { return o.path == d.path }) {
			continue
		}
		for _, pid := range pids {
			if err := attachTo(d.path, pid, d.h.V2).Do(); err != nil && fault.KindOf(err) != fault.NotFound {
				return err
			}
		}
	}
	return nil
}

// checkUsage refuses a limit of memory, or of memory with swap, that the group
// uses up now: file pages that nobody has asked for lately are not counted,
// since the kernel drops them first. What it uses is not known before it is
// there.
func (g *Group) checkUsage(m Memory) error {
	if !m.CheckUsage || m.Limit <= 0 && m.Swap <= 0 {
		return nil
	}
	u, err := g.Usage()
	if err != nil || u.Memory == nil {
		return err
	}
	used := u.Memory.Used()
	for _, limit := range []int64{m.Swap, m.Limit} {
		if limit > 0 && limit <= used {
			return &fault.Error{Op: "limit memory of cgroup", On: g.Path, Kind: fault.Conflict,
				Err:  errText("it uses " + strconv.FormatInt(used, 10) + " bytes now, and the limit is to be " + strconv.FormatInt(limit, 10)),
				Hint: "a limit below the usage would kill processes"}
		}
	}
	return nil
}

// Now are the limits of the group that decide how Compile changes others.
func (g *Group) Now() Now {
	var n Now
	if d, ok := g.with("memory"); ok && d.h.V2 {
		n.Memory, _ = readNumber(d.path, "memory.max")
		n.Swap, _ = readNumber(d.path, "memory.swap.max")
	} else if ok {
		n.Memory, _ = readNumber(d.path, "memory.limit_in_bytes")
		n.Swap = -1
		if both, err := readNumber(d.path, "memory.memsw.limit_in_bytes"); err == nil && both >= n.Memory && n.Memory > 0 {
			n.Swap = both - n.Memory
		}
	}
	if d, ok := g.with("cpu"); ok && d.h.V2 {
		text, _ := sys.ReadKnob(d.path+"/cpu.max", 64)
		quota, period, _ := strings.Cut(strings.TrimSpace(text), " ")
		n.Quota, _ = parseNumberFile(quota)
		n.Period, _ = strconv.ParseUint(period, 10, 64)
	}
	return n
}

// Frozen reports whether the group at path is there and frozen: one read, where
// Open looks into every hierarchy.
func Frozen(l Layout, group string) bool { return isFrozen(FreezerFile(l, group)) }

// FreezerFile is the file of the group at path that has the text "0\n" while it
// is not frozen, or ""; where it is not there, nobody has ever frozen the group.
func FreezerFile(l Layout, group string) string {
	if group == "" {
		return ""
	}
	g := &Group{Path: group, layout: l}
	for _, h := range l.All() {
		g.dirs = append(g.dirs, dir{h.Dir(group), h})
	}
	return g.freezerFile()
}

// Frozen reports whether the group is frozen.
func (g *Group) Frozen() bool { return isFrozen(g.freezerFile()) }

func (g *Group) freezerFile() string {
	if d, ok := g.unified(); ok {
		return d.path + "/cgroup.freeze"
	}
	if d, ok := g.with("freezer"); ok {
		// Not freezer.state, which tells of the groups above as well.
		return d.path + "/freezer.self_freezing"
	}
	return ""
}

func isFrozen(file string) bool {
	if file == "" {
		return false
	}
	v, _ := sys.ReadKnob(file, 16)
	return strings.TrimSpace(v) == "1"
}

// Remove removes the group and those below it once they are empty, for which
// it waits until ctx ends. What still holds processes then is fault.Conflict;
// it kills nobody.
func (g *Group) Remove(ctx context.Context) error {
	for tries := 0; ; tries++ {
		err := g.rmdir()
		if !errors.Is(err, syscall.EBUSY) {
			return wrap("remove cgroup", g.Path, err)
		}
		if g.Wait(ctx) != nil || tries > 0 && pause(ctx, 200*time.Microsecond) != nil {
			return g.busy(err)
		}
	}
}

// Discard removes the group in all hierarchies of l where nobody is in it and no
// group below it, which is how a group mostly ends; it does not look first, since
// rmdir(2) does. It reports whether the group is gone. Where it is not, Open and
// End do the rest.
func Discard(l Layout, group string) bool {
	p, err := CheckPath(group)
	if err != nil {
		return false
	}
	// What is entered first goes first, so that a group that somebody is in,
	// or is entering, keeps its limits in all. The unified one goes last:
	// while it stands, others see that the group is not gone yet.
	for _, h := range l.V1 {
		if gone(sys.Rmdir(h.Dir(p))) != nil {
			return false
		}
	}
	return l.Unified.Mount == "" || gone(sys.Rmdir(l.Unified.Dir(p))) == nil
}

// End kills what is in the group and removes it, for which it waits until ctx
// ends. Mostly nobody is there any more.
func (g *Group) End(ctx context.Context) error {
	err := g.rmdir()
	if !errors.Is(err, syscall.EBUSY) {
		return wrap("remove cgroup", g.Path, err)
	}
	if err := g.Kill(ctx); err != nil {
		return err
	}
	if g.Frozen() {
		if err := g.Thaw(ctx); err != nil {
			return err
		}
	}
	return g.Remove(ctx)
}

func (g *Group) populated() bool {
	if d, ok := g.unified(); ok {
		text, _ := sys.ReadKnob(d.path+"/cgroup.events", 512)
		v, _ := fieldOf(text, "populated")
		return v == "1"
	}
	pids, _ := g.Procs()
	return len(pids) > 0
}

func (g *Group) busy(err error) error {
	pids, _ := g.Procs()
	e := &fault.Error{Op: "remove cgroup", On: g.Path, Kind: fault.Conflict, Err: err}
	if len(pids) > 0 {
		e.Err = errText("process " + strconv.Itoa(pids[0]) + " is in it")
		e.Hint = `"kiste cgroup kill" ends its processes`
	}
	return e
}

// rmdir tries once, in all hierarchies, the unified one last: while it
// stands, others see that the group is not gone yet. A group that somebody is
// in, or is entering, keeps its limits in all.
func (g *Group) rmdir() error {
	if g.populated() {
		return syscall.EBUSY
	}
	for _, d := range slices.Backward(g.dirs) {
		err := gone(sys.Rmdir(d.path))
		if errors.Is(err, syscall.EBUSY) {
			err = walk(d.path, sys.Rmdir) // groups below it
		}
		if err != nil {
			return err
		}
	}
	return nil
}
