package inspect

import (
	"strings"

	"kiste/container/bundle"
)

// An Endpoint is a container's place on a network: what it asks for there, and
// as long as it runs what it has.
type Endpoint struct {
	Wish    bundle.NetworkWish
	Network string // its id
	Name    string // its name
	Driver  string // its driver
	User    bool   // names are resolved there

	// While it runs; else empty. Names are those by which others find it there.
	Names    []string `json:",omitempty"`
	ID       string   `json:",omitempty"`
	Link     string   `json:",omitempty"` // inside: "eth0"
	Outside  string   `json:",omitempty"` // the link on the host
	IP       string   `json:",omitempty"` // "10.72.0.2/20"
	IP6      string   `json:",omitempty"`
	Gateway  string   `json:",omitempty"`
	Gateway6 string   `json:",omitempty"`
	MAC      string   `json:",omitempty"`
}

// A Binding is a port of the host that leads to one of the container's.
type Binding struct {
	Port string // of the container: "80/tcp"
	IP   string // of the host: "0.0.0.0"
	Host uint16
	To   string // the container's address

	Unjudged bool `json:",omitempty"` // the host's chains for input have no say about it
	Direct   bool `json:",omitempty"` // it is reached at the container's own address, too
	Carried  bool `json:",omitempty"` // by a program that copies, and not by the kernel; To may be of the other version of IP
}

// Endpoint is the container's place on the network with an id; nil: none.
func (c *Container) Endpoint(id string) *Endpoint {
	for i := range c.Endpoints {
		if c.Endpoints[i].Network == id {
			return &c.Endpoints[i]
		}
	}
	return nil
}

// Clear forgets what a container had while it ran.
func (e *Endpoint) Clear() {
	*e = Endpoint{Wish: e.Wish, Network: e.Network, Name: e.Name, Driver: e.Driver, User: e.User}
}

// Addresses are those that it has, of IPv4 first, without the sizes of their
// networks.
func (e *Endpoint) Addresses() (all []string) {
	for _, prefix := range []string{e.IP, e.IP6} {
		if a := Bare(prefix); a != "" {
			all = append(all, a)
		}
	}
	return all
}

// Bare is an address without the size of its network.
func Bare(prefix string) string {
	a, _, _ := strings.Cut(prefix, "/")
	return a
}
