// Package resolver answers the questions for names that containers ask at
// 127.0.0.11.
//
//	takes    containers: their processes, names and addresses on networks
//	gives    a Resolver; Set tells it who is there
//	touches  sockets in the containers' network namespaces and in this one;
//	         the host's resolv.conf, read only
//	state    none that lasts: what Set was told, and open sockets
//
// A container asks for the names, aliases, short ids and addresses of those with
// whom it shares a network, and hears of no others: NAME, NAME.NETWORK, and the
// reverse of an address, as Docker has it. All else is asked of the container's
// own servers, or of the host's, whose file is looked at again for each such
// question, by a socket inside of the container, so that its networks' rules
// count; only what cannot be reached from there, servers on the host's
// loopback and such, by one of the host. What a peer's name has no address for is
// answered with nothing, and so is what a subnet has nobody for: neither is
// asked outside. A container whose networks are all internal is told SERVFAIL.
//
// Whatever comes from a container or a server may be hostile. Messages are parsed
// by golang.org/x/net/dns/dnsmessage, and passed on as they came, with an id of
// ours, from a port of their own. An answer counts when it comes from where the
// question went and has its id and its question. A container has bounds of its
// own on questions in a second, questions under way and connections: who floods
// waits for himself alone.
//
// To enter the namespaces CAP_SYS_ADMIN is needed over them, or to be the owner of
// their user namespaces; then long answers are asked for from outside, where this
// process reaches what the container does. A Resolver is safe
// for concurrent use.
package resolver
