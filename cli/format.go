package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
)

// A Sheet is objects and how --format wants them shown, as Docker has it.
type Sheet struct {
	Template string // of text/template, with Docker's functions; without the word "table"
	Table    bool   // a line of headings goes before, and tabs make columns
	Headings Headings
	Rows     []any // structures, the fields of which have Docker's names
}

// Headings are the headings of a table's columns, by the names of the fields.
type Headings map[string]string

// Label is the heading of a column of labels: the last part of the label's name.
func (h Headings) Label(name string) string {
	name = name[strings.LastIndexByte(name, '.')+1:]
	return strings.NewReplacer("-", " ", "_", " ").Replace(name)
}

// A listing is what one command lists.
type listing struct {
	format   string            // as --format has it; empty: table
	table    string            // the template of a table where format does not say
	row      any               // one of its rows, for the names of the fields
	headings map[string]string // where a heading is not the field's name in capitals
}

// print shows rows. What only text/template understands is done by kisted.
func (l listing) print(env *Env, rows []any) error {
	s := l.sheet(rows)
	text, ok := s.Plain()
	switch {
	case ok:
		_, err := io.WriteString(env.Out, text)
		return err
	case env.Format == nil:
		return becomeKisted(env.words)
	}
	return env.Format(env.Out, s)
}

// lacks reports whether this is kiste and a format needs text/template: who asks
// first need not do twice what there is to list.
func (e *Env) lacks(format string) bool {
	_, plain := parse(format)
	return !plain && e.Format == nil
}

// Plain is what text/template would make of the sheet, where it has nothing
// but fields, labels, json, upper and lower.
func (s *Sheet) Plain() (text string, ok bool) {
	parts, ok := parse(s.Template)
	if !ok {
		return "", false
	}
	var b bytes.Buffer
	err := s.Write(&b, func(w *bytes.Buffer, row any) error { return fill(w, parts, row) })
	return b.String(), err == nil
}

func (l listing) sheet(rows []any) *Sheet {
	format, isTable := strings.CutPrefix(l.format, "table")
	format = strings.Trim(format, " ")
	switch {
	case l.format == "json":
		format = "{{json .}}"
	case l.format == "" || isTable && format == "":
		format, isTable = l.table, true
	}
	s := &Sheet{Template: strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format), Table: isTable, Rows: rows}
	if isTable {
		s.Headings = l.headingsOf()
	}
	return s
}

// headingsOf makes "CREATED AT" of CreatedAt, where the listing has no other.
func (l listing) headingsOf() Headings {
	h := Headings{}
	for f := range fieldsOf(l.row) {
		h[f] = l.headings[f]
		if h[f] == "" {
			h[f] = heading(f)
		}
	}
	return h
}

func heading(field string) string {
	var b strings.Builder
	before := 'A'
	for _, r := range field {
		if unicode.IsUpper(r) && !unicode.IsUpper(before) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToUpper(r))
		before = r
	}
	return b.String()
}

// fieldsOf gives the exported fields of a structure that hold text.
func fieldsOf(row any) map[string]string {
	fields := map[string]string{}
	v := reflect.ValueOf(row)
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && f.Type.Kind() == reflect.String {
			fields[f.Name] = v.Field(i).String()
		}
	}
	return fields
}

// Write writes what line makes of each row, in columns where it is a table.
func (s *Sheet) Write(w io.Writer, line func(w *bytes.Buffer, row any) error) error {
	var b bytes.Buffer
	rows := s.Rows
	if s.Table {
		rows = append([]any{s.Headings}, rows...)
	}
	for _, r := range rows {
		if err := line(&b, r); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	if !s.Table {
		_, err := b.WriteTo(w)
		return err
	}
	columns := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if _, err := b.WriteTo(columns); err != nil {
		return err
	}
	return columns.Flush()
}

// A part of a template is text, or a function of a field.
type part struct {
	text     string
	function string // "json", "lower", "upper", "label"; empty: the field itself
	of       string // the field, or the label; empty, of json: the row
	isText   bool
}

// parse takes apart a template that has nothing but fields, labels, json,
// upper and lower.
func parse(template string) (parts []part, ok bool) {
	for {
		before, action, found := strings.Cut(template, "{{")
		parts = append(parts, part{text: before, isText: true})
		if !found {
			return parts, true
		}
		inner, after, closed := strings.Cut(action, "}}")
		p, ok := parseAction(strings.Trim(inner, spaces))
		if !closed || !ok {
			return nil, false
		}
		parts, template = append(parts, p), after
	}
}

// spaces are those of text/template.
const spaces = " \t\r\n"

func parseAction(text string) (part, bool) {
	if quoted, ok := strings.CutPrefix(text, ".Label "); ok {
		quoted = strings.Trim(quoted, spaces)
		key, err := strconv.Unquote(quoted)
		return part{function: "label", of: key}, err == nil && quoted[0] == '"'
	}
	if field, ok := strings.CutPrefix(text, "."); ok {
		return part{of: field}, field != "" && isWord(field)
	}
	function, field, ok := strings.Cut(text, " .")
	switch function {
	case "json":
		ok = ok && isWord(field)
	case "lower", "upper":
		ok = ok && field != "" && isWord(field)
	default:
		ok = false
	}
	return part{function: function, of: field}, ok
}

func isWord(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsLetter(r) }) < 0
}

// A labelled row has labels.
type labelled interface{ Label(key string) string }

var errNotPlain = errors.New("it needs text/template")

// fill writes the parts with what row has. A heading is the same in JSON.
func fill(w *bytes.Buffer, parts []part, row any) error {
	h, isHeading := row.(Headings)
	fields := map[string]string(h)
	if !isHeading {
		fields = fieldsOf(row)
	}
	for _, p := range parts {
		value, known := fields[p.of]
		switch {
		case p.isText:
			w.WriteString(p.text)
		case p.function == "label":
			l, ok := row.(labelled)
			if !ok {
				return errNotPlain
			}
			w.WriteString(l.Label(p.of))
		case p.function == "json" && !isHeading && (known || p.of == ""):
			if err := writeJSON(w, row, value, p.of == ""); err != nil {
				return err
			}
		case !known:
			return errNotPlain
		case isHeading: // no function changes it
			w.WriteString(value)
		case p.function == "lower":
			w.WriteString(strings.ToLower(value))
		case p.function == "upper":
			w.WriteString(strings.ToUpper(value))
		default:
			w.WriteString(value)
		}
	}
	return nil
}

func writeJSON(w *bytes.Buffer, row, field any, whole bool) error {
	if !whole {
		row = field
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	err := e.Encode(row)
	w.Truncate(w.Len() - 1) // the end of the line
	return err
}

// show writes one value as format says, which is "json" or a template. What is
// no JSON is done by kisted.
func (e *Env) show(format string, v any) error {
	if format == "json" || format == "{{json .}}" {
		var b bytes.Buffer
		if err := writeJSON(&b, v, nil, true); err != nil {
			return err
		}
		b.WriteByte('\n')
		_, err := b.WriteTo(e.Out)
		return err
	}
	line, err := e.template(format)
	if err == errNotPlain {
		return becomeKisted(e.words)
	}
	if err != nil {
		return err
	}
	return line(e.Out, v)
}
