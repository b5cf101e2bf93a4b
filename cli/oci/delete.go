package oci

import (
	"kiste/cli/option"
	"kiste/container/lifecycle"
	"kiste/kernel/cgroup"
)

func deleteVerb() *verb {
	var force, pattern bool
	return &verb{
		name: "delete", args: oneContainer, min: 1, max: 1,
		short: "remove a container that has ended, or was not started",
		options: []option.Row{
			{"-f, --force", "", "kill it first; one that is not there is no error", option.Bool(&force)},
			{"-r, --regex", "", patternHelp, option.Bool(&pattern)},
		},
		examples: []string{"delete web", "delete --force web"},
		run: func(s *session, args []string) error {
			cgroup.Hold()
			if pattern {
				return s.each(args[0], true, func(c *lifecycle.Container) error { return c.Delete(force) })
			}
			return s.containers().Delete(args[0], force)
		},
	}
}
