package cli

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"kiste/cli/option"
	"kiste/container/bundle"
	"kiste/engine"
	"kiste/fault"
)

func updateCommand() *Command {
	var w bundle.Wishes
	return &Command{
		Name: "update", Args: "CONTAINER...", Min: 1, Max: -1,
		Short:    "change what containers may use, and whether they are started anew",
		Long:     `One that runs has the new limits at once; a limit of memory below what it uses now is refused. One that does not run has them from its next start on. What is not named stays as it is.`,
		Options:  updateOptions(&w),
		Examples: []string{"kiste update --memory 512m --cpus 2 web", "kiste update --restart unless-stopped web db", "kiste update --pids-limit -1 web", "kiste update --network-rate 10mbit:egress --network-rate none:ingress web"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			o := engine.UpdateOptions{Limits: w.Limits, Rates: w.NetworkRates, Warn: env.note}
			if w.Restart.Name != "" {
				o.Restart = &w.Restart
			}
			if o.Restart == nil && len(o.Rates) == 0 && reflect.ValueOf(w.Limits).IsZero() {
				return &fault.Error{Op: "update containers", Kind: fault.Invalid, Err: errors.New("you must provide one or more flags when using this command"), Hint: `"kiste help update" lists them`}
			}
			return eachPrinted(env, args, func(e *engine.Engine, name string) error { return e.Update(name, o) })
		},
	}
}

// updateOptions are those of run that can be changed later.
func updateOptions(w *bundle.Wishes) []option.Row {
	fixed := []string{"--memory-swappiness", "--oom-kill-disable", "--blkio-weight-device", "--device-read-bps", "--device-write-bps", "--device-read-iops", "--device-write-iops", "--cgroup-parent"}
	rows := slices.DeleteFunc(runLimitOptions(w), func(r option.Row) bool { return slices.Contains(fixed, r.Names) })
	for i := range rows {
		if rows[i].Names == "--pids-limit" {
			rows[i].Var = into(&w.Limits.Pids, noLimit)
		}
	}
	others := slices.DeleteFunc(slices.Concat(viewOptions(w), objectOptions(w)), func(r option.Row) bool { return r.Names != "--network-rate" && r.Names != "--restart" })
	return append(rows, others...)
}

// noLimit reads a limit of processes of which 0, too, is none.
func noLimit(s string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if n == 0 {
		n = -1
	}
	return n, err
}
