package oci

import (
	"errors"
	"strconv"
	"syscall"

	"kiste/cli/option"
	"kiste/container/bundle"
	"kiste/container/lifecycle"
	"kiste/fault"
)

func killVerb() *verb {
	var all, pattern bool
	return &verb{
		name: "kill", args: "CONTAINER [SIGNAL]", min: 1, max: 2,
		short: "send a signal to a container's first process",
		long:  "SIGNAL is a name, with or without SIG, or a number; SIGTERM without one. KILL ends all processes of the container.",
		options: []option.Row{
			{"-a, --all", "", "send it to every process; one that has ended is no error", option.Bool(&all)},
			{"-r, --regex", "", patternHelp, option.Bool(&pattern)},
		},
		examples: []string{"kill web", "kill web HUP", "kill --regex 'job-[0-9]+' KILL"},
		run: func(s *session, args []string) error {
			signal := syscall.SIGTERM
			if len(args) > 1 {
				var err error
				if signal, err = parseSignal(args[1]); err != nil {
					return err
				}
			}
			return s.each(args[0], pattern, func(c *lifecycle.Container) error {
				err := c.Kill(signal, all)
				if all && errors.Is(err, fault.Conflict) {
					return nil // it has ended
				}
				return err
			})
		},
	}
}

// parseSignal takes any number, which the kernel judges, and names.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return syscall.Signal(n), nil
	}
	n, err := bundle.SignalNumber(s)
	if err != nil {
		return 0, &fault.Error{Op: "find signal", On: s, Kind: fault.Invalid, Err: errors.New("unknown signal " + strconv.Quote(s))}
	}
	return syscall.Signal(n), nil
}

const patternHelp = "CONTAINER is a regular expression (regex(7)): all that match"

// each does something to the container called name, or with pattern to each
// whose id matches it. One that has gone meanwhile is no error then.
func (s *session) each(name string, pattern bool, do func(*lifecycle.Container) error) error {
	if !pattern {
		c, err := s.containers().Load(name)
		if err != nil {
			return err
		}
		return do(c)
	}
	p, err := compilePattern(name)
	if err != nil {
		return err
	}
	all, bad, err := s.containers().List()
	if err != nil {
		return err
	}
	for _, c := range all {
		if !p.matches(c.ID()) {
			continue
		}
		if err := do(c); err != nil && !errors.Is(err, fault.NotFound) {
			bad = append(bad, err)
		}
	}
	return errors.Join(bad...)
}
