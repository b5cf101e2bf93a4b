package cli

import "kiste/engine"

// userStackCommand is the network of an ordinary user's container. The engine
// starts it.
func userStackCommand() *Command {
	return &Command{
		Name:   engine.UserStackCommand,
		Args:   "CONFIG",
		Short:  "be the network of an ordinary user's container",
		Hidden: true,
		Raw:    true,
		Heavy:  "userstack",
	}
}
