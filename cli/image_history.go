package cli

import (
	"context"
	"strconv"
	"time"

	"kiste/cli/option"
	"kiste/engine"
)

type historyOptions struct {
	human, noTrunc, quiet bool
	format                string
}

func historyCommand() *Command {
	o := historyOptions{human: true}
	return &Command{
		Name:  "history",
		Args:  "IMAGE",
		Short: "show how an image was made",
		Long: `Lists the instructions that made the image, the last one first, and how much each has added.

With --format each is shown as a template says, in which {{.ID}}, {{.CreatedAt}}, {{.CreatedSince}}, {{.CreatedBy}}, {{.Size}} and {{.Comment}} stand for its values.`,
		Examples: []string{"kiste history debian:12", "kiste history --no-trunc --format '{{.CreatedBy}}' debian:12"},
		Options: []option.Row{
			{"--format", "TEXT", `show each as TEXT says, or "json"`, option.String(&o.format)},
			{"-H, --human", "", "show sizes and times as people read them; the default", option.Bool(&o.human)},
			{"--no-trunc", "", "show everything in full", option.Bool(&o.noTrunc)},
			{"-q, --quiet", "", "show IDs only", option.Bool(&o.quiet)},
		},
		Min: 1, Max: 1,
		Complete: "image",
		Run: func(_ context.Context, env *Env, args []string) error {
			e, err := lookIntoStore()
			if err != nil {
				return err
			}
			id, steps, err := e.History(args[0])
			if err != nil {
				return err
			}
			return showHistory(env, id, steps, o)
		},
	}
}

// historyRow is a step in Docker's words.
type historyRow struct{ Comment, CreatedAt, CreatedBy, CreatedSince, ID, Size string }

// longestCreatedBy is how much of an instruction Docker shows.
const longestCreatedBy = 45

func showHistory(env *Env, id string, steps []engine.Step, o historyOptions) error {
	l := listing{format: o.format, table: `{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`, row: historyRow{},
		headings: map[string]string{"ID": "IMAGE", "CreatedSince": "CREATED"}}
	if o.quiet && (o.format == "" || o.format == "table") {
		l.format = "{{.ID}}"
	}
	var rows []any
	for i, s := range steps {
		r := historyRow{Comment: s.Comment, CreatedAt: s.Created.Format(time.RFC3339), CreatedBy: s.By, CreatedSince: age(s.Created, time.Now()), ID: "<missing>", Size: DecimalSize(s.Size)}
		if i == 0 {
			r.ID = id
		}
		if !o.human {
			r.CreatedSince, r.Size = r.CreatedAt, strconv.FormatInt(s.Size, 10)
		}
		if !o.noTrunc {
			r.CreatedBy = shorten(r.CreatedBy, longestCreatedBy)
			if i == 0 {
				r.ID = shortID(id)
			}
		}
		rows = append(rows, r)
	}
	return l.print(env, rows)
}
