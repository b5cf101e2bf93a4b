package heavy

import (
	"bytes"
	"errors"
	"strings"
	"testing"

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
