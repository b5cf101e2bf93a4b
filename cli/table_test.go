package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kiste/cli/option"
	"kiste/fault"
	"kiste/internal/need"
	"kiste/store"
)

func TestEveryCommandTellsHowItIsUsed(t *testing.T) {
	for _, r := range commands() {
		t.Run(r.name, func(t *testing.T) {
			c := r.new()
			if c.Name != r.name {
				t.Errorf("the row %q makes the command %q", r.name, c.Name)
			}
			if c.Short == "" || strings.HasSuffix(c.Short, ".") || strings.Contains(c.Short, "\n") || len(c.Short) > 80 {
				t.Errorf("Short %q: want one line of at most 80 letters, without a full stop", c.Short)
			}
			if words := strings.Fields(c.Name); len(words) > 2 {
				t.Errorf("%q is more than a group and a verb", c.Name)
			}
			if c.Max >= 0 && c.Max < c.Min || c.Max == 0 && c.Args != "" && !c.Raw || c.Max != 0 && c.Args == "" {
				t.Errorf("Args %q do not go with Min %d and Max %d", c.Args, c.Min, c.Max)
			}
			if (c.Run == nil) == (c.Heavy == "") {
				t.Error("want Run or Heavy, and not both")
			}
			if !slices.Contains([]string{"", "image", "container", "volume", "network", "file", "dir", "command"}, c.Complete) {
				t.Errorf("Complete %q is not known", c.Complete)
			}
			for _, e := range c.Examples {
				if !strings.Contains(e, "kiste "+c.Name) && !slices.ContainsFunc(aliasesOf(c.Name), func(a string) bool { return strings.Contains(e, "kiste "+a) }) {
					t.Errorf("the example %q is of another command", e)
				}
			}
			checkOptions(t, c)
		})
	}
}

var optionName = regexp.MustCompile(`^(-[A-Za-z0-9]|--[a-z0-9][a-z0-9-]+)$`)

func checkOptions(t *testing.T, c *Command) {
	t.Helper()
	seen := map[string]bool{"--help": true}
	for _, o := range c.Options {
		if o.Help == "" || strings.HasSuffix(o.Help, ".") || strings.Contains(o.Help, "\n") {
			t.Errorf("%s: help %q: want one line, without a full stop", o.Names, o.Help)
		}
		if o.Var == nil {
			t.Errorf("%s goes nowhere", o.Names)
		}
		for _, n := range option.Names(o) {
			if !optionName.MatchString(n) {
				t.Errorf("%q is no name of an option", n)
			}
			if seen[n] {
				t.Errorf("%s has two meanings", n)
			}
			seen[n] = true
		}
	}
}

func TestNamesAreUniqueAndAliasesLeadSomewhere(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range commands() {
		if seen[r.name] {
			t.Errorf("%q stands twice in the table", r.name)
		}
		seen[r.name] = true
	}
	for _, a := range aliases() {
		if named(table(), a.means) == nil {
			t.Errorf("the alias %q means %q, which is no command", a.name, a.means)
		}
		if seen[a.name] {
			t.Errorf("%q stands twice", a.name)
		}
		seen[a.name] = true
	}
}

// kiste runs Main and returns what it said.
func kiste(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(context.Background(), &Env{In: os.Stdin, Out: &o, Err: &e, Stdout: os.Stdout, Stderr: os.Stderr}, args)
	return code, o.String(), e.String()
}

func TestEveryCommandShowsItsHelp(t *testing.T) {
	for _, r := range commands() {
		c := r.new()
		if c.Raw {
			continue
		}
		for _, args := range [][]string{append(strings.Fields(r.name), "--help"), append([]string{"help"}, strings.Fields(r.name)...)} {
			if len(args) > 3 {
				continue
			}
			code, out, errs := kiste(t, args...)
			if code != 0 || errs != "" || !strings.HasPrefix(out, "Usage: kiste "+r.name) {
				t.Errorf("%q: code %d, %q, %q", args, code, out, errs)
			}
			for _, o := range c.Options {
				if !strings.Contains(out, o.Names) {
					t.Errorf("%q does not tell of %s", args, o.Names)
				}
			}
		}
	}
}

