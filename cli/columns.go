package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"kiste/fault"
)

// A record is one line of a listing: its fields by Docker's names. Its JSON is
// that of Docker's --format json.
type record interface {
	get(field string) (string, bool)
}

// A listing is how objects are shown, as "docker ps" and "docker images" do.
type listing struct {
	format  string   // empty or "table": columns; "table {{.A}} {{.B}}", "json", or a text with fields
	columns []string // the fields shown where format does not say
	heading func(field string) string
	fields  string // for a hint: what there is
}

func (l listing) print(env *Env, all []record) error {
	format, isTable := strings.CutPrefix(l.format, "table ")
	switch {
	case isTable:
		l.columns = fieldsOf(format)
		return l.table(env, all)
	case l.format == "" || l.format == "table":
		return l.table(env, all)
	case l.format == "json":
		return eachJSON(env, all)
	}
	for _, r := range all {
		line, err := fillFields(l.format, func(field string) (string, bool) { return computed(r, field) })
		if err != nil {
			return l.explain(err)
		}
		fmt.Fprintln(env.Out, line)
	}
	return nil
}

// computed is a field, or what Docker's functions json, upper and lower make of
// one; "json ." is the whole record.
func computed(r record, field string) (string, bool) {
	function, of, ok := strings.Cut(field, " .")
	if !ok {
		return r.get(field)
	}
	if function == "json" && of == "" {
		b, err := json.Marshal(r)
		return string(b), err == nil
	}
	v, known := r.get(of)
	switch function {
	case "json":
		b, err := json.Marshal(v)
		return string(b), known && err == nil
	case "upper":
		return strings.ToUpper(v), known
	case "lower":
		return strings.ToLower(v), known
	}
	return "", false
}

func eachJSON(env *Env, all []record) error {
	for _, r := range all {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		fmt.Fprintf(env.Out, "%s\n", b)
	}
	return nil
}

func (l listing) table(env *Env, all []record) error {
	var heads []string
	for _, c := range l.columns {
		heads = append(heads, l.heading(c))
	}
	rows := [][]string{heads}
	for _, r := range all {
		cells := make([]string, len(l.columns))
		for i, c := range l.columns {
			v, ok := r.get(c)
			if !ok {
				return badField(c, l.fields)
			}
			cells[i] = v
		}
		rows = append(rows, cells)
	}
	printColumns(env, rows)
	return nil
}

// explain adds the fields that there are.
func (l listing) explain(err error) error {
	var f *fault.Error
	if errors.As(err, &f) && f.Hint == "" {
		f.Hint = l.fields
	}
	return err
}

func badField(field, known string) error {
	return &fault.Error{Op: "take option", On: "--format", Kind: fault.Invalid, Err: fmt.Errorf("%q is not known", field), Hint: known}
}

// fillFields replaces {{.Field}} in text by what get gives, and \t and \n by
// what they stand for.
func fillFields(text string, get func(string) (string, bool)) (string, error) {
	var b strings.Builder
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	for {
		before, rest, ok := strings.Cut(text, "{{")
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		inner, after, ok := strings.Cut(rest, "}}")
		name := strings.TrimPrefix(strings.TrimSpace(inner), ".")
		value, known := get(name)
		if !ok || !known {
			return "", badField(strings.TrimSpace(inner), "")
		}
		b.WriteString(value)
		text = after
	}
}

// fieldsOf lists the fields of a table's format.
func fieldsOf(format string) []string {
	var names []string
	for part := range strings.SplitSeq(format, "{{") {
		if inner, _, ok := strings.Cut(part, "}}"); ok {
			names = append(names, strings.TrimPrefix(strings.TrimSpace(inner), "."))
		}
	}
	return names
}

// age says how long ago t was, as Docker does.
func age(t, now time.Time) string {
	if t.Year() < 1971 {
		return "N/A"
	}
	return span(now.Sub(t)) + " ago"
}

// span says how long d is, as Docker does.
func span(d time.Duration) string {
	days := int(d.Hours() / 24)
	switch {
	case d < time.Second:
		return "Less than a second"
	case d < time.Minute:
		return some(int(d.Seconds()), "second")
	case d < 2*time.Minute:
		return "About a minute"
	case d < time.Hour:
		return some(int(d.Minutes()), "minute")
	case d < 90*time.Minute:
		return "About an hour"
	case d < 48*time.Hour:
		return some(int(d.Hours()+0.5), "hour")
	case days < 14:
		return some(days, "day")
	case days < 60:
		return some(days/7, "week")
	case days < 730:
		return some(days/30, "month")
	}
	return some(days/365, "year")
}

func some(n int, unit string) string {
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// printColumns prints rows in columns as Docker does: three spaces between,
// and ten letters at least.
func printColumns(env *Env, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell)+3, 10)
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			if i == len(r)-1 {
				b.WriteString(cell)
			} else {
				fmt.Fprintf(&b, "%-*s", widths[i], cell)
			}
		}
		fmt.Fprintln(env.Out, b.String())
	}
}
