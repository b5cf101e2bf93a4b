package oci

func startVerb() *verb {
	return &verb{
		name: "start", args: oneContainer, min: 1, max: 1,
		short:    "let the program of a created container begin",
		examples: []string{"start web"},
		run: func(s *session, args []string) error {
			c, err := s.containers().Load(args[0])
			if err != nil {
				return err
			}
			n, err := s.hearing(c)
			if err != nil {
				return err
			}
			if err := c.Start(); err != nil {
				return err
			}
			return n.passOnFor(c)
		},
	}
}
