// Package proxy carries connections and datagrams from ports of the host to
// where they lead, by copying: where the kernel cannot, as it does all others
// (kernel/network/rules).
//
//	takes    Ports, and a Dialer, which reaches where they lead
//	gives    a Proxy: it listens on the host until it is closed
//	touches  sockets of this process's network
//	state    connections and flows, in memory: they end with their port
//
// A connection is accepted, then the same one is made to where the port leads;
// who is refused there is reset. Each direction ends by itself. A client that
// sends datagrams has a flow, a socket of its own, until it was idle for a
// while. What comes of a port that leads elsewhere from now on goes there, the
// connections that it has go on.
//
// # Bounds
//
// Who connects is not trusted, nor who is connected to. Connections and flows are
// counted, of each port and of all: what is more is closed, or dropped. Between
// two sockets of the host the kernel copies (splice), and this process holds
// nothing; else a connection has two buffers. A flow ends when nothing came for
// IdleUnanswered, or IdleAnswered once something was answered.
//
// Without privileges, but for ports that are root's. Safe for concurrent use.
package proxy
