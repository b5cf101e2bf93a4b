package namespace_test

import (
	"fmt"

	"kiste/kernel/namespace"
)

// Root inside is user 1000 outside; what follows are a range's ids.
func ExampleRootMap() {
	fmt.Println(namespace.RootMap(1000, []namespace.Range{{First: 100000, Count: 65536}}))
	// Output: 0:1000:1,1:100000:65536
}

func ExampleParseKind() {
	k, _ := namespace.ParseKind("network") // OCI's word
	fmt.Println(k.Name, "isolates", k.Isolates)
	// Output: net isolates links, addresses, routes, ports, firewall rules
}

// Who shares a host name with this process?
func ExampleList() {
	all, err := namespace.List(namespace.Pins{Dir: "/nonexistent"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range all {
		if n.Kind == "uts" && n.Processes > 0 {
			fmt.Println("at least one uts namespace has processes")
			break
		}
	}
	// Output: at least one uts namespace has processes
}
