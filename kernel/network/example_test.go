package network_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"kiste/kernel/network"
)

// Three namespaces: two nodes and the router between them, whose cable to the
// second is limited to 10 Mbit/s.
func ExampleLab() {
	lab := network.Lab{Routers: []string{"router"}, Cables: []network.Cable{
		{A: network.End{Node: "ann", Address: at("10.0.1.2/24"), Gateway: at("10.0.1.1/24").Addr()}, B: network.End{Node: "router", Address: at("10.0.1.1/24")}},
		{A: network.End{Node: "bob", Address: at("10.0.2.2/24"), Gateway: at("10.0.2.1/24").Addr()}, B: network.End{Node: "router", Address: at("10.0.2.1/24")}, Rate: 1_250_000},
	}}
	fmt.Print(lab)
	if os.Geteuid() == 0 {
		nodes, err := lab.Build()
		if err == nil {
			err = nodes["ann"].Do(func() error { return exec.Command("ip", "route", "get", "10.0.2.2").Run() })
		}
		if err := errors.Join(err, network.CloseAll(nodes)); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// ann 10.0.1.2/24 -- router 10.0.1.1/24
	// bob 10.0.2.2/24 -- router 10.0.2.1/24  10mbit
}

// The same by hand: a cable, its addresses, a rate.
func Example() {
	if os.Geteuid() != 0 {
		fmt.Println("10.0.1.2 has a cable")
		return
	}
	ann, err1 := network.New()
	bob, err2 := network.New()
	if err := errors.Join(err1, err2); err != nil {
		fmt.Println(err)
		return
	}
	err := errors.Join(
		ann.Create(network.Link{Name: "eth0", Kind: "veth", Up: true, Peer: "eth0", PeerNS: bob.FD}),
		ann.AddAddress("eth0", at("10.0.1.1/24")), bob.AddAddress("eth0", at("10.0.1.2/24")),
		bob.SetUp("eth0"), ann.Limit("eth0", 1_250_000))
	if err := errors.Join(err, ann.Close(), bob.Close()); err != nil {
		fmt.Println(err)
	}
	fmt.Println("10.0.1.2 has a cable")
	// Output: 10.0.1.2 has a cable
}

func ExampleParseRate() {
	r, _ := network.ParseRate("1mbps")
	fmt.Println(uint64(r), "bytes per second, or", r)
	// Output: 1000000 bytes per second, or 8mbit
}
