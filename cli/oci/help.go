package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"kiste/cli/manual"
	"kiste/cli/option"
	"kiste/fault"
)

const about = "run containers described by OCI bundles"

// section is that of the manual for programs of the administrator.
const section = 8

// described is v as its help text and its manual page need it.
func described(v *verb) *manual.Command {
	c := &manual.Command{Program: program, Version: Version, Section: section,
		Name: v.name, Args: v.args, Short: v.short, Long: v.long, Options: v.options}
	for _, e := range v.examples {
		c.Examples = append(c.Examples, program+" "+e)
	}
	return c
}

func globalOptions() []option.Row { return new(globals).options(&session{}) }

// overview is the text of --help.
func overview() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s runs containers described by OCI bundles. Its command line is runc's.\n\nUsage: %s [OPTION...] VERB [OPTION...] [ARGUMENT...]\n", program, program)
	verbs(func(heading string, v *verb) {
		if heading != "" {
			fmt.Fprintf(&b, "\n%s:\n", heading)
		}
		fmt.Fprintf(&b, "  %-12s %s\n", v.name, v.short)
	})
	fmt.Fprintf(&b, "\nOptions:\n%s\n%q tells more of one verb.\n", manual.Options(globalOptions()), program+" VERB --help")
	return b.String()
}

func helpVerb() *verb {
	return &verb{
		name: "help", args: "[VERB]", max: 1, complete: "verb",
		short: "list the verbs, or show how one is used",
		run: func(s *session, args []string) error {
			if len(args) == 0 {
				return s.print(overview())
			}
			v := find(args[0])
			if v == nil {
				return unknown(args[0])
			}
			return s.print(described(v).Help())
		},
	}
}

func manVerb() *verb {
	return &verb{
		name: "man", args: "DIR", min: 1, max: 1, complete: "dir",
		short: "write the manual pages into a directory",
		long:  "DIR gets kiste-runtime.8 and a page for every verb (kiste-runtime-run.8 …). What was there under these names is replaced.",
		run: func(_ *session, args []string) error {
			for name, text := range manPages() {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
					return &fault.Error{Op: "write manual pages", Err: err}
				}
			}
			return nil
		},
	}
}

// manPages are the pages by file name.
func manPages() map[string]string {
	pages := map[string]string{}
	index := manual.NewPage(program, section, "kiste "+Version, about)
	index.Section("SYNOPSIS")
	index.Synopsis(program, "[OPTION...] VERB [OPTION...] [ARGUMENT...]")
	index.Section("DESCRIPTION")
	index.Text("An OCI runtime with runc's command line: Docker, Podman, containerd, CRI\\-O and Buildah call it in place of runc.\n\n" +
		"Without --root the state of containers is kept in /run/kiste-runtime, or for an ordinary user in kiste-runtime below $XDG_RUNTIME_DIR.")
	index.Section("VERBS")
	verbs(func(_ string, v *verb) {
		d := described(v)
		index.Reference(d)
		pages[fmt.Sprintf("%s.%d", d.PageName(), section)] = d.Page()
	})
	index.Options(globalOptions())
	index.Section("EXIT STATUS")
	index.Item("0", "", "success")
	index.Item("1", "", "an error, of which standard error and the log tell")
	index.Item("255", "", "exec: the process could not be started")
	index.Item("128+N", "", "run, exec: signal N ended the process; else these two end as the process does")
	pages[fmt.Sprintf("%s.%d", program, section)] = index.String()
	return pages
}

func completionVerb() *verb {
	return &verb{
		name: "completion", args: "bash|zsh|fish", min: 1, max: 1,
		short: "print the completion script for a shell",
		run: func(s *session, args []string) error {
			script, err := manual.Completion(program, args[0])
			if err != nil {
				return err
			}
			return s.print(script)
		},
	}
}

func completeVerb() *verb {
	return &verb{
		name: "__complete", args: "WORD...", raw: true, max: -1, hidden: true,
		short: "print what the last word may become",
		run: func(s *session, words []string) error {
			if len(words) == 0 {
				words = []string{""}
			}
			last := words[len(words)-1]
			for _, c := range s.candidates(words[:len(words)-1], last) {
				if strings.HasPrefix(c, last) || c[0] == ':' {
					if err := s.print(c + "\n"); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

// candidates are what the word after these may be: a word and, after a tab,
// what it is. ":files" and ":dirs" ask the shell.
func (s *session) candidates(before []string, last string) []string {
	var g globals
	rows := g.options(s)
	open, args := option.Open(rows, before, true)
	switch {
	case open != nil:
		return values(open)
	case args == 0 && strings.HasPrefix(last, "-"):
		return names(rows)
	case args == 0:
		return verbNames()
	}
	left, err := option.Parse(rows, before, option.Rest|option.AnyDash)
	if err != nil {
		return nil
	}
	v := find(left[0])
	if v == nil || s.open(&g) != nil {
		return nil
	}
	open, args = option.Open(v.options, left[1:], v.rest)
	switch {
	case open != nil:
		return values(open)
	case strings.HasPrefix(last, "-") && !(v.rest && args > 0):
		return names(v.options)
	}
	return s.arguments(v, args)
}

func verbNames() []string {
	var all []string
	verbs(func(_ string, v *verb) { all = append(all, v.name+"\t"+v.short) })
	return all
}

func names(rows []option.Row) []string {
	var all []string
	for _, o := range rows {
		for _, n := range option.Names(o) {
			all = append(all, n+"\t"+o.Help)
		}
	}
	return append(all, "--help\tshow how it is used")
}

// values guesses from the name of an option's value what it may be.
func values(o *option.Row) []string {
	switch {
	case strings.Contains(o.Value, "DIR"):
		return []string{":dirs"}
	case strings.Contains(o.Value, "FILE"), strings.Contains(o.Value, "SOCKET"):
		return []string{":files"}
	case strings.Contains(o.Value, "|"):
		return strings.Split(o.Value, "|")
	}
	return nil
}

func (s *session) arguments(v *verb, args int) []string {
	first, _, _ := strings.Cut(v.args, " ")
	switch {
	case v.max >= 0 && args >= v.max:
		return nil
	case args == 0 && first == oneContainer && v.name != "create" && v.name != "run" && v.name != "restore":
		return s.ids()
	case v.rest && args > 0:
		return []string{":files"}
	case v.complete == "dir":
		return []string{":dirs"}
	case v.complete == "verb":
		return verbNames()
	case strings.Contains(first, "|"):
		return strings.Split(first, "|")
	}
	return nil
}

func (s *session) ids() []string {
	all, _, err := s.containers().List()
	if err != nil {
		return nil
	}
	ids := make([]string, len(all))
	for i, c := range all {
		ids[i] = c.ID()
	}
	return ids
}
