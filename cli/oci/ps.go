package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"kiste/cli/option"
	"kiste/fault"
	"kiste/internal/sys"
)

func psVerb() *verb {
	var format string
	return &verb{
		name: "ps", args: "CONTAINER [PS-OPTION...]", min: 1, max: -1, rest: true,
		short: "list the processes of a container",
		long: `The host's ps is asked, with the options given or with -ef, and what it says of
other processes is left out. --format json prints the numbers alone.`,
		options:  []option.Row{{"-f, --format", "table|json", "of what is printed", formatVar(&format)}},
		examples: []string{"ps web", "ps web -o pid,args", "ps --format json web"},
		run: func(s *session, args []string) error {
			c, err := s.containers().Load(args[0])
			if err != nil {
				return err
			}
			pids, err := c.Processes()
			if err != nil {
				return err
			}
			if format == "json" {
				b, err := json.Marshal(pids)
				if err != nil {
					return err
				}
				return s.print(string(b) + "\n")
			}
			text, err := askPS(args[1:])
			if err != nil {
				return err
			}
			if text, err = onlyPIDs(text, pids); err != nil {
				return err
			}
			return s.print(text)
		},
	}
}

func askPS(options []string) (string, error) {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	sys.Timely()
	out, err := exec.Command("ps", options...).CombinedOutput()
	if err != nil {
		return "", &fault.Error{Op: "run ps", Err: fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))}
	}
	return string(out), nil
}

// onlyPIDs keeps the heading of what ps printed, and the lines of pids.
func onlyPIDs(text string, pids []int) (string, error) {
	heading, rest, _ := strings.Cut(text, "\n")
	column := slices.Index(strings.Fields(heading), "PID")
	if column < 0 {
		return "", &fault.Error{Op: "read what ps printed", Kind: fault.Invalid, Err: errors.New("couldn't find PID field in ps output"),
			Hint: "choose columns with PID among them: -o pid,args"}
	}
	var b strings.Builder
	b.WriteString(heading + "\n")
	for line := range strings.Lines(rest) {
		f := strings.Fields(line)
		if len(f) <= column {
			continue
		}
		pid, err := strconv.Atoi(f[column])
		if err != nil {
			return "", &fault.Error{Op: "read what ps printed", Kind: fault.Invalid, Err: fmt.Errorf("unable to parse pid: %w", err)}
		}
		if slices.Contains(pids, pid) {
			b.WriteString(line)
		}
	}
	return b.String(), nil
}
