package logfile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"kiste/fault"
)

// maxEntry bounds what is read as one entry.
const maxEntry = 1 << 20

// damaged is an entry that no writer of ours wrote.
func damaged(why string) error {
	return &fault.Error{Op: "read log", Kind: fault.Invalid, Err: errors.New(why), Hint: "the file is damaged"}
}

// addJSON is Docker's {"log":"text\n","stream":"stdout","time":"…"}.
func addJSON(to []byte, e *Entry) []byte {
	to = append(to, `{"log":"`...)
	to = escape(to, e.Line)
	if !e.Partial {
		to = append(to, `\n`...)
	}
	to = append(to, `","stream":"`...)
	to = append(to, e.Stream...)
	to = append(to, '"')
	if len(e.Attrs) > 0 {
		to = append(to, `,"attrs":{`...)
		for i, k := range sortedKeys(e.Attrs) {
			if i > 0 {
				to = append(to, ',')
			}
			to = append(escape(append(to, '"'), []byte(k)), `":"`...)
			to = append(escape(to, []byte(e.Attrs[k])), '"')
		}
		to = append(to, '}')
	}
	to = append(to, `,"time":"`...)
	to = e.Time.UTC().AppendFormat(to, time.RFC3339Nano)
	return append(to, "\"}\n"...)
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

const hexDigits = "0123456789abcdef"

// escape writes text as the inside of a JSON string. What is not UTF-8 becomes
// U+FFFD, as Docker has it.
func escape(to, text []byte) []byte {
	for i := 0; i < len(text); {
		start := i
		for i < len(text) && text[i] >= 0x20 && text[i] < utf8.RuneSelf && text[i] != '"' && text[i] != '\\' && text[i] != '<' && text[i] != '>' && text[i] != '&' {
			i++
		}
		to = append(to, text[start:i]...)
		if i == len(text) {
			break
		}
		if c := text[i]; c < utf8.RuneSelf {
			to = escapeByte(to, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			to = append(to, `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			to = append(to, `\u202`...)
			to = append(to, hexDigits[r&15])
		default:
			to = append(to, text[i:i+n]...)
		}
		i += n
	}
	return to
}

func escapeByte(to []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(to, '\\', c)
	case '\n':
		return append(to, `\n`...)
	case '\r':
		return append(to, `\r`...)
	}
	return append(to, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

func nextJSON(r *reader, e *Entry) error {
	line, err := r.line()
	if err != nil {
		return err
	}
	var v struct {
		Log    string            `json:"log"`
		Stream string            `json:"stream"`
		Attrs  map[string]string `json:"attrs"`
		Time   time.Time         `json:"time"`
	}
	if err := json.Unmarshal(line, &v); err != nil {
		return damaged(err.Error())
	}
	text, whole := bytes.CutSuffix([]byte(v.Log), []byte("\n"))
	*e = Entry{Time: v.Time, Stream: v.Stream, Line: text, Partial: !whole, Attrs: v.Attrs}
	return nil
}

// backJSON looks for the newline before the one that ends the entry.
func backJSON(f io.ReaderAt, end int64) (int64, error) {
	buf := make([]byte, 4096)
	for at := end - 1; at > 0; {
		n := min(int64(len(buf)), at)
		if _, err := f.ReadAt(buf[:n], at-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return at - n + int64(i) + 1, nil
		}
		if at -= n; end-at > maxEntry {
			return 0, damaged("it has a line that is too long")
		}
	}
	return 0, nil
}

// The fields of Docker's LogEntry of entry.proto, as their tags are encoded: the
// field's number, and in the last three bits its kind, a number or a text.
const (
	fieldSource   = 1<<3 | fieldText
	fieldTimeNano = 2 << 3
	fieldLine     = 3<<3 | fieldText
	fieldPartial  = 4 << 3
	fieldMetadata = 5<<3 | fieldText
	fieldLast     = 1 << 3 // of the metadata

	fieldText = 2
)

// addLocal is a length, the message, and the length once more, each of the
// lengths four bytes, big-endian. A partial entry is one whose metadata does not
// say that it is the last.
func addLocal(to []byte, e *Entry) []byte {
	start := len(to)
	to = append(to, 0, 0, 0, 0)
	to = append(binary.AppendUvarint(append(to, fieldSource), uint64(len(e.Stream))), e.Stream...)
	to = binary.AppendUvarint(append(to, fieldTimeNano), uint64(e.Time.UnixNano()))
	to = append(binary.AppendUvarint(append(to, fieldLine), uint64(len(e.Line))), e.Line...)
	if e.Partial {
		to = append(to, fieldPartial, 1, fieldMetadata, 2, fieldLast, 0)
	}
	size := uint32(len(to) - start - 4)
	binary.BigEndian.PutUint32(to[start:], size)
	return binary.BigEndian.AppendUint32(to, size)
}

func nextLocal(r *reader, e *Entry) error {
	r.keep()
	head, err := r.bytes(4)
	if err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head)
	if n > maxEntry {
		return damaged("it has an entry that is too long")
	}
	b, err := r.bytes(int(n) + 4)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(b[n:]) != n {
		return damaged("an entry's two lengths differ")
	}
	return decodeLocal(b[:n], e)
}

// decodeLocal reads a LogEntry.
func decodeLocal(b []byte, e *Entry) error {
	*e = Entry{Line: []byte{}}
	last := true
	err := fields(b, func(tag, number uint64, text []byte) {
		switch tag {
		case fieldSource:
			e.Stream = string(text)
		case fieldTimeNano:
			e.Time = time.Unix(0, int64(number)).UTC()
		case fieldLine:
			e.Line = bytes.Clone(text)
		case fieldPartial:
			e.Partial = number != 0
		case fieldMetadata:
			last = false
			_ = fields(text, func(tag, number uint64, _ []byte) { last = last || tag == fieldLast && number != 0 })
		}
	})
	e.Partial = e.Partial && !last
	return err
}

// fields reads the fields of a protocol buffer: those that are numbers and
// those that have a length.
func fields(b []byte, field func(tag, number uint64, text []byte)) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return damaged("an entry has no fields")
		}
		value, m := binary.Uvarint(b[n:])
		if b = b[n:]; m <= 0 {
			return damaged("a field is cut off")
		}
		b = b[m:]
		switch tag & 7 {
		case 0:
			field(tag, value, nil)
		case fieldText:
			if value > uint64(len(b)) {
				return damaged("a field is cut off")
			}
			field(tag, 0, b[:value])
			b = b[value:]
		default:
			return damaged("a field is of an unknown kind")
		}
	}
	return nil
}

func backLocal(f io.ReaderAt, end int64) (int64, error) {
	var b [4]byte
	if end < 8 {
		return 0, damaged("it begins with a part of an entry")
	}
	if _, err := f.ReadAt(b[:], end-4); err != nil {
		return 0, err
	}
	start := end - 8 - int64(binary.BigEndian.Uint32(b[:]))
	if start < 0 {
		return 0, damaged("an entry is longer than its file")
	}
	return start, nil
}
