package cli

import (
	"context"
	"os"

	"kiste/cli/option"
	"kiste/kernel/namespace"
)

func namespacePinCommand() *Command {
	var remove bool
	pid := int64(os.Getppid())
	return &Command{
		Name:  "namespace pin",
		Args:  "NAME [KIND...]",
		Short: "keep namespaces alive under a name",
		Long: `Pins the namespaces of a process, by default those of the shell that calls, so
that they stay when the last process in them has ended. "kiste namespace enter
NAME" enters them. Without kinds all are pinned.`,
		Options: []option.Row{
			{"-p, --pid", "PID", "of this process", option.Int(&pid)},
			{"-r, --remove", "", "remove the pin, of the kinds named or of all", option.Bool(&remove)},
		},
		Min:      1,
		Max:      -1,
		Examples: []string{"kiste namespace pin blue --pid 4711 net uts", "kiste namespace pin --remove blue"},
		Run: func(_ context.Context, _ *Env, args []string) error {
			var kinds []namespace.Kind
			for _, word := range args[1:] {
				k, err := namespace.ParseKind(word)
				if err != nil {
					return err
				}
				kinds = append(kinds, k)
			}
			if remove {
				return pins().Remove(args[0], kinds...)
			}
			return pins().Pin(args[0], int(pid), kinds...)
		},
	}
}
