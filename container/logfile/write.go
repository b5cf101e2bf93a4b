package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"kiste/fault"
)

// path is the file with the given number: 0 is the newest.
func (o Options) path(f format, number int, suffix string) string {
	name := filepath.Join(o.Dir, f.file)
	if number > 0 {
		name += "." + strconv.Itoa(number)
	}
	return name + suffix
}

const gz = ".gz"

// A Writer appends to a log.
type Writer struct {
	o      Options
	format format

	mu   sync.Mutex
	f    *os.File
	size int64
	last time.Time
	lost int   // entries
	why  error // of the first of them
}

// Create opens a log for writing and makes it where it is missing. An entry
// that a writer before did not finish is cut off.
func Create(o Options) (*Writer, error) {
	w, err := Later(o)
	if err != nil {
		return nil, err
	}
	if err := w.open(); err != nil {
		return nil, &fault.Error{Op: "write log", On: o.Path(), Err: err}
	}
	return w, nil
}

// Later is Create at the first Write. That it fails then is an error of that
// Write.
func Later(o Options) (*Writer, error) {
	f, err := formatOf(o.Format)
	return &Writer{o: o, format: f}, err
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.o.path(w.format, 0, ""), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	end, last, err := endOf(f, w.format)
	if info, failed := f.Stat(); err == nil && (failed != nil || info.Size() != end) {
		err = f.Truncate(end)
	}
	if err != nil {
		f.Close()
		return err
	}
	w.f, w.size = f, end
	if last.After(w.last) {
		w.last = last
	}
	return nil
}

// endOf finds the end of the last whole entry, and its time. The file's end is
// looked at first: only a file that was cut off is read from its beginning.
func endOf(f *os.File, form format) (int64, time.Time, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, time.Time{}, err
	}
	if start, err := form.back(f, info.Size()); err == nil {
		r := newReader(io.NewSectionReader(f, start, info.Size()-start))
		var e Entry
		if form.next(r, &e) == nil && start+r.read == info.Size() {
			return info.Size(), e.Time, nil
		}
	}
	r := newReader(io.NewSectionReader(f, 0, info.Size()))
	var e, last Entry
	end := int64(0)
	for form.next(r, &e) == nil {
		end, last = r.read, e
	}
	return end, last.Time, nil
}

// Write appends entries; their times are set. Only a log that cannot be written
// at all is an error, and even then the next Write tries again: what could not
// be written is counted.
func (w *Writer) Write(entries ...Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(entries) > 0 {
		n, err := w.writeSome(entries)
		if err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// buffers are shared by all writers: they are needed only while entries come.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// writeSome appends as many entries as the file takes, and begins a new one when
// it is full. With an error all of them count as lost.
func (w *Writer) writeSome(entries []Entry) (n int, err error) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	b := w.note((*buffer)[:0])
	for n < len(entries) && (n == 0 || !w.full(len(b))) {
		entries[n].Time, entries[n].Attrs = w.now(), w.o.Attrs
		b = w.format.add(b, &entries[n])
		n++
	}
	*buffer = b
	if err := w.append(b); err != nil {
		if w.lost == 0 {
			w.why = err
		}
		w.lost += len(entries)
		return 0, err
	}
	w.lost, w.why = 0, nil
	if w.full(0) {
		return n, w.rotate()
	}
	return n, nil
}

// note adds to b, if there is something to say, that entries are lost.
func (w *Writer) note(b []byte) []byte {
	if w.lost == 0 {
		return b
	}
	note := Entry{Time: w.now(), Stream: Stderr, Line: fmt.Appendf(nil, "kiste: %d entries of this log are lost: %v", w.lost, w.why)}
	return w.format.add(b, &note)
}

// full reports whether the file is when so many bytes more are in it.
func (w *Writer) full(more int) bool {
	return w.o.MaxSize > 0 && w.size+int64(more) >= w.o.MaxSize
}

// now is later than every time that it gave before.
func (w *Writer) now() time.Time {
	t := time.Now().UTC()
	if !t.After(w.last) {
		t = w.last.Add(1)
	}
	w.last = t
	return t
}

// append writes all or nothing.
func (w *Writer) append(b []byte) error {
	if w.f == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	_, err := w.f.WriteAt(b, w.size)
	if err != nil {
		return errors.Join(err, w.f.Truncate(w.size))
	}
	w.size += int64(len(b))
	return nil
}

// rotate begins a new file. Readers that have the old one open go on reading it.
func (w *Writer) rotate() error {
	files := max(w.o.MaxFiles, 1)
	w.f.Close()
	w.f = nil
	if files == 1 {
		return errors.Join(ignoreMissing(os.Remove(w.o.path(w.format, 0, ""))), w.open())
	}
	for _, suffix := range []string{"", gz} {
		for n := files - 1; n > 0; n-- {
			from := w.o.path(w.format, n-1, suffix)
			if n == 1 && suffix == gz {
				break // the newest is never compressed
			}
			if err := ignoreMissing(os.Rename(from, w.o.path(w.format, n, suffix))); err != nil {
				return err
			}
		}
	}
	if w.o.Compress != nil {
		// A log that could not be compressed is as good, but larger.
		_ = compress(w.o.path(w.format, 1, ""), w.o.path(w.format, 1, gz), w.o.Compress)
	}
	return w.open()
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// compress replaces from by to, which is there when it is complete.
func compress(from, to string, with func(io.Writer) (io.WriteCloser, error)) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	z, err := with(out)
	if err == nil {
		_, err = io.Copy(z, in)
		err = errors.Join(err, z.Close())
	}
	info, failed := in.Stat()
	if err = errors.Join(err, failed, out.Chmod(0o640), out.Close()); err != nil {
		return err
	}
	if err := os.Chtimes(out.Name(), time.Time{}, info.ModTime()); err != nil {
		return err
	}
	if err := os.Rename(out.Name(), to); err != nil {
		return err
	}
	return os.Remove(from)
}

// Close ends the writing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return nil
	}
	if w.lost > 0 {
		_ = w.append(w.note(nil)) // there may be room by now
	}
	err := w.f.Close()
	w.f = nil
	return err
}

// A Splitter makes entries of one stream's bytes.
type Splitter struct {
	Stream string
	length int  // of the line so far
	open   bool // it has begun
}

// Split gives entries that chunk begins with, as many as there is room for in the
// capacity of entries, and the rest of chunk. They share its memory. A line that
// chunk does not finish is a partial entry.
func (s *Splitter) Split(chunk []byte, entries []Entry) (made []Entry, rest []byte) {
	made = entries[:0]
	for len(chunk) > 0 && len(made) < cap(entries) {
		n := bytes.IndexByte(chunk, '\n')
		room := MaxLine - s.length
		switch {
		case n >= 0 && n <= room:
			made = append(made, Entry{Stream: s.Stream, Line: chunk[:n]})
			chunk = chunk[n+1:]
			s.length, s.open = 0, false
		default:
			n = min(room, len(chunk))
			made = append(made, Entry{Stream: s.Stream, Line: chunk[:n], Partial: true})
			chunk = chunk[n:]
			s.length, s.open = (s.length+n)%MaxLine, true
		}
	}
	return made, chunk
}

// End gives the entry that ends a line without a newline, if there is one.
func (s *Splitter) End() []Entry {
	if !s.open {
		return nil
	}
	s.length, s.open = 0, false
	return []Entry{{Stream: s.Stream}}
}
