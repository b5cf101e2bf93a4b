package network

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"kiste/fault"
)

// A Lab is a network of nodes, as data: each node is a network namespace, and
// cables with rates are between them. Nodes are made by being named.
type Lab struct {
	Routers  []string // nodes that send on what is for others
	Switches []string // nodes whose cables are ports of one bridge; they have no addresses
	Cables   []Cable
}

// A Cable is a veth between two nodes.
type Cable struct {
	A, B End
	Rate Rate // in each direction; 0: no limit
	MTU  int  // bytes; 0: 1500
}

// An End is one of a cable's two.
type End struct {
	Node    string
	Name    string // of the link; empty: eth0 for the node's first cable, eth1 for the next
	Address Prefix
	Gateway Addr // of the node's default route; zero: none by this cable
}

// String lists the lab, a line for each cable.
func (l Lab) String() string {
	var b strings.Builder
	for _, c := range l.Cables {
		fmt.Fprintf(&b, "%s -- %s", c.A, c.B)
		if c.Rate != 0 {
			fmt.Fprintf(&b, "  %v", c.Rate)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (e End) String() string {
	if !e.Address.IsValid() {
		return e.Node
	}
	return e.Node + " " + e.Address.String()
}

// labBridge is the bridge of a switch.
const labBridge = "bridge"

// Build makes the lab. Its nodes, by name, live until each is closed, which
// CloseAll does; after an error there are none. It needs what New needs.
func (l Lab) Build() (map[string]*Namespace, error) {
	nodes := map[string]*Namespace{}
	if err := l.build(nodes); err != nil {
		return nil, errors.Join(err, CloseAll(nodes))
	}
	return nodes, nil
}

// CloseAll closes all nodes of a lab.
func CloseAll(nodes map[string]*Namespace) error {
	var err error
	for _, n := range nodes {
		err = errors.Join(err, n.Close())
	}
	return err
}

func (l Lab) build(nodes map[string]*Namespace) error {
	count := map[string]int{}
	for _, c := range l.Cables {
		for _, e := range []*End{&c.A, &c.B} {
			if err := l.ready(e, nodes, count); err != nil {
				return err
			}
		}
		if err := l.cable(c, nodes); err != nil {
			return &fault.Error{Op: "lay cable", On: c.A.String() + " -- " + c.B.String(), Err: err}
		}
	}
	for _, r := range l.Routers {
		n := nodes[r]
		if n == nil {
			return &fault.Error{Op: "make router", On: r, Kind: fault.Invalid, Err: errors.New("no cable goes there")}
		}
		if err := errors.Join(n.Forward(), n.Forward6()); err != nil {
			return err
		}
	}
	return nil
}

// ready sees to it that the node of an end is there and its link has a name.
func (l Lab) ready(e *End, nodes map[string]*Namespace, count map[string]int) error {
	if e.Name == "" {
		e.Name = fmt.Sprintf("eth%d", count[e.Node])
	}
	count[e.Node]++
	if nodes[e.Node] != nil {
		return nil
	}
	n, err := New()
	if err != nil {
		return err
	}
	nodes[e.Node] = n
	if !slices.Contains(l.Switches, e.Node) {
		return nil
	}
	_, err = n.MakeBridge(Bridge{Name: labBridge})
	return err
}

func (l Lab) cable(c Cable, nodes map[string]*Namespace) error {
	a, b := nodes[c.A.Node], nodes[c.B.Node]
	err := a.Create(Link{Name: c.A.Name, Kind: "veth", Peer: c.B.Name, PeerNS: b.FD, MTU: c.MTU})
	if err != nil {
		return err
	}
	for _, e := range []End{c.A, c.B} {
		n := nodes[e.Node]
		if slices.Contains(l.Switches, e.Node) {
			bridge, err := n.Link(labBridge)
			if err != nil {
				return err
			}
			if err := n.SetMaster(e.Name, bridge.Index); err != nil {
				return err
			}
		}
		if err := n.SetUp(e.Name); err != nil {
			return err
		}
		if e.Address.IsValid() {
			err = errors.Join(err, n.AddAddress(e.Name, e.Address))
		}
		if c.Rate != 0 {
			err = errors.Join(err, n.Limit(e.Name, c.Rate))
		}
	}
	for _, e := range []End{c.A, c.B} { // now that both ends are up
		if e.Gateway.IsValid() {
			err = errors.Join(err, nodes[e.Node].AddRoute(Route{Gateway: e.Gateway}))
		}
	}
	return err
}
