package cli

import (
	"context"
	"strconv"

	"kiste/cli/option"
	"kiste/container/bundle"
	"kiste/store"
)

func networkConnectCommand() *Command {
	var w bundle.NetworkWish
	var options []string
	return &Command{
		Name:  "network connect",
		Args:  "NETWORK CONTAINER",
		Short: "bring a container onto a network",
		Long:  "Gives a container a link on one more network, at once if it runs and at each start.",
		Options: []option.Row{
			{"--ip", "ADDRESS", "its IPv4 address there", into(&w.IP, func(s string) (string, error) { return bundle.ParseIP(s, true) })},
			{"--ip6", "ADDRESS", "its IPv6 address there", into(&w.IP6, func(s string) (string, error) { return bundle.ParseIP(s, false) })},
			{"--alias", "NAME", "a further name there", option.Strings(&w.Aliases)},
			{"--link-local-ip", "ADDRESS", "a further address there", option.Strings(&w.LinkLocal)},
			{"--driver-opt", "KEY=VALUE", "an option of the driver", option.Strings(&options)},
			{"--gw-priority", "N", "of several networks the highest has the default route (0)", into(&w.Priority, strconv.Atoi)},
		},
		Examples: []string{"kiste network connect back web", "kiste network connect --ip 10.5.0.80 --alias www back web"},
		Min:      2, Max: 2,
		Complete: "network",
		Run: func(_ context.Context, _ *Env, args []string) error {
			for _, o := range options {
				if err := w.Option(o); err != nil {
					return err
				}
			}
			return engineOn(store.Locate()).Connect(args[0], args[1], w)
		},
	}
}

func networkDisconnectCommand() *Command {
	var force bool
	return &Command{
		Name:     "network disconnect",
		Args:     "NETWORK CONTAINER",
		Short:    "take a container off a network",
		Options:  []option.Row{{"-f, --force", "", "also where its link is gone", option.Bool(&force)}},
		Examples: []string{"kiste network disconnect back web"},
		Min:      2, Max: 2,
		Complete: "network",
		Run: func(_ context.Context, _ *Env, args []string) error {
			return engineOn(store.Locate()).Disconnect(args[0], args[1], force)
		},
	}
}
