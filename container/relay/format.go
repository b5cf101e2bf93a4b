package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/container/logfile"
)

// Severities of syslog(3).
const (
	severityError = 3
	severityInfo  = 6
)

func severity(e *logfile.Entry) int {
	if e.Stream == logfile.Stderr {
		return severityError
	}
	return severityInfo
}

// Journal makes messages of journald's native protocol, with fields that are the
// same for all. Their names are made to fit: capital letters, digits and
// underscores, of which none is the first. Source: systemd's
// JOURNAL_NATIVE_PROTOCOL.md.
func Journal(fields map[string]string) func(*logfile.Entry) []byte {
	var same []byte
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if n := fieldName(name); n != "" {
			same = appendField(same, n, []byte(fields[name]))
		}
	}
	return func(e *logfile.Entry) []byte {
		b := appendField(slices.Clip(same), "MESSAGE", e.Line)
		b = appendField(b, "PRIORITY", []byte(strconv.Itoa(severity(e))))
		b = appendField(b, "SYSLOG_TIMESTAMP", e.Time.UTC().AppendFormat(nil, time.RFC3339Nano))
		if e.Partial {
			b = appendField(b, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
		}
		return b
	}
}

// appendField writes a field: NAME=VALUE, or where the value has more than one
// line, with its length before it.
func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if !bytes.ContainsRune(value, '\n') {
		return append(append(append(b, '='), value...), '\n')
	}
	b = binary.LittleEndian.AppendUint64(append(b, '\n'), uint64(len(value)))
	return append(append(b, value...), '\n')
}

// fieldName is a field's name as journald takes it; "" where nothing is left.
func fieldName(name string) string {
	upper := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		}
		return '_'
	}, name)
	const longest = 64
	upper = strings.TrimLeft(upper, "_0123456789")
	return upper[:min(len(upper), longest)]
}

// Syslog is what is the same for all messages of one container.
type Syslog struct {
	Facility string // "daemon", or a number; empty: daemon
	Format   string // "", "rfc3164", "rfc5424", "rfc5424micro"
	Host     string
	Tag      string
	PID      int
}

// Messages makes messages of s: of the local form where it names no format, and
// of RFC 3164 or RFC 5424, each with a newline behind it, as Docker's. The error
// says what s has that syslog does not know.
func (s Syslog) Messages() (func(*logfile.Entry) []byte, error) {
	facility, err := facilityOf(s.Facility)
	if err != nil {
		return nil, err
	}
	for _, f := range syslogFormats() {
		if f.name == s.Format {
			return func(e *logfile.Entry) []byte {
				b := fmt.Appendf(nil, "<%d>", facility<<3|severity(e))
				return append(append(f.head(b, s, e.Time), e.Line...), '\n')
			}, nil
		}
	}
	return nil, errors.New("Invalid syslog format")
}

type syslogFormat struct {
	name string
	head func(b []byte, s Syslog, t time.Time) []byte
}

func syslogFormats() []syslogFormat {
	rfc5424 := func(layout string) func([]byte, Syslog, time.Time) []byte {
		return func(b []byte, s Syslog, t time.Time) []byte {
			return fmt.Appendf(b, "1 %s %s %s %d %s - ", t.Format(layout), s.Host, s.Tag, s.PID, s.Tag)
		}
	}
	return []syslogFormat{
		{"", func(b []byte, s Syslog, t time.Time) []byte {
			return fmt.Appendf(b, "%s %s[%d]: ", t.Format(time.Stamp), s.Tag, s.PID)
		}},
		{"rfc3164", func(b []byte, s Syslog, t time.Time) []byte {
			return fmt.Appendf(b, "%s %s %s[%d]: ", t.Format(time.Stamp), s.Host, s.Tag, s.PID)
		}},
		{"rfc5424", rfc5424(time.RFC3339)},
		{"rfc5424micro", rfc5424("2006-01-02T15:04:05.000000Z07:00")},
	}
}

// facilityOf is a facility of syslog(3) by its name or number.
func facilityOf(name string) (int, error) {
	const daemon = 3
	if name == "" {
		return daemon, nil
	}
	names := strings.Fields("kern user mail daemon auth syslog lpr news uucp cron authpriv ftp - - - - local0 local1 local2 local3 local4 local5 local6 local7")
	if i := slices.Index(names, name); i >= 0 && name != "-" {
		return i, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(names) {
		return n, nil
	}
	return 0, errors.New("invalid syslog facility")
}
