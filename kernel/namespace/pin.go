package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

// Pins keeps namespaces alive without a process, below one directory:
// Dir/NAME/KIND is a bind mount of a namespace. Dir itself is a mount too, and
// private, since the kernel pins no mount namespace on a shared one.
type Pins struct{ Dir string }

// maxPins bounds what List reads.
const maxPins = 10000

// Pin pins the namespaces of process pid, 0 for the calling thread, under
// name: kinds, or without any all kinds. It needs CAP_SYS_ADMIN. A name that
// has one of the kinds already is fault.Exists, and then nothing is pinned.
func (p Pins) Pin(name string, pid int, kinds ...Kind) error {
	if !validName(name) {
		return badName(name)
	}
	if len(kinds) == 0 {
		kinds = Kinds()
	}
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.prepare(); err != nil {
		return err
	}
	var done []string
	for _, k := range kinds {
		path := filepath.Join(p.Dir, name, k.Name)
		if err := pin(source(pid, k), path); err != nil {
			for _, d := range done {
				err = errors.Join(err, unpin(d))
			}
			_ = os.Remove(filepath.Join(p.Dir, name)) // stays when it has others
			return errors.Join(err, p.tidy())
		}
		done = append(done, path)
	}
	return nil
}

func source(pid int, k Kind) string {
	who := "thread-self"
	if pid != 0 {
		who = strconv.Itoa(pid)
	}
	return filepath.Join("/proc", who, "ns", k.File)
}

func pin(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return &fault.Error{Op: "pin namespace", On: to, Err: err}
	}
	f, err := os.OpenFile(to, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return &fault.Error{Op: "pin namespace", On: to, Err: err}
	}
	f.Close()
	if err := sys.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(&fault.Error{Op: "pin namespace", On: to, Err: err, Hint: deniedHint(err)}, os.Remove(to))
	}
	return nil
}

func deniedHint(err error) string {
	switch fault.KindOf(err) {
	case fault.Denied:
		if os.Geteuid() == 0 {
			return "the process may do more than this one, or mounting is forbidden here"
		}
		return "be root: a pin is a bind mount"
	case fault.Invalid:
		return "a mount namespace can be pinned only by an older one: pin it from outside"
	}
	return ""
}

// Remove ends the pins under name, of kinds or of all. Processes inside live
// on.
func (p Pins) Remove(name string, kinds ...Kind) error {
	if !validName(name) {
		return badName(name)
	}
	dir := filepath.Join(p.Dir, name)
	if _, err := os.Stat(dir); err != nil {
		return &fault.Error{Op: "remove pin", On: name, Err: err, Hint: `"kiste namespace list" shows the pins`}
	}
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if len(kinds) == 0 {
		kinds = Kinds()
	}
	for _, k := range kinds {
		if err := unpin(filepath.Join(dir, k.Name)); err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
		return &fault.Error{Op: "remove pin", On: name, Err: err}
	}
	return p.tidy()
}

func unpin(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// a file that is no mount was left by a crash: EINVAL
	if err := sys.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
		return &fault.Error{Op: "remove pin", On: path, Err: err, Hint: deniedHint(err)}
	}
	if err := os.Remove(path); err != nil {
		return &fault.Error{Op: "remove pin", On: path, Err: err}
	}
	return nil
}

// A Pinned is one pin.
type Pinned struct {
	Name   string
	Target Target
	Inode  uint64
}

// List lists the pins by name. One that a reboot or a crash left empty is
// passed over.
func (p Pins) List() ([]Pinned, error) {
	names, err := os.ReadDir(p.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &fault.Error{Op: "list pins", On: p.Dir, Err: err}
	}
	var all []Pinned
	for _, n := range names {
		if !n.IsDir() || len(all) > maxPins {
			continue
		}
		for _, k := range Kinds() {
			t := Target{k, filepath.Join(p.Dir, n.Name(), k.Name)}
			fds, err := openTargets([]Target{t})
			if err == nil {
				_, inode, _ := sys.Inode(fds[0])
				all = append(all, Pinned{n.Name(), t, inode})
			}
			closeAll(fds)
		}
	}
	slices.SortStableFunc(all, func(a, b Pinned) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// lock keeps two from preparing and tidying Dir at once. The file is beside
// Dir, which comes and goes.
func (p Pins) lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(p.Dir), 0o711); err != nil {
		return nil, &fault.Error{Op: "lock pins", On: p.Dir, Err: err}
	}
	l, err := store.LockFile(p.Dir+".lock", true)
	if err != nil {
		return nil, &fault.Error{Op: "lock pins", On: p.Dir, Err: err}
	}
	return func() { _ = l.Unlock() }, nil
}

// prepare makes Dir a private mount of its own.
func (p Pins) prepare() error {
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		return &fault.Error{Op: "prepare pins in", On: p.Dir, Err: err}
	}
	if p.mounted() {
		return nil
	}
	err := sys.Mount(p.Dir, p.Dir, "", unix.MS_BIND, "")
	if err == nil {
		err = sys.Mount("none", p.Dir, "", unix.MS_PRIVATE, "")
	}
	if err != nil {
		return &fault.Error{Op: "prepare pins in", On: p.Dir, Err: err, Hint: deniedHint(err)}
	}
	return nil
}

// mounted reports whether Dir is a mount: a bind mount of a directory on
// itself has the same device, so mountinfo tells.
func (p Pins) mounted() bool {
	dir, err := filepath.EvalSymlinks(p.Dir)
	if err != nil {
		return false
	}
	text, err := readBounded("/proc/thread-self/mountinfo", maxMountinfo)
	if err != nil {
		return false
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == escape(dir) {
			return true
		}
	}
	return false
}

const maxMountinfo = 32 << 20

// escape writes a path as /proc/PID/mountinfo does.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(path)
}

// tidy takes Dir away when the last pin is gone.
func (p Pins) tidy() error {
	left, err := os.ReadDir(p.Dir)
	if err != nil || len(left) > 0 {
		return nil
	}
	if p.mounted() {
		if err := sys.Unmount(p.Dir, unix.MNT_DETACH); err != nil {
			return &fault.Error{Op: "tidy up pins in", On: p.Dir, Err: err}
		}
	}
	_ = os.Remove(p.Dir)
	return nil
}

// validName reports whether name can be a pin's: a file's name that no pid
// and no option can be taken for.
func validName(name string) bool {
	if name == "" || len(name) > 64 || name[0] == '-' || name[0] == '.' {
		return false
	}
	if _, err := strconv.ParseUint(name, 10, 64); err == nil {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r))
	})
}

func badName(name string) error {
	return &fault.Error{Op: "name pin", On: name[:min(len(name), 64)], Kind: fault.Invalid,
		Err: fmt.Errorf("want 1 to 64 of a-z A-Z 0-9 - _ . and not a number")}
}
