package network_test

import (
	"errors"
	"fmt"
	"os"

	"kiste/kernel/network"
)

// Three namespaces: two nodes and the router between them, whose cable to the
// second is limited to 10 Mbit/s.
func Example() {
	if os.Geteuid() != 0 {
		fmt.Println("10.0.1.2 - router - 10.0.2.2")
		return
	}
	ann, err1 := network.New()
	router, err2 := network.New()
	bob, err3 := network.New()
	if err := errors.Join(err1, err2, err3); err != nil {
		fmt.Println(err)
		return
	}
	err := errors.Join(
		router.Create(network.Link{Name: "ann", Kind: "veth", Up: true, Peer: "eth0", PeerNS: ann.FD}),
		router.Create(network.Link{Name: "bob", Kind: "veth", Up: true, Peer: "eth0", PeerNS: bob.FD}),
		router.AddAddress("ann", at("10.0.1.1/24")), ann.AddAddress("eth0", at("10.0.1.2/24")), ann.SetUp("eth0"),
		router.AddAddress("bob", at("10.0.2.1/24")), bob.AddAddress("eth0", at("10.0.2.2/24")), bob.SetUp("eth0"),
		ann.AddRoute(network.Route{Gateway: at("10.0.1.1/24").Addr()}),
		bob.AddRoute(network.Route{Gateway: at("10.0.2.1/24").Addr()}),
		router.Limit("bob", 1_250_000), router.Forward(),
	)
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println("10.0.1.2 - router - 10.0.2.2")
	_ = errors.Join(ann.Close(), router.Close(), bob.Close())
	// Output: 10.0.1.2 - router - 10.0.2.2
}

func ExampleParseRate() {
	r, _ := network.ParseRate("1mbps")
	fmt.Println(uint64(r), "bytes per second, or", r)
	// Output: 1000000 bytes per second, or 8mbit
}
