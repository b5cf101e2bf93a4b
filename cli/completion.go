package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kiste/cli/manual"
	"kiste/cli/option"
	"kiste/store"
)

func completionCommand() *Command {
	return &Command{
		Name:  "completion",
		Args:  "bash|zsh|fish",
		Short: "print the completion script for a shell",
		Long: `The script asks "kiste __complete" at every press of the key, so it never grows old.

For this shell alone: source <(kiste completion bash). For good:
  kiste completion bash > /etc/bash_completion.d/kiste
  kiste completion zsh > /usr/local/share/zsh/site-functions/_kiste
  kiste completion fish > /etc/fish/completions/kiste.fish`,
		Min: 1,
		Max: 1,
		Examples: []string{
			"source <(kiste completion bash)",
			"kiste completion fish | source",
		},
		Run: func(_ context.Context, env *Env, args []string) error {
			return printCompletion(env.Out, args[0])
		},
	}
}

func printCompletion(w io.Writer, shell string) error {
	script, err := manual.Completion("kiste", shell)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, script)
	return err
}

func completeCommand() *Command {
	return &Command{
		Name:   "__complete",
		Args:   "WORD...",
		Short:  "print what the last word may become",
		Hidden: true,
		Raw:    true,
		Run: func(_ context.Context, env *Env, args []string) error {
			for _, c := range complete(store.Locate(), args) {
				fmt.Fprintln(env.Out, c)
			}
			return nil
		},
	}
}

// complete lists what the last of words, which may be empty, can become: a
// word, and after a tab what it is. ":files" and ":dirs" stand for names of
// files, which the shell knows best.
func complete(s store.Store, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	before, last := words[:len(words)-1], words[len(words)-1]
	return slices.DeleteFunc(candidates(s, before, last), func(c string) bool {
		return !strings.HasPrefix(c, last) && c[0] != ':'
	})
}

func candidates(s store.Store, before []string, last string) []string {
	if len(before) == 0 {
		return commandNames("")
	}
	command, given, err := find(before)
	switch {
	case err != nil:
		return nil
	case command == nil:
		return commandNames(before[0] + " ")
	}
	open, args := option.Open(command.Options, given, command.Rest)
	switch {
	case open != nil:
		return valueNames(s, open)
	case strings.HasPrefix(last, "-") && !(command.Rest && args > 0):
		return optionNames(command)
	}
	return argumentNames(s, command, args)
}

// commandNames lists the words that may follow prefix, which is empty or a
// group and a space.
func commandNames(prefix string) []string {
	var names []string
	add := func(name string, c *Command) {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok || c == nil || c.Hidden || rest[0] == '-' {
			return
		}
		word, _, more := strings.Cut(rest, " ")
		line := word + "\t" + c.Short
		if more {
			line = word + "\t" + verbList(word)
		}
		if !slices.Contains(names, line) {
			names = append(names, line)
		}
	}
	rows := commands()
	for _, r := range rows {
		add(r.name, r.new())
	}
	for _, a := range aliases() {
		add(a.name, named(rows, a.means))
	}
	return names
}

func optionNames(c *Command) []string {
	var names []string
	for _, o := range c.Options {
		for _, n := range option.Names(o) {
			names = append(names, n+"\t"+o.Help)
		}
	}
	return append(names, "--help\tshow how it is used")
}

// valueNames guesses from the name of an option's value what it may be.
func valueNames(s store.Store, o *option.Row) []string {
	switch value := strings.ToUpper(o.Value); {
	case strings.Contains(value, "|") && value != o.Value:
		return strings.Split(o.Value, "|")
	case strings.Contains(value, "DIR"):
		return []string{":dirs"}
	case strings.Contains(value, "FILE"), strings.Contains(value, "PATH"):
		return []string{":files"}
	case strings.Contains(value, "CONTAINER"):
		return containerNames(s)
	case strings.Contains(value, "IMAGE"):
		return imageNames(s)
	}
	return nil
}

func argumentNames(s store.Store, c *Command, args int) []string {
	switch {
	case c.Max >= 0 && args >= c.Max:
		return nil
	case c.Rest && args > 0:
		return []string{":files"}
	}
	switch c.Complete {
	case "image":
		return imageNames(s)
	case "container":
		return containerNames(s)
	case "volume":
		return volumeNames(s)
	case "network":
		return append(networkNames(s), "host", "none")
	case "file":
		return []string{":files"}
	case "dir":
		return []string{":dirs"}
	case "command":
		if args == 0 {
			return commandNames("")
		}
		return nil
	}
	if strings.Contains(c.Args, "|") && c.Args == strings.ToLower(c.Args) {
		return strings.Split(c.Args, "|")
	}
	return nil
}

func containerNames(s store.Store) []string { return names(filepath.Join(s.Lib, "names")) }

func imageNames(s store.Store) []string { return names(s.Images()) }

// names are the entries of a directory of the store.
func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			found = append(found, strings.TrimSuffix(e.Name(), ".json"))
		}
	}
	return found
}

func networkNames(s store.Store) []string { return names(filepath.Dir(s.NetworkName("x"))) }

func volumeNames(s store.Store) []string { return names(filepath.Dir(filepath.Dir(s.Volume("x")))) }
