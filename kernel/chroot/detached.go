package chroot

import (
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
)

// A Shift says by which user namespace a mount's owners are shifted: what
// belongs to uid 1000 on disk shows as the namespace's 1000, and is written so.
type Shift struct {
	Userns   int // a descriptor
	UID, GID int // the namespace's root, outside
}

// ErrShift is that the kernel does not shift owners on a file system: it is one that
// cannot be id-mapped (EINVAL of mount_setattr(2) with MOUNT_ATTR_IDMAP).
var ErrShift = errors.New("its file system cannot be id-mapped")

// A notShifted is the kernel's error of an ErrShift.
type notShifted struct{ error }

func (e notShifted) Unwrap() error        { return e.error }
func (e notShifted) Is(target error) bool { return target == ErrShift }

// Detached makes the mount, attached to nothing: a descriptor that can be
// attached in any mount namespace, and is the caller's to close. By may be
// nil. Needs CAP_SYS_ADMIN in the initial user namespace, and to shift, file
// systems that can be id-mapped, or it is ErrShift.
//
// Of an overlay the layers are shifted, which needs Linux 5.19.
func (m Mount) Detached(by *Shift) (int, error) {
	p, err := ParseOptions(m.Options)
	if err != nil {
		return -1, m.failed(err)
	}
	var tree int
	switch {
	case m.Type == "overlay" && by != nil:
		tree, err = m.shiftedOverlay(p, by)
	case m.Type == "overlay":
		tree, err = m.tree(p)
		if err != nil {
			tree, err = m.byPath(p, nil)
		}
	default:
		tree, err = m.tree(p)
		if err == nil && len(p.Propagation) == 0 {
			// A clone of a shared mount is its peer: what is mounted on
			// it would be mounted on the host too.
			p.Propagation = []uint64{unix.MS_PRIVATE | unix.MS_REC}
		}
		if err == nil && by != nil {
			err = by.shift(tree, p.IDMap == "ridmap")
		}
	}
	if err == nil {
		err = setTree(tree, p)
	}
	if err != nil {
		if tree >= 0 {
			sys.Close(tree)
		}
		return -1, m.failed(err)
	}
	return tree, nil
}

// setTree sets what the options say: by one call where the tree is one mount.
func setTree(tree int, p Parsed) error {
	if !p.Rec && p.RecSet|p.RecClear == 0 && len(p.Propagation) == 1 {
		return sys.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: p.Set, Attr_clr: p.Clear, Propagation: p.Propagation[0] &^ unix.MS_REC})
	}
	if err := setAttrs(tree, p); err != nil {
		return err
	}
	return propagateTree(tree, p)
}

// shift makes a detached mount id-mapped.
func (by *Shift) shift(tree int, all bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if all {
		flags |= unix.AT_RECURSIVE
	}
	err := sys.MountSetattr(tree, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(by.Userns)})
	if errors.Is(err, unix.EINVAL) {
		return notShifted{err}
	}
	return err
}

// tree is a detached, shifted mount of a directory.
func (by *Shift) tree(dir string) (int, error) {
	tree, err := sys.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE)
	if err != nil {
		return -1, err
	}
	err = sys.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	if err == nil && by != nil {
		err = by.shift(tree, false)
	}
	if err != nil {
		sys.Close(tree)
		return -1, err
	}
	return tree, nil
}

// shiftedOverlay hands the layers to overlayfs as detached mounts, which it
// takes since Linux 6.13, or else as paths.
func (m Mount) shiftedOverlay(p Parsed, by *Shift) (int, error) {
	tree, err := m.byDescriptor(p, by)
	if err == nil {
		return tree, nil
	}
	if again, byPathErr := m.byPath(p, by); byPathErr == nil {
		return again, nil
	}
	return -1, err
}

func (m Mount) byDescriptor(p Parsed, by *Shift) (int, error) {
	fs, err := sys.Fsopen("overlay")
	if err != nil {
		return -1, err
	}
	defer sys.Close(fs)
	trees := &trees{by: by}
	defer trees.close()
	give := func(key, dir string) error {
		fd, err := trees.open(dir, m.layers())
		if err != nil {
			return err
		}
		return sys.FsconfigFD(fs, key, fd)
	}
	for _, layer := range m.Lower {
		if err := give("lowerdir+", layer); err != nil {
			return -1, err
		}
	}
	if m.Upper != "" {
		if err := errors.Join(give("upperdir", m.Upper), give("workdir", m.Work)); err != nil {
			return -1, err
		}
	}
	for _, word := range append([]string{"source=overlay"}, p.Data...) {
		if err := set(fs, word); err != nil {
			return -1, err
		}
	}
	if err := by.asRoot(func() error { return sys.FsconfigCreate(fs) }); err != nil {
		return -1, err
	}
	return sys.Fsmount(fs, int(p.Set))
}

