package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kiste/fault"
)

func portCommand() *Command {
	return &Command{
		Name: "port", Args: "CONTAINER [PRIVATE_PORT[/PROTO]]", Min: 1, Max: 2,
		Short:    "list the published ports of a container",
		Long:     `Lists the ports of a container that runs, and where on the host they are published; of one port only where.`,
		Examples: []string{"kiste port web", "kiste port web 80/tcp"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			e, err := lookIntoStore()
			if err != nil {
				return err
			}
			c, err := e.Find(args[0])
			if err != nil {
				return err
			}
			want := ""
			if len(args) == 2 {
				if want, err = privatePort(args[1]); err != nil {
					return err
				}
			}
			var lines []string
			for _, p := range shownPorts(c.JSON().NetworkSettings.Ports) {
				key := fmt.Sprintf("%d/%s", p.inside, p.proto)
				at := fmt.Sprintf("%s:%d", address(p.ip), p.host)
				switch {
				case p.host == 0:
				case want == "":
					lines = append(lines, key+" -> "+at)
				case want == key:
					lines = append(lines, at)
				}
			}
			if want != "" && len(lines) == 0 {
				return &fault.Error{Op: "find port", On: args[1], Kind: fault.NotFound, Err: fmt.Errorf("No public port '%s' published for %s", want, args[0])}
			}
			slices.Sort(lines)
			for _, line := range lines {
				fmt.Fprintln(env.Out, line)
			}
			return nil
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
