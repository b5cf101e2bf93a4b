package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"kiste/fault"
)

func portCommand() *Command {
	return &Command{
		Name: "port", Args: "CONTAINER [PRIVATE_PORT[/PROTO]]", Min: 1, Max: 2,
		Short:    "list the published ports of a container",
		Long:     `Containers publish no ports: with a port it says so, and alone it prints nothing.`,
		Examples: []string{"kiste port web", "kiste port web 80/tcp"},
		Complete: "container",
		Run: func(_ context.Context, _ *Env, args []string) error {
			e, err := lookIntoStore()
			if err != nil {
				return err
			}
			if _, err := e.Find(args[0]); err != nil || len(args) == 1 {
				return err
			}
			port, err := privatePort(args[1])
			if err != nil {
				return err
			}
			return &fault.Error{Op: "find port", On: args[1], Kind: fault.NotFound, Err: fmt.Errorf("No public port '%s' published for %s", port, args[0])}
		},
	}
}

// privatePort is PORT[/PROTO] in full: tcp where no protocol is said.
func privatePort(word string) (string, error) {
	port, proto, _ := strings.Cut(word, "/")
	if proto == "" {
		proto = "tcp"
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", &fault.Error{Op: "read port", On: word, Kind: fault.Invalid, Err: fmt.Errorf("invalid port '%s'", port), Hint: "a port is a number up to 65535, as in 80 or 53/udp"}
	}
	switch proto {
	case "tcp", "udp", "sctp":
		return port + "/" + proto, nil
	}
	return "", &fault.Error{Op: "read port", On: word, Kind: fault.Invalid, Err: fmt.Errorf("invalid protocol '%s'", proto), Hint: "protocols are tcp, udp and sctp"}
}
