package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/cli/option"
	"kiste/engine"
	"kiste/fault"
	"kiste/store"
)

func volumeCreateCommand() *Command {
	var o engine.VolumeOptions
	var labels, options []string
	var name string
	return &Command{
		Name:  "volume create",
		Args:  "[VOLUME]",
		Short: "make a volume",
		Long: `Makes a volume, and shows its name: without one, it gets one of 64 digits. One that is there stays as it is.

The options of the driver are those of Docker's "local": type=, device= and o=, as mount(8) has them, for what is mounted where a container has the volume, and size= for a limit of what may be written, by a project quota of the file system.`,
		Options: []option.Row{
			{"-d, --driver", "NAME", `"local" is the only one`, option.String(&o.Driver)},
			{"--label", "KEY[=VALUE]", "a label", option.Strings(&labels)},
			{"--name", "NAME", "the name, as the argument", option.String(&name)},
			{"--ignore", "", "one that is there stays as it is, as always", option.Bool(new(bool))},
			{"-o, --opt", "KEY=VALUE", "an option of the driver; see above", option.Strings(&options)},
		},
		Examples: []string{"kiste volume create data", "kiste volume create -o type=tmpfs -o device=tmpfs -o o=size=100m cache", "kiste volume create -o type=none -o device=/srv/data -o o=bind data", "kiste volume create -o type=nfs -o device=:/srv/share -o o=addr=files.example,vers=4 share"},
		Max:      1,
		Run: func(_ context.Context, env *Env, args []string) error {
			switch {
			case len(args) == 1 && name != "":
				return &fault.Error{Op: "create volume", On: name, Kind: fault.Invalid, Err: errors.New("conflicting options: either specify --name or provide positional arg, not both")}
			case len(args) == 1:
				name = args[0]
			}
			o.Name, o.Labels, o.Options = name, pairsOf(labels), pairsOf(options)
			made, err := (&engine.Engine{Store: store.Locate()}).CreateVolume(o)
			if err == nil {
				fmt.Fprintln(env.Out, made)
			}
			return err
		},
	}
}

func pairsOf(words []string) map[string]string {
	if len(words) == 0 {
		return nil
	}
	all := map[string]string{}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		all[key] = value
	}
	return all
}

// volumeRow is a volume as --format names its fields.
type volumeRow struct {
	Availability, Driver, Group, Labels, Links, Mountpoint, Name, Scope, Size, Status string

	labels map[string]string
}

// Label is the value of one label.
func (r volumeRow) Label(key string) string { return r.labels[key] }

func volumeListCommand() *Command {
	var quiet bool
	var format string
	var filters []string
	return &Command{
		Name:  "volume ls",
		Short: "list volumes",
		Long: `Lists all volumes.

With --format each is shown as a template says, in which {{.Name}}, {{.Driver}}, {{.Mountpoint}}, {{.Scope}}, {{.Labels}} and {{.Label "KEY"}} stand for its values; "table {{.Name}}\t{{.Mountpoint}}" makes columns of them, and "json" shows all. Without it the volumesFormat of docker's config.json counts.

Filters: ` + filterNames(volumeFilters) + `.`,
		Options: []option.Row{
			{"-f, --filter", "KEY=VALUE", "list only some; see above", option.Strings(&filters)},
			{"--format", "TEXT", `show each as TEXT says, or "json"`, option.String(&format)},
			{"-q, --quiet", "", "show names only", option.Bool(&quiet)},
		},
		Examples: []string{"kiste volume ls", "kiste volume ls -qf dangling=true"},
		Run: func(_ context.Context, env *Env, _ []string) error {
			e, err := lookIntoStore()
			if err != nil {
				return err
			}
			chosen, err := choose(volumeFilters, e, filters)
			if err != nil {
				return err
			}
			all, bad, err := e.Volumes()
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(v *engine.VolumeInfo) bool { return !chosen.fit(v) })
			if err := showVolumes(env, all, format, quiet); err != nil {
				return err
			}
			return together(bad)
		},
	}
}

