package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"kiste/cli/option"
	"kiste/kernel/namespace"
)

func namespaceListCommand() *Command {
	var types []string
	var pid int64
	var asJSON bool
	return &Command{
		Name:  "namespace list",
		Short: "list the namespaces and who is in which",
		Long: `One line for each namespace: its number, its kind, how many processes are in it,
the lowest of them with its user and command, and the names of its pins.`,
		Options: []option.Row{
			{"-t, --type", "KIND", "only this kind; may be given again", option.Strings(&types)},
			{"-p, --pid", "PID", "only those that this process is in", option.Int(&pid)},
			{"--json", "", "as JSON, with owners and parents", option.Bool(&asJSON)},
		},
		Examples: []string{"kiste namespace list --type net"},
		Run: func(_ context.Context, env *Env, _ []string) error {
			all, err := selected(types, int(pid))
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(env.Out)
				e.SetIndent("", "  ")
				return e.Encode(all)
			}
			return printNamespaces(env.Out, all)
		},
	}
}

func selected(types []string, pid int) ([]namespace.Namespace, error) {
	var kinds []string
	for _, t := range types {
		k, err := namespace.ParseKind(t)
		if err != nil {
			return nil, err
		}
		kinds = append(kinds, k.Name)
	}
	all, err := namespace.List(pins())
	if err != nil {
		return nil, err
	}
	var of []uint64
	if pid != 0 {
		if of, err = namespace.Of(pid); err != nil {
			return nil, err
		}
	}
	all = slices.DeleteFunc(all, func(n namespace.Namespace) bool {
		return len(kinds) > 0 && !slices.Contains(kinds, n.Kind) || pid != 0 && !slices.Contains(of, n.Inode)
	})
	return append([]namespace.Namespace{}, all...), nil
}

func printNamespaces(w io.Writer, all []namespace.Namespace) error {
	t := tabwriter.NewWriter(w, 0, 8, 1, ' ', 0)
	fmt.Fprintln(t, "NS\tTYPE\tNPROCS\tPID\tUSER\tPIN\tCOMMAND")
	for _, n := range all {
		pid := ""
		if n.PID != 0 {
			pid = strconv.Itoa(n.PID)
		}
		command := []rune(n.Command)
		fmt.Fprintf(t, "%d\t%s\t%d\t%s\t%s\t%s\t%s\n", n.Inode, n.Kind, n.Processes, pid, n.User, strings.Join(n.Pins, ","), string(command[:min(len(command), 60)]))
	}
	return t.Flush()
}
