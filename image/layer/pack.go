package layer

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
)

// A Packer writes files into a tar, as Docker writes them: PAX, times in whole
// seconds, numbers and no names of owners. What the files are is looked at by
// descriptor, and nothing but plain files is ever opened.
type Packer struct {
	// Owner gives, for a file's owner, the one that the tar has. Nil: the same.
	Owner func(uid, gid uint32) (int, int)

	w     *tar.Writer
	first map[fileID]string // of files with several names: the first in the tar
	buf   []byte
}

type fileID struct{ dev, ino uint64 }

// Pack gives a Packer that writes to w.
func Pack(w io.Writer) *Packer {
	return &Packer{w: tar.NewWriter(w), first: map[fileID]string{}, buf: make([]byte, chunk)}
}

// Close writes the end of the tar. It closes nothing else.
func (p *Packer) Close() error { return p.w.Close() }

// Add writes the file behind fd, a descriptor of O_PATH whose state is st, under
// name, of a directory without what is in it. A socket, which no tar can hold,
// is left out. A plain file that shrinks meanwhile is filled up with zeros; of
// one that grows there is as much as st says.
func (p *Packer) Add(name string, fd int, st unix.Stat_t) error {
	h := &tar.Header{Format: tar.FormatPAX, Name: name, Mode: int64(st.Mode & 0o7777), ModTime: time.Unix(st.Mtim.Sec, 0)}
	if h.Uid, h.Gid = int(st.Uid), int(st.Gid); p.Owner != nil {
		h.Uid, h.Gid = p.Owner(st.Uid, st.Gid)
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		id := fileID{uint64(st.Dev), st.Ino}
		if first, ok := p.first[id]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return p.w.WriteHeader(h)
		}
		p.first[id] = name
	}
	switch kind {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(name, "/")+"/"
	case unix.S_IFREG:
		return p.file(h, fd, st.Size)
	case unix.S_IFLNK:
		target, err := sys.ReadlinkAt(fd, "")
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = map[uint32]byte{unix.S_IFCHR: tar.TypeChar, unix.S_IFBLK: tar.TypeBlock}[kind]
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return nil
	}
	if kind == unix.S_IFDIR {
		if err := addXattrs(h, fd); err != nil {
			return err
		}
	}
	return p.w.WriteHeader(h)
}

// Whiteout writes that name, which lower layers have, is no more.
func (p *Packer) Whiteout(name string) error {
	dir, base := path.Split(name)
	return p.mark(dir + whiteoutPrefix + base)
}

// Opaque writes that the directory name shows nothing of lower layers.
func (p *Packer) Opaque(name string) error { return p.mark(path.Join(name, whiteoutOpaque)) }

func (p *Packer) mark(name string) error {
	return p.w.WriteHeader(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name})
}

// file writes a plain file, opened again through /proc: the descriptor names the
// file itself, whatever its path now leads to.
func (p *Packer) file(h *tar.Header, fd int, size int64) error {
	h.Typeflag, h.Size = tar.TypeReg, size
	if err := addXattrs(h, fd); err != nil {
		return err
	}
	in, err := os.OpenFile(sys.FDPath(fd), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		var e *fs.PathError
		if errors.As(err, &e) {
			e.Path = h.Name
		}
		return err
	}
	defer in.Close()
	if err := p.w.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{p.w}, io.LimitReader(onlyReader{in}, size), p.buf)
	if err != nil {
		return err
	}
	return p.zeros(size - n)
}

type onlyReader struct{ io.Reader }

func (p *Packer) zeros(n int64) error {
	if n > 0 {
		clear(p.buf)
	}
	for n > 0 {
		m := min(n, int64(len(p.buf)))
		if _, err := p.w.Write(p.buf[:m]); err != nil {
			return err
		}
		n -= m
	}
	return nil
}

// addXattrs adds the extended attributes that are the file's own: not those of
// overlayfs, nor what a security module gives a file for where it lies.
func addXattrs(h *tar.Header, fd int) error {
	attrs, err := sys.ListXattrFD(fd)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, attr := range attrs {
		if attr != "security.capability" && (strings.HasPrefix(attr, "security.") || strings.HasPrefix(attr, "trusted.") || strings.HasPrefix(attr, "user.overlay.")) {
			continue
		}
		value, err := sys.GetXattrFD(fd, attr)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return err
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+attr] = string(value)
	}
	return nil
}
