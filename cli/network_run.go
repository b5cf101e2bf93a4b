package cli

import (
	"context"
	"errors"

	"kiste/cli/option"
	"kiste/kernel/namespace"
	"kiste/kernel/network"
)

func networkRunCommand() *Command {
	var o network.Options
	var pinName string
	var mtu int64
	return &Command{
		Name:  "network run",
		Args:  "[COMMAND [ARG...]]",
		Short: "run a command in a network of its own",
		Long: `Makes a network namespace with loopback, connects it to a bridge if asked, and
becomes the command, $SHELL without one: nothing stays behind, and when the
last process inside ends the network goes with its links.

A bridge that is missing is created and stays, with the address 10.66.0.1/24 or
that of the next 10.66.N.0/24 that the host does not use yet.

The exit code is the command's; 125 if the network could not be made, 126 if the command cannot be executed, 127 if it is not there.`,
		Options: []option.Row{
			{"-b, --bridge", "NAME", "connect to this bridge of the host", option.String(&o.Bridge)},
			{"--bridge-address", "CIDR", "address of a bridge that is created", prefix(&o.BridgeAddress)},
			{"-a, --address", "CIDR", "address inside; without it the next free one of the bridge", prefix(&o.Address)},
			{"-g, --gateway", "IP", "gateway of the default route: the bridge, or none", gateway(&o)},
			{"-r, --rate", "RATE", "limit of each direction: 10mbit, 500kbit, 1mbps", rate(&o.Rate)},
			{"--mac", "ADDRESS", "MAC address inside", option.String(&o.MAC)},
			{"--mtu", "BYTES", "largest packet", option.Int(&mtu)},
			{"--name", "NAME", "name of the link inside: eth0", option.String(&o.Name)},
			{"--pin", "NAME", "keep the namespace alive under a name, see namespace pin", option.String(&pinName)},
		},
		Max:  -1,
		Rest: true,
		Examples: []string{
			"kiste network run -- ip address",
			"kiste network run --bridge kiste0 --rate 10mbit -- sh",
		},
		Complete: "command",
		Run: func(_ context.Context, _ *Env, args []string) error {
			if mtu < 0 || mtu > 1<<20 {
				return option.Bad("--mtu", errors.New("want at most 1048576 bytes"))
			}
			o.MTU = int(mtu)
			if err := network.Own(o); err != nil {
				return ended(0, err)
			}
			if pinName != "" {
				k, err := namespace.ParseKind("net")
				if err == nil {
					err = pins().Pin(pinName, 0, k)
				}
				if err != nil {
					return ended(0, err)
				}
			}
			return ended(0, namespace.Exec(args))
		},
	}
}

func prefix(p *network.Prefix) option.Var {
	return func(s string) (err error) {
		if *p, err = network.ParsePrefix(s); err != nil {
			return errors.New("want an address with its network's size, as 10.66.0.2/24")
		}
		return nil
	}
}

func gateway(o *network.Options) option.Var {
	return func(s string) (err error) {
		if o.NoGateway = s == "none"; o.NoGateway {
			return nil
		}
		if o.Gateway, err = network.ParseAddr(s); err != nil {
			return errors.New("want an address, or none")
		}
		return nil
	}
}

func rate(r *network.Rate) option.Var {
	return func(s string) (err error) {
		if *r, err = network.ParseRate(s); err != nil {
			return errors.New("want bits per second as 10mbit, 500kbit or 1gbit, or bytes as 1mbps")
		}
		return nil
	}
}
