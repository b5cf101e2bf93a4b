package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// The names of whiteouts (image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // of AUFS itself: no files of the image
)

// An applier writes one tar.
type applier struct {
	o          Options
	root       int    // descriptor of the directory
	below      string // of Extract: where the names of entries begin, below root
	umask      uint32
	euid, egid int
	result     Result

	// open remembers descriptors of directories, since the files of one come
	// together. It is emptied when any directory is removed or replaced.
	open map[string]int

	implied map[string]bool
	order   []string // of implied
	dirs    []directory
	buf     []byte
}

// A directory gets its owner, mode, attributes and times when all is in it:
// before that, a set-group-ID bit or a default ACL would be handed down to
// files, and every file would change the times.
type directory struct {
	name string
	h    *tar.Header
	mode uint32 // as it was made; 0: it was there before
}

// maxOpen bounds the descriptors kept.
const maxOpen = 64

func (a *applier) close() {
	a.flush()
	sys.Close(a.root)
}

func (a *applier) flush() {
	for _, fd := range a.open {
		sys.Close(fd)
	}
	clear(a.open)
}

// run unpacks all entries.
func (a *applier) run(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if a.result.Entries++; a.result.Entries > a.o.MaxEntries {
			return invalid("", fmt.Errorf("it has more than %d entries", a.o.MaxEntries))
		}
		if err := a.entry(t, h); err != nil {
			return named(h.Name, err)
		}
	}
	for _, d := range a.dirs {
		if err := a.finish(d); err != nil {
			return named(d.name, err)
		}
	}
	for _, name := range a.order {
		if a.implied[name] {
			a.result.Implied = append(a.result.Implied, name)
			delete(a.implied, name)
		}
	}
	return nil
}

// named says of which entry an error is; a system call's own path is only its
// last component.
func named(name string, err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		err = e.Err
	}
	if fault.KindOf(err) == fault.NotFound || fault.KindOf(err) == fault.Exists {
		return &fault.Error{Op: "write", On: clean(name), Kind: fault.Invalid, Err: err}
	}
	if f, ok := err.(*fault.Error); ok && f.On != "" {
		return err
	}
	return &fault.Error{Op: "write", On: clean(name), Err: err}
}

func invalid(name string, err error) error {
	return &fault.Error{Op: "read entry", On: clean(name), Kind: fault.Invalid, Err: err}
}

// clean shortens foreign text for people.
func clean(s string) string {
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// inside cleans a name so that it has neither ".." nor a slash in front; ""
// is the directory itself.
func inside(name string) string { return path.Clean("/" + name)[1:] }

func split(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// entry writes one entry.
func (a *applier) entry(t *tar.Reader, h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader, 'V': // a comment; a volume's label
		return nil
	}
	if len(h.Name) > maxName || len(h.Linkname) > maxName || strings.ContainsRune(h.Name, 0) {
		return invalid(h.Name, fmt.Errorf("a name of more than %d bytes, or with a zero byte", maxName))
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) > 1<<32-2 || int64(h.Gid) > 1<<32-2 {
		return invalid(h.Name, fmt.Errorf("owner %d:%d is not possible", h.Uid, h.Gid))
	}
	name := inside(h.Name)
	switch {
	case name == "" && a.below == "":
		return a.rootEntry(h)
	case name == "": // the directory is there, and stays as it is
		return nil
	}
	name = path.Join(a.below, name)
	dir, base := split(name)
	parent, err := a.dir(dir)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) && !a.o.Plain {
		return a.whiteout(parent, dir, base)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return a.mkdir(parent, name, base, h)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return a.file(t, parent, base, h)
	case tar.TypeLink:
		return a.link(parent, name, base, h)
	case tar.TypeSymlink:
		if h.Linkname == "" {
			return invalid(h.Name, errors.New("a symbolic link leads nowhere"))
		}
		err := a.place(parent, base, func() error { return sys.SymlinkAt(h.Linkname, parent, base) })
		if err != nil {
			return err
		}
		return a.attributes(parent, base, h, 0)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return a.node(parent, base, h)
	}
	return invalid(h.Name, fmt.Errorf("entries of type %q are not known", h.Typeflag))
}

// rootEntry is that of the directory itself.
func (a *applier) rootEntry(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return invalid(h.Name, errors.New("the root is no directory"))
	}
	a.dirs = append(a.dirs, directory{name: ".", h: h})
	return nil
}

