package oci

import "kiste/container/lifecycle"

func pauseVerb() *verb {
	return freezer("pause", "freeze all processes of a container", (*lifecycle.Container).Pause)
}

func resumeVerb() *verb {
	return freezer("resume", "let a container's frozen processes go on", (*lifecycle.Container).Resume)
}

func freezer(name, short string, do func(*lifecycle.Container) error) *verb {
	return &verb{
		name: name, args: oneContainer, min: 1, max: 1, short: short,
		run: func(s *session, args []string) error {
			c, err := s.containers().Load(args[0])
			if err != nil {
				return err
			}
			return do(c)
		},
	}
}
