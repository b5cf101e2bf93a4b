package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/engine"
	"kiste/fault"
	"kiste/image/layer"
	"kiste/internal/sys"
)

// CopyOptions say what to copy.
type CopyOptions struct {
	Options

	// Path is that in the container, Host that on the host.
	Path, Host string

	// Stream is a tar in place of Host: to be read, or written.
	Stream *os.File

	// Follow copies what a link at the end of the source leads to.
	Follow bool

	// Archive keeps owners on the host, where there they would be the caller's.
	Archive bool
}

// CopyOut copies from a container to the host, with Docker's rules, and gives
// the bytes of the tar that went across.
func CopyOut(ctx context.Context, e *engine.Engine, query string, o CopyOptions) (int64, error) {
	if o.Stream == nil {
		if err := CheckOutput(o.Host); err != nil {
			return 0, err
		}
	}
	c, err := e.Find(query)
	if err != nil {
		return 0, err
	}
	v, err := look(e, c, o.Options, false)
	if err != nil {
		return 0, err
	}
	defer v.done()
	n, err := v.copyOut(ctx, o)
	if err == nil {
		e.Emit("archive-path", c, nil)
	}
	return n, err
}

func (v *view) copyOut(ctx context.Context, o CopyOptions) (int64, error) {
	path, name := o.Path, baseOf(absolute(o.Path))
	what, err := v.stat(path)
	if err == nil && o.Follow && what.isLink() {
		path = keepEnd(what.link, path)
		what, err = v.stat(path)
	}
	if err != nil {
		return 0, err
	}
	if o.Stream != nil {
		count := &counter{w: o.Stream}
		err := v.pack(count, path, name)
		return count.n, err
	}
	dst, err := hostTarget(o.Host)
	if err != nil {
		return 0, err
	}
	dir, name, err := place(from{name, what.isDir()}, dst)
	if err != nil {
		return 0, err
	}
	root, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	keep := !o.Archive || os.Geteuid() != 0
	return across(func(w io.Writer) error { return v.pack(w, path, name) }, func(r io.Reader) error {
		_, err := layer.Extract(ctx, r, int(root.Fd()), ".", layer.Options{KeepOwner: keep, KeepKinds: true, Userxattr: o.Inside || keep})
		return err
	})
}

// CopyIn copies from the host into a container, with Docker's rules.
func CopyIn(ctx context.Context, e *engine.Engine, query string, o CopyOptions) (int64, error) {
	c, err := e.Find(query)
	if err != nil {
		return 0, err
	}
	v, err := look(e, c, o.Options, true)
	if err != nil {
		return 0, err
	}
	defer v.done()
	n, err := v.copyIn(ctx, o)
	if err == nil {
		e.Emit("extract-to-dir", c, nil)
	}
	return n, err
}

func (v *view) copyIn(ctx context.Context, o CopyOptions) (int64, error) {
	dst, err := v.target(o.Path)
	if err != nil {
		return 0, err
	}
	how := layer.Options{Userxattr: o.Inside || v.uids != nil}
	if o.Stream != nil {
		if !dst.isDir {
			return 0, &fault.Error{Op: "copy", On: v.name + ":" + o.Path, Kind: fault.Invalid, Err: fmt.Errorf("destination %q must be a directory", v.name+":"+o.Path)}
		}
		count := &counter{r: o.Stream}
		err := v.unpack(ctx, count, dst.path, how)
		return count.n, err
	}
	src, path, err := hostSource(o.Host, o.Follow)
	if err != nil {
		return 0, err
	}
	dir, name, err := place(src, dst)
	if err != nil {
		return 0, err
	}
	return across(func(w io.Writer) error { return packHost(w, path, name, o.Inside) },
		func(r io.Reader) error { return v.unpack(ctx, r, dir, how) })
}

// target tells what the destination in a container is. Links are resolved, also
// one that leads to nothing; what cannot be looked at counts as not there, and
// whoever writes says why.
func (v *view) target(p string) (to, error) {
	t := to{path: p}
	i, err := v.stat(p)
	if err == nil && i.isLink() {
		t.path = i.link
		i, err = v.stat(t.path)
	}
	if err != nil {
		return t, nil
	}
	t.exists, t.isDir = true, i.isDir()
	if kind := i.mode & unix.S_IFMT; kind != unix.S_IFDIR && kind != unix.S_IFREG {
		what := "an irregular file"
		if kind == unix.S_IFCHR || kind == unix.S_IFBLK {
			what = "a device"
		}
		return t, &fault.Error{Op: "copy", On: v.name + ":" + p, Kind: fault.Invalid,
			Err: fmt.Errorf("destination %q must be a directory or a regular file: got %s", v.name+":"+p, what)}
	}
	return t, nil
}

