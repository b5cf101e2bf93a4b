package snapshot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// maxLinks is how many symbolic links a path may lead through, as for the
// kernel (path_resolution(7)).
const maxLinks = 40

// An Info is what Stat tells of a file.
type Info struct {
	Mode     fs.FileMode
	UID, GID uint32
	Size     int64
	Modified time.Time
	Link     string // where a symbolic link points
}

// ReadFile reads a plain file of at most max bytes from a stack of
// directories, the topmost first (a Mount's Lower, perhaps with its Upper
// before), as overlayfs would show it, without mounting anything. Links stay
// inside. What is not there is fs.ErrNotExist; what is larger, or no plain
// file, is fault.Invalid.
func ReadFile(dirs []string, path string, max int64) ([]byte, error) {
	fd, err := open(dirs, path, true)
	if err != nil {
		return nil, err
	}
	defer sys.Close(fd)
	st, err := sys.StatAt(fd, "")
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, refuse(path, errors.New("it is not a plain file"))
	}
	f, err := os.OpenFile(sys.FDPath(fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(b)) > max {
		return nil, refuse(path, fmt.Errorf("it has more than %d bytes", max))
	}
	return b, err
}

func refuse(path string, err error) error {
	return &fault.Error{Op: "read from image", On: path, Kind: fault.Invalid, Err: err}
}

// Stat tells what path is in a stack of directories, as for ReadFile. Links
// are followed, except the last where follow is false.
func Stat(dirs []string, path string, follow bool) (Info, error) {
	fd, err := open(dirs, path, follow)
	if err != nil {
		return Info{}, err
	}
	defer sys.Close(fd)
	st, err := sys.StatAt(fd, "")
	if err != nil {
		return Info{}, err
	}
	info := Info{Mode: fileMode(st.Mode), UID: st.Uid, GID: st.Gid, Size: st.Size, Modified: time.Unix(st.Mtim.Unix())}
	if info.Mode&fs.ModeSymlink != 0 {
		info.Link, err = sys.ReadlinkAt(fd, "")
	}
	return info, err
}

func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for _, bit := range [...]struct {
		unix uint32
		mode fs.FileMode
	}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}} {
		if mode&bit.unix != 0 {
			m |= bit.mode
		}
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	}
	return m
}

// Parts gives the directories that are merged into what path is in a stack of
// directories, the topmost first, or the one file that it is. Links stay inside,
// and none is left in the results. Whoever mounts an overlay of the results has
// that part of the overlay of the whole.
func Parts(dirs []string, path string) ([]string, error) {
	w, err := begin(dirs)
	if err != nil {
		return nil, err
	}
	defer w.close()
	n, err := w.to(strings.Split(path, "/"), true)
	if err != nil {
		return nil, &fs.PathError{Op: "find in image", Path: path, Err: err}
	}
	defer n.close()
	var parts []string
	for _, i := range n.of {
		parts = append(parts, filepath.Join(dirs[i], w.name(), n.name))
	}
	return parts, nil
}

// A node is one file of the stack: descriptors (O_PATH) of the directories
// that are merged into it, the topmost first, or of one file.
type node struct {
	fds  []int
	of   []int // of fds, which directory of the stack it lies in
	dir  bool
	name string // in its directory
}

func (n node) close() {
	for _, fd := range n.fds {
		sys.Close(fd)
	}
}

// A walk goes down a stack of directories, one component at a time.
type walk struct {
	path  []node // from the root to where we are; all of them directories
	links int
}

func (w *walk) close() {
	for _, n := range w.path {
		n.close()
	}
}

// open gives a descriptor (O_PATH) of what path is in the stack.
func open(dirs []string, path string, follow bool) (int, error) {
	n, err := find(dirs, path, follow)
	if err != nil {
		return -1, err
	}
	node{fds: n.fds[1:]}.close()
	return n.fds[0], nil
}

