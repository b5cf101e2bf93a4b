package inspect

import (
	"strconv"

	"kiste/container/bundle"
)

// NetworkSettingsJSON is Docker's NetworkSettings. All but the first and the
// last four are those of its default network again, as before Docker 29:
// scripts read them.
type NetworkSettingsJSON struct {
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []any
	SecondaryIPv6Addresses []any
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
	SandboxID              string
	SandboxKey             string
	Ports                  map[string][]PortJSON
	Networks               map[string]NetworkJSON
}

// PortJSON is a port of the host.
type PortJSON struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

// NetworkJSON is one network that a container is on.
type NetworkJSON struct {
	IPAMConfig          *IPAMConfigJSON
	Links               []string
	Aliases             []string
	DriverOpts          map[string]string
	GwPriority          int
	NetworkID           string
	EndpointID          string
	Gateway             string
	IPAddress           string
	MacAddress          string
	IPPrefixLen         int
	IPv6Gateway         string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	DNSNames            []string
}

// IPAMConfigJSON is what was asked for of addresses.
type IPAMConfigJSON struct {
	IPv4Address  string   `json:",omitempty"`
	IPv6Address  string   `json:",omitempty"`
	LinkLocalIPs []string `json:",omitempty"`
}

// split takes an address and its network's size apart.
func split(prefix string) (address string, size int) {
	address = Bare(prefix)
	if len(address) < len(prefix) {
		size, _ = strconv.Atoi(prefix[len(address)+1:])
	}
	return address, size
}

func (e *Endpoint) json() NetworkJSON {
	w := &e.Wish
	j := NetworkJSON{Aliases: w.Aliases, DriverOpts: w.Options, GwPriority: w.Priority, NetworkID: e.Network, EndpointID: e.ID,
		Gateway: e.Gateway, MacAddress: e.MAC, IPv6Gateway: e.Gateway6, DNSNames: e.Names}
	j.IPAddress, j.IPPrefixLen = split(e.IP)
	j.GlobalIPv6Address, j.GlobalIPv6PrefixLen = split(e.IP6)
	if w.IP != "" || w.IP6 != "" || len(w.LinkLocal) > 0 {
		j.IPAMConfig = &IPAMConfigJSON{w.IP, w.IP6, w.LinkLocal}
	}
	return j
}

func (c *Container) network() NetworkSettingsJSON {
	n := NetworkSettingsJSON{SandboxKey: c.NetworkPath, Ports: c.ports(), Networks: map[string]NetworkJSON{}}
	switch kind := c.Wishes.Network.Kind; kind {
	case bundle.Default, bundle.None, bundle.Private:
		n.Networks["none"] = NetworkJSON{}
	case bundle.HostNS:
		n.Networks["host"] = NetworkJSON{}
	}
	for _, e := range c.places() {
		j := e.json()
		n.Networks[e.Name] = j
		if !e.User {
			n.EndpointID, n.Gateway, n.IPAddress, n.IPPrefixLen, n.MacAddress = j.EndpointID, j.Gateway, j.IPAddress, j.IPPrefixLen, j.MacAddress
			n.IPv6Gateway, n.GlobalIPv6Address, n.GlobalIPv6PrefixLen = j.IPv6Gateway, j.GlobalIPv6Address, j.GlobalIPv6PrefixLen
		}
	}
	return n
}

// places are the container's on networks.
func (c *Container) places() []*Endpoint {
	var all []*Endpoint
	for i := range c.Endpoints {
		all = append(all, &c.Endpoints[i])
	}
	for i := range c.Plugged {
		all = append(all, &c.Plugged[i])
	}
	if c.Served != nil {
		all = append(all, c.Served)
	}
	return all
}

// ports are those that are exposed, and where the host publishes them. Docker
// has none of a container that does not run.
func (c *Container) ports() map[string][]PortJSON {
	all := map[string][]PortJSON{}
	if c.State.Status != Running && c.State.Status != Paused {
		return all
	}
	for key := range c.exposed() {
		all[key] = nil
	}
	for _, b := range c.Bindings {
		all[b.Port] = append(all[b.Port], PortJSON{b.IP, strconv.Itoa(int(b.Host))})
	}
	return all
}

// exposed are the ports of the image, of --expose and of -p.
func (c *Container) exposed() map[string]struct{} {
	var all map[string]struct{}
	for _, key := range c.Wishes.Exposed(c.Image) {
		all = table(all)
		all[key] = struct{}{}
	}
	return all
}

// portBindings is what -p says.
func portBindings(ports []bundle.Port) map[string][]PortJSON {
	all := map[string][]PortJSON{}
	for _, p := range ports {
		all[p.Key()] = append(all[p.Key()], PortJSON{p.HostIP, p.HostPort()})
	}
	return all
}

// NetworkInspectJSON is a network as GET /networks/{id} answers.
type NetworkInspectJSON struct {
	Name       string
	ID         string `json:"Id"`
	Created    string
	Scope      string
	Driver     string
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       IPAMJSON
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigFrom struct{ Network string }
	ConfigOnly bool
	Containers map[string]EndpointJSON
	Options    map[string]string
	Labels     map[string]string
}

// IPAMJSON is how a network gives addresses.
type IPAMJSON struct {
	Driver  string
	Options map[string]string
	Config  []SubnetJSON
}

// SubnetJSON is one range of addresses.
type SubnetJSON struct {
	Subnet             string
	IPRange            string            `json:",omitempty"`
	Gateway            string            `json:",omitempty"`
	AuxiliaryAddresses map[string]string `json:",omitempty"`
}

// EndpointJSON is a container that is on a network.
type EndpointJSON struct {
	Name        string
	EndpointID  string
	MacAddress  string
	IPv4Address string
	IPv6Address string
}

// OnNetwork is the container as its network shows it.
func (c *Container) OnNetwork(e *Endpoint) EndpointJSON {
	return EndpointJSON{c.Name, e.ID, e.MAC, e.IP, e.IP6}
}
