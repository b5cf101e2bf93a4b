package oci

import (
	"encoding/json"

	"kiste/cli/option"
	"kiste/cli/ps"
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
			text, err := ps.Ask(args[1:])
			if err != nil {
				return err
			}
			if text, err = ps.Only(text, pids); err != nil {
				return err
			}
			return s.print(text)
		},
	}
}
