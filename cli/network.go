package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kiste/cli/option"
	"kiste/engine"
	"kiste/fault"
	"kiste/store"
)

func networkCreateCommand() *Command {
	var ignore bool
	var o engine.NetworkOptions
	var labels, options, aux, ipam []string
	ip4 := func(s string) error {
		v, err := strconv.ParseBool(s)
		o.NoIPv4 = err == nil && !v
		return err
	}
	return &Command{
		Name:  "network create",
		Args:  "NETWORK",
		Short: "make a network",
		Long: `Makes a network and shows its id. Containers join it with "kiste run --network NETWORK", and find each other there by name.

The driver bridge connects containers with each other and the host, and through the host with what is beyond; --internal leaves the last out. macvlan and ipvlan give containers a place on the wire of a link of the host (-o parent=eth0).

Without --subnet the network gets addresses that nobody on this host has.

Options of the driver: com.docker.network.driver.mtu=BYTES; of bridge com.docker.network.bridge.name=LINK, .enable_ip_masquerade=BOOL, .enable_icc=BOOL (false: isolated, containers do not reach each other), .host_binding_ipv4=ADDRESS, .inhibit_ipv4=BOOL (true: the host has no IPv4 address on it), .gateway_mode_ipv4 and .gateway_mode_ipv6=nat|nat-unprotected|routed|isolated, kiste.firewall=all|forward (forward: published ports obey the host's firewall where it is about what is forwarded, not where it is about input), kiste.big-packets=BOOL (true, the default with --internal: containers hand each other up to 192 KiB at once in place of 64, which is faster; what leaves the host is slower), kiste.shortcut=BOOL (false: what containers send each other passes the bridge, where tcpdump sees it; without this root's is handed over past the bridge, which is faster, as long as the host filters nothing that bridges switch); of macvlan parent=LINK and macvlan_mode=bridge|private|vepa|passthru; of ipvlan parent=LINK and ipvlan_mode=l2|l3|l3s.`,
		Options: []option.Row{
			{"-d, --driver", "DRIVER", "bridge (the default), macvlan or ipvlan", option.String(&o.Driver)},
			{"--subnet", "ADDRESS/SIZE", "a range of addresses: 10.5.0.0/24", option.Strings(&o.Subnets)},
			{"--gateway", "ADDRESS", "the host's in a subnet", option.Strings(&o.Gateways)},
			{"--ip-range", "ADDRESS/SIZE", "containers get their addresses here", option.Strings(&o.Ranges)},
			{"--aux-address", "NAME=ADDRESS", "an address that no container gets", option.Strings(&aux)},
			{"--ipv4", "", "with IPv4 addresses (--ipv4=false: without)", ip4},
			{"--ipv6", "", "with IPv6 addresses", option.Bool(&o.IPv6)},
			{"--ignore", "", "one of that name that is there stays as it is", option.Bool(&ignore)},
			{"--internal", "", "nothing leads out of it", option.Bool(&o.Internal)},
			{"--attachable", "", "kept and shown: containers always may join", option.Bool(&o.Attachable)},
			{"--scope", "SCOPE", "local, which all are: of this host", option.String(&o.Scope)},
			{"--config-only", "", "no network, but a configuration that others are made of", option.Bool(&o.ConfigOnly)},
			{"--config-from", "NETWORK", "take subnets, options and labels of such a one", option.String(&o.ConfigFrom)},
			{"--ipam-driver", "DRIVER", `"default" is the only one`, oneOf(new(string), "default")},
			{"--ipam-opt", "KEY=VALUE", "kept and shown: the driver has no options", option.Strings(&ipam)},
			{"-o, --opt", "KEY=VALUE", "an option of the driver; see above", option.Strings(&options)},
			{"--label", "KEY[=VALUE]", "a label", option.Strings(&labels)},
		},
		Examples: []string{"kiste network create back", "kiste network create --subnet 10.5.0.0/24 --ipv6 lab", "kiste network create -d macvlan -o parent=eth0 --subnet 192.168.1.0/24 --gateway 192.168.1.1 lan"},
		Min:      1, Max: 1,
		Run: func(_ context.Context, env *Env, args []string) error {
			o.Name, o.Labels, o.Options, o.Aux, o.IPAM = args[0], pairsOf(labels), pairsOf(options), pairsOf(aux), pairsOf(ipam)
			e := engineOn(store.Locate())
			n, err := e.CreateNetwork(o)
			if ignore && errors.Is(err, fault.Exists) {
				n, err = e.Network(o.Name)
			}
			if err == nil {
				fmt.Fprintln(env.Out, n.ID)
			}
			return err
		},
	}
}

// networkRow is a network as --format names its fields.
type networkRow struct {
	CreatedAt, Driver, ID, IPv4, IPv6, Internal, Labels, Name, Scope string

	labels map[string]string
}

// Label is the value of one label.
func (r networkRow) Label(key string) string { return r.labels[key] }

