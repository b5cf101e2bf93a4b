package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/container/plan"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/namespace"
)

// An Identity is which process a number means: the kernel gives numbers again.
type Identity struct {
	PID   int
	Start uint64 // in clock ticks since the host's boot
}

// Identify tells which process has the number pid now. Zombies count.
// It is fault.NotFound where there is none. Source: proc_pid_stat(5).
func Identify(pid int) (Identity, error) {
	s, err := statOf(pid)
	return Identity{pid, s.start}, err
}

// Alive reports whether the process is there and no zombie.
func (id Identity) Alive() bool {
	s, err := statOf(id.PID)
	return err == nil && s.start == id.Start && !s.dead()
}

// Open opens a pidfd of the process, the caller's to close. It is
// fault.NotFound where the process has ended, also when its number has been
// given to another one, and when it is a zombie.
func (id Identity) Open() (int, error) { return id.open(Identity.Alive) }

// Watch is Open for who waits for the end: what is a zombie already is opened
// too. One may look like that and not have ended yet, whose first thread has
// ended before the others.
func (id Identity) Watch() (int, error) { return id.open(Identity.known) }

// known reports whether the kernel still knows the process, zombies too.
func (id Identity) known() bool {
	s, err := statOf(id.PID)
	return err == nil && s.start == id.Start
}

// Exit is how a process has ended that nobody has waited for yet: exit_code of
// proc_pid_stat(5). It takes who may trace the process, as root and who has made
// its user namespace may; the kernel tells others 0. To ask makes sense when its
// pidfd says that it has ended.
func (id Identity) Exit() (status syscall.WaitStatus, ok bool) {
	s, err := statOf(id.PID)
	return s.exit, err == nil && s.start == id.Start && s.dead()
}

func (id Identity) open(is func(Identity) bool) (int, error) {
	if id.PID <= 0 {
		return -1, noProcess(id.PID, syscall.ESRCH)
	}
	fd, err := sys.PidfdOpen(id.PID)
	if err != nil {
		return -1, &fault.Error{Op: "find process", On: strconv.Itoa(id.PID), Err: err}
	}
	// From here on fd means one process, whatever happens to its number. If
	// it is not the one that is meant, that one is gone.
	if !is(id) {
		sys.Close(fd)
		return -1, noProcess(id.PID, syscall.ESRCH)
	}
	return fd, nil
}

// Elsewhere are the kinds of namespaces that a process has to join to be where
// the process pid is: "mnt", "pid". It names none that may not be joined because
// this thread is in it. Source: namespaces(7).
func Elsewhere(pid int) ([]string, error) {
	var kinds []string
	all := false
	for _, k := range namespace.Kinds() {
		if all && k.Children == "" && k.File != "mnt" {
			kinds = append(kinds, k.File)
			continue
		}
		own, err := sys.ReadlinkAt(unix.AT_FDCWD, "/proc/thread-self/ns/"+k.File)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without this kind
		}
		its, failed := sys.ReadlinkAt(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/ns/%s", pid, k.File))
		if err = errors.Join(err, failed); err != nil {
			return nil, &fault.Error{Op: "look at the namespaces of process", On: strconv.Itoa(pid), Err: err}
		}
		if own != its {
			kinds = append(kinds, k.File)
		}
		// The host's root may join what it is in: to ask costs more, 5 µs for
		// each. But not where that makes a process a child's, or where it has
		// to be alone; and whether a container has a mount namespace matters.
		all = all || k.Name == "user" && own == its && own == firstUserns
	}
	return kinds, nil
}

// firstUserns is the name of the user namespace of the host: PROC_USER_INIT_INO of
// linux/proc_ns.h.
const firstUserns = "user:[4026531837]"

// IDMaps are the maps of the user namespace of the process pid, as seen from
// this process's.
func IDMaps(pid int) (uids, gids []plan.IDMap, err error) {
	uids, err = readMap(pid, "uid_map")
	if err != nil {
		return nil, nil, err
	}
	gids, err = readMap(pid, "gid_map")
	return uids, gids, err
}

// Target is the container of the process pid, as one more process sees it that
// is to join it. What it says of cgroups is the caller's to add.
func Target(pid int) (plan.Target, error) {
	t := plan.Target{Root: RootOf(pid)}
	var err error
	if t.Namespaces, err = Elsewhere(pid); err == nil && slices.Contains(t.Namespaces, "user") {
		t.UIDs, t.GIDs, err = IDMaps(pid)
	}
	return t, err
}

