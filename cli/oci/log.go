package oci

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"kiste/cli/option"
	"kiste/fault"
	"kiste/store"
)

// A log is where errors go: to a person on standard error, and to a program in
// the form that engines know from runc. They read a JSON object on each line,
// of which the last with the level "error" counts.
type log struct {
	to    *os.File // a person's
	file  *os.File // a program's; nil: there is none
	json  bool
	debug bool
}

func (l *log) open(file, format string, debug bool) error {
	l.debug = debug
	switch format {
	case "", "text":
	case "json":
		l.json = true
	default:
		return option.Bad("--log-format", fmt.Errorf("%q: want text or json", format))
	}
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return &fault.Error{Op: "open log", On: file, Err: err}
	}
	l.file = f
	return nil
}

// failure is what made this command line fail.
func (l *log) failure(err error) {
	hint := fault.HintOf(err)
	text := "cannot " + err.Error()
	if l.json && l.file == nil {
		l.line(l.to, "error", withHint(text, hint))
		return
	}
	if l.file != nil {
		l.line(l.file, "error", withHint(text, hint))
	}
	fmt.Fprintf(l.to, "%s: %s\n", program, text)
	if hint != "" {
		fmt.Fprintf(l.to, "  hint: %s\n", hint)
	}
}

func withHint(text, hint string) string {
	if hint == "" {
		return text
	}
	return text + " (hint: " + hint + ")"
}

// warn tells a person, and a program, of what is no failure.
func (l *log) warn(text string) {
	if l.file != nil || l.json {
		l.line(l.program(), "warning", text)
		return
	}
	fmt.Fprintf(l.to, "%s: note: %s\n", program, text)
}

// step is what --debug asks for.
func (l *log) step(text string) { l.line(l.program(), "debug", text) }

func (l *log) program() *os.File {
	if l.file != nil {
		return l.file
	}
	return l.to
}

// line writes a line as runc's logger does.
func (l *log) line(to *os.File, level, text string) {
	now := time.Now().Format(time.RFC3339)
	if !l.json {
		fmt.Fprintf(to, "time=%q level=%s msg=%s\n", now, level, strconv.Quote(text))
		return
	}
	b, err := store.Encode(struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
		Time  string `json:"time"`
	}{level, text, now})
	if err == nil {
		_, err = to.Write(append(b, '\n'))
	}
	if err != nil && !errors.Is(err, os.ErrClosed) && to != l.to {
		fmt.Fprintf(l.to, "%s: cannot write the log: %v\n", program, err)
	}
}
