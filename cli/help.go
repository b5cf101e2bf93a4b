package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"kiste/cli/manual"
	"kiste/fault"
)

func helpCommand() *Command {
	return &Command{
		Name:  "help",
		Args:  "[COMMAND|exit]",
		Short: "list the commands, or show how one is used",
		Long:  `"kiste help exit" lists the exit codes.`,
		Max:   2,
		Examples: []string{
			"kiste help version",
			"kiste help exit",
		},
		Complete: "command",
		Run: func(_ context.Context, env *Env, args []string) error {
			return help(env.Out, args)
		},
	}
}

// A topic is a help text that belongs to no command.
type topic struct {
	name  string
	print func(io.Writer) error
}

func topics() []topic { return []topic{{"exit", printExitCodes}} }

func help(w io.Writer, args []string) error {
	if len(args) == 0 {
		return printCommands(w)
	}
	for _, t := range topics() {
		if len(args) == 1 && t.name == args[0] {
			return t.print(w)
		}
	}
	command, left, err := find(args)
	switch {
	case err != nil:
		return err
	case command == nil:
		return printGroup(w, args[0])
	case len(left) > 0:
		return &fault.Error{Op: "find command", On: strings.Join(args, " "), Kind: fault.Invalid,
			Hint: `"kiste help" lists all commands`}
	}
	return printCommand(w, command)
}

// printCommands lists every command under its heading. A group is one line
// with the names of its verbs.
func printCommands(w io.Writer) error {
	var b strings.Builder
	b.WriteString("Kiste builds, ships, runs and explains Linux containers.\n\nUsage: kiste COMMAND [OPTION...] [ARGUMENT...]\n")
	heading := ""
	for _, r := range table() {
		group, _, isVerb := strings.Cut(r.name, " ")
		switch {
		case r.new == nil:
			heading = r.name
			continue
		case isVerb && verbs(group)[0] != r.name:
			continue
		}
		name, text := r.name, ""
		if isVerb {
			name, text = group, verbList(group)
		} else if c := r.new(); c.Hidden {
			continue
		} else {
			text = c.Short
		}
		if heading != "" {
			fmt.Fprintf(&b, "\n%s:\n", heading)
			heading = ""
		}
		fmt.Fprintf(&b, "  %-12s %s\n", name, text)
	}
	b.WriteString("\n\"kiste help COMMAND\" tells more of one; \"kiste help exit\" lists the exit codes.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// verbList is "run, set, show" for the group that has these verbs.
func verbList(group string) string {
	var words []string
	for _, name := range verbs(group) {
		words = append(words, strings.TrimPrefix(name, group+" "))
	}
	return strings.Join(words, ", ")
}

// printGroup lists the verbs of a group.
func printGroup(w io.Writer, group string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: kiste %s COMMAND [OPTION...] [ARGUMENT...]\n\n", group)
	for _, name := range verbs(group) {
		if c, _, err := find(strings.Fields(name)); err == nil && !c.Hidden {
			fmt.Fprintf(&b, "  %-24s %s\n", "kiste "+name, c.Short)
		}
	}
	fmt.Fprintf(&b, "\n\"kiste help %s COMMAND\" tells more of one.\n", group)
	_, err := io.WriteString(w, b.String())
	return err
}

// printCommand shows how one command is used.
func printCommand(w io.Writer, c *Command) error {
	_, err := io.WriteString(w, described(c).Help())
	return err
}

// described is c as its help text and its manual page need it.
func described(c *Command) *manual.Command {
	d := &manual.Command{
		Program: "kiste", Version: Version, Section: 1,
		Name: c.Name, Args: c.Args, Short: c.Short, Long: c.Long, Options: c.Options, Examples: c.Examples,
	}
	for _, a := range aliasesOf(c.Name) {
		d.Also = append(d.Also, "kiste "+a)
	}
	return d
}

func aliasesOf(command string) []string {
	var names []string
	for _, a := range aliases() {
		if a.means == command && a.name[0] != '-' {
			names = append(names, a.name)
		}
	}
	return names
}

func printExitCodes(w io.Writer) error {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, row := range exitCodes() {
		text := row.text
		if row.kind != "" {
			text = string(row.kind) + ": " + text
		}
		fmt.Fprintf(&b, "  %3d  %s\n", row.code, text)
	}
	b.WriteString("\nA command that becomes another program (the verbs \"run\" of the pieces) exits with that program's code.\n")
	_, err := io.WriteString(w, b.String())
	return err
}