// find gives what path is in the stack, to be closed. It has at least one
// descriptor.
func find(dirs []string, path string, follow bool) (node, error) {
	w, err := begin(dirs)
	if err != nil {
		return node{}, err
	}
	defer w.close()
	n, err := w.to(strings.Split(path, "/"), follow)
	if err != nil {
		return node{}, &fs.PathError{Op: "find in image", Path: path, Err: err}
	}
	return n, nil
}

// begin is a walk that stands at the root of the stack.
func begin(dirs []string) (*walk, error) {
	w := &walk{path: []node{{dir: true}}}
	for i, d := range dirs {
		fd, err := sys.OpenAt(unix.AT_FDCWD, d, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			w.close()
			return nil, err
		}
		w.path[0].fds, w.path[0].of = append(w.path[0].fds, fd), append(w.path[0].of, i)
	}
	return w, nil
}

// name is where the walk stands, below the root of the stack.
func (w *walk) name() string {
	var names []string
	for _, n := range w.path {
		names = append(names, n.name)
	}
	return filepath.Join(names...)
}

// to walks the components and gives what they lead to.
func (w *walk) to(rest []string, follow bool) (node, error) {
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			w.up()
			continue
		}
		n, err := child(w.path[len(w.path)-1], name)
		if err != nil {
			return node{}, err
		}
		if n.dir {
			w.path = append(w.path, n)
			continue
		}
		target, isLink, err := w.link(n, follow || len(rest) > 0)
		switch {
		case err != nil:
			n.close()
			return node{}, err
		case isLink:
			n.close()
			rest = append(target, rest...)
		case len(rest) > 0:
			n.close()
			return node{}, unix.ENOTDIR
		default:
			return n, nil
		}
	}
	last := len(w.path) - 1
	here := w.path[last]
	if len(here.fds) == 0 {
		return node{}, fs.ErrNotExist
	}
	w.path = w.path[:last]
	return here, nil
}

// up goes to the parent; that of the root is the root.
func (w *walk) up() {
	if last := len(w.path) - 1; last > 0 {
		w.path[last].close()
		w.path = w.path[:last]
	}
}

// link gives the components that a symbolic link stands for; an absolute one
// begins at the root of the stack.
func (w *walk) link(n node, follow bool) (components []string, isLink bool, err error) {
	st, err := sys.StatAt(n.fds[0], "")
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK || !follow {
		return nil, false, err
	}
	if w.links++; w.links > maxLinks {
		return nil, false, unix.ELOOP
	}
	target, err := sys.ReadlinkAt(n.fds[0], "")
	if err != nil {
		return nil, false, err
	}
	if strings.HasPrefix(target, "/") {
		for len(w.path) > 1 {
			w.up()
		}
	}
	return strings.Split(target, "/"), true, nil
}

// child finds name in a merged directory by overlayfs's rules: the topmost
// wins, directories merge down to one that is opaque, a whiteout ends it
// (Documentation/filesystems/overlayfs.rst).
func child(parent node, name string) (node, error) {
	found := node{name: name}
	for i, dir := range parent.fds {
		fd, err := sys.OpenAt(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			found.close()
			return node{}, err
		}
		st, err := sys.StatAt(fd, "")
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		whiteout := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
		switch {
		case err != nil, whiteout, found.dir && !isDir:
			sys.Close(fd)
			if found.dir {
				return found, nil
			}
			return node{}, absent(err)
		case !isDir:
			return node{fds: []int{fd}, of: parent.of[i : i+1], name: name}, nil
		}
		found.dir = true
		found.fds, found.of = append(found.fds, fd), append(found.of, parent.of[i])
		if Opaque(fd) {
			return found, nil
		}
	}
	if !found.dir {
		return node{}, fs.ErrNotExist
	}
	return found, nil
}

// absent is err, or that nothing is there.
func absent(err error) error {
	if err != nil {
		return err
	}
	return fs.ErrNotExist
}

// Opaque reports whether overlayfs shows nothing of what is below a directory.
func Opaque(fd int) bool {
	for _, attr := range [...]string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if v, err := sys.GetXattrFD(fd, attr); err == nil && string(v) == "y" {
			return true
		}
	}
	return false
}
