package heavy

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"kiste/cli"
	"kiste/cli/ps"
)

// top is "kiste top". The table is as wide as Docker's.
func top(_ context.Context, env *cli.Env, args []string, _ any) error {
	pids, err := cli.Processes(args[0])
	if err != nil {
		return err
	}
	text, err := ps.AskOf(pids, args[1:])
	if err != nil {
		return err
	}
	if text, err = ps.Only(text, pids); err != nil {
		return err
	}
	w := tabwriter.NewWriter(env.Out, 20, 1, 3, ' ', 0)
	for _, row := range ps.Rows(text) {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}
