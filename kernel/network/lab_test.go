package network_test

import (
	"errors"
	"testing"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/network"
)

func end(node, address, gateway string) network.End {
	e := network.End{Node: node}
	if address != "" {
		e.Address = at(address)
	}
	if gateway != "" {
		e.Gateway, _ = network.ParseAddr(gateway)
	}
	return e
}

// Two offices with a switch each, and a slow line between their routers.
var offices = network.Lab{
	Routers:  []string{"north", "south"},
	Switches: []string{"switch1", "switch2"},
	Cables: []network.Cable{
		{A: end("switch1", "", ""), B: end("north", "10.1.0.1/24", "")},
		{A: end("switch1", "", ""), B: end("ann", "10.1.0.2/24", "10.1.0.1")},
		{A: end("switch1", "", ""), B: end("amy", "10.1.0.3/24", "10.1.0.1")},
		{A: end("switch2", "", ""), B: end("south", "10.2.0.1/24", "")},
		{A: end("switch2", "", ""), B: end("bob", "10.2.0.2/24", "10.2.0.1"), MTU: 1400},
		{A: end("north", "10.9.0.1/30", "10.9.0.2"), B: end("south", "10.9.0.2/30", "10.9.0.1"), Rate: 2_000_000},
	},
}

func TestALabOfSwitchesAndRouters(t *testing.T) {
	need.Power(t, host.Root)
	nodes, err := offices.Build()
	must(t, err)
	defer func() { must(t, network.CloseAll(nodes)) }()
	transfer(t, nodes["ann"], nodes["amy"], "10.1.0.3", 1_000_000)
	got := transfer(t, nodes["ann"], nodes["bob"], "10.2.0.2", 2_000_000)
	least := 0.8
	if testing.Short() {
		least = 0.4
	}
	if got < least*2_000_000 || got > 1.2*2_000_000 {
		t.Errorf("over the slow line %.0f bytes/s", got)
	}
}

func TestLabsThatCannotBe(t *testing.T) {
	need.Power(t, host.Root)
	if _, err := (network.Lab{Routers: []string{"nobody"}}).Build(); !errors.Is(err, fault.Invalid) {
		t.Errorf("a router without a cable: %v", err)
	}
	twice := network.Lab{Cables: []network.Cable{{A: network.End{Node: "a", Name: "x"}, B: end("b", "", "")}, {A: network.End{Node: "a", Name: "x"}, B: end("c", "", "")}}}
	if _, err := twice.Build(); !errors.Is(err, fault.Exists) {
		t.Errorf("two links of one name: %v", err)
	}
}
