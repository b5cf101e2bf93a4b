package cli

import (
	"context"

	"kiste/engine"
)

// fillCommand is what an engine of an ordinary user calls in a user namespace.
func fillCommand() *Command {
	return &Command{
		Name:   engine.FillCommand,
		Args:   "DIR PATH LASTING LAYER...",
		Short:  "fill a volume from an image",
		Hidden: true,
		Raw:    true,
		Run:    func(_ context.Context, _ *Env, args []string) error { return engine.Fill(args) },
	}
}

// ownCommand is what an engine of an ordinary user calls in a user namespace.
func ownCommand() *Command {
	return &Command{
		Name:   engine.OwnCommand,
		Args:   "DIR BELOW UID GID",
		Short:  "give the files of a volume to somebody",
		Hidden: true,
		Raw:    true,
		Run:    func(_ context.Context, _ *Env, args []string) error { return engine.Own(args) },
	}
}

// labelCommand is what an engine of an ordinary user calls in a user namespace.
func labelCommand() *Command {
	return &Command{
		Name:   engine.LabelCommand,
		Args:   "DIR BELOW LABEL",
		Short:  "label the files of a volume for SELinux",
		Hidden: true,
		Raw:    true,
		Run:    func(_ context.Context, _ *Env, args []string) error { return engine.Label(args) },
	}
}
