package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kiste/kernel/network"
)

// A NetworkWish is one network that a container is to be on, and what it asks
// for there. The zero value but for the name is right.
type NetworkWish struct {
	Name      string            `json:",omitempty"` // or its id
	IP        string            `json:",omitempty"` // a static address
	IP6       string            `json:",omitempty"`
	MAC       string            `json:",omitempty"`
	LinkLocal []string          `json:",omitempty"` // further addresses
	Aliases   []string          `json:",omitempty"` // names by which others find it there
	Priority  int               `json:",omitempty"` // the highest has the default route
	Options   map[string]string `json:",omitempty"` // of the driver
}

// EndpointOptions are those of a NetworkWish's Options that are known.
var EndpointOptions = []string{"com.docker.network.endpoint.ifname", "com.docker.network.endpoint.sysctls"}

// asks reports whether it asks for more than to be on the network.
func (n *NetworkWish) asks() bool {
	return n.IP != "" || n.IP6 != "" || n.MAC != "" || len(n.LinkLocal)+len(n.Aliases)+len(n.Options) > 0 || n.Priority != 0
}

// errMixed is Docker's text for modes that exclude each other.
var errMixed = errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")

// ParseNetwork adds the value of one --network to w: none, host, container:NAME,
// ns:PATH, or a network by its name, or as name=NAME,ip=ADDRESS,alias=NAME and
// so on.
func ParseNetwork(w *Wishes, s string) error {
	first, _, _ := strings.Cut(s, ",")
	wish := NetworkWish{Name: s}
	if driver, _, _ := strings.Cut(first, ":"); driver != Pasta && driver != Slirp && strings.Contains(first, "=") {
		var err error
		if wish, err = parseNetworkWish(s); err != nil {
			return err
		}
	}
	space, err := networkSpace(wish.Name)
	if err != nil {
		return err
	}
	switch {
	case space.Kind != Bridge && wish.asks():
		return fmt.Errorf("network-scoped options are supported only for networks, and %q is none", wish.Name)
	case w.Network.Kind != Default && (space.Kind != Bridge || w.Network.Kind != Bridge):
		return errMixed
	case space.Kind == Bridge && slices.ContainsFunc(w.Networks, func(n NetworkWish) bool { return n.Name == wish.Name }):
		return fmt.Errorf("network %q is specified multiple times", wish.Name)
	}
	w.Network = space
	if space.Kind == Bridge {
		w.Networks = append(w.Networks, wish)
	}
	return nil
}

// networkSpace is which network namespace a word asks for: that of a network's
// name is a new one.
func networkSpace(word string) (Namespace, error) {
	space, err := ParseNamespace("network", word)
	switch {
	case err == nil && space.Kind == Private:
		return Namespace{Kind: None}, nil
	case err == nil:
		return space, nil
	case strings.ContainsAny(word, ":/ ") || word == "":
		return Namespace{}, err
	}
	return Namespace{Kind: Bridge}, nil
}

func parseNetworkWish(s string) (NetworkWish, error) {
	var n NetworkWish
	fields, err := splitCSV(s)
	if err != nil {
		return n, fmt.Errorf("invalid field in %q", s[:min(len(s), 100)])
	}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok || key == "" || value == "" {
			return n, fmt.Errorf("invalid field %s", f)
		}
		if err := n.set(strings.ToLower(strings.TrimSpace(key)), value); err != nil {
			return n, err
		}
	}
	if n.Name == "" {
		return n, errors.New("network name missing")
	}
	return n, nil
}

// set takes one key of --network.
func (n *NetworkWish) set(key, value string) (err error) {
	switch key {
	case "name":
		n.Name = value
	case "alias":
		n.Aliases = append(n.Aliases, value)
	case "ip":
		n.IP, err = ParseIP(value, true)
	case "ip6":
		n.IP6, err = ParseIP(value, false)
	case "mac-address":
		n.MAC, err = ParseMAC(value)
	case "link-local-ip":
		_, err = network.ParseAddr(value)
		n.LinkLocal = append(n.LinkLocal, value)
	case "gw-priority":
		if n.Priority, err = strconv.Atoi(value); err != nil {
			err = fmt.Errorf("invalid gw-priority: %q", value)
		}
	case "driver-opt":
		err = n.Option(value)
	default:
		err = fmt.Errorf("invalid field key %s", key)
	}
	return err
}

// Option takes an option of the driver, KEY=VALUE.
func (n *NetworkWish) Option(pair string) error {
	key, value, ok := strings.Cut(pair, "=")
	if !ok || !slices.Contains(EndpointOptions, key) {
		return fmt.Errorf("invalid driver option %q: there are %s", pair, strings.Join(EndpointOptions, ", "))
	}
	if n.Options == nil {
		n.Options = map[string]string{}
	}
	n.Options[key] = value
	return nil
}

// ParseIP reads an address of IPv4, or of IPv6.
func ParseIP(s string, four bool) (string, error) {
	a, err := network.ParseAddr(s)
	if err != nil || a.Is4() != four {
		family := map[bool]string{true: "IPv4", false: "IPv6"}[four]
		return "", fmt.Errorf("invalid %s address: %s", family, s)
	}
	return a.String(), nil
}

// ParseMAC reads a MAC address, of one node.
func ParseMAC(s string) (string, error) {
	mac := strings.ToLower(strings.ReplaceAll(s, "-", ":"))
	if network.CheckMAC(mac) != nil {
		return "", fmt.Errorf("invalid mac-address: %s", s)
	}
	return mac, nil
}

// Places are the networks that a container is to be on, with what --ip and its
// like ask for on the first of them. One whose network is not its own is on
// none.
func (w *Wishes) Places() ([]NetworkWish, error) {
	all := slices.Clone(w.Networks)
	if !w.Place.asks() {
		return all, nil
	}
	if len(all) == 0 || all[0].Name == Bridge {
		switch {
		case len(w.Place.Aliases) > 0:
			return nil, errors.New("network-scoped alias is supported only for containers in user defined networks")
		case w.Place.IP != "" || w.Place.IP6 != "":
			return nil, errors.New("user specified IP address is supported on user defined networks only")
		case len(all) == 0 && w.Network.Kind != Default && w.Place.MAC != "":
			return nil, errors.New("conflicting options: mac-address and the network mode")
		case len(all) == 0:
			return nil, nil
		}
	}
	return all, all[0].merge(&w.Place)
}

// Kept reports whether somebody has to stay for the container's networks: names
// that peers resolve, ports that the host leads on.
func (w *Wishes) Kept() bool {
	return len(w.Ports) > 0 || w.PublishAll || w.OnUserNetwork()
}

// OnUserNetwork reports whether a network is asked for that is not the default one.
func (w *Wishes) OnUserNetwork() bool {
	return slices.ContainsFunc(w.Networks, func(n NetworkWish) bool { return n.Name != Bridge })
}

// merge takes what more asks for, unless both ask.
func (n *NetworkWish) merge(more *NetworkWish) error {
	for _, f := range []struct {
		name string
		to   *string
		from string
	}{{"--ip", &n.IP, more.IP}, {"--ip6", &n.IP6, more.IP6}, {"--mac-address", &n.MAC, more.MAC}} {
		if *f.to != "" && f.from != "" {
			return fmt.Errorf("conflicting options: cannot specify both %s and the network's own", f.name)
		}
		if f.from != "" {
			*f.to = f.from
		}
	}
	n.LinkLocal = append(slices.Clip(n.LinkLocal), more.LinkLocal...)
	n.Aliases = append(slices.Clip(n.Aliases), more.Aliases...)
	return nil
}
