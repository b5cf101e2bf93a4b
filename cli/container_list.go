package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/cli/option"
	"kiste/engine"
	"kiste/fault"
	"kiste/image/reference"
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

With --format each is shown as a template says, in which {{.ID}}, {{.Names}}, {{.Image}}, {{.Command}}, {{.CreatedAt}}, {{.RunningFor}}, {{.Status}}, {{.State}}, {{.Ports}}, {{.Labels}}, {{.Label "KEY"}}, {{.Mounts}}, {{.LocalVolumes}}, {{.Networks}} and {{.Size}} stand for its values; "table {{.ID}}\t{{.Names}}" makes columns of them, and "json" shows all.

Filters: name=PART (^ and $ stand for its ends), id=BEGINNING, status=created|running|exited, exited=CODE, ancestor=IMAGE, label=KEY[=VALUE], network=NAME. One of those with the same key has to fit, but all labels.`,
		Examples: []string{"kiste ps -a", "kiste ps --filter status=exited --format '{{.Names}} {{.Status}}'", "kiste rm $(kiste ps -aq)"},
		Options: []option.Row{
			{"-a, --all", "", "list those that have ended, too", option.Bool(&o.all)},
			{"-q, --quiet", "", "show IDs only", option.Bool(&o.quiet)},
			{"-n, --last", "N", "list the last N that were made, whatever they do", option.Int(&o.last)},
			{"-l, --latest", "", "list the last that was made", option.Bool(&o.latest)},
			{"--no-trunc", "", "show IDs and commands in full", option.Bool(&o.noTrunc)},
			{"-s, --size", "", "show how much each has written", option.Bool(&o.size)},
			{"--format", "TEXT", `show each as TEXT says, or "json"`, option.String(&o.format)},
			{"-f, --filter", "KEY=VALUE", "list only some: name=, id=, status=, exited=, ancestor=, label=, network=", option.Strings(&o.filters)},
		},
		Run: func(_ context.Context, env *Env, _ []string) error { return listContainers(env, o) },
	}
}

func listContainers(env *Env, o psOptions) error {
	e, err := lookIntoStore()
	if err != nil {
		return err
	}
	all, bad, err := e.List()
	if err != nil {
		return err
	}
	if all, err = chooseContainers(all, o); err != nil {
		return err
	}
	var rows []any
	for _, c := range all {
		r := containerFields(c, o.noTrunc, time.Now())
		if o.size {
			r.Size = DecimalSize(e.Written(c.ID))
		}
		rows = append(rows, r)
	}
	if err := showContainers(env, rows, o); err != nil {
		return err
	}
	return together(bad)
}

// lookIntoStore is the engine for those who only look: it makes nothing.
func lookIntoStore() (*engine.Engine, error) {
	s := store.Locate()
	return &engine.Engine{Store: s}, s.Check()
}

// together is one error of several.
func together(all []error) error {
	if len(all) == 1 {
		return all[0]
	}
	return errors.Join(all...)
}

// chooseContainers leaves those that o wants to see.
func chooseContainers(all []*engine.Container, o psOptions) ([]*engine.Container, error) {
	filters, err := parseFilters(o.filters)
	if err != nil {
		return nil, err
	}
	if o.latest {
		o.last = 1
	}
	everything := o.all || o.last >= 0 || len(filters["status"]) > 0
	all = slices.DeleteFunc(all, func(c *engine.Container) bool {
		return c.State.Status != "running" && !everything || !fitsFilters(c, filters)
	})
	if o.last >= 0 && int64(len(all)) > o.last {
		all = all[:o.last]
	}
	return all, nil
}

func parseFilters(words []string) (map[string][]string, error) {
	filters := map[string][]string{}
	bad := func(word, why, hint string) error {
		return &fault.Error{Op: "take option", On: "--filter", Kind: fault.Invalid, Err: fmt.Errorf("%q %s", word, why), Hint: hint}
	}
	for _, f := range words {
		key, value, ok := strings.Cut(f, "=")
		switch {
		case !ok:
			return nil, bad(f, "has no value", "KEY=VALUE, as in name=web")
		case containerFilter(key) == nil:
			return nil, bad(key, "is no filter", "name=, id=, status=, exited=, ancestor=, label= and network= are")
		case key == "status" && !slices.Contains([]string{"created", "restarting", "running", "removing", "paused", "exited", "dead"}, value):
			return nil, bad(value, "is no status", "created, running, paused and exited are")
		}
		if _, err := strconv.Atoi(value); key == "exited" && err != nil {
			return nil, bad(value, "is no exit code", "write a number, as in exited=137")
		}
		filters[key] = append(filters[key], value)
	}
	return filters, nil
}

// containerFilter is the test that a filter stands for, or nil.
func containerFilter(key string) func(c *engine.Container, value string) bool {
	switch key {
	case "name":
		return func(c *engine.Container, v string) bool { return fitsName(c.Name, v) }
	case "id":
		return func(c *engine.Container, v string) bool { return strings.HasPrefix(c.ID, v) }
	case "status":
		return func(c *engine.Container, v string) bool { return c.State.Status == v }
	case "exited":
		return func(c *engine.Container, v string) bool {
			return c.State.Status == "exited" && strconv.Itoa(c.State.ExitCode) == v
		}
	case "ancestor":
		return func(c *engine.Container, v string) bool { return fitsImage(c, v) }
	case "label":
		return fitsLabel
	case "network":
		return func(c *engine.Container, v string) bool { return networkName(c) == v }
	}
	return nil
}

func fitsFilters(c *engine.Container, filters map[string][]string) bool {
	for key, values := range filters {
		fits := func(v string) bool { return containerFilter(key)(c, v) }
		if key == "label" && slices.ContainsFunc(values, func(v string) bool { return !fits(v) }) || !slices.ContainsFunc(values, fits) {
			return false
		}
	}
	return true
}

// fitsName finds part in name; "^" and "$" stand for the ends, and the slash
// that Docker has before a name may be written.
func fitsName(name, part string) bool {
	part, atStart := strings.CutPrefix(part, "^")
	part, atEnd := strings.CutSuffix(part, "$")
	part = strings.TrimPrefix(part, "/")
	i := strings.Index(name, part)
	return i >= 0 && (!atStart || strings.HasPrefix(name, part)) && (!atEnd || strings.HasSuffix(name, part)) && (!atStart || !atEnd || name == part)
}

func fitsImage(c *engine.Container, image string) bool {
	if _, hex, _ := strings.Cut(c.ImageID, ":"); len(image) >= 4 && (strings.HasPrefix(c.ImageID, image) || strings.HasPrefix(hex, image)) {
		return true
	}
	want, err := reference.Parse(image)
	have, bad := reference.Parse(c.ImageName)
	return c.ImageName == image || err == nil && bad == nil && want == have
}

func fitsLabel(c *engine.Container, label string) bool {
	key, want, exact := strings.Cut(label, "=")
	have, ok := c.Result.Labels[key]
	return ok && (!exact || have == want)
}

func showContainers(env *Env, rows []any, o psOptions) error {
	l := listing{format: o.format, table: `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}`, row: containerRow{},
		headings: map[string]string{"ID": "CONTAINER ID", "RunningFor": "CREATED"}}
	if o.size {
		l.table += `\t{{.Size}}`
	}
	if o.quiet && (o.format == "" || o.format == "table") {
		l.format = "{{.ID}}"
	}
	return l.print(env, rows)
}

// containerRow is a container in Docker's words; its JSON is that of docker ps
// --format json.
type containerRow struct {
	Command, CreatedAt, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks, Ports, RunningFor, Size, State, Status string

	labels map[string]string
}

// longestCommand is how much of a command Docker shows.
const longestCommand = 20

func containerFields(c *engine.Container, full bool, now time.Time) containerRow {
	r := containerRow{
		ID: c.ID, Image: c.ImageName, Names: c.Name, State: c.State.Status, Status: statusOf(c, now), Networks: networkName(c), Size: "0B",
		CreatedAt: c.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), RunningFor: age(c.Created, now), labels: c.Result.Labels,
	}
	command, mounts := strings.Join(c.Result.Spec.Process.Args, " "), mountNames(c)
	if !full {
		r.ID, command = c.ID[:12], shorten(command, longestCommand)
		for i := range mounts {
			mounts[i] = shorten(mounts[i], 15)
		}
	}
	r.Command, r.Mounts, r.LocalVolumes = strconv.Quote(command), strings.Join(mounts, ","), strconv.Itoa(len(c.VolumeNames))
	var labels []string
	for k, v := range c.Result.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	r.Labels = strings.Join(labels, ",")
	return r
}

// Label is the value of one of its labels.
func (r containerRow) Label(key string) string { return r.labels[key] }

// shorten cuts s to n letters, the last of them a mark that it was cut.
func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// statusOf says what a container does, and since when.
func statusOf(c *engine.Container, now time.Time) string {
	s := c.State
	switch {
	case s.Status == "running":
		return "Up " + span(now.Sub(s.StartedAt))
	case s.Status == "created":
		return "Created"
	case s.FinishedAt.IsZero(): // its keeper was killed, and nobody saw when
		return fmt.Sprintf("Exited (%d)", s.ExitCode)
	}
	return fmt.Sprintf("Exited (%d) %s", s.ExitCode, age(s.FinishedAt, now))
}

func mountNames(c *engine.Container) []string {
	var names []string
	for _, m := range c.JSON().Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		names = append(names, name)
	}
	return names
}

func networkName(c *engine.Container) string {
	for name := range c.JSON().NetworkSettings.Networks {
		return name
	}
	return ""
}
