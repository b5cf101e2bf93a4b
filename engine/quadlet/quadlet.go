// Package quadlet makes systemd's units of what people wish: of containers, and
// of Podman's quadlet files (.container, .volume, .network).
//
//	takes    the text of a file, or a Service; directories of files
//	gives    the text of a unit that calls kiste
//	touches  Generate alone: it reads the directories and writes units
//	state    none
//
// A quadlet file is a unit of systemd with one section more, [Container] for
// instance, whose keys are options of "kiste run": see podman-systemd.unit(5). Which
// key is which option is a table (keys.go). A key that is not there is an error
// that names file and line, as is one that stands for what Kiste has not.
//
// In a unit made here the first process is kiste itself, which stays in the
// foreground: it has the container's output (which the journal takes), its exit code,
// and passes signals on. The container's cgroup lies below the unit's, so that
// systemd counts it to the unit, and limits and ends it with that.
package quadlet

import (
	"fmt"
	"strings"

	"kiste/fault"
)

// A File is a quadlet file, read.
type File struct {
	Path    string // where it was: for errors, and for paths beside it
	Entries []Entry
}

// An Entry is one line "Key=Value" of a section.
type Entry struct {
	Section, Key, Value string
	Path                string // of the file that has it, which may be an addition
	Line                int
}

func (e Entry) errorf(format string, args ...any) error {
	return &fault.Error{Op: "read", On: fmt.Sprintf("%s:%d", e.Path, e.Line), Kind: fault.Invalid, Err: fmt.Errorf(format, args...)}
}

// maxFile bounds a quadlet file, in bytes.
const maxFile = 1 << 20

// Parse reads the text of a file, as systemd.syntax(7) has it. Errors are
// fault.Invalid and name path and line.
func Parse(path, text string) (*File, error) {
	f := &File{Path: path}
	at := Entry{Path: path}
	if len(text) > maxFile {
		return nil, at.errorf("it has more than %d bytes", maxFile)
	}
	var whole strings.Builder // a line that goes on in the next
	for line := range strings.Lines(text) {
		at.Line++
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";") {
			continue // also between the parts of a line that goes on
		}
		if strings.ContainsRune(line, 0) {
			return nil, at.errorf("it has a zero byte")
		}
		if part, goesOn := strings.CutSuffix(line, `\`); goesOn {
			whole.WriteString(part + " ")
			continue
		}
		whole.WriteString(line)
		if err := f.take(&at, strings.TrimSpace(whole.String())); err != nil {
			return nil, err
		}
		whole.Reset()
	}
	if err := f.take(&at, strings.TrimSpace(whole.String())); err != nil {
		return nil, err
	}
	return f, nil
}

// take takes one whole line; the section is remembered in at.
func (f *File) take(at *Entry, line string) error {
	switch {
	case line == "":
		return nil
	case line[0] == '[':
		name, ok := strings.CutSuffix(line[1:], "]")
		if !ok || name == "" || strings.ContainsAny(name, "[]") {
			return at.errorf("%q is no section", line)
		}
		at.Section = name
		return nil
	}
	key, value, ok := strings.Cut(line, "=")
	key = strings.TrimSpace(key)
	if !ok || key == "" {
		return at.errorf("%q is no assignment", line)
	}
	if at.Section == "" {
		return at.errorf("%q stands before the first section", key)
	}
	f.Entries = append(f.Entries, Entry{Section: at.Section, Key: key, Value: strings.TrimSpace(value), Path: at.Path, Line: at.Line})
	return nil
}

// values are those of a key in a section. An empty one forgets those before.
func (f *File) values(section, key string) []Entry {
	var list []Entry
	for _, e := range f.Entries {
		switch {
		case e.Section != section || e.Key != key:
		case e.Value == "":
			list = nil
		default:
			list = append(list, e)
		}
	}
	return list
}

// last is the last value of a key; "" where there is none.
func (f *File) last(section, key string) string {
	if list := f.values(section, key); len(list) > 0 {
		return list[len(list)-1].Value
	}
	return ""
}
