package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"kiste/cli/option"
	"kiste/fault"
	"kiste/kernel/privilege"
)

func privilegeShowCommand() *Command {
	var asJSON bool
	return &Command{
		Name:  "privilege show",
		Args:  "[PID]",
		Short: "explain what a process may do and may not do",
		Long: `Reads what /proc says about the process PID, or about this one without PID, and says it in words: who it is, each capability it holds, whether it can gain others, filters on its system calls, namespaces, limits.

What is shown of another user's process needs root in part; what could not be seen is said. With --json the values themselves are shown.`,
		Examples: []string{"kiste privilege show 1", "kiste privilege run --caps none -- kiste privilege show"},
		Options:  []option.Row{{"--json", "", "show the values as one JSON object", option.Bool(&asJSON)}},
		Max:      1,
		Run: func(_ context.Context, env *Env, args []string) error {
			pid := os.Getpid()
			if len(args) > 0 {
				n, err := strconv.Atoi(args[0])
				if err != nil || n <= 0 {
					return &fault.Error{Op: "show process", On: args[0], Kind: fault.Invalid, Err: errors.New("want the number of a process")}
				}
				pid = n
			}
			report, err := privilege.Show(pid)
			if err != nil {
				return err
			}
			if asJSON {
				out := json.NewEncoder(env.Out)
				out.SetIndent("", "  ")
				return out.Encode(report)
			}
			_, err = fmt.Fprint(env.Out, reportText(report))
			return err
		},
	}
}

func reportText(r privilege.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s\n", r.PID, r.Name)
	for _, s := range r.Words() {
		if len(s.Lines) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s\n", s.Title)
		for _, line := range s.Lines {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	return b.String()
}
