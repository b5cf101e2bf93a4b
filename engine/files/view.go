package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/engine"
	"kiste/fault"
	"kiste/image/layer"
	"kiste/internal/sys"
	"kiste/kernel/chroot"
	"kiste/kernel/namespace"
)

// maxLinks is how many links a path may lead through, as for the kernel.
const maxLinks = 40

// overflow is the id of who has none in a user namespace: user_namespaces(7).
const overflow = 65534

// A view is the root file system of a container with its mounts, as its own
// processes see it, and the ids that they see.
type view struct {
	name string // of the container, for errors
	root int    // a descriptor
	done func()

	// Of a running container in a user namespace that is not ours: its ids, and
	// what they are here. Empty: the same.
	uids, gids namespace.IDMaps
}

// RootOf opens the root directory of a running container, for a process that
// will not be allowed to: an ordinary user's in a user namespace. Nil: it does
// not run.
func RootOf(e *engine.Engine, query string) (*os.File, error) {
	c, err := e.Find(query)
	if err != nil || c.State.PID == 0 {
		return nil, err
	}
	root, err := os.OpenFile(c.Proc("root"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, stopped(c, err)
	}
	// The number may be another process's by now: not if it still runs.
	again, err := e.Find(c.ID)
	if err != nil || again.State.PID != c.State.PID {
		root.Close()
		return nil, stopped(c, err)
	}
	return root, nil
}

func stopped(c *engine.Container, err error) error {
	return &fault.Error{Op: "look into container", On: c.Name, Kind: fault.Conflict, Err: err, Hint: "it has ended this moment: try again"}
}

// Options say for whom files are copied. The zero value is right for root.
type Options struct {
	// Inside: this process is root of an ordinary user's user namespace.
	Inside bool

	// Root is what RootOf gave before the namespace was made.
	Root *os.File
}

// look opens a container's view. Of one that does not run the file systems are
// mounted for this process alone, so that nothing stays whoever ends; writable
// where write says so, and then nobody can start it meanwhile.
func look(e *engine.Engine, c *engine.Container, o Options, write bool) (*view, error) {
	root := o.Root
	if root == nil && !o.Inside {
		var err error
		if root, err = RootOf(e, c.ID); err != nil {
			return nil, err
		}
	}
	if root == nil {
		return mounted(e, c, o, write)
	}
	v := &view{name: c.Name, root: int(root.Fd()), done: func() { root.Close() }}
	if o.Inside {
		return v, nil
	}
	uids, gids, own, err := namespace.UserMaps(c.Proc("ns/user"))
	if err != nil {
		v.done()
		return nil, stopped(c, err)
	}
	if !own {
		v.uids, v.gids = uids, gids
	}
	return v, nil
}

// mounted is the view of a container that does not run. Owners are those on the
// disk, which are the container's.
func mounted(e *engine.Engine, c *engine.Container, o Options, write bool) (*view, error) {
	m := chroot.Mount{Type: "overlay", Source: "overlay", Target: "/"}
	unlock := func() {}
	switch {
	case c.Wishes.RootFS:
		m = chroot.Mount{Type: "bind", Source: c.Lower[0], Target: "/", Options: []string{"rbind", "rprivate"}}
	default:
		upper, lower, err := e.Stack(c)
		if err != nil {
			return nil, err
		}
		m.Lower = append([]string{upper}, lower...)
		if write {
			lock, err := e.Hold(c)
			if err != nil {
				return nil, err
			}
			unlock = func() { lock.Unlock() }
			m.Lower, m.Upper, m.Work = lower, upper, e.WorkDir(c)
		}
		if o.Inside {
			m.Options = append(m.Options, "userxattr")
		}
	}
	if c.Wishes.ReadOnly || !write {
		m.Options = append(m.Options, "ro")
	}
	root, end, err := keepMounted(func() (int, error) { return mountAll(e, c, m) })
	if err != nil {
		unlock()
		return nil, &fault.Error{Op: "mount files of container", On: c.Name, Err: err}
	}
	return &view{name: c.Name, root: root, done: func() {
		sys.Close(root)
		end()
		unlock()
	}}, nil
}

// keepMounted lets do mount in a mount namespace that is there until end: it is
// that of a thread.
func keepMounted(do func() (int, error)) (root int, end func(), err error) {
	type result struct {
		root int
		err  error
	}
	ready, over, gone := make(chan result), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		_, err := chroot.Privately(func() (int, error) {
			root, err := do()
			ready <- result{root, err}
			<-over
			return 0, nil
		})
		if err != nil {
			ready <- result{-1, err}
		}
	}()
	r := <-ready
	end = func() {
		close(over)
		<-gone
	}
	if r.err != nil {
		end()
	}
	return r.root, end, r.err
}

