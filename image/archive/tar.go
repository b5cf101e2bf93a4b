package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"kiste/fault"
)

const (
	maxEntries = 1 << 16
	maxName    = 4096
	maxLinks   = 16 // links followed to one file
)

// A tarTree is the table of contents of a tar that can be read anywhere: the
// archive is gone through once, from header to header, and no content is
// copied. It is a layout.Tree.
type tarTree struct {
	file    file
	entries map[string]entry // by cleaned path, without a leading slash
}

// A file can be read anywhere, by several at once.
type file interface {
	io.ReaderAt
	io.Closer
}

// An entry is a file of the tar, or a link to one.
type entry struct {
	offset, size int64
	link         string // cleaned path; empty: it is a file
}

// readTar makes the table of contents of f, of size bytes, which it owns if
// there is no error.
func readTar(f file, size int64) (*tarTree, error) {
	t := &tarTree{file: f, entries: map[string]entry{}}
	at := io.NewSectionReader(f, 0, size)
	r := tar.NewReader(at)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, damaged(err)
		}
		offset, err := at.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if h.Size > size-offset {
			return nil, damaged(fmt.Errorf("%.80q is cut off", h.Name))
		}
		if err := t.add(h, offset); err != nil {
			return nil, err
		}
	}
}

// add enters one header. Of two entries of one name the later one counts, as
// when a tar is unpacked.
func (t *tarTree) add(h *tar.Header, offset int64) error {
	name := inside(h.Name)
	if len(name) > maxName || len(t.entries) == maxEntries {
		return damaged(fmt.Errorf("it has more than %d entries, or a name of more than %d bytes", maxEntries, maxName))
	}
	switch h.Typeflag {
	case tar.TypeReg:
		if isSparse(h) {
			return damaged(fmt.Errorf("%.80q is stored with holes", name))
		}
		t.entries[name] = entry{offset: offset, size: h.Size}
	case tar.TypeSymlink:
		// docker save wrote "../OTHER/layer.tar" for a layer that was there
		// already. The target is taken inside the archive, wherever it points.
		target := h.Linkname
		if !path.IsAbs(target) {
			target = path.Join("/", path.Dir(name), target)
		}
		t.entries[name] = entry{link: inside(target)}
	case tar.TypeLink:
		t.entries[name] = entry{link: inside(h.Linkname)}
	}
	return nil
}

func isSparse(h *tar.Header) bool {
	_, name := h.PAXRecords["GNU.sparse.name"]
	_, major := h.PAXRecords["GNU.sparse.major"]
	_, old := h.PAXRecords["GNU.sparse.size"]
	return name || major || old
}

// inside cleans a path so that it stays in the archive.
func inside(name string) string { return path.Clean("/" + name)[1:] }

// find follows links to a file.
func (t *tarTree) find(name string) (entry, error) {
	at := inside(name)
	for range maxLinks {
		e, ok := t.entries[at]
		switch {
		case !ok:
			return entry{}, &fs.PathError{Op: "find in archive", Path: name, Err: fs.ErrNotExist}
		case e.link == "":
			return e, nil
		}
		at = e.link
	}
	return entry{}, damaged(fmt.Errorf("%.80q is a link to a link, and so on", name))
}

func (t *tarTree) Open(name string) (io.ReadSeekCloser, int64, error) {
	e, err := t.find(name)
	if err != nil {
		return nil, 0, err
	}
	return section{io.NewSectionReader(t.file, e.offset, e.size)}, e.size, nil
}

func (t *tarTree) Close() error { return t.file.Close() }

// A section is a file of the tar. Closing it does nothing: the tar stays open.
type section struct{ *io.SectionReader }

func (section) Close() error { return nil }

func damaged(err error) error {
	return &fault.Error{Op: "read archive", Kind: fault.Invalid, Err: err, Hint: "the archive is damaged: save it again"}
}
