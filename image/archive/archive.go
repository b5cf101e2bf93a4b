// Package archive reads images from tar files: what "docker save" and "podman
// save" write, and an OCI layout in a tar.
//
//	takes    a file, and which image of it
//	gives    a source.Source
//	touches  the file; a nameless temporary file where it is compressed or a pipe
//	state    none
//
// A plain tar is not unpacked: its headers are read once, and then every blob
// is a section of the file. A compressed one, or a pipe, is first decompressed
// into a temporary file that has no name and so cannot stay behind.
//
// Archives are hostile: links resolve inside them, the number of entries and
// the size after decompression are bounded, and content is verified by package
// source. A Source is safe for concurrent use.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"kiste/fault"
	"kiste/image/compression"
	"kiste/image/layout"
	"kiste/image/source"
)

// Options of Open. The zero value is right.
type Options struct {
	// Temp is the directory for a decompressed archive. Empty: $TMPDIR, else
	// /var/tmp, since /tmp may be memory.
	Temp string

	// MaxSize bounds a compressed archive after decompression, in bytes.
	// Zero: 256 GiB.
	MaxSize int64
}

const defaultMaxSize = 256 << 30

// OpenOCI opens an OCI layout in a tar. Which is as for layout.Open.
func OpenOCI(ctx context.Context, file, which string, o Options) (source.Source, error) {
	return open(ctx, file, o, func(t *tarTree) (source.Source, error) { return layout.New(t, which) })
}

// OpenDocker opens what "docker save" wrote, of Docker 1.10 and later. Which
// is a canonical name, "@N" for the Nth image counted from 0, or "" for the
// only one. No such image is fault.NotFound and lists those that there are.
func OpenDocker(ctx context.Context, file, which string, o Options) (source.Source, error) {
	return open(ctx, file, o, func(t *tarTree) (source.Source, error) { return newDocker(t, which) })
}

func open(ctx context.Context, file string, o Options, read func(*tarTree) (source.Source, error)) (source.Source, error) {
	f, err := seekable(ctx, file, o)
	if err != nil {
		return nil, &fault.Error{Op: "open image archive", On: file, Err: err}
	}
	s, err := index(f, read)
	if err == nil {
		return s, nil
	}
	f.Close()
	return nil, &fault.Error{Op: "open image archive", On: file, Err: err}
}

// index reads the table of contents and what read makes of it.
func index(f *os.File, read func(*tarTree) (source.Source, error)) (source.Source, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	tree, err := readTar(f, info.Size())
	if err != nil {
		return nil, err
	}
	return read(tree)
}

// seekable opens file as a plain tar that can be read anywhere.
func seekable(ctx context.Context, file string, o Options) (*os.File, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = &fault.Error{Op: "open file", On: file, Kind: fault.Invalid, Err: errors.New("it is a directory"), Hint: "a layout in a directory is oci:DIR"}
	case info.Mode().IsRegular():
		head := make([]byte, compression.HeadSize)
		n, _ := f.ReadAt(head, 0)
		if compression.Of(head[:n]) == "" {
			return f, nil
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	defer f.Close()
	return spool(ctx, f, o)
}

// spool decompresses r into a file without a name.
func spool(ctx context.Context, r io.Reader, o Options) (*os.File, error) {
	temp, err := nameless(o.Temp)
	if err != nil {
		return nil, err
	}
	most := o.MaxSize
	if most == 0 {
		most = defaultMaxSize
	}
	if err := decompress(ctx, temp, r, most); err != nil {
		temp.Close()
		return nil, err
	}
	return temp, nil
}

func decompress(ctx context.Context, w io.Writer, r io.Reader, most int64) error {
	plain, err := compression.Decompress(r)
	if err != nil {
		return damaged(err)
	}
	defer plain.Close()
	n, err := io.Copy(w, &cancellable{ctx, io.LimitReader(plain, most+1)})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case fault.KindOf(err) == fault.Unavailable: // the disk is full
		return &fault.Error{Op: "decompress archive", Err: err, Hint: "free some space, or set TMPDIR to a directory with more"}
	case fault.KindOf(err) != "":
		return err
	case err != nil:
		return damaged(err)
	case n > most:
		return damaged(fmt.Errorf("it has more than %d bytes when decompressed", most))
	}
	return nil
}

// cancellable ends a copy when its context ends.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// nameless makes a temporary file that ends with its descriptor. Where the
// file system knows no O_TMPFILE, its name is removed at once.
func nameless(dir string) (*os.File, error) {
	if dir == "" {
		dir = os.Getenv("TMPDIR")
	}
	if dir == "" {
		dir = "/var/tmp"
	}
	f, err := os.OpenFile(dir, oTmpfile|os.O_RDWR, 0o600)
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return f, err
	}
	if f, err = os.CreateTemp(dir, "kiste-archive-*"); err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// oTmpfile is O_TMPFILE of open(2).
const oTmpfile = 0o20000000 | syscall.O_DIRECTORY
