// Package manual writes how a command is used: help texts, manual pages and
// completion scripts, all from the tables that the parser reads.
//
//	takes    commands as data
//	gives    texts
//	touches  nothing
//	state    none
package manual

import (
	"fmt"
	"strings"

	"kiste/cli/option"
)

// A Command is one verb of a program, as its help tells of it.
type Command struct {
	Program  string       // "kiste"
	Version  string       // of the program
	Section  int          // of the manual
	Name     string       // "run", "cgroup run"
	Args     string       // "IMAGE [COMMAND [ARG...]]"
	Short    string       // one line, without a full stop
	Long     string       // paragraphs; indented lines stay as they are
	Options  []option.Row // in the order in which they are shown
	Also     []string     // other names for it, with the program's: "kiste ps"
	Examples []string     // whole lines to type
}

// Help is the text of --help.
func (c *Command) Help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n\n%s.\n", c.usage(), upperFirst(c.Short))
	if c.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.Long))
	}
	if len(c.Also) > 0 {
		fmt.Fprintf(&b, "\nAlso: %s\n", strings.Join(c.Also, ", "))
	}
	if len(c.Options) > 0 {
		b.WriteString("\nOptions:\n" + Options(c.Options))
	}
	if len(c.Examples) > 0 {
		b.WriteString("\nExamples:\n")
		for _, e := range c.Examples {
			fmt.Fprintf(&b, "  %s\n", e)
		}
	}
	return b.String()
}

func (c *Command) usage() string {
	s := c.Program + " " + c.Name
	if len(c.Options) > 0 {
		s += " [OPTION...]"
	}
	if c.Args != "" {
		s += " " + c.Args
	}
	return s
}

// Options aligns the names, and the texts behind them. A name too long for its
// column has its text on the next line.
func Options(options []option.Row) string {
	const most = 30
	width := 0
	for _, o := range options {
		if n := len(shown(o)); n <= most {
			width = max(width, n)
		}
	}
	var b strings.Builder
	for _, o := range options {
		name := shown(o)
		if len(name) > width {
			fmt.Fprintf(&b, "  %s\n", name)
			name = ""
		}
		fmt.Fprintf(&b, "  %-*s  %s\n", width, name, o.Help)
	}
	return b.String()
}

// shown is an option's names and value as help shows them: long names stand
// below each other, whether there is a short one or not.
func shown(o option.Row) string {
	s := o.Names
	if strings.HasPrefix(s, "--") {
		s = "    " + s
	}
	if o.Value != "" {
		s += " " + o.Value
	}
	return s
}

func upperFirst(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
