package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Hierarchy is one mounted tree of cgroups.
type Hierarchy struct {
	Mount       string   // where: "/sys/fs/cgroup/memory"
	Root        string   // the cgroup that is seen there, "/" unless a part is mounted
	Controllers []string // in the kernel's order; "name=systemd" for a named one
	V2          bool

	// Below is the cgroup below which groups are made, empty for the root:
	// see For.
	Below string

	own string // the caller's, where Detect has seen it
}

// Dir is the directory of the cgroup with the given path ("/kiste/web").
func (h Hierarchy) Dir(group string) string {
	if h.Root != "/" {
		if rest, ok := strings.CutPrefix(group, h.Root); ok && (rest == "" || rest[0] == '/') {
			group = rest
		}
	}
	if isPlain(h.Mount) && (h.Below == "" || isPlain(h.Below)) && isPlain(group) {
		return h.Mount + h.Below + group // which path.Join would make of them, too
	}
	return path.Join(h.Mount, h.Below, group)
}

// isPlain reports whether p begins with a slash and is clean.
func isPlain(p string) bool {
	return p != "" && p[0] == '/' && p[len(p)-1] != '/' && !strings.Contains(p, "//") && !strings.Contains(p, "/.")
}

// Has reports whether h has the controller.
func (h Hierarchy) Has(controller string) bool { return slices.Contains(h.Controllers, controller) }

// named reports whether h is of version 1 and has no controller, but a name.
func (h Hierarchy) named() bool {
	return !h.V2 && len(h.Controllers) > 0 && !slices.ContainsFunc(h.Controllers, func(c string) bool { return !strings.HasPrefix(c, "name=") })
}

// A Layout is what a host mounts. It is plain data: tests and plans for
// other hosts write their own.
type Layout struct {
	// Unified is the version 2 hierarchy; its Mount is empty where there is
	// none. Controllers are those of its root's cgroup.controllers.
	Unified Hierarchy

	// V1 are the version 1 hierarchies in the order of the mount table.
	V1 []Hierarchy

	// Shelf is the tmpfs with a directory for each hierarchy, on which it is mounted, and
	// with a link for each controller of several in one. It is empty where they lie otherwise.
	Shelf string `json:"-"`
}

// Kind is "v2", "hybrid", "v1" or "none".
func (l Layout) Kind() string {
	switch {
	case l.Unified.Mount != "" && len(l.V1) == 0:
		return "v2"
	case l.Unified.Mount != "":
		return "hybrid"
	case len(l.V1) > 0:
		return "v1"
	}
	return "none"
}

// All are the hierarchies, the unified one first.
func (l Layout) All() []Hierarchy {
	if l.Unified.Mount == "" {
		return l.V1
	}
	return append([]Hierarchy{l.Unified}, l.V1...)
}

// Find is the hierarchy that has the controller. Version 1 is asked first,
// since what is mounted there cannot be had in version 2.
func (l Layout) Find(controller string) (Hierarchy, bool) {
	for _, h := range l.V1 {
		if h.Has(controller) {
			return h, true
		}
	}
	return l.Unified, l.Unified.Mount != "" && l.Unified.Has(controller)
}

// Base is the hierarchy in which every group of ours has a directory: the
// unified one, else the freezer, else the first.
func (l Layout) Base() (Hierarchy, bool) {
	if l.Unified.Mount != "" {
		return l.Unified, true
	}
	if h, ok := l.Find("freezer"); ok {
		return h, true
	}
	if len(l.V1) > 0 {
		return l.V1[0], true
	}
	return Hierarchy{}, false
}

// maxTable bounds what is read of /proc: a host with many containers has some
// hundred kilobytes of mounts.
const maxTable = 16 << 20

// Detect finds which hierarchies this process sees. Where they are mounted as
// systemd does, whole and below /sys/fs/cgroup, that costs a few calls however
// much is mounted; else /proc/self/mountinfo is read, which the kernel needs
// long to write on a busy host. A host without cgroups is an empty Layout and
// no error.
func Detect() (Layout, error) {
	l, ok := usual()
	if !ok {
		table, err := sys.ReadKnob("/proc/self/mountinfo", maxTable)
		if err != nil {
			return Layout{}, &fault.Error{Op: "detect cgroups", Err: err}
		}
		l = parseMounts(table)
	}
	if l.Unified.Mount != "" {
		c, err := sys.ReadKnob(l.Unified.Mount+"/cgroup.controllers", 4096)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Layout{}, &fault.Error{Op: "detect cgroups", Err: err}
		}
		l.Unified.Controllers = strings.Fields(c)
	}
	return l, nil
}

// UsualMount is where systemd mounts the unified hierarchy, or a tmpfs with
// all of them.
const UsualMount = "/sys/fs/cgroup"

// Hold is for a command that makes a group, and ends soon: see sys.Hold.
func Hold() { sys.Hold(UsualMount) }

// usual is the layout without the unified one's controllers. It is not ok where
// anything is unusual.
func usual() (Layout, bool) {
	var l Layout
	top, err := sys.Statfs(UsualMount)
	if err == nil && top.Type == unix.CGROUP2_SUPER_MAGIC {
		l.Unified = Hierarchy{Mount: UsualMount, Root: "/", V2: true}
		return l, whole(UsualMount)
	}
	table, err := sys.ReadKnob("/proc/self/cgroup", 1<<20)
	if err != nil {
		return l, false
	}
	lines := strings.Split(strings.TrimSpace(table), "\n")
	l.V1 = make([]Hierarchy, 0, len(lines))
	if top.Type == unix.TMPFS_MAGIC {
		l.Shelf = UsualMount
	}
	// The kernel has the newest hierarchy first.
	for _, line := range slices.Backward(lines) {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			return l, false
		}
		if f[0] == "0" {
			if at := UsualMount + "/unified"; whole(at) {
				l.Unified = Hierarchy{Mount: at, Root: "/", V2: true, own: f[2]}
			}
			continue
		}
		at := UsualMount + "/" + strings.TrimPrefix(f[1], "name=")
		if strings.Contains(at, "..") || !whole(at) {
			return l, false
		}
		h := Hierarchy{Mount: at, Root: "/", Controllers: strings.Split(f[1], ","), own: f[2]}
		if !h.linked() {
			l.Shelf = ""
		}
		l.V1 = append(l.V1, h)
	}
	return l, len(l.V1) > 0
}