func showVolumes(env *Env, all []*engine.VolumeInfo, format string, quiet bool) error {
	if format == "" && !quiet {
		format = userFormat("volumesFormat")
	}
	l := listing{format: format, table: `{{.Driver}}\t{{.Name}}`, row: volumeRow{}, headings: map[string]string{"Name": "VOLUME NAME"}}
	if quiet && format == "" {
		l.format = "{{.Name}}"
	}
	var rows []any
	for _, v := range all {
		rows = append(rows, volumeRow{Availability: "N/A", Driver: "local", Group: "N/A", Labels: labelText(v.Labels), Links: "N/A", Mountpoint: v.Dir,
			Name: v.Name, Scope: "local", Size: "N/A", Status: "N/A", labels: v.Labels})
	}
	return l.print(env, rows)
}

// A volumeTest reports whether a volume is to be listed.
type volumeTest = func(v *engine.VolumeInfo) bool

// volumeFilters are those of "volume ls".
var volumeFilters = []filter[*engine.Engine, *engine.VolumeInfo]{
	{"dangling", "BOOL", func(_ *engine.Engine, v string) (volumeTest, error) {
		want, err := filterBool("dangling", v)
		return func(i *engine.VolumeInfo) bool { return want == (i.Links == 0) }, err
	}},
	{"driver", "NAME", func(_ *engine.Engine, v string) (volumeTest, error) {
		return func(*engine.VolumeInfo) bool { return v == "local" }, nil
	}},
	{"label", "KEY[=VALUE]", func(_ *engine.Engine, v string) (volumeTest, error) {
		return func(i *engine.VolumeInfo) bool { return hasLabel(i.Labels, v) }, nil
	}},
	{"name", "TEXT", func(_ *engine.Engine, v string) (volumeTest, error) {
		return func(i *engine.VolumeInfo) bool { return strings.Contains(i.Name, v) }, nil
	}},
}

// VolumeJSON is a volume as GET /volumes/{name} answers.
type VolumeJSON struct {
	CreatedAt  string
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
}

func volumeJSON(v *engine.VolumeInfo) VolumeJSON {
	return VolumeJSON{v.Created.Format(time.RFC3339), "local", v.Labels, v.Dir, v.Name, v.Options, "local"}
}

func volumeInspectCommand() *Command {
	o := &VolumeInspectOptions{}
	return &Command{
		Name:     "volume inspect",
		Args:     "VOLUME...",
		Short:    "show all about volumes",
		Long:     "Prints a JSON array as Docker does, with an object for each name. One that is not there is left out, and the exit code is 1.",
		Examples: []string{"kiste volume inspect data", "kiste volume inspect -f '{{.Mountpoint}}' data"},
		Options: []option.Row{
			{"-f, --format", "TEMPLATE", `show each as TEMPLATE says, or "json"`, option.String(&o.Format)},
		},
		Min: 1, Max: -1,
		Complete: "volume",
		Run: func(ctx context.Context, env *Env, names []string) error {
			if o.Format != "" && env.Heavy == nil {
				return becomeKisted(env.words)
			}
			if o.Format != "" {
				return env.Heavy["volume inspect"](ctx, env, names, o)
			}
			found, err := o.Objects(names)
			e := json.NewEncoder(env.Out)
			e.SetEscapeHTML(false)
			e.SetIndent("", "    ")
			if bad := e.Encode(found); bad != nil {
				return bad
			}
			return err
		},
	}
}

// VolumeInspectOptions are those of "kiste volume inspect".
type VolumeInspectOptions struct{ Format string }

// Objects finds volumes. With an error, which names the others, it still gives
// what it found; never nil.
func (o *VolumeInspectOptions) Objects(names []string) ([]any, error) {
	found := []any{}
	e, err := lookIntoStore()
	if err != nil {
		return found, err
	}
	var bad []error
	for _, name := range names {
		v, err := e.Volume(name)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		found = append(found, volumeJSON(v))
	}
	if len(bad) == 0 {
		return found, nil
	}
	return found, WithCode(1, together(bad))
}

