package logfile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// A reader reads entries from a file that may still grow.
type reader struct {
	r    io.Reader
	buf  []byte
	kept int // from here on bytes may be asked for again
	pos  int
	read int64 // bytes given out
}

func newReader(r io.Reader) *reader { return &reader{r: r} }

// line gives the next line without its newline, good until the next call.
func (r *reader) line() ([]byte, error) {
	r.keep()
	for {
		if n := bytes.IndexByte(r.buf[r.pos:], '\n'); n >= 0 {
			line := r.buf[r.pos : r.pos+n]
			r.pos, r.read = r.pos+n+1, r.read+int64(n)+1
			return line, nil
		}
		if err := r.more(); err != nil {
			return nil, err
		}
	}
}

// keep says that what has been given out so far is not asked for again.
func (r *reader) keep() { r.kept = r.pos }

// bytes gives the next n bytes, good until the next call.
func (r *reader) bytes(n int) ([]byte, error) {
	for len(r.buf)-r.pos < n {
		if err := r.more(); err != nil {
			return nil, err
		}
	}
	b := r.buf[r.pos : r.pos+n]
	r.pos, r.read = r.pos+n, r.read+int64(n)
	return b, nil
}

// more reads on. Where a part of an entry is there and no more of it,
// it is io.ErrUnexpectedEOF.
func (r *reader) more() error {
	if len(r.buf)-r.kept > maxEntry+8 { // with its two lengths
		return damaged("it has an entry that is too long")
	}
	r.buf = append(r.buf[:0], r.buf[r.kept:]...)
	r.pos, r.kept = r.pos-r.kept, 0
	held := len(r.buf)
	r.buf = append(r.buf, make([]byte, 64<<10)...)
	n, err := r.r.Read(r.buf[held:])
	r.buf = r.buf[:held+n]
	switch {
	case n > 0:
		return nil
	case err == io.EOF && held > 0:
		return io.ErrUnexpectedEOF
	case err == nil:
		return io.EOF
	}
	return err
}

// unread goes back to where so many bytes had been given out, not before what is
// kept.
func (r *reader) unread(to int64) { r.pos, r.read = r.pos-int(r.read-to), to }

// Selection says which entries to read.
type Selection struct {
	Since, Until time.Time // the zero time: from the first, to the last
	Tail         int       // only the last so many; below 0: all

	// Follow, if not nil, goes on after the last entry until it says that
	// the log has ended. It is asked when something in the log's directory
	// has changed and nothing is left to read.
	Follow func() (ended bool)

	// Stop ends the reading when it is closed.
	Stop <-chan struct{}
}

// Read gives entries to each in their order. Its error ends the reading.
func Read(o Options, s Selection, each func(*Entry) error) error {
	form, err := formatOf(o.Format)
	if err != nil {
		return err
	}
	l := &listing{o: o, form: form, s: s, each: each}
	defer l.close()
	if s.Follow != nil {
		if l.watch, err = l.follow(); err != nil {
			return err
		}
	}
	err = l.run()
	if errors.Is(err, errEnd) {
		return nil
	}
	return err
}

// errEnd ends the reading before the log's end.
var errEnd = errors.New("the wanted entries end here")

// A listing is a Read under way.
type listing struct {
	o     Options
	form  format
	s     Selection
	each  func(*Entry) error
	watch *sys.Watch
	f     *os.File
	r     *reader
	given time.Time // the time of the entry read last: the place in the log
	skip  time.Time // up to here entries were given out of a file that was open before
}

func (l *listing) follow() (*sys.Watch, error) {
	w, err := sys.NewWatch()
	if err != nil {
		return nil, err
	}
	if err := w.Add(l.o.Dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_DELETE_SELF|unix.IN_ONLYDIR); err != nil {
		w.Close()
		return nil, err
	}
	if l.s.Stop != nil {
		go func() {
			<-l.s.Stop
			w.Close()
		}()
	}
	return w, nil
}

func (l *listing) close() {
	if l.f != nil {
		l.f.Close()
	}
	if l.watch != nil {
		l.watch.Close()
	}
}

func (l *listing) run() error {
	if err := l.begin(); err != nil {
		return err
	}
	for ended := false; ; {
		if err := l.rest(); err != nil {
			return err
		}
		switched, err := l.rotated()
		switch {
		case err != nil:
			return err
		case switched:
			continue
		case l.watch == nil || ended:
			return nil
		}
		// The end of the log may be written, and be in a newer file, since
		// it was looked for.
		if ended = l.s.Follow(); ended {
			continue
		}
		switch err := l.watch.Wait(l.s.Until); {
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return l.rest()
		case err != nil:
			return err
		}
	}
}

// rest gives what the open file still has.
func (l *listing) rest() error {
	for l.r != nil {
		var e Entry
		before := l.r.read
		err := l.form.next(l.r, &e)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			l.r.unread(before)
			return nil
		case err != nil:
			return &fault.Error{Op: "read log", On: l.f.Name(), Kind: fault.Invalid, Err: err}
		}
		if !l.skip.IsZero() && !e.Time.After(l.skip) {
			continue
		}
		l.given = e.Time
		switch {
		case l.stopped() || !l.s.Until.IsZero() && e.Time.After(l.s.Until):
			return errEnd
		case e.Time.Before(l.s.Since):
			continue
		}
		if err := l.each(&e); err != nil {
			return err
		}
	}
	return nil
}

