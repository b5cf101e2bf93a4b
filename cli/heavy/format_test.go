package heavy

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"kiste/cli"
	"kiste/fault"
)

type formatted struct {
	ID    string `json:"Id"`
	State struct{ Pid int }
	Args  []string
}

func TestFormat(t *testing.T) {
	v := formatted{ID: "c0ffee", Args: []string{"a", "b<c"}}
	v.State.Pid = 4711
	for _, tt := range []struct{ name, text, want string }{
		{"the Go name", "{{.ID}}", "c0ffee"},
		{"the JSON name", "{{.Id}}", "c0ffee"},
		{"both", "{{.ID}} {{.State.Pid}}", "c0ffee 4711"},
		{"a number of the JSON", "{{.Id}} {{.State.Pid}}", "c0ffee 4711"},
		{"json", "{{json .Args}}", `["a","b<c"]`},
		{"all as json", "json", `{"Id":"c0ffee","State":{"Pid":4711},"Args":["a","b<c"]}`},
		{"join", `{{join .Args "-"}}`, "a-b<c"},
		{"join of the JSON's list", `{{.Id}} {{join .Args "-"}}`, "c0ffee a-b<c"},
		{"split", `{{index (split "x:y" ":") 1}}`, "y"},
		{"letters", `{{upper "a"}}{{lower "B"}}{{title "ab cd"}}`, "AbAb Cd"},
		{"pad and truncate", `[{{pad "x" 1 2}}][{{truncate "häuser" 2}}]`, "[ x  ][hä]"},
		{"range", "{{range .Args}}{{.}} {{end}}", "a b<c "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Format(&b, tt.text, []any{v}); err != nil || b.String() != tt.want+"\n" {
				t.Errorf("got %q, %v; want %q", b.String(), err, tt.want)
			}
		})
	}
}

func TestFormatRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"no template", "{{.ID", "unclosed action"},
		{"no such field", "{{.Bogus}}", "Bogus"},
		{"no such function", "{{bogus}}", "not defined"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Format(&bytes.Buffer{}, tt.text, []any{formatted{}})
			if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v; want %q", err, tt.want)
			}
		})
	}
}

type listed struct{ ID, Names, Ports string }

func (listed) Label(key string) string { return "of " + key }

func TestListing(t *testing.T) {
	rows := []any{listed{"1", "web", "80,81"}, listed{"2", "a-long-name", ""}}
	headings := cli.Headings{"ID": "CONTAINER ID", "Names": "NAMES", "Ports": "PORTS"}
	for _, tt := range []struct {
		text  string
		table bool
		want  string
	}{
		{`{{.ID}}{{if eq .Names "web"}} it is{{end}}`, false, "1 it is\n2\n"},
		{`{{.Names | upper | printf "%.3s"}}|{{title .Names}}`, false, "WEB|Web\nA-L|A-long-name\n"},
		{"{{upper .Names}}\t{{.ID}}", true, "NAMES         CONTAINER ID\nWEB           1\nA-LONG-NAME   2\n"},
		{`{{index (split .Ports ",") 0}}` + "\t" + `{{truncate .Names 3}}`, true, "PORTS     NAMES\n80        web\n          a-l\n"},
		{`{{.ID}}{{"\t"}}{{.Label "com.example.some-thing"}}`, true, "CONTAINER ID   some thing\n1              of com.example.some-thing\n2              of com.example.some-thing\n"},
		{`{{range $i, $p := split .Ports ","}}{{if $i}} {{end}}{{$p}}{{end}}.`, false, "80 81.\n.\n"},
		{`{{with .Ports}}{{len .}}{{else}}none{{end}}{{json .ID}}`, false, "5\"1\"\nnone\"2\"\n"},
	} {
		var b bytes.Buffer
		err := Listing(&b, &cli.Sheet{Template: tt.text, Table: tt.table, Headings: headings, Rows: rows})
		if err != nil || b.String() != tt.want {
			t.Errorf("%s: %v\n got %q\nwant %q", tt.text, err, b.String(), tt.want)
		}
	}
	for _, bad := range []string{"{{.Nonsense}}", "{{.Names", "{{bogus .Names}}"} {
		err := Listing(&bytes.Buffer{}, &cli.Sheet{Template: bad, Rows: rows})
		if !errors.Is(err, fault.Invalid) || !regexp.MustCompile("failed to (parse|execute) template: template: ").MatchString(err.Error()) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// What kiste makes of a sheet without text/template is what that makes of it.
func FuzzPlain(f *testing.F) {
	for _, text := range []string{"{{.ID}}", "{{ .Names }} {{json .}}", "{{json .Ports}}{{upper .Names}}", `{{.Label "a.b"}}` + "\t{{lower .ID}}", "{{\"{{\"}}", "{{json.ID}}", "{{/* x */}}{{.ID}}", "{{.ID}}}}", "{{.ID\n}}", "{{.Label `a`}}"} {
		f.Add(text, false)
		f.Add(text, true)
	}
	rows := []any{listed{"1", "web", "80<81"}, listed{"2", "a \"name\"\\", "é\x00"}}
	f.Fuzz(func(t *testing.T, text string, table bool) {
		s := &cli.Sheet{Template: text, Table: table, Headings: cli.Headings{"ID": "CONTAINER ID", "Names": "NAMES", "Ports": "PORTS"}, Rows: rows}
		plain, ok := s.Plain()
		if !ok {
			return
		}
		var b bytes.Buffer
		if err := Listing(&b, s); err != nil || b.String() != plain {
			t.Errorf("%q: %q; text/template: %q, %v", text, plain, b.String(), err)
		}
	})
}