// mountAll mounts the root, on a directory that nothing of a container is bound
// from, and what the container has bound on it. What cannot
// be found any more, in the container or on the host, is left out.
func mountAll(e *engine.Engine, c *engine.Container, m chroot.Mount) (int, error) {
	root, err := m.Detached(nil)
	if err != nil {
		return -1, err
	}
	if err := sys.MoveMount(root, "", unix.AT_FDCWD, chroot.Spare, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		sys.Close(root)
		return -1, err
	}
	for _, target := range boundOn(c) {
		b := bindOf(c, target)
		if v, err := e.Volume(c.VolumeNames[target]); err == nil {
			b = v.MountOn(b)
		}
		if b.Type == "" {
			continue
		}
		if err := b.DoIn(root); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			sys.Close(root)
			return -1, err
		}
	}
	return root, nil
}

// boundOn are the places in a container that its user has something bound on, a
// directory before what is below it.
func boundOn(c *engine.Container) []string {
	all := slices.Collect(maps.Keys(c.Sources))
	for _, m := range c.Wishes.Mounts {
		if m.Type == "bind" {
			all = append(all, m.Target)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// bindOf is the bind of a volume or of a directory of the host; no type: the
// mount is of another kind.
func bindOf(c *engine.Container, target string) chroot.Mount {
	for _, m := range c.Result.Spec.Mounts {
		if m.Destination != target || m.Type != "bind" || m.Source == "" {
			continue
		}
		b := chroot.Mount{Type: "bind", Source: m.Source, Target: target, Options: []string{"rbind", "rprivate"}}
		for _, o := range m.Options {
			if below, ok := strings.CutPrefix(o, "subpath="); ok {
				b.Below = below
			}
			if o == "ro" || o == "rro" {
				b.Options = append(b.Options, o)
			}
		}
		return b
	}
	return chroot.Mount{}
}

// An info is what stat tells of a path in a view.
type info struct {
	mode uint32
	link string // of a symbolic link: where it leads in the end, absolute
}

func (i info) isDir() bool  { return i.mode&unix.S_IFMT == unix.S_IFDIR }
func (i info) isLink() bool { return i.mode&unix.S_IFMT == unix.S_IFLNK }

// open opens (O_PATH) what p is; a link at its end only where p has a slash or a
// dot behind.
func (v *view) open(p string) (int, unix.Stat_t, error) {
	dir, base := path.Split(absolute(p))
	fd, err := sys.OpenIn(v.root, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil && base != "" && base != "." {
		parent := fd
		fd, err = sys.OpenAt(parent, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
		sys.Close(parent)
	}
	if err != nil {
		return -1, unix.Stat_t{}, v.lost(p, err)
	}
	st, err := sys.StatAt(fd, "")
	if err != nil {
		sys.Close(fd)
	}
	return fd, st, err
}

// lost says that a path leads nowhere, in Docker's words.
func (v *view) lost(p string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &fault.Error{Op: "copy", On: v.name + ":" + p, Kind: fault.NotFound, Err: fmt.Errorf("Could not find the file %s in container %s", absolute(p), v.name)}
	}
	var e *fs.PathError
	if errors.As(err, &e) {
		err = e.Err
	}
	return &fault.Error{Op: "copy", On: v.name + ":" + p, Err: err}
}

func (v *view) stat(p string) (info, error) {
	fd, st, err := v.open(p)
	if err != nil {
		return info{}, err
	}
	sys.Close(fd)
	i := info{mode: st.Mode}
	if i.isLink() {
		i.link, err = v.evaluate(p)
	}
	return i, err
}

// evaluate takes all links out of a path, the end of which need not be there.
// What comes out may lead elsewhere a moment later, but not out of the root.
func (v *view) evaluate(p string) (string, error) {
	here, rest, links := "/", strings.Split(p, "/"), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." || name == ".." {
			here = path.Join(here, name)
			continue
		}
		next := path.Join(here, name)
		target, err := v.readlink(next)
		if err != nil { // it is no link, or not there
			here = next
			continue
		}
		if links++; links > maxLinks || len(rest) > unix.PathMax {
			return "", v.lost(p, unix.ELOOP)
		}
		if path.IsAbs(target) {
			here = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return here, nil
}

func (v *view) readlink(p string) (string, error) {
	fd, err := sys.OpenIn(v.root, p, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer sys.Close(fd)
	return sys.ReadlinkAt(fd, "")
}

// pack writes what p is as a tar, under a name.
func (v *view) pack(w io.Writer, p, name string) error {
	fd, st, err := v.open(p)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	t := layer.Pack(w)
	if v.uids != nil {
		t.Owner = func(uid, gid uint32) (int, int) { return inner(v.uids, uid), inner(v.gids, gid) }
	}
	if err := packTree(t, fd, st, name); err != nil {
		return err
	}
	return t.Close()
}

// packTree writes a file with all that is below it.
func packTree(t *layer.Packer, fd int, st unix.Stat_t, name string) error {
	if err := t.Add(name, fd, st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	if len(name) > unix.PathMax {
		return &fs.PathError{Op: "read", Path: name[:64] + "…", Err: unix.ENAMETOOLONG}
	}
	names, err := list(fd)
	if err != nil {
		return err
	}
	for _, base := range names {
		child, err := sys.OpenAt(fd, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone this moment
		}
		if err != nil {
			return err
		}
		st, err := sys.StatAt(child, "")
		if err == nil {
			err = packTree(t, child, st, strings.TrimSuffix(name, "/")+"/"+base)
		}
		sys.Close(child)
		if err != nil {
			return err
		}
	}
	return nil
}

// list gives the names in a directory, sorted.
func list(fd int) ([]string, error) {
	dir, err := sys.OpenAt(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dir), "directory")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	sortNames(names)
	return names, err
}

// unpack writes a tar into the directory dir.
func (v *view) unpack(ctx context.Context, r io.Reader, dir string, o layer.Options) error {
	if err := v.writable(dir); err != nil {
		return err
	}
	o.KeepKinds = true
	if v.uids == nil {
		_, err := layer.Extract(ctx, r, v.root, dir, o)
		return err
	}
	o.Owner = func(uid, gid int) (int, int, error) {
		u, okUID := v.uids.ToOutside(uint32(uid))
		g, okGID := v.gids.ToOutside(uint32(gid))
		if !okUID || !okGID {
			return 0, 0, fmt.Errorf("the container has no such id: %w", unix.EINVAL)
		}
		return int(u), int(g), nil
	}
	return v.asItsRoot(func() error {
		_, err := layer.Extract(ctx, r, v.root, dir, o)
		return err
	})
}

// asItsRoot does what makes files as the root of the container: that of the host
// has no id there.
func (v *view) asItsRoot(do func() error) error {
	uid, okUID := v.uids.ToOutside(0)
	gid, okGID := v.gids.ToOutside(0)
	if !okUID || !okGID {
		return &fault.Error{Op: "copy into container", On: v.name, Kind: fault.Unsupported, Err: errors.New("its user namespace has no root")}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	restore, err := sys.ActAs(int(uid), int(gid))
	if err != nil {
		return err
	}
	defer restore()
	return do()
}

// writable refuses a directory that is none or cannot be written, in Docker's
// words.
func (v *view) writable(dir string) error {
	fd, err := sys.OpenIn(v.root, absolute(dir), unix.O_PATH, 0)
	if err != nil {
		return v.lost(dir, err)
	}
	defer sys.Close(fd)
	refuse := func(kind fault.Kind, why string) error {
		return &fault.Error{Op: "copy", On: v.name + ":" + dir, Kind: kind, Err: errors.New(why)}
	}
	st, err := sys.StatAt(fd, "")
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return refuse(fault.Invalid, "extraction point is not a directory")
	}
	on, err := sys.Statfs(sys.FDPath(fd))
	if err != nil || on.Flags&unix.ST_RDONLY == 0 {
		return err
	}
	here, err := sys.MountID(fd, "")
	top, topErr := sys.MountID(v.root, "")
	if err == nil && topErr == nil && here != top {
		return refuse(fault.Denied, "mounted volume is marked read-only")
	}
	return refuse(fault.Denied, "container rootfs is marked read-only")
}

// inner is an id as the container sees it.
func inner(m namespace.IDMaps, id uint32) int {
	for _, r := range m {
		if id >= r.Outside && id-r.Outside < r.Size {
			return int(r.Inside + (id - r.Outside))
		}
	}
	return overflow
}
