// Package logfile keeps what a container writes, in files of Docker's formats.
//
//	takes    bytes as a container writes them, and which stream they are of
//	gives    entries with a time: written, rotated, read back, followed
//	touches  files of one directory
//	state    those files
//
// A line is an entry. A longer one than 16 KiB, and one that is not finished
// when the container pauses, is several, of which all but the last are partial,
// so that a prompt is seen at once and nothing is held back that a crash could
// lose.
//
// The formats are Docker's: "json-file", a JSON object a line, which many tools
// read; and "local", a protocol buffer between its lengths, which is smaller and
// can be read backwards. Each file is named NAME, rotated ones NAME.1, NAME.2 …
// from the newest to the oldest, with ".gz" where they were compressed. Times of
// entries only grow, so that a time is a place in the log.
//
// A full disk costs the newest entries and nothing else: a half-written entry is
// taken back, what is lost is counted, and the count is the first entry when
// there is room again.
//
// A Writer is safe for concurrent use; one process writes a log at a time.
// Readers are independent of it, also in other processes.
package logfile

import (
	"errors"
	"io"
	"time"

	"kiste/fault"
)

// The streams.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// MaxLine is the length in bytes from which on a line is several entries.
const MaxLine = 16 << 10

// An Entry is a line, or a part of one, without its newline.
type Entry struct {
	Time    time.Time
	Stream  string
	Line    []byte
	Partial bool              // the line goes on in the stream's next entry
	Attrs   map[string]string // what --log-opt labels and env ask for
}

// Options say where a log lies and how large it may become.
type Options struct {
	Dir    string
	Format string // "json-file" or "local"

	// MaxSize is the size in bytes at which a file is rotated; 0: never.
	MaxSize int64

	// MaxFiles is how many files there may be; below 1 it is 1, and then a
	// full file is begun anew.
	MaxFiles int

	// Compress, if not nil, compresses what was rotated: it wraps a writer.
	Compress func(io.Writer) (io.WriteCloser, error)

	// Decompress reads what was compressed.
	Decompress func(io.Reader) (io.ReadCloser, error)

	// Attrs are given to every entry.
	Attrs map[string]string
}

// A format is one row of the table of formats.
type format struct {
	name string
	file string
	// add appends the entry's bytes.
	add func(to []byte, e *Entry) []byte
	// next reads an entry. io.EOF: there is none; io.ErrUnexpectedEOF: only a
	// part of one is there yet.
	next func(r *reader, e *Entry) error
	// back gives where the entry begins that ends at end; 0 < end <= size.
	back func(f io.ReaderAt, end int64) (int64, error)
}

func formats() []format {
	return []format{
		{"json-file", "json.log", addJSON, nextJSON, backJSON},
		{"local", "container.log", addLocal, nextLocal, backLocal},
	}
}

func formatOf(name string) (format, error) {
	for _, f := range formats() {
		if f.name == name {
			return f, nil
		}
	}
	return format{}, &fault.Error{Op: "open log", On: name, Kind: fault.Invalid, Err: errors.New("there is no such format of logs"), Hint: "json-file or local"}
}

// Path is the newest file of a log.
func (o Options) Path() string {
	f, err := formatOf(o.Format)
	if err != nil {
		return ""
	}
	return o.path(f, 0, "")
}
