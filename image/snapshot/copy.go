package snapshot

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
)

// Copy copies what is in the directory dir of a stack of directories, the
// topmost first, as overlayfs would show it, into the empty directory to, which
// gets the attributes of dir: names, content with its holes, owners, modes,
// times, extended attributes; two names of one file stay that. Links of the
// stack lead nowhere else, as for ReadFile. Found is false where dir is no
// directory of the stack. After an error to holds some part.
//
// It needs the right to give files to their owners; device nodes that only the
// first user namespace may make are left out in another.
func Copy(dirs []string, dir, to string) (found bool, err error) {
	w, err := begin(dirs)
	if err != nil {
		return false, err
	}
	defer w.close()
	from, err := w.to(strings.Split(dir, "/"), true)
	defer from.close()
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return false, nil
	case err != nil || !from.dir:
		return false, err
	}
	top, err := sys.OpenAt(unix.AT_FDCWD, to, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return true, err
	}
	defer sys.Close(top)
	c := copier{top: top, first: map[inode]string{}}
	if err := c.content(from, top, ""); err != nil {
		return true, err
	}
	return true, CopyAttributes(from.fds[0], top, ".")
}

// An inode is a file of the stack, whatever its name.
type inode struct{ dev, ino uint64 }

// A copier copies one tree.
type copier struct {
	top   int              // where it goes
	first map[inode]string // of files with several names: where the first one is, below top
}

// content copies all that is in a directory into the open directory to, which
// is called name below the top.
func (c *copier) content(from node, to int, name string) error {
	names, err := merged(from)
	if err != nil {
		return err
	}
	for _, base := range names {
		n, err := child(from, base)
		if errors.Is(err, fs.ErrNotExist) { // hidden by a whiteout
			continue
		}
		if err != nil {
			return err
		}
		err = c.entry(n, to, base, path.Join(name, base))
		n.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// merged lists the names in the directories of a node, each once.
func merged(n node) ([]string, error) {
	var all []string
	for _, fd := range n.fds {
		dir, err := sys.OpenAt(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		f := os.NewFile(uintptr(dir), "layer")
		names, err := f.Readdirnames(-1)
		f.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// entry copies one name.
func (c *copier) entry(n node, to int, base, name string) error {
	st, err := sys.StatAt(n.fds[0], "")
	if err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, ok := c.first[id]; ok {
			return c.link(first, to, base)
		}
		c.first[id] = name
	}
	switch kind {
	case unix.S_IFDIR:
		err = c.dir(n, to, base, name)
	case unix.S_IFREG:
		err = file(n.fds[0], st, to, base)
	case unix.S_IFLNK:
		var target string
		if target, err = sys.ReadlinkAt(n.fds[0], ""); err == nil {
			err = sys.SymlinkAt(target, to, base)
		}
	default:
		err = sys.MknodAt(to, base, kind|0o600, st.Rdev)
		if errors.Is(err, unix.EPERM) {
			delete(c.first, inode{uint64(st.Dev), st.Ino})
			return nil
		}
	}
	if err != nil {
		return err
	}
	return CopyAttributes(n.fds[0], to, base)
}

func (c *copier) dir(n node, to int, base, name string) error {
	if err := sys.MkdirAt(to, base, 0o700); err != nil {
		return err
	}
	fd, err := sys.OpenAt(to, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return c.content(n, fd, name)
}

// link makes another name of what was copied before.
func (c *copier) link(first string, to int, base string) error {
	dir, old := path.Split(first)
	from, err := sys.OpenIn(c.top, path.Clean("/"+dir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer sys.Close(from)
	return sys.LinkAt(from, old, to, base, 0)
}

// file copies a plain file's content.
func file(from int, st unix.Stat_t, to int, base string) error {
	in, err := os.OpenFile(sys.FDPath(from), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	fd, err := sys.OpenAt(to, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), base)
	if st.Blocks*512 < st.Size {
		err = sparse(in, out, st.Size)
	} else {
		_, err = io.Copy(out, in)
	}
	return errors.Join(err, out.Close())
}

// sparse copies what has data and leaves the holes: lseek(2).
func sparse(in, out *os.File, size int64) error {
	for at := int64(0); at < size; {
		start, err := in.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // nothing but a hole is left
		}
		if err != nil {
			return err
		}
		end, err := in.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for _, f := range []*os.File{in, out} {
			if _, err := f.Seek(start, io.SeekStart); err != nil {
				return err
			}
		}
		if _, err := io.CopyN(out, in, end-start); err != nil {
			return err
		}
		at = end
	}
	return out.Truncate(size)
}

// CopyAttributes gives the name base in the directory dir the owner, mode,
// extended attributes and times of from, a descriptor, also one of O_PATH. The
// caller alone may write in dir.
func CopyAttributes(from, dir int, base string) error {
	st, err := sys.StatAt(from, "")
	if err != nil {
		return err
	}
	if err := sys.ChownAt(dir, base, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK { // which has neither
		if err := sys.ChmodAt(dir, base, st.Mode&0o7777); err != nil {
			return err
		}
		if err := xattrs(from, dir, base); err != nil {
			return err
		}
	}
	return sys.Utimens(dir, base, st.Atim, st.Mtim)
}

// xattrs copies extended attributes: not overlayfs's own, nor those that a
// security module gives a file for where it lies. What the file system does not
// take is left out, as Docker does.
func xattrs(from, dir int, base string) error {
	attrs, err := sys.ListXattrFD(from)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, attr := range attrs {
		if !moves(attr) {
			continue
		}
		value, err := sys.GetXattrFD(from, attr)
		if err == nil {
			err = sys.SetXattr(dir, base, attr, value)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return nil
}

func moves(attr string) bool {
	return attr == "security.capability" || !strings.HasPrefix(attr, "security.") &&
		!strings.HasPrefix(attr, "trusted.overlay.") && !strings.HasPrefix(attr, "user.overlay.")
}
