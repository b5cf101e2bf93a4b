package oci

import (
	"kiste/cli/option"
	"kiste/container/lifecycle"
)

const bundleText = `The bundle is a directory with the file config.json, which says what the
container is (see "kiste-runtime spec"), and a root file system. CONTAINER is a
name for it, of letters, digits and "_+-.", which no other container here has.`

// making collects what create and run have in common.
type making struct {
	o           lifecycle.CreateOptions
	detach      bool
	keep        bool
	noSubreaper bool
	saved       *lifecycle.CheckpointOptions // of a restore
}

func (m *making) options() []option.Row {
	return []option.Row{
		{"-b, --bundle", "DIR", "the bundle; else the working directory", option.String(&m.o.Bundle)},
		{"--console-socket", "SOCKET", "send the master of the container's terminal there", path(&m.o.ConsoleSocket)},
		{"--pidfd-socket", "SOCKET", "send a pidfd of the container's first process there", path(&m.o.PidfdSocket)},
		{"--pid-file", "FILE", "write the number of the container's first process there", path(&m.o.PidFile)},
		{"--no-pivot", "", "for a root on an initramfs, which cannot be pivoted", option.Bool(&m.o.NoPivot)},
		{"--no-new-keyring", "", "stay in the caller's session keyring", option.Bool(&m.o.NoNewKeyring)},
		{"--preserve-fds", "N", "pass so many descriptors on, after 0, 1, 2 and those of $LISTEN_FDS", count(&m.o.PreserveFDs)},
	}
}

func createVerb() *verb {
	m := &making{}
	return &verb{
		name: "create", args: oneContainer, min: 1, max: 1,
		short:    "create a container, which waits for \"start\"",
		long:     bundleText,
		options:  append(m.options(), option.Row{"--no-subreaper", "", "of no effect: nobody stays to reap", option.Bool(&m.noSubreaper)}),
		examples: []string{"create --bundle web --pid-file web.pid web"},
		run: func(s *session, args []string) error {
			m.detach = true
			if _, err := s.prepare(m); err != nil {
				return err
			}
			_, err := s.containers().Create(args[0], m.o)
			return err
		},
	}
}
