package namespace

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Namespace is one that List has found.
type Namespace struct {
	Inode     uint64   `json:"ns"` // its name: what readlink /proc/PID/ns/KIND shows
	Kind      string   `json:"type"`
	Processes int      `json:"nprocs"`
	PID       int      `json:"pid,omitempty"` // the lowest; 0: nobody is in
	UID       uint32   `json:"uid"`           // of that process
	User      string   `json:"user,omitempty"`
	Command   string   `json:"command,omitempty"`
	Pins      []string `json:"pins,omitempty"`
	Owner     uint64   `json:"owner,omitempty"`  // the user namespace that it belongs to; 0: not known
	Parent    uint64   `json:"parent,omitempty"` // of pid and user namespaces; 0: none, or out of sight
}

// maxProcesses bounds what List looks at: Linux has at most 2^22 pids.
const maxProcesses = 1 << 22

// List tells which namespaces there are and who is in which: those of all
// processes that this one may look at, of their children to come, and those
// pinned in pins. A process that vanishes meanwhile is passed over. The order
// is that of Kinds, then that of the lowest pids.
func List(pins Pins) ([]Namespace, error) {
	pinned, err := pins.List()
	if err != nil {
		return nil, err
	}
	found := census{byInode: map[uint64]*Namespace{}, users: userNames()}
	if err := found.processes(); err != nil {
		return nil, err
	}
	for _, p := range pinned {
		n := found.at(p.Inode, p.Target.Kind.Name, p.Target.Path)
		n.Pins = append(n.Pins, p.Name)
	}
	return found.sorted(), nil
}

type census struct {
	byInode map[uint64]*Namespace
	users   map[string]string
}

func (c *census) processes() error {
	d, err := os.Open("/proc")
	if err != nil {
		return &fault.Error{Op: "list processes", Err: err}
	}
	defer d.Close()
	for total := 0; total < maxProcesses; {
		names, err := d.Readdirnames(512)
		for _, n := range names {
			if pid, err := strconv.Atoi(n); err == nil && pid > 0 {
				c.process(pid)
			}
		}
		if len(names) == 0 || err != nil {
			return nil
		}
		total += len(names)
	}
	return nil
}

// process counts pid in each of its namespaces.
func (c *census) process(pid int) {
	base := "/proc/" + strconv.Itoa(pid) + "/ns/"
	for _, k := range Kinds() {
		inode, ok := readLink(base + k.File)
		if !ok {
			continue
		}
		n := c.at(inode, k.Name, base+k.File)
		n.Processes++
		if n.PID == 0 || pid < n.PID {
			n.PID = pid
		}
		if k.Children == "" {
			continue
		}
		if next, ok := readLink(base + k.Children); ok && next != inode {
			c.at(next, k.Name, base+k.Children)
		}
	}
}

// readLink takes the number out of "net:[4026531840]".
func readLink(path string) (uint64, bool) {
	text, err := os.Readlink(path)
	if err != nil {
		return 0, false
	}
	_, rest, ok := strings.Cut(text, ":[")
	n, err := strconv.ParseUint(strings.TrimSuffix(rest, "]"), 10, 64)
	return n, ok && err == nil
}

// at is the namespace with the number inode; path is asked for its relations
// the first time.
func (c *census) at(inode uint64, kind, path string) *Namespace {
	n := c.byInode[inode]
	if n != nil {
		return n
	}
	n = &Namespace{Inode: inode, Kind: kind}
	c.byInode[inode] = n
	fd, err := sys.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return n
	}
	defer closeAll([]int{fd})
	n.Owner = related(sys.NamespaceOwner(fd))
	if kind == "pid" || kind == "user" {
		n.Parent = related(sys.NamespaceParent(fd))
	}
	return n
}

func related(fd int, err error) uint64 {
	if err != nil {
		return 0
	}
	defer closeAll([]int{fd})
	_, inode, _ := sys.Inode(fd)
	return inode
}

func (c *census) sorted() []Namespace {
	order := map[string]int{}
	for i, k := range Kinds() {
		order[k.Name] = i
	}
	var all []Namespace
	for _, n := range c.byInode {
		c.describe(n)
		all = append(all, *n)
	}
	slices.SortFunc(all, func(a, b Namespace) int {
		if d := order[a.Kind] - order[b.Kind]; d != 0 {
			return d
		}
		if a.PID != b.PID {
			return a.PID - b.PID
		}
		return int(int64(a.Inode) - int64(b.Inode))
	})
	return all
}

// describe looks up the command and the user of the lowest pid.
func (c *census) describe(n *Namespace) {
	if n.PID == 0 {
		return
	}
	base := "/proc/" + strconv.Itoa(n.PID)
	n.Command = command(base)
	uid, err := sys.OwnerOf(base)
	if err != nil {
		return
	}
	n.UID, n.User = uid, strconv.FormatUint(uint64(uid), 10)
	if name := c.users[n.User]; name != "" {
		n.User = name
	}
}

// maxCommand bounds what is shown of a command line, which a process can
// make as long and as strange as it likes.
const maxCommand = 256

// command is what /proc/PID/cmdline says, on one line; a kernel thread has
// only its comm, in brackets.
func command(base string) string {
	text, _ := readBounded(base+"/cmdline", maxCommand)
	text = strings.TrimRight(text, "\x00")
	if text == "" {
		comm, _ := readBounded(base+"/comm", 64)
		text = "[" + strings.TrimSpace(comm) + "]"
	}
	return printable(text)
}

// printable replaces what could move a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == 0:
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// userNames reads the names of /etc/passwd by number.
func userNames() map[string]string {
	names := map[string]string{}
	text, _ := readBounded("/etc/passwd", maxSubordinate)
	for line := range strings.Lines(text) {
		if p := strings.SplitN(line, ":", 4); len(p) == 4 && names[p[2]] == "" {
			names[p[2]] = p[0]
		}
	}
	return names
}

// Of is the numbers of the namespaces that process pid is in.
func Of(pid int) ([]uint64, error) {
	var all []uint64
	for _, k := range Kinds() {
		path := "/proc/" + strconv.Itoa(pid) + "/ns/" + k.File
		inode, ok := readLink(path)
		if !ok {
			_, err := os.Readlink(path)
			return nil, &fault.Error{Op: "find namespaces of process", On: strconv.Itoa(pid), Err: err}
		}
		all = append(all, inode)
	}
	return all, nil
}
