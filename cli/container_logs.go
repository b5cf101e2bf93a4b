package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/cli/option"
	"kiste/container/logfile"
	"kiste/engine"
)

type logsOptions struct {
	follow, times, details bool
	since, until           time.Time
	tail                   int
}

func logsCommand() *Command {
	o := logsOptions{tail: -1}
	return &Command{
		Name: "logs", Args: "CONTAINER", Min: 1, Max: 1,
		Short: "show what a container has written",
		Long:  `Shows its standard output and error, each on the same of kiste. Times are RFC 3339, a date, seconds since 1970, or how long ago: 10m, 1h30m.`,
		Options: []option.Row{
			{"-f, --follow", "", "go on until it has ended", option.Bool(&o.follow)},
			{"-n, --tail", "LINES", "the last so many, or all", tailVar(&o.tail)},
			{"--since", "TIME", "from then on", option.Moment(&o.since)},
			{"--until", "TIME", "up to then", option.Moment(&o.until)},
			{"-t, --timestamps", "", "with the time of each line", option.Bool(&o.times)},
			{"--details", "", "with what --log-opt labels and env ask for", option.Bool(&o.details)},
		},
		Examples: []string{"kiste logs -f web", "kiste logs --since 10m --tail 100 web"},
		Complete: "container",
		Run:      func(_ context.Context, env *Env, args []string) error { return showLogs(env, args[0], o) },
	}
}

func tailVar(p *int) option.Var {
	return func(s string) error {
		n, err := strconv.Atoi(s)
		if *p = n; err != nil || n < 0 {
			*p = -1 // as Docker has it: what is no number is all
		}
		return nil
	}
}

func showLogs(env *Env, name string, o logsOptions) error {
	e, err := lookIntoStore()
	if err != nil {
		return err
	}
	c, err := e.Find(name)
	if err != nil {
		return err
	}
	if c.State.LogLost != "" {
		fmt.Fprintf(env.Err, "kiste: warning: parts of this log are lost %s\n", c.State.LogLost)
	}
	s := logfile.Selection{Since: o.since, Until: o.until, Tail: o.tail}
	if o.follow {
		s.Follow = func() bool {
			now, err := e.Find(c.ID)
			return err != nil || !engine.IsActive(now.State.Status)
		}
	}
	return e.Logs(c, s, func(l *logfile.Entry) error { return o.show(env, c.Wishes.TTY, l) })
}

// timestamp is Docker's form in logs: nanoseconds are always written.
const timestamp = "2006-01-02T15:04:05.000000000Z07:00"

func (o logsOptions) show(env *Env, tty bool, l *logfile.Entry) error {
	to := env.Out
	if l.Stream == logfile.Stderr && !tty {
		to = env.Err
	}
	var b []byte
	if o.times {
		b = append(l.Time.UTC().AppendFormat(b, timestamp), ' ')
	}
	if o.details {
		var words []string
		for _, k := range slices.Sorted(maps.Keys(l.Attrs)) {
			words = append(words, k+"="+l.Attrs[k])
		}
		b = append(append(b, strings.Join(words, ",")...), ' ')
	}
	b = append(b, l.Line...)
	if !l.Partial {
		b = append(b, '\n')
	}
	_, err := to.Write(b)
	return err
}