func (l *listing) stopped() bool {
	select {
	case <-l.s.Stop:
		return true
	default:
		return false
	}
}

// clockLag is more than the clock that files are stamped with is behind the one
// that entries are stamped with.
const clockLag = time.Second

// rotated goes on with the file after the one that is open, if there is one.
func (l *listing) rotated() (bool, error) {
	newest, err := os.Stat(l.o.path(l.form, 0, ""))
	if err != nil {
		return false, ignoreMissing(err)
	}
	if l.f != nil {
		open, err := l.f.Stat()
		if err != nil || os.SameFile(open, newest) {
			return false, err
		}
	}
	files, err := l.hold()
	if err != nil {
		return false, err
	}
	for i, f := range files {
		if info, err := f.Stat(); err == nil && info.ModTime().Add(clockLag).Before(l.given) {
			f.Close()
			continue
		}
		l.skip = l.given
		if f, err = l.uncompressed(f); err == nil {
			l.goOn(f)
			err = l.rest()
		}
		if err != nil {
			closeAll(files[i+1:])
			return false, err
		}
	}
	return true, nil
}

// mostHolds is how often files are looked for again that are renamed meanwhile.
const mostHolds = 100

// hold opens all files of the log, the oldest first. While they are opened one by
// one they may be renamed, which would hide one of them: then it begins again. An
// older file that is read twice has nothing new.
func (l *listing) hold() (files []*os.File, err error) {
	for range mostHolds {
		closeAll(files)
		if files, err = openAll(l.files()); err != nil {
			closeAll(files)
			return nil, err
		}
		if stay(files) {
			break
		}
	}
	return files, nil
}

func openAll(names []string) (files []*os.File, err error) {
	for _, name := range names {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

// stay reports whether files still have the names by which they were opened.
func stay(files []*os.File) bool {
	for _, f := range files {
		open, err := f.Stat()
		if err != nil {
			return false
		}
		if now, err := os.Stat(f.Name()); err != nil || !os.SameFile(open, now) {
			return false
		}
	}
	return true
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// files are those of the log, the oldest first.
func (l *listing) files() []string {
	var names []string
	for n := max(l.o.MaxFiles, 1) - 1; n >= 0; n-- {
		for _, suffix := range []string{gz, ""} {
			name := l.o.path(l.form, n, suffix)
			if _, err := os.Lstat(name); err == nil {
				names = append(names, name)
			}
		}
	}
	return names
}

// open opens a file of the log at an offset. One that has gone since is
// passed over.
func (l *listing) open(name string, at int64) error {
	f, err := l.plain(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		f.Close()
		return err
	}
	l.goOn(f)
	return nil
}

// goOn reads from f instead.
func (l *listing) goOn(f *os.File) {
	if l.f != nil {
		l.f.Close()
	}
	l.f, l.r = f, newReader(f)
}

// plain opens a file; a compressed one as a copy that is not.
func (l *listing) plain(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return l.uncompressed(f)
}

// uncompressed is f, or a copy of a compressed one, which it closes.
func (l *listing) uncompressed(f *os.File) (*os.File, error) {
	if filepath.Ext(f.Name()) != gz {
		return f, nil
	}
	defer f.Close()
	if l.o.Decompress == nil {
		return nil, &fault.Error{Op: "read log", On: f.Name(), Kind: fault.Unsupported, Err: errors.New("it is compressed")}
	}
	z, err := l.o.Decompress(f)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	tmp, err := os.CreateTemp("", "kiste-log-")
	if err != nil {
		return nil, err
	}
	os.Remove(tmp.Name())
	_, err = io.Copy(tmp, z)
	if err == nil {
		_, err = tmp.Seek(0, io.SeekStart)
	}
	if err != nil {
		tmp.Close()
		return nil, err
	}
	return tmp, nil
}

// begin reads what is there, from the first of the entries that are wanted.
func (l *listing) begin() error {
	names := l.files()
	first, at := 0, int64(0)
	if l.s.Tail >= 0 {
		var err error
		if first, at, err = l.tail(names); err != nil {
			return err
		}
	}
	for i := first; i < len(names); i++ {
		if i > first {
			at = 0
		}
		if err := l.open(names[i], at); err != nil {
			return err
		}
		if err := l.rest(); err != nil {
			return err
		}
	}
	return nil
}

// tail finds where the last entries begin: which file, and where in it.
func (l *listing) tail(names []string) (file int, at int64, err error) {
	left := l.s.Tail
	for i := len(names) - 1; i >= 0; i-- {
		f, err := l.plain(names[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		at, left, err = l.backward(f, left)
		f.Close()
		if err != nil || left == 0 {
			return i, at, err
		}
	}
	return 0, 0, nil
}

// backward goes back by up to n lines from the last whole entry.
func (l *listing) backward(f *os.File, n int) (at int64, left int, err error) {
	end, _, err := endOf(f, l.form)
	for at = end; err == nil && at > 0; {
		start, failed := l.form.back(f, at)
		if failed != nil {
			return 0, 0, failed
		}
		var e Entry
		if err = l.form.next(newReader(io.NewSectionReader(f, start, at-start)), &e); err != nil {
			return 0, 0, err
		}
		// A partial entry belongs to the line of the one after it.
		if !e.Partial {
			if n == 0 {
				return at, 0, nil
			}
			n--
		}
		at = start
	}
	return at, n, err
}
