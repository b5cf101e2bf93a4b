package cli

import (
	"context"
	"fmt"

	"kiste/cli/option"
	"kiste/engine"
	"kiste/fault"
)

func rmCommand() *Command {
	var force, volumes bool
	return &Command{
		Name:  "rm",
		Args:  "CONTAINER...",
		Short: "remove containers",
		Long:  "Removes containers, by name, ID or the beginning of an ID, with all that they have written. One that runs has to end first; with --force it is killed, and one that is not there is no error.",
		Options: []option.Row{
			{"-f, --force", "", "kill those that run; remove damaged ones, too", option.Bool(&force)},
			{"-v, --volumes", "", "remove their anonymous volumes, too", option.Bool(&volumes)},
		},
		Examples: []string{"kiste rm web", "kiste rm -f $(kiste ps -aq)"},
		Min:      1, Max: -1,
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			return eachName(args, func(e *engine.Engine, name string) error {
				_, err := e.Remove(name, force, volumes)
				switch {
				case err == nil:
					fmt.Fprintln(env.Out, name)
				case force && fault.KindOf(err) == fault.NotFound:
					return nil
				}
				return err
			})
		},
	}
}