// dir gives a descriptor of a directory, which stays a's. One that is not
// there is made, and noted as implied.
func (a *applier) dir(name string) (int, error) {
	if name == "" {
		return a.root, nil
	}
	if fd, ok := a.open[name]; ok {
		return fd, nil
	}
	fd, err := sys.OpenIn(a.root, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := a.imply(name); err != nil {
			return -1, err
		}
		fd, err = sys.OpenIn(a.root, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return -1, leadsNowhere(name, err)
	}
	if len(a.open) >= maxOpen {
		a.flush()
	}
	a.open[name] = fd
	return fd, nil
}

func leadsNowhere(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return invalid(name, errors.New("files are to lie in it, and it is no directory"))
	}
	return err
}

// imply makes a directory that the tar does not list.
func (a *applier) imply(name string) error {
	dir, base := split(name)
	parent, err := a.dir(dir)
	if err != nil {
		return err
	}
	if err := sys.MkdirAt(parent, base, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) { // a link to nothing
			return nil
		}
		return err
	}
	if a.umask&0o755 != 0 {
		if err := chmod(parent, base, 0o755); err != nil {
			return err
		}
	}
	a.implied[name] = true
	a.order = append(a.order, name)
	return nil
}

// place makes something called base, in place of what may be there.
func (a *applier) place(parent int, base string, create func() error) error {
	err := create()
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if a.o.KeepKinds {
		err = sys.UnlinkAt(parent, base, 0)
		if errors.Is(err, unix.EISDIR) {
			err = &fault.Error{Op: "write", On: clean(base), Kind: fault.Conflict, Err: fmt.Errorf("cannot overwrite directory %q with non-directory", clean(base))}
		}
	} else {
		err = a.remove(parent, base)
	}
	if err != nil {
		return err
	}
	return create()
}

// remove takes away base, with all that is in it. Descriptors that are
// remembered may lead there, so they are forgotten; parent is safe, since
// whoever calls has just got it, and keeps it open until the next call of dir.
func (a *applier) remove(parent int, base string) error {
	err := sys.UnlinkAt(parent, base, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	a.forgetBut(parent)
	return removeTree(parent, base)
}

func (a *applier) forgetBut(parent int) {
	for name, fd := range a.open {
		if fd != parent {
			sys.Close(fd)
			delete(a.open, name)
		}
	}
}

func removeTree(parent int, base string) error {
	fd, err := sys.OpenAt(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), base)
	defer d.Close()
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			err := sys.UnlinkAt(fd, name, 0)
			if errors.Is(err, unix.EISDIR) {
				err = removeTree(fd, name)
			}
			if err != nil {
				return err
			}
		}
		if err == io.EOF || len(names) == 0 {
			break
		}
		if err != nil {
			return err
		}
		if _, err := d.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	return sys.UnlinkAt(parent, base, unix.AT_REMOVEDIR)
}

// mkdir makes a directory, or takes the one that is there. In place of a
// whiteout it is opaque: both said "what is below is gone".
func (a *applier) mkdir(parent int, name, base string, h *tar.Header) error {
	mode := uint32(h.Mode)&0o777 | 0o700
	err := sys.MkdirAt(parent, base, mode)
	d := directory{name: name, h: h, mode: mode &^ a.umask}
	if errors.Is(err, fs.ErrExist) {
		d.mode = 0
		err = a.mkdirOver(parent, base, mode)
	}
	if err != nil {
		return err
	}
	delete(a.implied, name)
	a.dirs = append(a.dirs, d)
	return nil
}

func (a *applier) mkdirOver(parent int, base string, mode uint32) error {
	st, err := sys.StatAt(parent, base)
	if err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return err
	}
	if a.o.KeepKinds {
		return &fault.Error{Op: "write", On: clean(base), Kind: fault.Conflict, Err: fmt.Errorf("cannot overwrite non-directory %q with directory", clean(base))}
	}
	if err := a.place(parent, base, func() error { return sys.MkdirAt(parent, base, mode) }); err != nil {
		return err
	}
	if isWhiteout(st) && !a.o.Plain {
		return a.setOpaque(parent, base)
	}
	return nil
}

func isWhiteout(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// whiteout hides what lower layers have. It says nothing of this layer's own
// files, whichever comes first (image-spec, layer.md).
func (a *applier) whiteout(parent int, dir, base string) error {
	switch {
	case base == whiteoutOpaque:
		return a.setOpaque(parent, ".")
	case strings.HasPrefix(base, whiteoutMeta):
		return nil
	}
	hidden := base[len(whiteoutPrefix):]
	if hidden == "" || hidden == "." || hidden == ".." {
		return invalid(path.Join(dir, base), errors.New("the whiteout hides no name"))
	}
	err := sys.MknodAt(parent, hidden, unix.S_IFCHR, 0)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := sys.StatAt(parent, hidden)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return a.setOpaque(parent, hidden)
	}
	return err
}

