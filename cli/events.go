package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"kiste/cli/option"
	"kiste/engine/event"
)

// EventsOptions are those of "kiste events".
type EventsOptions struct {
	Span    event.Span
	Filter  event.Filter
	Format  string
	filters []string
}

func eventsCommand() *Command {
	o := &EventsOptions{Filter: event.Filter{}}
	return &Command{
		Name:  "events",
		Short: "show what happens to containers, images and volumes",
		Long: `Shows events as they come, until it is interrupted; with --since or --until also those of the past.

A time is how long ago (10m), a date with as much of a time as there is (2026-01-02T15:04), or seconds since 1970. Filters: ` + strings.Join(event.Keys(), ", ") + `; one of those with the same key has to fit, but all labels.

With --format each is shown as a template says, in which {{.Type}}, {{.Action}}, {{.Actor.ID}}, {{.Actor.Attributes}}, {{.Time}} and {{.TimeNano}} stand for its values; "json" shows all.`,
		Examples: []string{"kiste events --since 1h --until 0s", "kiste events --filter type=container --filter event=die --format '{{.Actor.Attributes.name}}'"},
		Options: []option.Row{
			{"--since", "TIME", "show those since TIME, too", option.Moment(&o.Span.Since)},
			{"--until", "TIME", "end at TIME", option.Moment(&o.Span.Until)},
			{"-f, --filter", "KEY=VALUE", "show only some", option.Strings(&o.filters)},
			{"--format", "TEXT", `show each as TEXT says, or "json"`, option.String(&o.Format)},
		},
		Run: func(ctx context.Context, env *Env, _ []string) error {
			for _, f := range o.filters {
				if err := o.Filter.Add(f); err != nil {
					return err
				}
			}
			return o.run(ctx, env)
		},
	}
}

func (o *EventsOptions) run(ctx context.Context, env *Env) error {
	e, err := lookIntoStore()
	if err != nil {
		return err
	}
	show, err := o.line(env)
	if err == errNotPlain {
		return becomeKisted(env.words)
	}
	if err != nil {
		return err
	}
	return event.Listen(ctx, e.Store, o.Span, func(ev event.Event) error {
		if !o.Filter.Fits(ev) {
			return nil
		}
		return show(env.Out, ev)
	})
}

// line is how an event is written, in one write(2): more than one may listen
// into one file.
func (o *EventsOptions) line(env *Env) (func(w io.Writer, v any) error, error) {
	switch o.Format {
	case "":
		return func(w io.Writer, v any) error {
			_, err := io.WriteString(w, eventLine(v.(event.Event))+"\n")
			return err
		}, nil
	case "json", "{{json .}}":
		return func(w io.Writer, v any) error {
			b, err := json.Marshal(v)
			if err == nil {
				_, err = fmt.Fprintf(w, "%s\n", b)
			}
			return err
		}, nil
	}
	return env.template(o.Format)
}

// eventLine is an event as Docker prints it.
func eventLine(e event.Event) string {
	line := time.Unix(0, e.TimeNano).Format("2006-01-02T15:04:05.000000000Z07:00") + " " + e.Type + " " + e.Action + " " + e.Actor.ID
	var all []string
	for _, key := range slices.Sorted(maps.Keys(e.Actor.Attributes)) {
		all = append(all, key+"="+e.Actor.Attributes[key])
	}
	if len(all) > 0 {
		line += " (" + strings.Join(all, ", ") + ")"
	}
	return line
}
