// Package network says whom a process can reach: links, addresses, routes and
// rates of network namespaces.
//
//	takes    links, addresses, routes as data; a network namespace, by descriptor
//	gives    a Namespace: create, delete, list, set up, MakeBridge, Attach; Own: one for this process; NewOwned: an ordinary user's; Tap; a Lab of several
//	touches  rtnetlink sockets, network namespaces, sysctls below /proc/sys/net
//	state    the kernel's: nothing is kept in files
//
// A network namespace has links; a link has addresses; routes name links. A
// veth is a cable: two links, an end in each of two namespaces. A bridge is a
// switch: links whose master it is are its ports. On the command line
//
//	kiste network run --bridge kiste0 --rate 10mbit -- sh
//
// and with iproute2
//
//	ip netns add blue; ip link add v0 type veth peer name eth0 netns blue
//	ip -n blue address add 10.66.0.2/24 dev eth0; ip -n blue link set eth0 up
//
// # Leases
//
// The host's end of a veth that Own makes is named after the address inside:
// k0a420002 is 10.66.0.2. The kernel refuses a second link of the name, so
// the name is the lease; it ends with the namespace, in which the veth ends
// too, and there is no file to go stale.
//
// # Rates
//
// A rate is kept by a tbf qdisc on an end of a veth, for what that end sends:
// see tc-tbf(8). To limit both directions both ends get one.
//
// # Shortcuts
//
// What ports of a bridge send each other may be handed over past it, by a program for
// tc-bpf(8) at the host's ends: see Endpoint.Shortcut. "tc filter show dev LINK ingress"
// shows it as kiste_shortcut1.
//
// # Privileges
//
// CAP_NET_ADMIN in the user namespace that owns the network namespace, or to be
// that one's owner: then children of this process enter it, see Foreign. For a new
// one CAP_SYS_ADMIN, or NewOwned. A Namespace must not be used by several goroutines at
// once.
package network