func networkListCommand() *Command {
	var quiet, whole bool
	var format string
	var filters []string
	return &Command{
		Name:  "network ls",
		Short: "list networks",
		Long: `Lists all networks: bridge, which containers join of which nothing else is said, host and none are there always.

With --format each is shown as a template says, in which {{.ID}}, {{.Name}}, {{.Driver}}, {{.Scope}}, {{.IPv4}}, {{.IPv6}}, {{.Internal}}, {{.CreatedAt}}, {{.Labels}} and {{.Label "KEY"}} stand for its values; "table {{.ID}}\t{{.Name}}" makes columns of them, and "json" shows all. Without it the networksFormat of docker's config.json counts.

Filters: ` + filterNames(networkFilters) + `.`,
		Options: []option.Row{
			{"-f, --filter", "KEY=VALUE", "list only some; see above", option.Strings(&filters)},
			{"--format", "TEXT", `show each as TEXT says, or "json"`, option.String(&format)},
			{"--no-trunc", "", "show whole ids", option.Bool(&whole)},
			{"-q, --quiet", "", "show ids only", option.Bool(&quiet)},
		},
		Examples: []string{"kiste network ls", "kiste network ls -qf type=custom"},
		Run: func(_ context.Context, env *Env, _ []string) error {
			e, err := lookIntoStore()
			if err != nil {
				return err
			}
			chosen, err := choose(networkFilters, e, filters)
			if err != nil {
				return err
			}
			all, bad, err := e.Networks()
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(n *engine.Network) bool { return !chosen.fit(n) })
			if err := showNetworks(env, all, format, quiet, whole); err != nil {
				return err
			}
			return together(bad)
		},
	}
}

func showNetworks(env *Env, all []*engine.Network, format string, quiet, whole bool) error {
	if format == "" && !quiet {
		format = userFormat("networksFormat")
	}
	l := listing{format: format, table: `{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}`, row: networkRow{}, headings: map[string]string{"ID": "NETWORK ID"}}
	if quiet && format == "" {
		l.format = "{{.ID}}"
	}
	var rows []any
	for _, n := range all {
		id := n.ID
		if !whole {
			id = id[:12]
		}
		rows = append(rows, networkRow{CreatedAt: n.Created.Format("2006-01-02 15:04:05.999999999 -0700 MST"), Driver: n.Driver, ID: id, IPv4: strconv.FormatBool(!n.NoIPv4), IPv6: strconv.FormatBool(n.IPv6),
			Internal: strconv.FormatBool(n.Internal), Labels: labelText(n.Labels), Name: n.Name, Scope: "local", labels: n.Labels})
	}
	return l.print(env, rows)
}

// A networkTest reports whether a network is to be listed.
type networkTest = func(n *engine.Network) bool

// networkFilters are those of "network ls".
var networkFilters = []filter[*engine.Engine, *engine.Network]{
	{"dangling", "BOOL", danglingNetwork},
	{"driver", "NAME", func(_ *engine.Engine, v string) (networkTest, error) {
		return func(n *engine.Network) bool { return n.Driver == v }, nil
	}},
	{"id", "ID", func(_ *engine.Engine, v string) (networkTest, error) {
		return func(n *engine.Network) bool { return strings.HasPrefix(n.ID, v) }, nil
	}},
	{"label", "KEY[=VALUE]", func(_ *engine.Engine, v string) (networkTest, error) {
		return func(n *engine.Network) bool { return hasLabel(n.Labels, v) }, nil
	}},
	{"name", "TEXT", func(_ *engine.Engine, v string) (networkTest, error) {
		return func(n *engine.Network) bool { return strings.Contains(n.Name, v) }, nil
	}},
	{"scope", "local", func(_ *engine.Engine, v string) (networkTest, error) {
		return func(*engine.Network) bool { return v == "local" }, nil
	}},
	{"type", "custom|builtin", networkOfType},
}

func danglingNetwork(e *engine.Engine, v string) (networkTest, error) {
	want, err := filterBool("dangling", v)
	if err != nil {
		return nil, err
	}
	used, err := e.UsedNetworks()
	return func(n *engine.Network) bool { return want == (!n.Predefined() && !used[n.ID]) }, err
}

func networkOfType(_ *engine.Engine, v string) (networkTest, error) {
	if v != "custom" && v != "builtin" {
		return nil, dockersWords("invalid filter: 'type'='" + v + "'")
	}
	return func(n *engine.Network) bool { return n.Predefined() == (v == "builtin") }, nil
}

func networkInspectCommand() *Command {
	return inspectOf("network inspect", "NETWORK...", "network")
}

func networkRemoveCommand() *Command {
	var force bool
	return &Command{
		Name:     "network rm",
		Args:     "NETWORK...",
		Short:    "remove networks",
		Long:     "Removes networks that no container that runs is on. With --force one that is not there is no error.",
		Options:  []option.Row{{"-f, --force", "", "one that is not there is no error", option.Bool(&force)}},
		Examples: []string{"kiste network rm back"},
		Min:      1, Max: -1,
		Complete: "network",
		Run: func(_ context.Context, env *Env, args []string) error {
			return eachRemoved(env, args, force, (*engine.Engine).RemoveNetwork)
		},
	}
}

func networkPruneCommand() *Command {
	o := &PruneOptions{}
	return &Command{
		Name:     "network prune",
		Short:    "remove networks that no container has",
		Examples: []string{"kiste network prune -f --filter until=24h"},
		Options:  o.rows(pruneFilters),
		Run: func(_ context.Context, env *Env, _ []string) error {
			e, err := lookIntoStore()
			if err != nil {
				return err
			}
			goes, err := o.Filter()
			if err != nil {
				return err
			}
			if !o.Confirmed(env, "WARNING! This will remove all custom networks not used by at least one container.\n") {
				return nil
			}
			return PruneNetworks(env, e, goes)
		},
	}
}

// PruneNetworks removes networks that no container has, and tells which.
func PruneNetworks(env *Env, e *engine.Engine, goes Goes) error {
	names, err := e.PruneNetworks(func(n *engine.Network) bool { return goes(n.Created, n.Labels) })
	ShowDeleted(env, "Deleted Networks:", names)
	return err
}
