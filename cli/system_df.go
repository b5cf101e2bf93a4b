package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"kiste/cli/option"
	"kiste/engine"
)

type dfOptions struct {
	verbose bool
	format  string
}

func systemDfCommand() *Command {
	var o dfOptions
	return &Command{
		Name:  "system df",
		Short: "show what images, containers and volumes take on the disk",
		Long: `Shows how much there is, how much of it is in use, and how much "kiste system prune -a --volumes" would free. Layers that images share are counted once.

With --format each line is shown as a template says, in which {{.Type}}, {{.TotalCount}}, {{.Active}}, {{.Size}} and {{.Reclaimable}} stand for its values; with --verbose the template gets all at once: {{range .Images}}, {{range .Containers}}, {{range .Volumes}}.`,
		Examples: []string{"kiste system df", "kiste system df -v"},
		Options: []option.Row{
			{"-v, --verbose", "", "show each image, container and volume", option.Bool(&o.verbose)},
			{"--format", "TEXT", `show it as TEXT says, or "json"`, option.String(&o.format)},
		},
		Run: func(_ context.Context, env *Env, _ []string) error {
			e, err := lookIntoStore()
			if err != nil {
				return err
			}
			u, bad, err := e.Usage()
			if err != nil {
				return err
			}
			if o.verbose {
				err = showUsage(env, &u, o.format)
			} else {
				err = showTotals(env, &u, o.format)
			}
			if err != nil {
				return err
			}
			return together(bad)
		},
	}
}

// totalRow is a line of docker system df.
type totalRow struct{ Active, Reclaimable, Size, TotalCount, Type string }

func showTotals(env *Env, u *engine.Usage, format string) error {
	l := listing{format: format, table: `{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}`, row: totalRow{}, headings: map[string]string{"TotalCount": "TOTAL"}}
	return l.print(env, []any{imageTotal(u), containerTotal(u), volumeTotal(u), total("Build Cache", 0, 0, 0, 0)})
}

func total(kind string, count, active int, size, idle int64) totalRow {
	r := totalRow{Type: kind, TotalCount: strconv.Itoa(count), Active: strconv.Itoa(active), Size: FreedSize(size), Reclaimable: FreedSize(idle)}
	if size > 0 {
		r.Reclaimable += fmt.Sprintf(" (%d%%)", idle*100/size)
	}
	return r
}

func imageTotal(u *engine.Usage) totalRow {
	active := 0
	for _, i := range u.Images {
		if i.Containers > 0 {
			active++
		}
	}
	return total("Images", len(u.Images), active, u.Layers, u.Idle)
}

func containerTotal(u *engine.Usage) totalRow {
	active := 0
	var size, idle int64
	for _, c := range u.Containers {
		size += c.Written
		if isUp(c.Container) {
			active++
		} else {
			idle += c.Written
		}
	}
	return total("Containers", len(u.Containers), active, size, idle)
}

func volumeTotal(u *engine.Usage) totalRow {
	active := 0
	var size, idle int64
	for _, v := range u.Volumes {
		size += v.Size
		if v.Links > 0 {
			active++
		} else {
			idle += v.Size
		}
	}
	return total("Local Volumes", len(u.Volumes), active, size, idle)
}

// volumeUsageRow is a volume in docker system df -v.
type volumeUsageRow struct{ Driver, Labels, Links, Mountpoint, Name, Scope, Size string }

// usageRows are all of docker system df -v.
type usageRows struct{ Images, Containers, Volumes, BuildCache []any }

func rowsOf(u *engine.Usage, full bool, now time.Time) usageRows {
	r := usageRows{[]any{}, []any{}, []any{}, []any{}}
	for _, i := range u.Images {
		row := imageFields(i.Entry, full)
		row.Containers, row.SharedSize, row.UniqueSize = strconv.Itoa(i.Containers), FreedSize(i.Shared), FreedSize(i.Size-i.Shared)
		r.Images = append(r.Images, row)
	}
	for _, c := range u.Containers {
		row := containerFields(c.Container, full, now)
		row.Size = FreedSize(c.Written)
		r.Containers = append(r.Containers, row)
	}
	for _, v := range u.Volumes {
		r.Volumes = append(r.Volumes, volumeUsageRow{"local", labelText(v.Labels), strconv.Itoa(v.Links), v.Dir, v.Name, "local", FreedSize(v.Size)})
	}
	return r
}

func showUsage(env *Env, u *engine.Usage, format string) error {
	if format != "" && format != "table" {
		return env.show(format, rowsOf(u, true, time.Now()))
	}
	r := rowsOf(u, false, time.Now())
	for _, part := range []struct {
		title string
		rows  []any
		listing
	}{
		{"Images space usage:", r.Images, listing{row: imageRow{}, headings: map[string]string{"ID": "IMAGE ID", "CreatedSince": "CREATED"},
			table: `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}`}},
		{"\nContainers space usage:", r.Containers, listing{row: containerRow{}, headings: map[string]string{"ID": "CONTAINER ID", "RunningFor": "CREATED"},
			table: `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}`}},
		{"\nLocal Volumes space usage:", r.Volumes, listing{row: volumeUsageRow{}, headings: map[string]string{"Name": "VOLUME NAME"}, table: `{{.Name}}\t{{.Links}}\t{{.Size}}`}},
	} {
		fmt.Fprintf(env.Out, "%s\n\n", part.title)
		if err := part.print(env, part.rows); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(env.Out, "\nBuild cache usage: 0B")
	return err
}
