package snapshot

import (
	"errors"
	"io/fs"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
)

// What has happened to a file, in Docker's letters.
const (
	Added   = 'A'
	Changed = 'C'
	Deleted = 'D'
)

// A Change is one line of "docker diff".
type Change struct {
	Kind rune   // Added, Changed, Deleted
	Path string // absolute
}

// Changes tells what the directory upper changes of the stack lower, the topmost
// first: by overlayfs's marks, a whiteout or an opaque directory. The order is
// that of a walk, the names of a directory sorted, each directory before what is
// in it. A directory counts as changed where something in it has, or its own
// mode, owner or time. Of a deleted directory there is one line, also where
// another, an opaque one, has taken its place: then one for each thing that was
// in it and is not in the new one.
func Changes(upper string, lower []string) ([]Change, error) {
	below, err := begin(lower)
	if err != nil {
		return nil, err
	}
	defer below.close()
	fd, err := sys.OpenAt(unix.AT_FDCWD, upper, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer sys.Close(fd)
	var d differ
	err = d.dir(node{fds: []int{fd}, dir: true}, below.path[0], false, "/")
	return d.changes, err
}

type differ struct{ changes []Change }

func (d *differ) add(kind rune, name string) { d.changes = append(d.changes, Change{kind, name}) }

// dir compares what is in a directory with what was; old has no descriptors
// where nothing was. Alone: nothing of old shows through, since the directory, or
// one above it, is opaque.
func (d *differ) dir(upper, old node, alone bool, name string) error {
	if len(name) > unix.PathMax {
		return &fs.PathError{Op: "compare", Path: name[:64] + "…", Err: unix.ENAMETOOLONG}
	}
	names, err := merged(upper)
	if err != nil {
		return err
	}
	alone = alone || Opaque(upper.fds[0])
	if alone && old.dir {
		gone, err := merged(old)
		if err != nil {
			return err
		}
		names = append(names, gone...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	for _, base := range names {
		if err := d.entry(upper.fds[0], old, alone, path.Join(name, base)); err != nil {
			return err
		}
	}
	return nil
}

// entry compares one name in an upper directory with what was there.
func (d *differ) entry(upper int, parent node, alone bool, name string) error {
	base := path.Base(name)
	old, err := child(parent, base)
	defer old.close()
	was := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fd, err := sys.OpenAt(upper, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) { // below an opaque directory, or it went this moment
		d.gone(was, name)
		return nil
	}
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	st, err := sys.StatAt(fd, "")
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		d.gone(was, name)
		return nil
	}
	if err := RefuseHalf(fd, name); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		d.add(kindOf(was), name)
		return nil
	}
	d.add(kindOf(was), name)
	return d.subdir(node{fds: []int{fd}, dir: true}, st, old, alone, name)
}

func (d *differ) gone(was bool, name string) {
	if was {
		d.add(Deleted, name)
	}
}

func kindOf(was bool) rune {
	if was {
		return Changed
	}
	return Added
}

// subdir compares a directory, whose own line is there and goes again where
// nothing has changed.
func (d *differ) subdir(n node, st unix.Stat_t, old node, alone bool, name string) error {
	lines := len(d.changes)
	if !old.dir { // a file was there, or nothing
		return d.dir(n, node{}, false, name)
	}
	if err := d.dir(n, old, alone, name); err != nil {
		return err
	}
	before, err := sys.StatAt(old.fds[0], "")
	if err != nil {
		return err
	}
	if len(d.changes) == lines && sameDir(st, before) {
		d.changes = d.changes[:lines-1]
	}
	return nil
}

func sameDir(a, b unix.Stat_t) bool {
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && a.Mtim == b.Mtim
}

// RefuseHalf refuses a file of which overlayfs has left a part below: no mount
// of ours does that, but a host may be told to (redirect_dir, metacopy).
func RefuseHalf(fd int, name string) error {
	for _, attr := range [...]string{"overlay.redirect", "overlay.metacopy"} {
		for _, space := range [...]string{"trusted.", "user."} {
			if _, err := sys.GetXattrFD(fd, space+attr); err == nil {
				return refuse(name, errors.New("overlayfs has moved it with redirect_dir or metacopy, which this host has on"))
			}
		}
	}
	return nil
}

// A File is one of a stack of directories, as overlayfs would show it.
type File struct {
	Path string // below the root of the stack, without a slash in front
	FD   int    // of O_PATH, as long as the visit lasts
	Stat unix.Stat_t
}

// Walk visits every file of a stack of directories, the topmost first, but its
// root: in the order of Changes. Nothing is mounted, no link followed.
func Walk(dirs []string, visit func(File) error) error {
	w, err := begin(dirs)
	if err != nil {
		return err
	}
	defer w.close()
	return walkNode(w.path[0], "", visit)
}

func walkNode(n node, name string, visit func(File) error) error {
	if len(name) > unix.PathMax {
		return &fs.PathError{Op: "walk", Path: name[:64] + "…", Err: unix.ENAMETOOLONG}
	}
	names, err := merged(n)
	if err != nil {
		return err
	}
	for _, base := range names {
		c, err := child(n, base)
		if errors.Is(err, fs.ErrNotExist) { // hidden by a whiteout, or gone
			continue
		}
		if err != nil {
			return err
		}
		err = walkOne(c, path.Join(name, base), visit)
		c.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func walkOne(n node, name string, visit func(File) error) error {
	st, err := sys.StatAt(n.fds[0], "")
	if err == nil {
		err = RefuseHalf(n.fds[0], name)
	}
	if err == nil {
		err = visit(File{Path: name, FD: n.fds[0], Stat: st})
	}
	if err == nil && n.dir {
		err = walkNode(n, name, visit)
	}
	return err
}
