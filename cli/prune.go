package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/cli/option"
	"kiste/engine"
	"kiste/engine/event"
	"kiste/fault"
)

// PruneOptions are those of the prunes.
type PruneOptions struct {
	All     bool // every image that no container was made of
	Volumes bool // of the system: anonymous volumes, too
	force   bool
	filters []string
}

func (o *PruneOptions) rows(filters string, all ...option.Row) []option.Row {
	return append(all,
		option.Row{"--filter", "KEY=VALUE", "remove only some: " + filters, option.Strings(&o.filters)},
		option.Row{"-f, --force", "", "do not ask", option.Bool(&o.force)})
}

const pruneFilters = "until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]"

func containerPruneCommand() *Command {
	o := &PruneOptions{}
	return &Command{
		Name:     "container prune",
		Short:    "remove all containers that do not run",
		Examples: []string{"kiste container prune -f --filter until=24h"},
		Options:  o.rows(pruneFilters),
		Run: func(_ context.Context, env *Env, _ []string) error {
			e, err := lookIntoStore()
			if err != nil {
				return err
			}
			goes, err := o.Filter()
			if err != nil {
				return err
			}
			if !o.Confirmed(env, "WARNING! This will remove all stopped containers.\n") {
				return nil
			}
			freed, err := PruneContainers(env, e, goes)
			ShowReclaimed(env, freed)
			return err
		},
	}
}

func imagePruneCommand() *Command {
	o := &PruneOptions{}
	return &Command{
		Name:     "image prune",
		Short:    "remove images that nobody uses",
		Long:     "Removes images without a name of which there is no container, and frees the space that nothing needs any more; with --all every image of which there is no container.",
		Examples: []string{"kiste image prune -f", "kiste image prune -a --filter until=240h"},
		Options:  o.rows(pruneFilters+", dangling=BOOL", option.Row{"-a, --all", "", "also those with names", option.Bool(&o.All)}),
		Heavy:    "image prune", HeavyOptions: o,
	}
}

func systemPruneCommand() *Command {
	o := &PruneOptions{}
	return &Command{
		Name:     "system prune",
		Short:    "remove containers, networks, images and volumes that nobody uses",
		Long:     "Removes all containers that do not run, networks of no container, then images without a name; with --all every image of which there is no container, and with --volumes anonymous volumes of no container.",
		Examples: []string{"kiste system prune -f", "kiste system prune -af --volumes"},
		Options: o.rows(pruneFilters, option.Row{"-a, --all", "", "also images with names", option.Bool(&o.All)},
			option.Row{"--volumes", "", "also anonymous volumes", option.Bool(&o.Volumes)}),
		Heavy: "system prune", HeavyOptions: o,
	}
}

// A Goes reports whether something made at a time, with labels, is to be
// removed.
type Goes func(created time.Time, labels map[string]string) bool

// Filter is what the filters choose. Dangling=false, of images, is All.
func (o *PruneOptions) Filter() (Goes, error) {
	var until time.Time
	var with, without []string
	for _, w := range o.filters {
		key, value, ok := strings.Cut(w, "=")
		var err error
		switch {
		case !ok:
			return nil, badFilter(w, "bad format of filter (expected name=value)", pruneFilters)
		case key == "until" && !until.IsZero():
			err = errors.New("more than one until filter specified")
		case key == "until":
			if until, err = option.ParseMoment(value, time.Now()); err != nil {
				err = fmt.Errorf("failed to parse value as time or duration: %q", value)
			}
		case key == "label":
			with = append(with, value)
		case key == "label!":
			without = append(without, value)
		case key == "dangling":
			var dangling bool
			if dangling, err = strconv.ParseBool(value); err == nil {
				o.All = o.All || !dangling
			}
		default:
			err = errors.New("invalid filter '" + key + "'")
		}
		if err != nil {
			return nil, badFilter(w, err.Error(), pruneFilters)
		}
	}
	return func(created time.Time, labels map[string]string) bool {
		has := func(l string) bool { return hasLabel(labels, l) }
		lacks := func(l string) bool { return !has(l) }
		return (until.IsZero() || created.Before(until)) && !slices.ContainsFunc(with, lacks) && (len(without) == 0 || slices.ContainsFunc(without, lacks))
	}, nil
}

// SystemWarning says what "system prune" is about to do, in Docker's words.
func (o *PruneOptions) SystemWarning() string {
	lines := []string{"WARNING! This will remove:", "  - all stopped containers", "  - all networks not used by at least one container"}
	if o.Volumes {
		lines = append(lines, "  - all anonymous volumes not used by at least one container")
	}
	if o.All {
		lines = append(lines, "  - all images without at least one container associated to them")
	} else {
		lines = append(lines, "  - all dangling images")
	}
	if len(o.filters) > 0 {
		lines = append(lines, "", "  Items to be pruned will be filtered with:")
		for _, f := range slices.Sorted(slices.Values(o.filters)) {
			lines = append(lines, "  - "+f)
		}
	}
	return strings.Join(lines, "\n") + "\n\n"
}

// Confirmed asks the user, unless --force was given.
func (o *PruneOptions) Confirmed(env *Env, warning string) bool {
	if o.force {
		return true
	}
	fmt.Fprint(env.Out, warning+"Are you sure you want to continue? [y/N] ")
	answer := strings.ToLower(strings.TrimSpace(readLine(env.In)))
	return answer == "y"
}

// readLine reads a line and nothing behind it; of a long one, its beginning.
func readLine(r io.Reader) string {
	var line []byte
	for b := make([]byte, 1); len(line) < 1024; line = append(line, b[0]) {
		if n, err := r.Read(b); n == 0 && err != nil || n > 0 && b[0] == '\n' {
			break
		}
	}
	return string(line)
}

// PruneContainers removes the containers that do not run, tells which, and
// gives the number of bytes that were freed.
func PruneContainers(env *Env, e *engine.Engine, goes Goes) (int64, error) {
	ids, freed, err := e.Prune(func(c *engine.Container) bool { return goes(c.Created, c.Result.Labels) })
	ShowDeleted(env, "Deleted Containers:", ids)
	event.OfPrune(e.Store, event.Container, freed)
	if err != nil {
		err = &fault.Error{Op: "prune containers", Err: err}
	}
	return freed, err
}

// ShowDeleted lists what was removed; nothing for nothing.
func ShowDeleted(env *Env, heading string, lines []string) {
	if len(lines) > 0 {
		fmt.Fprintf(env.Out, "%s\n%s\n\n", heading, strings.Join(lines, "\n"))
	}
}

// ShowReclaimed is the last line of a prune.
func ShowReclaimed(env *Env, freed int64) {
	fmt.Fprintf(env.Out, "Total reclaimed space: %s\n", FreedSize(freed))
}