// asRoot does what makes files on shifted mounts as the namespace's root: the
// host's has no id there. Overlayfs remembers who mounted it, and makes all
// its files as that one.
func (by *Shift) asRoot(do func() error) error {
	if by == nil {
		return do()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	restore, err := sys.ActAs(by.UID, by.GID)
	if err != nil {
		return err
	}
	defer restore()
	return do()
}

// layers are all directories of an overlay.
func (m Mount) layers() []string {
	if m.Upper == "" {
		return m.Lower
	}
	return append(slices.Clip(m.Lower), m.Upper, m.Work)
}

// trees are detached, shifted mounts, and what was opened in them. A detached
// mount ends with its descriptor, so all are kept until the overlay has its
// own. To make and to end one costs 0.1 ms; so there is one for all layers that
// lie on one file system, of the directory that they have in common.
type trees struct {
	by   *Shift
	base string
	tree int
	fds  []int
}

func (t *trees) open(dir string, all []string) (int, error) {
	if t.base == "" {
		t.base, t.tree = commonDir(all), -1
		if tree, err := t.by.tree(t.base); err == nil {
			t.tree, t.fds = tree, append(t.fds, tree)
		}
	}
	if t.tree >= 0 && sameDevice(t.base, dir) {
		rest, _ := filepath.Rel(t.base, dir)
		fd, err := sys.OpenIn(t.tree, rest, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err == nil {
			t.fds = append(t.fds, fd)
			return fd, nil
		}
	}
	fd, err := t.by.tree(dir)
	if err == nil {
		t.fds = append(t.fds, fd)
	}
	return fd, err
}

func (t *trees) close() {
	for _, fd := range t.fds {
		sys.Close(fd)
	}
}

// commonDir is the deepest directory that holds all of dirs.
func commonDir(dirs []string) string {
	base := filepath.Dir(dirs[0])
	for _, dir := range dirs[1:] {
		for base != "/" && !strings.HasPrefix(dir, base+"/") {
			base = filepath.Dir(base)
		}
	}
	return base
}

// sameDevice: nothing else is mounted between the two, or it would not be
// below the mount of base.
func sameDevice(base, dir string) bool {
	a, err := sys.StatAt(unix.AT_FDCWD, base)
	if err != nil {
		return false
	}
	b, err := sys.StatAt(unix.AT_FDCWD, dir)
	return err == nil && a.Dev == b.Dev
}

// byPath mounts the overlay in a mount namespace of its own, in which the
// shifted layers lie over the ones that they are made of, and takes the
// overlay out of it.
func (m Mount) byPath(p Parsed, by *Shift) (int, error) {
	return Privately(func() (int, error) { return m.byPathHere(p, by) })
}

// Privately lets do make a detached mount in a mount namespace of its own,
// which ends with do. Kernels before 6.15 clone only what is mounted somewhere.
// Needs CAP_SYS_ADMIN.
func Privately(do func() (int, error)) (int, error) {
	return sys.OnOwnThread(func() (int, error) {
		if err := sys.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return -1, err
		}
		if err := sys.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return -1, err
		}
		return do()
	})
}

func (m Mount) byPathHere(p Parsed, by *Shift) (int, error) {
	cover := m.Lower
	if m.Upper != "" {
		cover = append(append([]string(nil), m.Lower...), filepath.Dir(m.Upper))
	}
	for _, dir := range cover {
		tree, err := by.tree(dir)
		if err != nil {
			return -1, err
		}
		err = sys.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
		sys.Close(tree)
		if err != nil {
			return -1, err
		}
	}
	var tree int
	err := by.asRoot(func() (err error) { tree, err = m.overPage(p); return err })
	return tree, err
}

// overPage is mount(2) with the layers in one page of options, which kernels
// before 6.5 want, on a directory that exists for certain.
func (m Mount) overPage(p Parsed) (int, error) {
	lower := make([]string, len(m.Lower))
	for i, l := range m.Lower {
		lower[i] = EscapeLayer(l)
	}
	data := "lowerdir=" + strings.Join(lower, ":")
	if m.Upper != "" {
		data += ",upperdir=" + EscapeLayer(m.Upper) + ",workdir=" + EscapeLayer(m.Work)
	}
	for _, word := range p.Data {
		data += "," + PageOption(word)
	}
	if err := sys.Mount("overlay", Spare, "overlay", 0, data); err != nil {
		return -1, err
	}
	return sys.OpenTree(unix.AT_FDCWD, Spare, unix.OPEN_TREE_CLONE)
}

// Spare is a directory that exists for certain, to mount on in a mount namespace
// that no process but this one sees.
const Spare = "/proc"

// PageOption writes an option as mount(2) reads it among others: a context of SELinux, with commas
// between its categories, in quotes.
func PageOption(word string) string {
	key, value, _ := strings.Cut(word, "=")
	if strings.HasSuffix(key, "context") && strings.Contains(value, ",") {
		return key + `="` + value + `"`
	}
	return word
}

// EscapeLayer writes a path as overlayfs reads it in its options.
func EscapeLayer(s string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(s)
}