// maxMap is more than the 340 lines that a map has at most.
const maxMap = 64 << 10

func readMap(pid int, name string) ([]plan.IDMap, error) {
	file := fmt.Sprintf("/proc/%d/%s", pid, name)
	text, err := sys.ReadKnob(file, maxMap)
	if err != nil {
		return nil, &fault.Error{Op: "read", On: file, Err: err}
	}
	var maps []plan.IDMap
	for line := range strings.Lines(text) {
		var m plan.IDMap
		if _, err := fmt.Sscan(line, &m.Inside, &m.Outside, &m.Size); err != nil {
			return nil, &fault.Error{Op: "read", On: file, Kind: fault.Invalid, Err: err}
		}
		maps = append(maps, m)
	}
	return maps, nil
}

// stat is what counts here of proc_pid_stat(5).
type stat struct {
	state byte
	start uint64
	exit  syscall.WaitStatus
}

func (s stat) dead() bool { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }

func noProcess(pid int, err error) error {
	return &fault.Error{Op: "find process", On: strconv.Itoa(pid), Kind: fault.NotFound, Err: err}
}

func statOf(pid int) (stat, error) {
	if pid <= 0 {
		return stat{}, noProcess(pid, syscall.ESRCH)
	}
	text, err := sys.ReadKnob("/proc/"+strconv.Itoa(pid)+"/stat", 4096)
	if err != nil {
		return stat{}, noProcess(pid, err)
	}
	return parseStat([]byte(text))
}

// parseStat reads PID (NAME) STATE and so on. A name may hold anything.
func parseStat(text []byte) (stat, error) {
	bad := &fault.Error{Op: "read", On: "/proc/PID/stat", Kind: fault.Invalid, Err: errors.New("it is not as proc_pid_stat(5) says")}
	const state, start, exit = 0, 19, 49 // fields 3, 22 and 52: the name is the second
	var f [exit + 1][]byte
	n := 0
	for word := range bytes.FieldsSeq(text[bytes.LastIndexByte(text, ')')+1:]) {
		if f[n] = word; n == exit {
			break
		}
		n++
	}
	if n != exit || len(f[state]) != 1 {
		return stat{}, bad
	}
	began, err := strconv.ParseUint(string(f[start]), 10, 64)
	code, failed := strconv.ParseUint(string(f[exit]), 10, 32)
	if err != nil || failed != nil {
		return stat{}, bad
	}
	return stat{f[state][0], began, syscall.WaitStatus(code)}, nil
}

// Descriptor tells what a descriptor of the process is: a path, or "pipe:[INODE]"
// and the like. A file on no mount of the process's namespace is outside, and
// is "file[MOUNT:INODE]", in hexadecimal. Source: proc_pid_fd(5),
// proc_pid_fdinfo(5).
func (id Identity) Descriptor(fd int) (name string, outside bool, err error) {
	proc := fmt.Sprintf("/proc/%d/", id.PID)
	name, err = os.Readlink(fmt.Sprintf("%sfd/%d", proc, fd))
	if err != nil || !strings.HasPrefix(name, "/") {
		return name, false, err
	}
	info, err := sys.ReadKnob(fmt.Sprintf("%sfdinfo/%d", proc, fd), 4096)
	if err != nil {
		return "", false, err
	}
	mount := -1
	for line := range strings.Lines(info) {
		_, _ = fmt.Sscanf(line, "mnt_id: %d", &mount)
	}
	mounts, err := os.ReadFile(proc + "mountinfo")
	if err != nil {
		return "", false, err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.HasPrefix(line, strconv.Itoa(mount)+" ") {
			return name, false, nil
		}
	}
	_, inode, err := sys.InodeOf(fmt.Sprintf("%sfd/%d", proc, fd))
	return fmt.Sprintf("file[%x:%x]", mount, inode), true, err
}

// Arguments are those that the process was executed with, at most 64 KiB of them:
// proc_pid_cmdline(5). Whoever runs as the same user may have changed them.
func (id Identity) Arguments() ([]string, error) {
	text, err := sys.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id.PID), 64<<10)
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), err
}

// Named are the processes whose first argument is name.
func Named(name string) (found []Identity) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	entries, _ := dir.Readdirnames(-1)
	for _, e := range entries {
		pid, err := strconv.Atoi(e)
		if err != nil {
			continue
		}
		id, err := Identify(pid)
		if err != nil {
			continue
		}
		if args, err := id.Arguments(); err == nil && args[0] == name {
			found = append(found, id)
		}
	}
	return found
}