// whole reports whether the root of a hierarchy is mounted at dir: its inode
// is the first. No directory that could be there without a mount has that.
func whole(dir string) bool {
	_, inode, err := sys.InodeHere(dir)
	return err == nil && inode == 1
}

// linked reports whether each controller of several has its link beside h.
func (h Hierarchy) linked() bool {
	name := path.Base(h.Mount)
	return len(h.Controllers) == 1 || !slices.ContainsFunc(h.Controllers, func(c string) bool {
		to, err := os.Readlink(path.Join(path.Dir(h.Mount), c))
		return err != nil || to != name
	})
}

// v1Controllers are the words of a version 1 mount's options that name
// controllers; the others are options. Source: cgroups(7).
var v1Controllers = []string{"blkio", "cpu", "cpuacct", "cpuset", "debug", "devices", "freezer", "hugetlb", "memory",
	"misc", "net_cls", "net_prio", "perf_event", "pids", "rdma"}

// parseMounts reads a mount table as in proc_pid_mountinfo(5). Of several
// mounts of one hierarchy the first counts; a mount hides what earlier ones
// put at or below its mount point.
func parseMounts(table string) Layout {
	var seen []Hierarchy
	for line := range strings.Lines(table) {
		if !strings.Contains(line, "cgroup") {
			continue // nearly all lines of a big table
		}
		left, right, ok := strings.Cut(line, " - ")
		f, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 5 || len(r) < 3 {
			continue
		}
		at := unescape(f[4])
		seen = slices.DeleteFunc(seen, func(h Hierarchy) bool { return h.Mount == at || strings.HasPrefix(h.Mount, at+"/") })
		h := Hierarchy{Mount: at, Root: unescape(f[3])}
		switch r[0] {
		case "cgroup2":
			h.V2 = true
		case "cgroup":
			h.Controllers = controllersOf(r[2])
		}
		if h.V2 || len(h.Controllers) > 0 {
			seen = append(seen, h)
		}
	}
	var l Layout
	for _, h := range seen {
		if h.V2 && l.Unified.Mount == "" {
			l.Unified = h
		}
		if !h.V2 && !slices.ContainsFunc(l.V1, func(o Hierarchy) bool { return slices.Equal(o.Controllers, h.Controllers) }) {
			l.V1 = append(l.V1, h)
		}
	}
	return l
}

func controllersOf(options string) []string {
	var c []string
	for o := range strings.SplitSeq(options, ",") {
		if slices.Contains(v1Controllers, o) || strings.HasPrefix(o, "name=") {
			c = append(c, o)
		}
	}
	return c
}

// unescape reads the octal escapes (\040) of a mount table.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Of tells in which cgroup the process pid is, as its path in the base
// hierarchy of l ("/kiste/web"). Zero is the caller.
func Of(l Layout, pid int) (string, error) {
	who := "self"
	if pid != 0 {
		who = strconv.Itoa(pid)
	}
	table, err := sys.ReadKnob("/proc/"+who+"/cgroup", 1<<20)
	if err != nil {
		return "", &fault.Error{Op: "find cgroup of process", On: who, Kind: fault.NotFound, Err: err}
	}
	base, ok := l.Base()
	if !ok {
		return "", noCgroups("find cgroup of process")
	}
	p, ok := parseMembership(table, base)
	if !ok {
		return "", &fault.Error{Op: "find cgroup of process", On: who, Kind: fault.NotFound}
	}
	return p, nil
}

// parseMembership finds h's line in the text of /proc/PID/cgroup, see
// cgroups(7): number, controllers and path between colons.
func parseMembership(table string, h Hierarchy) (string, bool) {
	for line := range strings.Lines(table) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		if h.V2 && f[0] == "0" && f[1] == "" || !h.V2 && slices.Equal(strings.Split(f[1], ","), h.Controllers) {
			return strings.TrimSuffix(f[2], " (deleted)"), true
		}
	}
	return "", false
}

func noCgroups(op string) error {
	return &fault.Error{Op: op, Kind: fault.Unsupported, Err: errors.New("no cgroup hierarchy is mounted"),
		Hint: "mount -t cgroup2 cgroup2 /sys/fs/cgroup"}
}

// CheckPath returns path in its clean form, with a slash before it, and
// refuses one that leads upwards, or whose parts could be taken for a file of
// the kernel's.
func CheckPath(group string) (string, error) {
	bad := func(why string) (string, error) {
		return "", &fault.Error{Op: "take cgroup path", On: group, Kind: fault.Invalid, Err: errors.New(why)}
	}
	group = strings.Trim(group, "/")
	if group == "" || len(group) > 3072 {
		return bad("want a path such as kiste/web")
	}
	for part := range strings.SplitSeq(group, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return bad("it must not have empty parts, . or ..")
		case len(part) > 255:
			return bad("a part is longer than 255 bytes")
		case strings.HasPrefix(part, "cgroup.") || part == "tasks":
			return bad("the kernel has files of such a name")
		case strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return bad("it must not have control characters")
		}
	}
	return "/" + group, nil
}
