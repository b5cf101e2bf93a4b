package cli

import (
	"bytes"
	"testing"
)

type aRow struct{ Name, CreatedAt string }

func (aRow) Label(key string) string { return "<" + key + ">" }

func TestWhatIsFormattedWithoutTextTemplate(t *testing.T) {
	for _, tt := range []struct{ format, want string }{
		{"", "NAME      CREATED AT\nweb       then\n"},
		{"table", "NAME      CREATED AT\nweb       then\n"},
		{"table {{.Name}}: {{.CreatedAt}}", "NAME: CREATED AT\nweb: then\n"},
		{`{{ .Name }}\t{{.CreatedAt}}\n`, "web\tthen\n\n"},
		{`table {{.Name}}\t{{.Label "a.b-c"}}`, "NAME      b c\nweb       <a.b-c>\n"},
		{"json", `{"Name":"web","CreatedAt":"then"}` + "\n"},
		{`{{json .}} {{json .Name}} {{upper .Name}} {{lower .Name}}`, `{"Name":"web","CreatedAt":"then"} "web" WEB web` + "\n"},
		{"table {{json .Name}}", "NAME\n\"web\"\n"},
		{"table {{lower .Name}}", "NAME\nweb\n"},
		{"plain", "plain\n"},
	} {
		var out bytes.Buffer
		l := listing{format: tt.format, table: `{{.Name}}\t{{.CreatedAt}}`, row: aRow{}}
		env := &Env{Out: &out, Format: nil}
		if err := l.print(env, []any{aRow{"web", "then"}}); err != nil || out.String() != tt.want {
			t.Errorf("%s: %v\n got %q\nwant %q", tt.format, err, out.String(), tt.want)
		}
	}
}

func TestWhatTextTemplateHasToDo(t *testing.T) {
	for _, text := range []string{"{{.Name", "{{title .Name}}", "{{.Name | upper}}", "{{if .Name}}x{{end}}", "{{- .Name}}", "{{json .Name.First}}", "{{upper .}}", "{{.}}", `{{.Label "a}}`, "{{.Label 'a'}}", "{{json.Name}}", "{{json}}", "{{upper Name}}", "{{}}"} {
		if parts, ok := parse(text); ok {
			t.Errorf("%s is taken for %v", text, parts)
		}
	}
	for _, text := range []string{"{{.Nonsense}}", "{{json .Nonsense}}"} {
		parts, ok := parse(text)
		if err := fill(&bytes.Buffer{}, parts, aRow{}); !ok || err != errNotPlain {
			t.Errorf("%s: %v, %v", text, ok, err)
		}
	}
}
