package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kiste/cli/option"
	"kiste/engine"
	"kiste/fault"
	"kiste/internal/sys"
)

type statsOptions struct {
	all, once, full bool
	format          string
}

func statsCommand() *Command {
	var o statsOptions
	return &Command{
		Name: "stats", Args: "[CONTAINER...]", Max: -1,
		Short: "show what containers use, as it changes",
		Long: `Shows those that run, or those that are named, every second until it is interrupted. CPU is of one processor: 200% are two. Memory is without file pages that the kernel could drop at once.

With --format each is shown as a template says, in which {{.Container}}, {{.ID}}, {{.Name}}, {{.CPUPerc}}, {{.MemUsage}}, {{.MemPerc}}, {{.NetIO}}, {{.BlockIO}} and {{.PIDs}} stand for its values; "table {{.Name}}\t{{.CPUPerc}}" makes columns of them, and "json" shows all. Without it the statsFormat of docker's config.json counts.`,
		Options: []option.Row{
			{"-a, --all", "", "also those that do not run", option.Bool(&o.all)},
			{"--format", "TEXT", `show each as TEXT says, or "json"`, option.String(&o.format)},
			{"--no-stream", "", "show them once", option.Bool(&o.once)},
			{"--no-trunc", "", "show IDs in full", option.Bool(&o.full)},
		},
		Examples: []string{"kiste stats", "kiste stats --no-stream --format '{{.Name}} {{.MemUsage}}' web db"},
		Complete: "container",
		Run:      func(ctx context.Context, env *Env, args []string) error { return showStats(ctx, env, args, o) },
	}
}

// Between two looks at what containers use: what is shown first comes sooner.
const (
	firstLook = 500 * time.Millisecond
	nextLook  = time.Second
)

func showStats(ctx context.Context, env *Env, names []string, o statsOptions) error {
	e, err := lookIntoStore()
	if err != nil {
		return err
	}
	if o.format == "" {
		o.format = userFormat("statsFormat")
	}
	if env.lacks(o.format) {
		return becomeKisted(env.words)
	}
	w := watch{e: e, o: o, names: names, before: map[string]*engine.Sample{}}
	if _, err := w.look(); err != nil {
		return err
	}
	for wait := firstLook; ; wait = nextLook {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		rows, err := w.look()
		if err == nil {
			err = w.show(env, rows)
		}
		if err != nil || o.once || w.over() {
			return err
		}
	}
}

// A watch looks at containers again and again.
type watch struct {
	e      *engine.Engine
	o      statsOptions
	names  []string // nil: whoever runs
	asked  bool     // names were given
	looked bool
	shown  bool
	before map[string]*engine.Sample // by container and start
}

// over reports whether all that were named are gone.
func (w *watch) over() bool { return w.asked && len(w.names) == 0 }

// A watched container has the name by which it was asked for.
type watched struct {
	*engine.Container
	by string
}

// containers are those to show. Who was named and is removed is forgotten.
func (w *watch) containers() (some []watched, err error) {
	w.asked = w.asked || len(w.names) > 0
	if !w.asked {
		all, bad, err := w.e.Brief()
		for _, c := range all {
			if w.o.all || isUp(c) {
				some = append(some, watched{c, w.id(c)})
			}
		}
		if !w.looked {
			err = errors.Join(append(bad, err)...)
		}
		return some, err
	}
	var left []string
	for _, name := range w.names {
		c, err := w.e.Find(name)
		switch {
		case err == nil:
			some, left = append(some, watched{c, name}), append(left, name)
		case !w.looked || !errors.Is(err, fault.NotFound):
			return nil, err
		}
	}
	w.names = left
	return some, nil
}

func (w *watch) id(c *engine.Container) string {
	if w.o.full {
		return c.ID
	}
	return c.ID[:12]
}

// look makes a row of every container, by what it has used since the last look.
func (w *watch) look() (rows []any, err error) {
	some, err := w.containers()
	w.looked = true
	now := map[string]*engine.Sample{}
	for _, c := range some {
		key := c.ID + strconv.Itoa(c.State.PID)
		s := w.e.Sample(c.Container)
		now[key] = s
		r := statsOf(c.Container, s, w.before[key])
		r.Container, r.ID = c.by, w.id(c.Container)
		rows = append(rows, r)
	}
	w.before = now
	return rows, err
}

// statsRow is what a container uses in Docker's words.
type statsRow struct {
	BlockIO, CPUPerc, Container, ID, MemPerc, MemUsage, Name, NetIO, PIDs string
}

// statsOf makes a row. One that does not run uses nothing; of one that nobody
// accounts for, nothing is known.
func statsOf(c *engine.Container, s, before *engine.Sample) statsRow {
	r := statsRow{Name: c.Name, CPUPerc: "0.00%", MemPerc: "0.00%", MemUsage: "0B / 0B", NetIO: "0B / 0B", BlockIO: "0B / 0B", PIDs: "0"}
	if s == nil && isUp(c) {
		return statsRow{Name: c.Name, CPUPerc: "--", MemPerc: "--", MemUsage: "-- / --", NetIO: "--", BlockIO: "--", PIDs: "--"}
	}
	if s == nil {
		return r
	}
	r.CPUPerc = fmt.Sprintf("%.2f%%", 100*s.CPU(c, before))
	if m, limit := s.Memory, s.MemoryLimit(); m != nil && limit > 0 {
		r.MemUsage = binarySize(m.Used()) + " / " + binarySize(limit)
		r.MemPerc = fmt.Sprintf("%.2f%%", 100*float64(m.Used())/float64(limit))
	}
	r.NetIO = DecimalSize(int64(s.Received)) + " / " + DecimalSize(int64(s.Sent))
	if io := s.IO; io != nil {
		r.BlockIO = DecimalSize(io.ReadBytes) + " / " + DecimalSize(io.WriteBytes)
	}
	if p := s.Pids; p != nil {
		r.PIDs = strconv.FormatInt(p.Current, 10)
	}
	return r
}

// What a terminal does: clear all, go to the first line, clear what is right of
// and below the cursor.
const (
	clearScreen = "\x1b[2J"
	firstLine   = "\x1b[H"
	clearRight  = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// show shows rows: on a terminal in the place of those before, in one write.
func (w *watch) show(env *Env, rows []any) error {
	l := listing{format: w.o.format, row: statsRow{}, table: `{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}`,
		headings: map[string]string{"ID": "CONTAINER ID", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS"}}
	if w.o.once || !sys.IsTerminal(env.Stdout) {
		return l.print(env, rows)
	}
	var page bytes.Buffer
	paper := *env
	paper.Out = &page
	if err := l.print(&paper, rows); err != nil {
		return err
	}
	start := firstLine
	if !w.shown {
		start = clearScreen + firstLine
	}
	w.shown = true
	_, err := fmt.Fprint(env.Out, start, strings.ReplaceAll(page.String(), "\n", clearRight+"\n"), clearBelow)
	return err
}