func volumeRemoveCommand() *Command {
	var force bool
	return &Command{
		Name:     "volume rm",
		Args:     "VOLUME...",
		Short:    "remove volumes",
		Long:     "Removes volumes with all that is in them. One that a container has, also one that does not run, has to be left by it first. With --force one that is not there is no error.",
		Options:  []option.Row{{"-f, --force", "", "one that is not there is no error", option.Bool(&force)}},
		Examples: []string{"kiste volume rm data", "kiste volume rm $(kiste volume ls -qf dangling=true)"},
		Min:      1, Max: -1,
		Complete: "volume",
		Run: func(_ context.Context, env *Env, args []string) error {
			return eachRemoved(env, args, force, (*engine.Engine).RemoveVolume)
		},
	}
}

func volumePruneCommand() *Command {
	o := &PruneOptions{}
	return &Command{
		Name:     "volume prune",
		Short:    "remove volumes that no container has",
		Long:     "Removes the volumes that were made without a name and that no container has; with --all, those with names too.",
		Examples: []string{"kiste volume prune -f", "kiste volume prune -af --filter label!=keep"},
		Options:  o.rows("label=KEY[=VALUE], label!=KEY[=VALUE], all=BOOL", option.Row{"-a, --all", "", "also those with names", option.Bool(&o.All)}),
		Run: func(_ context.Context, env *Env, _ []string) error {
			e, err := lookIntoStore()
			if err != nil {
				return err
			}
			if err := o.takeAll(); err != nil {
				return err
			}
			goes, err := o.Filter()
			if err != nil {
				return err
			}
			which := "anonymous local volumes"
			if o.All {
				which = "all local volumes"
			}
			if !o.Confirmed(env, "WARNING! This will remove "+which+" not used by at least one container.\n") {
				return nil
			}
			names, freed, err := e.PruneVolumes(func(v *engine.VolumeInfo) bool { return (o.All || v.Anonymous()) && goes(v.Created, v.Labels) })
			ShowDeleted(env, "Deleted Volumes:", names)
			ShowReclaimed(env, freed)
			return err
		},
	}
}

// takeAll makes the filter "all", which volumes alone have, the option.
func (o *PruneOptions) takeAll() error {
	var rest []string
	for _, w := range o.filters {
		value, ok := strings.CutPrefix(w, "all=")
		if !ok {
			rest = append(rest, w)
			continue
		}
		all, err := strconv.ParseBool(value)
		if err != nil {
			return badFilter(w, fmt.Sprintf("invalid filter 'all=[%s]'", value), "all=true")
		}
		o.All = o.All || all
	}
	o.filters = rest
	return nil
}

// VolumeExportOptions are those of "kiste volume export".
type VolumeExportOptions struct{ Output string }

func volumeExportCommand() *Command {
	o := &VolumeExportOptions{}
	return &Command{
		Name:     "volume export",
		Args:     "VOLUME",
		Short:    "write what is in a volume as a tar",
		Options:  []option.Row{{"-o, --output", "FILE", "write to FILE, in place of standard output", option.String(&o.Output)}},
		Examples: []string{"kiste volume export -o data.tar data"},
		Min:      1, Max: 1,
		Complete: "volume",
		Heavy:    "volume export", HeavyOptions: o,
	}
}

func volumeImportCommand() *Command {
	return &Command{
		Name:     "volume import",
		Args:     "VOLUME [FILE|-]",
		Short:    "unpack a tar into a volume",
		Long:     "Unpacks a tar, plain or compressed, into a volume that is there. What is in the volume stays where the tar does not replace it.",
		Examples: []string{"kiste volume import data data.tar", "kiste volume export old | kiste volume import new -"},
		Min:      1, Max: 2,
		Complete: "volume",
		Heavy:    "volume import",
	}
}
