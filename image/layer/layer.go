// Package layer unpacks a layer's tar into a directory that overlayfs can
// stack.
//
//	takes    a stream, compressed or not, and an empty directory
//	gives    the files, the DiffID, and which directories the tar leaves out
//	touches  files below the directory
//	state    none
//
// The stream's compression is told by its first bytes: gzip, zstd, bzip2, xz
// or none. Inflating runs beside writing, so both processors have work even
// with one layer; the uncompressed bytes are hashed on the way, which gives the
// DiffID, so everything is read once.
//
// Whiteouts become what overlayfs wants: ".wh.x" a character device 0:0 called
// x, ".wh..wh..opq" the attribute trusted.overlay.opaque (in a user namespace
// user.overlay.opaque). See image-spec, layer.md, and
// Documentation/filesystems/overlayfs.rst.
//
// The tar is hostile. A name is looked up by openat2(2) with RESOLVE_IN_ROOT
// below the directory, so that ".." and symbolic links, absolute ones too, stay
// inside; then all is done relative to a descriptor of the parent, and never
// through a link that has the entry's own name. Hard links lead to files of
// this tar alone and never carry mode or owner (CVE-2021-32760). Bytes, entries
// and lengths of names are bounded.
//
// Root is wanted, or the root of a user namespace; without CAP_MKNOD there
// device nodes are left out and counted. Apply may run many times at once, each
// in its own directory.
package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/image/compression"
	"kiste/internal/sys"
)

// Options of Apply. The zero value is right for root.
type Options struct {
	// Userxattr writes overlayfs's marks to user.overlay.*, as mounts made in
	// a user namespace want them, and leaves out devices that cannot be made
	// there.
	Userxattr bool

	// KeepOwner leaves every file to the caller's own ids: there is only one
	// id to give.
	KeepOwner bool

	// Plain takes names beginning with ".wh." as they are: the tar is a whole
	// root file system and no layer.
	Plain bool

	// KeepKinds refuses an entry where a directory would take the place of
	// something else, or something else that of a directory.
	KeepKinds bool

	// Owner gives, for the owner that an entry has, the one that its file gets.
	// Nil: the same.
	Owner func(uid, gid int) (int, int, error)

	// MaxSize bounds the bytes of the uncompressed tar. Zero: what is free on
	// the file system.
	MaxSize int64

	// MaxEntries bounds the entries. Zero: four million.
	MaxEntries int64
}

// Result says what Apply has made.
type Result struct {
	DiffID  string   // the digest of the uncompressed tar
	Size    int64    // of the files' content, in bytes
	Entries int64    // in the tar
	Implied []string // directories that files lie in and the tar does not list, each before what is in it
	Skipped int64    // device nodes that could not be made
}

const (
	maxEntries = 4 << 20
	maxName    = unix.PathMax
	chunk      = 256 << 10 // bytes moved at once
	ahead      = 4         // chunks inflated ahead of writing
)

// Apply unpacks r, up to its end, into the empty directory dir. What is damaged
// or oversteps a bound is fault.Invalid; a full disk is fault.Unavailable. After an
// error dir holds some part and is the caller's to remove.
func Apply(ctx context.Context, r io.Reader, dir string, o Options) (Result, error) {
	a, err := newApplier(dir, o)
	if err != nil {
		return Result{}, unpackError(err)
	}
	defer a.close()
	plain, err := compression.Decompress(r)
	if err != nil {
		return Result{}, unpackError(err)
	}
	defer plain.Close()
	sum := sha256.New()
	in := ReadAhead(plain, ahead, chunk, func(p []byte) { sum.Write(p) })
	defer in.Close()
	limited := &limit{r: in, ctx: ctx, left: a.o.MaxSize, most: a.o.MaxSize, free: o.MaxSize == 0}
	if err := a.run(limited); err != nil {
		return Result{}, unpackError(err)
	}
	// behind the end of the tar there may be more, which the digests cover
	if _, err := io.CopyBuffer(onlyWriter{io.Discard}, limited, a.buf); err != nil {
		return Result{}, unpackError(err)
	}
	if _, err := io.CopyBuffer(onlyWriter{io.Discard}, r, a.buf); err != nil {
		return Result{}, unpackError(err)
	}
	a.result.DiffID = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return a.result, nil
}

// onlyWriter hides all methods but Write.
type onlyWriter struct{ io.Writer }

func newApplier(dir string, o Options) (*applier, error) {
	if o.MaxEntries == 0 {
		o.MaxEntries = maxEntries
	}
	if o.MaxSize == 0 {
		st, err := sys.Statfs(dir)
		if err != nil {
			return nil, err
		}
		o.MaxSize = int64(st.Bavail) * st.Bsize
	}
	root, err := sys.OpenAt(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &applier{o: o, root: root, umask: umask(), euid: os.Geteuid(), egid: os.Getegid(),
		open: map[string]int{}, implied: map[string]bool{}, buf: make([]byte, chunk)}, nil
}

// umask reads this process's mask without setting it: proc_pid_status(5).
func umask() uint32 {
	mask, err := sys.ReadUmask()
	if err != nil {
		return 0o777 // not known: set every mode
	}
	return mask
}

// A limit passes on at most most bytes, and stops when its context ends.
type limit struct {
	r    io.Reader
	ctx  context.Context
	left int64
	most int64
	free bool // the bound is the free space
}

func (l *limit) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, l.over()
	}
	return n, err
}

func (l *limit) over() error {
	if l.free {
		return &fault.Error{Op: "write files", Kind: fault.Unavailable, Err: fmt.Errorf("they need more than the %d bytes that are free", l.most),
			Hint: "free some space, with kiste gc for instance, and try again"}
	}
	return &fault.Error{Op: "inflate", Kind: fault.Invalid, Err: fmt.Errorf("it has more than the %d bytes allowed", l.most)}
}

// unpackError gives errors of the libraries a kind and a hint.
func unpackError(err error) error {
	f := &fault.Error{Op: "unpack layer", Err: err}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		f.Kind, f.Hint = fault.Unavailable, "free some space, with kiste gc for instance, and try again"
	case fault.KindOf(err) == "", errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF):
		f.Kind, f.Hint = fault.Invalid, "the layer is damaged: whoever made the image has to make it again"
	}
	return f
}
