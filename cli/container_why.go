package cli

import (
	"context"
	"fmt"

	"kiste/engine"
)

func whyCommand() *Command {
	return &Command{
		Name: "why", Args: "CONTAINER...", Min: 1, Max: -1,
		Short: "say in words why containers ended, do not start, or are slow",
		Long: `Tells what is known: the meaning of the exit code, who sent the signal that ended it, a limit that was reached, a system call that was refused, a start that failed, and what can be done about it; and the last lines that it wrote.

Of the calls that a filter refuses the kernel tells only where the container was made with --security-opt denials=log, and only root; where audit is on (auditctl -e 1) also of what Landlock refuses. Of what a lack of capabilities refuses it tells nobody. There the last lines of the log are held against the container's mounts, capabilities, network and walls: what these would in fact refuse is called probable, with the option that allows it.`,
		Examples: []string{"kiste why web"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			return eachName(args, func(e *engine.Engine, name string) error {
				c, err := e.Find(name)
				if err == nil {
					sayWhy(env, c, e.Evidence(c))
				}
				return err
			})
		},
	}
}

func sayWhy(env *Env, c *engine.Container, v engine.Evidence) {
	fmt.Fprintf(env.Out, "%s (%s)\n", c.Name, statusOf(c, v.Now))
	for _, f := range engine.Why(c, v) {
		fmt.Fprintf(env.Out, "  %s\n", f.Says)
		if f.Remedy != "" {
			fmt.Fprintf(env.Out, "    what helps: %s\n", f.Remedy)
		}
	}
	if len(v.Log) > 0 {
		fmt.Fprintln(env.Out, "  Its last words:")
	}
	for _, line := range v.Log[max(0, len(v.Log)-shownLines):] {
		fmt.Fprintf(env.Out, "    %s\n", printable(line))
	}
}

// shownLines is how many of the last lines of a log are shown.
const shownLines = 3

// printable is a line of a log without what a terminal would obey.
func printable(line string) string {
	out := make([]rune, 0, len(line))
	for _, r := range line {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			r = '\uFFFD'
		}
		out = append(out, r)
	}
	return string(out)
}