func (a *applier) setOpaque(parent int, name string) error {
	attr := "trusted.overlay.opaque"
	if a.o.Userxattr {
		attr = "user.overlay.opaque"
	}
	return sys.SetXattr(parent, name, attr, []byte("y"))
}

// file writes a plain file.
func (a *applier) file(t *tar.Reader, parent int, base string, h *tar.Header) error {
	mode := uint32(h.Mode) & 0o777
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW
	fd := -1
	err := a.place(parent, base, func() (err error) {
		fd, err = sys.OpenAt(parent, base, flags, mode)
		return err
	})
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	if err := a.content(t, fd, h); err != nil {
		return err
	}
	if a.owned(h) {
		if err := a.chown(fd, "", h); err != nil {
			return err
		}
	}
	// the mode after the owner, who takes the set-ID bits away: chown(2)
	if full := uint32(h.Mode) & 0o7777; full&^0o777 != 0 || mode&a.umask != 0 {
		if err := sys.Fchmod(fd, full); err != nil {
			return err
		}
	}
	if err := a.xattrs(fd, h); err != nil {
		return err
	}
	access, modify := times(h)
	return sys.Utimens(fd, "", access, modify)
}

// content copies what the tar has of a file.
func (a *applier) content(t *tar.Reader, fd int, h *tar.Header) error {
	a.result.Size += h.Size
	if isSparse(h) {
		return a.sparse(t, fd, h)
	}
	for left := h.Size; left > 0; {
		n, err := io.ReadFull(t, a.buf[:min(left, int64(len(a.buf)))])
		if err != nil {
			return cutOff(err)
		}
		if err := writeAll(fd, a.buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

// cutOff makes the end of the tar within a file an error.
func cutOff(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := sys.Write(fd, p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// isSparse tells GNU's four ways to store a file with holes, of which package
// tar leaves the traces in the records.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// maxSparse bounds the length of a file with holes: zeros cost time, too.
const maxSparse = 1 << 40

// sparse copies a file with holes and leaves out what is zero.
func (a *applier) sparse(t *tar.Reader, fd int, h *tar.Header) error {
	if h.Size > maxSparse {
		return invalid(h.Name, fmt.Errorf("a file with holes has %d bytes and may have %d", h.Size, int64(maxSparse)))
	}
	for left := h.Size; left > 0; {
		n, err := io.ReadFull(t, a.buf[:min(left, int64(len(a.buf)))])
		if err != nil {
			return cutOff(err)
		}
		if err := writeHoles(fd, a.buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return sys.Ftruncate(fd, h.Size)
}

// writeHoles writes p and skips its blocks of zeros.
func writeHoles(fd int, p []byte) error {
	const block = 4096
	for len(p) > 0 {
		n := min(block, len(p))
		zero := isZero(p[:n])
		for n < len(p) && isZero(p[n:min(n+block, len(p))]) == zero {
			n = min(n+block, len(p))
		}
		var err error
		if zero {
			_, err = sys.Seek(fd, int64(n), io.SeekCurrent)
		} else {
			err = writeAll(fd, p[:n])
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func isZero(p []byte) bool {
	return !slices.ContainsFunc(p, func(b byte) bool { return b != 0 })
}

// link makes a hard link, to a file of this tar. What it leads to keeps its own
// mode and owner.
func (a *applier) link(parent int, name, base string, h *tar.Header) error {
	target := path.Join(a.below, inside(h.Linkname))
	if target == name {
		return nil
	}
	targetDir, targetBase := split(target)
	from := a.root
	if targetDir != "" {
		fd, err := sys.OpenIn(a.root, targetDir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return linkError(h, err)
		}
		defer sys.Close(fd)
		from = fd
	}
	if targetBase == "" {
		return linkError(h, unix.EISDIR)
	}
	st, err := sys.StatAt(from, targetBase)
	if err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return linkError(h, err)
	}
	return a.place(parent, base, func() error { return sys.LinkAt(from, targetBase, parent, base, 0) })
}

func linkError(h *tar.Header, err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) {
		return invalid(h.Name, fmt.Errorf("it is a hard link to %q, which is no file of this layer", clean(h.Linkname)))
	}
	return err
}

// node makes a device node or a FIFO.
func (a *applier) node(parent int, base string, h *tar.Header) error {
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
	if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor >= 1<<12 || h.Devminor >= 1<<20 {
		return invalid(h.Name, fmt.Errorf("there is no device %d:%d", h.Devmajor, h.Devminor))
	}
	var dev uint64
	if kind != unix.S_IFIFO {
		dev = sys.MakeDevice(uint32(h.Devmajor), uint32(h.Devminor))
	}
	err := a.place(parent, base, func() error { return sys.MknodAt(parent, base, kind|uint32(h.Mode)&0o777, dev) })
	if errors.Is(err, unix.EPERM) && a.o.Userxattr {
		a.result.Skipped++
		return nil
	}
	if err != nil {
		return err
	}
	return a.attributes(parent, base, h, uint32(h.Mode)&0o7777)
}

// attributes gives owner, mode (0: it has none), attributes and times to what
// is not opened: a link or a node.
func (a *applier) attributes(parent int, base string, h *tar.Header, mode uint32) error {
	if a.owned(h) {
		if err := a.chown(parent, base, h); err != nil {
			return err
		}
	}
	if mode&^0o777 != 0 || mode&a.umask != 0 {
		if err := chmod(parent, base, mode); err != nil {
			return err
		}
	}
	if hasXattrs(h) {
		fd, err := sys.OpenAt(parent, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer sys.Close(fd)
		if err := a.xattrs(fd, h); err != nil {
			return err
		}
	}
	access, modify := times(h)
	return sys.Utimens(parent, base, access, modify)
}

// chmod is for what is no link, and follows none that somebody has put in its
// place: fchmodat(2) would, out of the root.
func chmod(parent int, base string, mode uint32) error {
	fd, err := sys.OpenAt(parent, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	st, err := sys.StatAt(fd, "")
	if err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return err
	}
	return sys.ChmodAt(unix.AT_FDCWD, sys.FDPath(fd), mode)
}

// chown gives base in parent, or with an empty name parent itself, its owner.
func (a *applier) chown(parent int, base string, h *tar.Header) error {
	uid, gid := h.Uid, h.Gid
	if a.o.Owner != nil {
		var err error
		if uid, gid, err = a.o.Owner(uid, gid); err != nil {
			return ownerError(h, err)
		}
	}
	if err := sys.ChownAt(parent, base, uid, gid); err != nil {
		return ownerError(h, err)
	}
	return nil
}

// owned reports whether the owner has to be set.
func (a *applier) owned(h *tar.Header) bool {
	return !a.o.KeepOwner && (h.Uid != a.euid || h.Gid != a.egid)
}

func ownerError(h *tar.Header, err error) error {
	f := &fault.Error{Op: "give " + fmt.Sprintf("%d:%d", h.Uid, h.Gid), On: clean(h.Name), Err: err}
	if errors.Is(err, unix.EINVAL) {
		f.Kind, f.Hint = fault.Unsupported, "this user has too few subordinate ids: raise the range in /etc/subuid and /etc/subgid to 65536"
	}
	return f
}

// finish gives a directory what it gets last. One that was replaced since is
// left alone.
func (a *applier) finish(d directory) error {
	fd, err := sys.OpenIn(a.root, d.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil
	case err != nil:
		return err
	}
	defer sys.Close(fd)
	if !a.o.KeepOwner && (d.mode == 0 || a.owned(d.h)) {
		if err := a.chown(fd, "", d.h); err != nil {
			return err
		}
	}
	if mode := uint32(d.h.Mode) & 0o7777; mode != d.mode {
		if err := sys.Fchmod(fd, mode); err != nil {
			return err
		}
	}
	if err := a.xattrs(fd, d.h); err != nil {
		return err
	}
	access, modify := times(d.h)
	return sys.Utimens(fd, "", access, modify)
}

// paxXattr is the prefix of a record that holds an extended attribute, as GNU
// tar, star and every maker of layers write it.
const paxXattr = "SCHILY.xattr."

func hasXattrs(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, paxXattr) {
			return true
		}
	}
	return false
}

// xattrs sets the extended attributes of what fd, also one of O_PATH, stands
// for. Overlayfs's own are not the image's to
// set, and a label of SELinux is that of where a file lies. What the file system or this user namespace does not take is left out,
// as Docker does; a file's capabilities are not.
func (a *applier) xattrs(fd int, h *tar.Header) error {
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, paxXattr)
		if !ok || attr == "security.selinux" || strings.HasPrefix(attr, "trusted.overlay.") || strings.HasPrefix(attr, "user.overlay.") {
			continue
		}
		err := sys.SetXattrFD(fd, attr, []byte(value))
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOTSUP):
		case errors.Is(err, unix.EPERM) && (attr != "security.capability" || a.o.Userxattr):
		default:
			return fmt.Errorf("attribute %.60q: %w", attr, errors.Unwrap(err))
		}
	}
	return nil
}

// times are those of an entry; without a time of access, that of the change.
func times(h *tar.Header) (access, modify unix.Timespec) {
	modify = timespec(h.ModTime)
	if h.AccessTime.IsZero() {
		return modify, modify
	}
	return timespec(h.AccessTime), modify
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
