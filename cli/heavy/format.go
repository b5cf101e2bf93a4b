package heavy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"
	"unicode"

	"kiste/cli"
	"kiste/fault"
)

// Listing writes what "ps" and its like show, by its template.
func Listing(w io.Writer, s *cli.Sheet) error {
	t, err := template.New("").Funcs(formatFuncs()).Parse(s.Template)
	if err != nil {
		return badFormat(s.Template, "failed to parse template", err)
	}
	headings := template.Must(t.Clone()).Funcs(headingFuncs())
	var b bytes.Buffer
	err = s.Write(&b, func(w *bytes.Buffer, row any) error {
		if _, ok := row.(cli.Headings); ok {
			return headings.Execute(w, row)
		}
		return t.Execute(w, row)
	})
	if err != nil {
		return badFormat(s.Template, "failed to execute template", err)
	}
	_, err = b.WriteTo(w)
	return err
}

// headingFuncs leave most of what a heading is: the headings of a table stand
// for values of which its template may want anything.
func headingFuncs() template.FuncMap {
	f := formatFuncs()
	same := func(s string) string { return s }
	for _, name := range []string{"json", "title", "lower", "upper"} {
		f[name] = same
	}
	f["truncate"] = func(s string, _ int) string { return s }
	f["join"] = func(s, _ string) string { return s }
	f["split"] = func(s, _ string) []string { return []string{s} }
	f["index"] = func(v any, _ ...any) any {
		if list, ok := v.([]string); ok {
			return list[0]
		}
		return v
	}
	f["pad"] = func(s string, _, _ int) string { return s }
	return f
}

// Template makes of text, as Docker's --format has it, a function that writes
// a line for a value: a template of text/template with Docker's functions, or
// "json". A field is found by its Go name and by its JSON name. Kind of both
// functions' errors: fault.Invalid.
func Template(text string) (func(w io.Writer, v any) error, error) {
	if text == "json" {
		text = "{{json .}}"
	}
	t, err := template.New("").Funcs(formatFuncs()).Parse(text)
	if err != nil {
		return nil, badFormat(text, "template parsing error", err)
	}
	return func(w io.Writer, v any) error {
		var b bytes.Buffer
		if err := t.Execute(&b, v); err != nil {
			b.Reset()
			if err := executeRaw(t, &b, v); err != nil {
				return badFormat(text, "template parsing error", err)
			}
		}
		b.WriteByte('\n')
		_, err := b.WriteTo(w)
		return err
	}, nil
}

// Format writes a line for each of values, by a Template.
func Format(w io.Writer, text string, values []any) error {
	line, err := Template(text)
	if err != nil {
		return err
	}
	for _, v := range values {
		if err := line(w, v); err != nil {
			return err
		}
	}
	return nil
}

func badFormat(text, what string, err error) error {
	return &fault.Error{Op: "use format", On: text, Kind: fault.Invalid, Err: fmt.Errorf("%s: %w", what, err), Hint: "it is a template such as {{.State.Status}} or {{json .Mounts}}"}
}

// executeRaw tries the names that the JSON has. A field that is not there is
// an error, as it is for Docker.
func executeRaw(t *template.Template, b *bytes.Buffer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var raw any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&raw); err != nil {
		return err
	}
	return t.Option("missingkey=error").Execute(b, raw)
}

// formatFuncs are Docker's: https://docs.docker.com/engine/cli/formatting/.
func formatFuncs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			err := e.Encode(v)
			return strings.TrimSpace(b.String()), err
		},
		"split": strings.Split,
		"join":  func(s any, sep string) string { return strings.Join(texts(s), sep) },
		"title": title,
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"pad": func(s string, before, after int) string {
			if s == "" {
				return s
			}
			return strings.Repeat(" ", min(max(before, 0), 1000)) + s + strings.Repeat(" ", min(max(after, 0), 1000))
		},
		"truncate": func(s string, n int) string {
			if r := []rune(s); n >= 0 && len(r) > n {
				return string(r[:n])
			}
			return s
		},
	}
}

// texts is a list of strings, typed or as JSON has it.
func texts(v any) []string {
	switch list := v.(type) {
	case []string:
		return list
	case []any:
		var out []string
		for _, e := range list {
			if s, ok := e.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}

// title makes the first letter of every word a capital.
func title(s string) string {
	before := ' '
	return strings.Map(func(r rune) rune {
		first := unicode.IsSpace(before)
		if before = r; first {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}
