package relay

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"time"

	"kiste/container/logfile"
	"kiste/fault"
)

// maxRecord bounds one record that journalctl writes, in bytes. A byte of what
// is no text is written as up to four.
const maxRecord = 1 << 20

// ReadJournal reads what "journalctl -o json --all" writes. Each gets the entries
// in their order with the place of each in the journal; its error ends the
// reading. Attrs are the names of fields that become attributes, and what they
// are called.
func ReadJournal(from io.Reader, attrs map[string]string, each func(e *logfile.Entry, cursor string) error) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 64<<10), maxRecord)
	for lines.Scan() {
		e, cursor, err := record(lines.Bytes(), attrs)
		if err == nil {
			err = each(e, cursor)
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

// record is one line. A field that a message has more than once is a list.
func record(line []byte, attrs map[string]string) (*logfile.Entry, string, error) {
	var f map[string]json.RawMessage
	if err := json.Unmarshal(line, &f); err != nil {
		return nil, "", &fault.Error{Op: "read journal", Kind: fault.Invalid, Err: err}
	}
	e := &logfile.Entry{Stream: logfile.Stdout, Line: fieldBytes(f["MESSAGE"]), Partial: string(fieldBytes(f["CONTAINER_PARTIAL_MESSAGE"])) == "true"}
	if string(fieldBytes(f["PRIORITY"])) == strconv.Itoa(severityError) {
		e.Stream = logfile.Stderr
	}
	for name, called := range attrs {
		if v, has := f[name]; has {
			if e.Attrs == nil {
				e.Attrs = map[string]string{}
			}
			e.Attrs[called] = string(fieldBytes(v))
		}
	}
	var err error
	if e.Time, err = time.Parse(time.RFC3339Nano, string(fieldBytes(f["SYSLOG_TIMESTAMP"]))); err == nil {
		return e, string(fieldBytes(f["__CURSOR"])), nil
	}
	micros, err := strconv.ParseInt(string(fieldBytes(f["__REALTIME_TIMESTAMP"])), 10, 64)
	if err != nil {
		return nil, "", &fault.Error{Op: "read journal", Kind: fault.Invalid, Err: errors.New("an entry has no time")}
	}
	e.Time = time.UnixMicro(micros)
	return e, string(fieldBytes(f["__CURSOR"])), nil
}

// fieldBytes is a field's value: text, or where it is none a list of bytes. What
// is something else is nothing.
func fieldBytes(raw json.RawMessage) []byte {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return []byte(text)
	}
	var numbers []uint8Number
	if json.Unmarshal(raw, &numbers) != nil {
		return nil
	}
	b := make([]byte, len(numbers))
	for i, n := range numbers {
		b[i] = byte(n)
	}
	return b
}

// A uint8Number is one byte in a list; package json takes []byte as base64.
type uint8Number uint8

// FieldName is the name under which Journal writes an attribute.
func FieldName(name string) string { return fieldName(name) }
