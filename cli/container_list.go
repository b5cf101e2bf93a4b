package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kiste/cli/option"
	"kiste/engine"
	"kiste/store"
)

type psOptions struct {
	all, quiet, noTrunc, latest, size bool
	last                              int64
	format                            string
	filters                           []string
}

func psCommand() *Command {
	o := psOptions{last: -1}
	return &Command{
		Name:  "ps",
		Short: "list containers",
		Long: `Lists the containers that run, the newest first; with --all also those that have ended.

With --format each is shown as a template says, in which {{.ID}}, {{.Names}}, {{.Image}}, {{.Command}}, {{.CreatedAt}}, {{.RunningFor}}, {{.Status}}, {{.State}}, {{.Ports}}, {{.Labels}}, {{.Label "KEY"}}, {{.Mounts}}, {{.LocalVolumes}}, {{.Networks}} and {{.Size}} stand for its values; "table {{.ID}}\t{{.Names}}" makes columns of them, and "json" shows all. Without it the psFormat of docker's config.json counts.

Filters: ` + filterNames(containerFilters) + `. One of those with the same key has to fit, but all labels. NAME is a regular expression.`,
		Examples: []string{"kiste ps -a", "kiste ps --filter status=exited --format '{{.Names}} {{.Status}}'", "kiste rm $(kiste ps -aq)"},
		Options: []option.Row{
			{"-a, --all", "", "list those that have ended, too", option.Bool(&o.all)},
			{"-q, --quiet", "", "show IDs only", option.Bool(&o.quiet)},
			{"-n, --last", "N", "list the last N that were made, whatever they do", option.Int(&o.last)},
			{"-l, --latest", "", "list the last that was made", option.Bool(&o.latest)},
			{"--no-trunc", "", "show IDs and commands in full", option.Bool(&o.noTrunc)},
			{"-s, --size", "", "show how much each has written", option.Bool(&o.size)},
			{"--format", "TEXT", `show each as TEXT says, or "json"`, option.String(&o.format)},
			{"-f, --filter", "KEY=VALUE", "list only some; see above", option.Strings(&o.filters)},
		},
		Run: func(_ context.Context, env *Env, _ []string) error { return listContainers(env, o) },
	}
}

func listContainers(env *Env, o psOptions) error {
	e, err := lookIntoStore()
	if err != nil {
		return err
	}
	if o.format == "" && !o.quiet {
		o.format = userFormat("psFormat")
	}
	filters, err := choose(containerFilters, &lookup{e: e, match: env.Match}, o.filters)
	switch {
	case err == errRegexp || err == nil && env.lacks(o.format):
		return becomeKisted(env.words)
	case err != nil:
		return err
	}
	all, bad, err := e.Brief()
	if err != nil {
		return err
	}
	size := o.size || strings.Contains(o.format, ".Size")
	var rows []any
	for _, c := range chooseContainers(all, o, filters) {
		r := containerFields(c, o.noTrunc, time.Now())
		if size {
			r.Size = sizeOf(e, c)
		}
		rows = append(rows, r)
	}
	if err := showContainers(env, rows, o); err != nil {
		return err
	}
	return together(bad)
}

// sizeOf is what a container has written, and what it sees with its image.
func sizeOf(e *engine.Engine, c *engine.Container) string {
	written, all := e.Sizes(c)
	text := DecimalSize(written)
	if all > 0 {
		text += " (virtual " + DecimalSize(all) + ")"
	}
	return text
}

// lookIntoStore is the engine for those who only look: it makes nothing.
func lookIntoStore() (*engine.Engine, error) {
	s := store.Locate()
	return engineOn(s), s.Check()
}

// together is one error of several.
func together(all []error) error {
	if len(all) == 1 {
		return all[0]
	}
	return errors.Join(all...)
}

// chooseContainers leaves those that o wants to see.
func chooseContainers(all []*engine.Container, o psOptions, filters chosen[*engine.Container]) []*engine.Container {
	if o.latest {
		o.last = 1
	}
	everything := o.all || o.last > 0 || len(filters["status"]) > 0
	var some []*engine.Container
	for _, c := range all {
		if (everything || isUp(c)) && filters.fit(c) {
			some = append(some, c)
		}
	}
	if o.last > 0 && int64(len(some)) > o.last {
		some = some[:o.last]
	}
	return some
}

// isUp reports whether ps lists the container without being asked for all.
func isUp(c *engine.Container) bool {
	return engine.IsActive(c.State.Status)
}

func showContainers(env *Env, rows []any, o psOptions) error {
	l := listing{format: o.format, table: `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}`, row: containerRow{},
		headings: map[string]string{"ID": "CONTAINER ID", "RunningFor": "CREATED"}}
	if o.size {
		l.table += `\t{{.Size}}`
	}
	if o.size && strings.HasPrefix(o.format, "table ") {
		l.format += `\t{{.Size}}`
	}
	if o.quiet {
		if o.format != "" && o.format != "table" {
			fmt.Fprintln(env.Err, "WARNING: Ignoring custom format, because both --format and --quiet are set.")
		}
		l.format = "{{.ID}}"
	}
	return l.print(env, rows)
}
