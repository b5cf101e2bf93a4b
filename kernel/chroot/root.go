package chroot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Root is a directory to be entered. The zero value of the options is what
// one wants for installing and repairing a system.
type Root struct {
	Dir      string
	Binds    []Mount // of type "bind"; missing targets are made
	ReadOnly bool    // Dir and all that is mounted below it
	Plain    bool    // no /proc, /sys, /dev and so on

	// InUserns: the caller is root of a user namespace only, which may
	// neither make device nodes nor mount a proc(5) of processes not its own.
	InUserns bool
}

// A piece is a part of the furniture.
type piece struct {
	Mount
	file bool // the target is a file
	must bool // an error where the tree has something unfit there
}

func (r Root) furniture() []piece {
	if r.Plain {
		return nil
	}
	return append(append(r.kernelFiles(), r.devices()...),
		piece{Mount: Mount{Type: "tmpfs", Source: "run", Target: "/run", Options: []string{"nosuid", "nodev", "mode=0755"}}},
		piece{Mount: Mount{Type: "tmpfs", Source: "tmp", Target: "/tmp", Options: []string{"nosuid", "nodev", "strictatime", "mode=1777"}}},
		piece{Mount: Mount{Type: "bind", Source: "/etc/resolv.conf", Target: "/etc/resolv.conf", Options: []string{"ro"}}, file: true},
	)
}

func (r Root) kernelFiles() []piece {
	if r.InUserns {
		return []piece{
			{Mount: Mount{Type: "bind", Source: "/proc", Target: "/proc", Options: []string{"rbind"}}, must: true},
			{Mount: Mount{Type: "bind", Source: "/sys", Target: "/sys", Options: []string{"rbind", "rro"}}},
		}
	}
	return []piece{
		{Mount: Mount{Type: "proc", Source: "proc", Target: "/proc", Options: []string{"nosuid", "noexec", "nodev"}}, must: true},
		{Mount: Mount{Type: "sysfs", Source: "sys", Target: "/sys", Options: []string{"nosuid", "noexec", "nodev", "ro"}}, must: true},
	}
}

// devices is a /dev of its own in a user namespace, where the host's would
// show terminals that are not ours.
func (r Root) devices() []piece {
	pts := piece{Mount: Mount{Type: "devpts", Source: "devpts", Target: "/dev/pts", Options: []string{"nosuid", "noexec", "mode=0620", "ptmxmode=0666"}}}
	shm := piece{Mount: Mount{Type: "tmpfs", Source: "shm", Target: "/dev/shm", Options: []string{"nosuid", "nodev", "mode=1777"}}}
	if !r.InUserns {
		pts.Options = append(pts.Options, "gid=5")
		return []piece{{Mount: Mount{Type: "bind", Source: "/dev", Target: "/dev"}, must: true}, pts, shm}
	}
	all := []piece{{Mount: Mount{Type: "tmpfs", Source: "dev", Target: "/dev", Options: []string{"nosuid", "mode=0755"}}, must: true}, pts, shm}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		all = append(all, piece{Mount: Mount{Type: "bind", Source: "/dev/" + name, Target: "/dev/" + name}, file: true, must: true})
	}
	return all
}

// Enter makes r the root and working directory of the calling goroutine's
// thread, which stays locked: what it executes is in there. No other thread of
// this process is, and after an error the thread is of no use to others.
func (r Root) Enter() error {
	runtime.LockOSThread()
	if err := sys.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return &fault.Error{Op: "make a mount namespace", Err: err, Hint: "be root, or use a user namespace"}
	}
	if err := sys.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	tree, err := r.attach()
	if err != nil {
		return &fault.Error{Op: "enter", On: r.Dir, Err: err}
	}
	defer sys.Close(tree)
	for _, p := range r.furniture() {
		if err := p.put(tree); err != nil {
			return err
		}
	}
	for _, m := range r.Binds {
		if err := bind(tree, m); err != nil {
			return err
		}
	}
	if err := pivot(tree); err != nil {
		return &fault.Error{Op: "make root", On: r.Dir, Err: err}
	}
	return nil
}