// errOver ends who writes when nobody reads any more.
var errOver = errors.New("nobody reads any more")

// across lets write's tar be read by read, both at once.
func across(write func(io.Writer) error, read func(io.Reader) error) (int64, error) {
	r, w := io.Pipe()
	written := make(chan error)
	go func() {
		err := write(w)
		w.CloseWithError(err)
		written <- err
	}()
	count := &counter{r: r}
	err := read(count)
	r.CloseWithError(errOver)
	if werr := <-written; werr != nil && !errors.Is(werr, errOver) {
		return count.n, werr
	}
	return count.n, err
}

// A counter counts what goes through.
type counter struct {
	r io.Reader
	w io.Writer
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// hostPath is a path of the host, absolute.
func hostPath(p string) (string, error) {
	abs, err := filepath.Abs(p)
	return keepEnd(abs, p), err
}

// hostSource tells what is to be copied from the host, and where it lies.
func hostSource(p string, follow bool) (from, string, error) {
	asked, err := hostPath(p)
	if err != nil {
		return from{}, "", err
	}
	dir, base := filepath.Split(asked)
	if follow {
		dir, base = asked, ""
	}
	path, err := filepath.EvalSymlinks(dir)
	if err == nil {
		path = keepEnd(filepath.Join(path, base), asked)
		_, err = os.Lstat(path) // with its slash: only a directory is there then
	}
	if err != nil {
		return from{}, "", hostError(asked, err)
	}
	st, err := os.Lstat(path)
	if err != nil {
		return from{}, "", hostError(asked, err)
	}
	return from{baseOf(asked), st.IsDir()}, path, nil
}

func hostError(path string, err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		err = e.Err
	}
	return &fault.Error{Op: "copy", On: path, Err: fmt.Errorf("lstat %s: %w", path, err)}
}

// packHost writes a file of the host, or a tree, as a tar.
func packHost(w io.Writer, path, name string, inside bool) error {
	fd, err := sys.OpenAt(unix.AT_FDCWD, path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return hostError(path, err)
	}
	defer sys.Close(fd)
	st, err := sys.StatAt(fd, "")
	if err != nil {
		return err
	}
	t := layer.Pack(w)
	if inside {
		t.Owner = ownerInside
	}
	if err := packTree(t, fd, st, name); err != nil {
		return err
	}
	return t.Close()
}

// ownerInside makes files of others, who have no id in an ordinary user's
// namespace, those of its root.
func ownerInside(uid, gid uint32) (int, int) {
	if uid == overflow {
		uid = 0
	}
	if gid == overflow {
		gid = 0
	}
	return int(uid), int(gid)
}

// hostTarget tells what the destination on the host is. A link is followed, also
// one to nothing.
func hostTarget(p string) (to, error) {
	path, err := hostPath(p)
	if err != nil {
		return to{}, err
	}
	st, err := os.Lstat(path)
	for links := 0; err == nil && st.Mode()&fs.ModeSymlink != 0; links++ {
		if links > maxLinks {
			return to{}, hostError(p, unix.ELOOP)
		}
		target, lost := os.Readlink(path)
		if lost != nil {
			return to{}, hostError(p, lost)
		}
		if !filepath.IsAbs(target) {
			dir, _ := splitEntry(path)
			target = filepath.Join(dir, target)
		}
		path = target
		st, err = os.Lstat(path)
	}
	if err != nil {
		return missing(path, err)
	}
	return to{path: path, exists: true, isDir: st.IsDir()}, nil
}

// missing is a destination that is not there: its directory has to be.
func missing(path string, err error) (to, error) {
	if !errors.Is(err, fs.ErrNotExist) {
		return to{}, hostError(path, err)
	}
	dir, _ := splitEntry(path)
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		return to{}, hostError(dir, err)
	}
	return to{path: path}, nil
}

// CheckOutput refuses a path that nothing can be written to, in Docker's words.
// Kind: fault.Invalid.
func CheckOutput(path string) error {
	bad := func(format string, args ...any) error {
		return &fault.Error{Op: "write", On: path, Kind: fault.Invalid, Err: fmt.Errorf("invalid output path: "+format, args...)}
	}
	path, err := hostPath(path)
	if err != nil {
		return err
	}
	if dir := filepath.Dir(filepath.Clean(path)); dir != "/" {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return bad("directory %q does not exist", dir)
		}
	}
	st, err := os.Stat(strings.TrimSuffix(path, "/"))
	if err == nil && !st.IsDir() && !st.Mode().IsRegular() {
		return bad("%q must be a directory or a regular file", path)
	}
	return nil
}