func TestHelpListsEveryCommand(t *testing.T) {
	_, out, _ := kiste(t)
	for _, r := range commands() {
		word, verb, _ := strings.Cut(r.name, " ")
		if r.new().Hidden {
			continue
		}
		if !regexp.MustCompile(`(?m)^  ` + regexp.QuoteMeta(word) + ` .*` + regexp.QuoteMeta(verb)).MatchString(out) {
			t.Errorf("%q is not listed:\n%s", r.name, out)
		}
	}
}

func TestExitCodesAreThePromisedOnes(t *testing.T) {
	text := errors.New("boom")
	for _, tt := range []struct {
		err  error
		code int
		out  string
	}{
		{nil, 0, ""},
		{text, 1, "kiste: cannot boom\n"},
		{&fault.Error{Op: "do", Kind: fault.Invalid}, 2, "kiste: cannot do: invalid argument\n"},
		{&fault.Error{Op: "do", On: "x", Kind: fault.NotFound, Hint: "look"}, 3, "kiste: cannot do \"x\": not found\n  hint: look\n"},
		{&fault.Error{Op: "do", Kind: fault.Exists}, 4, "kiste: cannot do: already exists\n"},
		{&fault.Error{Op: "do", Kind: fault.Conflict}, 1, "kiste: cannot do: in use or in the wrong state\n"},
		{&fault.Error{Op: "do", Kind: fault.Denied}, 6, "kiste: cannot do: not permitted\n"},
		{&fault.Error{Op: "do", Kind: fault.Unsupported}, 7, "kiste: cannot do: not supported by this host\n"},
		{&fault.Error{Op: "do", Kind: fault.Unavailable}, 8, "kiste: cannot do: not available\n"},
		{&ExitError{42}, 42, ""},
		{&ExitError{0}, 0, ""},
		{WithCode(127, &fault.Error{Op: "do", Kind: fault.NotFound, Hint: "look"}), 127, "kiste: cannot do: not found\n  hint: look\n"},
		{fmt.Errorf("x: %w", context.Canceled), 130, ""},
	} {
		var b bytes.Buffer
		if code := Exit(&Env{Err: &b}, tt.err); code != tt.code || b.String() != tt.out {
			t.Errorf("%v: code %d, %q; want %d, %q", tt.err, code, b.String(), tt.code, tt.out)
		}
	}
	for kind, code := range map[fault.Kind]int{fault.Invalid: 2, fault.Unavailable: 8, "": 1} {
		if !errors.Is(WithCode(126, &fault.Error{Op: "do", Kind: kind}), kind) && kind != "" {
			t.Errorf("WithCode hides the kind %q", kind)
		}
		if exitCode(kind) != code {
			t.Errorf("%q: %d, want %d", kind, exitCode(kind), code)
		}
	}
}

func TestCompletion(t *testing.T) {
	s := store.Store{Lib: t.TempDir(), Run: t.TempDir()}
	for _, tt := range []struct {
		words, want string // words end with what is to be completed; want is one line of the answer, or "-": no line
	}{
		{"", "version\tshow the version of this program"},
		{"ver", "version\tshow the version of this program"},
		{"xyz", "-"},
		{"completion ", "bash"},
		{"completion z", "zsh"},
		{"completion bash ", "-"},
		{"completion -", "--help\tshow how it is used"},
		{"help comp", "completion\tprint the completion script for a shell"},
		{"man ", ":dirs"},
		{"__", "-"},
	} {
		got := complete(s, strings.Split(tt.words, " "))
		if tt.want == "-" && len(got) > 0 || tt.want != "-" && !slices.Contains(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.words, got, tt.want)
		}
	}
}

func TestManualPagesAreWellFormed(t *testing.T) {
	need.Program(t, "mandoc")
	dir := t.TempDir()
	if err := writeManPages(dir); err != nil {
		t.Fatal(err)
	}
	pages, _ := filepath.Glob(filepath.Join(dir, "*.1"))
	if len(pages) < 4 {
		t.Fatalf("only %q", pages)
	}
	for _, page := range pages {
		out, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", page).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			// the same source makes the same page: there is no date
			if !strings.Contains(line, "missing date") && !strings.Contains(line, "cross reference not found") && !strings.Contains(line, "possible typo") {
				t.Error(strings.TrimSpace(line))
			}
		}
		if len(out) == 0 && err != nil {
			t.Error(err)
		}
	}
}

func TestCompletionScriptsAreUnderstoodByTheirShells(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			need.Program(t, shell)
			_, script, _ := kiste(t, "completion", shell)
			cmd := exec.Command(shell, "-n")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