// attach mounts Dir, with all below it, on itself, and returns the root of
// that mount.
func (r Root) attach() (int, error) {
	dir, err := sys.OpenFile(r.Dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer sys.Close(dir)
	if err := r.looksLikeRoot(dir); err != nil {
		return -1, err
	}
	tree, err := sys.OpenTree(dir, "", unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, err
	}
	if r.ReadOnly {
		err = r.makeReadOnly(tree)
	}
	if err == nil {
		err = sys.MoveMount(tree, "", dir, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	}
	if err != nil {
		sys.Close(tree)
		return -1, err
	}
	return tree, nil
}

// looksLikeRoot refuses an empty directory before mount points are made in it:
// nothing could run there.
func (r Root) looksLikeRoot(dir int) error {
	if len(r.Binds) > 0 {
		return nil
	}
	fd, err := sys.OpenIn(dir, "/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), r.Dir)
	defer f.Close()
	if _, err := f.Readdirnames(1); err != io.EOF {
		return err
	}
	return &fault.Error{Op: "find a system in", On: r.Dir, Kind: fault.Invalid, Err: errors.New("the directory is empty"),
		Hint: "install one there first, with mmdebstrap for instance, or mount its file system"}
}

// makeReadOnly makes the mount points first, since afterwards it is too late.
func (r Root) makeReadOnly(tree int) error {
	for _, p := range r.furniture() {
		if !p.file && !strings.HasPrefix(p.Target, "/dev/") {
			_ = sys.MkdirAt(tree, p.Target[1:], 0o755)
		}
	}
	for _, m := range r.Binds {
		_ = makeTarget(tree, m)
	}
	return sys.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// put mounts the piece, unless it may be left out and the tree has no place
// for it.
func (p piece) put(tree int) error {
	target, err := p.place(tree)
	if err != nil && !p.must {
		return nil
	}
	if err != nil {
		return &fault.Error{Op: "mount on", On: p.Target, Err: err,
			Hint: "make it a directory in the tree, or enter without mounts: --no-mounts"}
	}
	defer sys.Close(target)
	err = p.on(target)
	if err != nil && !p.must {
		return nil
	}
	return err
}

// place opens the mount point. One that is itself a symbolic link is refused,
// whatever it points to; resolv.conf alone may be one, inside the tree.
func (p piece) place(tree int) (int, error) {
	inDev := strings.HasPrefix(p.Target, "/dev/")
	flags := uint64(unix.O_PATH | unix.O_NOFOLLOW)
	switch {
	case !p.file && !inDev:
		_ = sys.MkdirAt(tree, p.Target[1:], 0o755)
	case inDev:
		if err := p.placeInDev(tree); err != nil {
			return -1, err
		}
	default:
		flags = unix.O_PATH
	}
	fd, err := sys.OpenIn(tree, p.Target, flags, 0)
	if err != nil {
		return -1, err
	}
	if err := p.fits(fd); err != nil {
		sys.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (p piece) fits(fd int) error {
	st, err := sys.StatAt(fd, "")
	if err != nil {
		return err
	}
	switch kind := st.Mode & unix.S_IFMT; {
	case kind == unix.S_IFLNK:
		return fmt.Errorf("it is a symbolic link, which is not followed: %w", fault.Invalid)
	case !p.file && kind != unix.S_IFDIR:
		return unix.ENOTDIR
	case p.file && kind == unix.S_IFDIR:
		return fmt.Errorf("it is a directory: %w", fault.Invalid)
	}
	return nil
}

// placeInDev makes a place in a /dev that is ours and empty; in the host's all
// are there already.
func (p piece) placeInDev(tree int) error {
	dev, err := sys.OpenIn(tree, "/dev", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer sys.Close(dev)
	name := path.Base(p.Target)
	if p.file {
		err = sys.MknodAt(dev, name, unix.S_IFREG|0o666, 0)
	} else {
		_, err = sys.StatAt(dev, name)
		if errors.Is(err, unix.ENOENT) {
			err = sys.MkdirAt(dev, name, 0o755)
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

func bind(tree int, m Mount) error {
	if err := makeTarget(tree, m); err != nil {
		return m.failed(err)
	}
	return m.DoIn(tree)
}

// makeTarget makes the target of a bind, and the directories above it, inside
// the tree: a directory for a directory, else an empty file.
func makeTarget(tree int, m Mount) error {
	if fd, err := sys.OpenIn(tree, m.Target, unix.O_PATH, 0); err == nil {
		return sys.Close(fd)
	}
	source, err := sys.OpenFile(m.Source, unix.O_PATH)
	if err != nil {
		return err
	}
	defer sys.Close(source)
	st, err := sys.StatAt(source, "")
	if err != nil {
		return err
	}
	parent, name := path.Split(path.Clean("/" + m.Target))
	dir, err := makeDirs(tree, parent)
	if err != nil {
		return err
	}
	defer sys.Close(dir)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return sys.MkdirAt(dir, name, 0o755)
	}
	return sys.MknodAt(dir, name, unix.S_IFREG|0o644, 0)
}

// makeDirs opens the directory at name in the tree, and makes what is missing.
func makeDirs(tree int, name string) (int, error) {
	at, err := sys.OpenIn(tree, "/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	whole := ""
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if part == "" {
			break
		}
		whole += "/" + part
		next, err := sys.OpenIn(tree, whole, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if errors.Is(err, unix.ENOENT) {
			if err = sys.MkdirAt(at, part, 0o755); err == nil {
				next, err = sys.OpenIn(tree, whole, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			}
		}
		sys.Close(at)
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}

// pivot makes the mount of which tree is the root the root, and detaches the
// old one, which pivot_root(".", ".") has put on top: see pivot_root(2).
func pivot(tree int) error {
	if err := sys.Fchdir(tree); err != nil {
		return err
	}
	if err := sys.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := sys.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return sys.Chdir("/")
}
