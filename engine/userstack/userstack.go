// Package userstack is a network for a container whose user may make no links on
// the host: TCP and IP as a program, between a tap device and ordinary sockets.
//
//	takes    a tap device of the container's network, a Config
//	gives    a Stack, which forwards until it is closed
//	touches  the device; sockets of this process's network; resolv.conf, read
//	state    connections, in memory: they end with the process
//
// What the container sends arrives here as packets. A TCP connection is accepted
// when the host's kernel has made the same one for this process, so that a
// refusal is a refusal inside too; then bytes are copied. A UDP flow is a socket
// each, until it was idle for a while. Echo requests go by ping sockets, where
// the host lets this user have them: icmp(7). Queries to a fixed address go to
// the servers that the host's resolv.conf names at that moment.
//
// A published port is a socket that listens on the host (container/proxy). Who connects to it is
// seen inside under his own address, since the stack may speak for any; but for
// those of the host's loopback, who are seen as the gateway.
//
//	kiste run -p 8080:80 IMAGE        as an ordinary user, without pasta
//
// # What the container cannot reach
//
// The host's loopback, also under its other names (0.0.0.0, mapped addresses),
// but by the gateway where Config.HostLoopback says so; groups and broadcasts.
//
// # Bounds
//
// The container is not trusted: connections, flows and queries are counted, and
// what is more than maxFlows of each is dropped. The code that reads packets is
// gVisor's, which is used for nothing else than packets of strangers.
//
// No privilege is needed, but the tap device's descriptor. Safe for concurrent
// use.
package userstack

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/link/nested"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"kiste/container/proxy"
	"kiste/fault"
)

// A Config says what the container's network is.
type Config struct {
	MTU int // bytes
	V4  Family
	V6  Family // the zero value: there is none

	Ports        []proxy.Port // see Publish
	HostLoopback bool         // the gateway is the host's loopback
	ResolvConf   string       // of the host
}

// A Family is what one version of IP has: three addresses of one network.
type Family struct {
	Address netip.Prefix // the container's
	Gateway netip.Addr
	DNS     netip.Addr // queries to it are forwarded
}

// maxFlows bounds TCP connections, UDP flows, queries, and echoes under way.
const maxFlows = 4096

// nic is the number of the stack's only interface.
const nic = 1

// gatewayMAC is the gateway's, of the locally administered ones.
const gatewayMAC = tcpip.LinkAddress("\x02\x6b\x69\x73\x74\x65")

// A Stack forwards.
type Stack struct {
	c       Config
	s       *stack.Stack
	tap     *os.File
	dial    net.Dialer
	pings   [2]*pinger // of IPv4 and IPv6; nil: not allowed
	closers []func() error

	proxy *proxy.Proxy // of published ports

	tcp, udp, queries, echoes proxy.Slots
}

// Start begins to forward between the tap device and the host. The device is the
// Stack's from here on. The ports listen when it returns.
func Start(tap *os.File, c Config) (*Stack, error) {
	s := &Stack{c: c, tap: tap, dial: net.Dialer{Timeout: 30 * time.Second},
		tcp: make(proxy.Slots, maxFlows), udp: make(proxy.Slots, maxFlows), queries: make(proxy.Slots, maxFlows), echoes: make(proxy.Slots, maxFlows)}
	s.proxy = proxy.New(proxy.Options{Dialer: s, Connections: s.tcp, Flows: s.udp, Each: maxFlows})
	err := s.build()
	if err == nil {
		for _, bad := range s.Publish(c.Ports) {
			err = errors.Join(err, bad)
		}
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends all connections.
func (s *Stack) Close() {
	s.Publish(nil)
	for _, end := range s.closers {
		_ = end()
	}
	if s.s != nil {
		_ = s.s.RemoveNIC(nic) // who reads from the device reads on by its number, whatever has that after it is closed
		s.s.Close()
	}
	_ = s.tap.Close()
}

// build makes gVisor's stack on the device.
func (s *Stack) build() error {
	s.s = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	if err := s.tune(); err != nil {
		return err
	}
	link, err := fdbased.New(&fdbased.Options{FDs: []int{int(s.tap.Fd())}, MTU: uint32(s.c.MTU), EthernetHeader: true, Address: gatewayMAC,
		PacketDispatchMode: fdbased.Readv, RXChecksumOffload: true})
	if err != nil {
		return &fault.Error{Op: "open tap device", Err: err}
	}
	s.openPings()
	if bad := s.s.CreateNIC(nic, s.tapped(link)); bad != nil {
		return failed("make an interface", bad)
	}
	// Whatever the container sends is for us, and we speak for all.
	if bad := s.s.SetPromiscuousMode(nic, true); bad != nil {
		return failed("listen for all addresses", bad)
	}
	if bad := s.s.SetSpoofing(nic, true); bad != nil {
		return failed("speak for all addresses", bad)
	}
	if err := s.addresses(); err != nil {
		return err
	}
	s.s.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s.s, 0, maxFlows, s.forwardTCP).HandlePacket)
	s.s.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s.s, s.forwardUDP).HandlePacket)
	return nil
}

// addresses are the gateway's and the server's, and what lies behind: all.
func (s *Stack) addresses() error {
	var routes []tcpip.Route
	for _, f := range s.families() {
		all := header.IPv4EmptySubnet
		if f.Gateway.Is6() {
			all = header.IPv6EmptySubnet
		}
		for _, a := range []netip.Addr{f.Gateway, f.DNS} {
			at := tcpip.ProtocolAddress{Protocol: number(a), AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(a.AsSlice()), PrefixLen: f.Address.Bits()}}
			if bad := s.s.AddProtocolAddress(nic, at, stack.AddressProperties{}); bad != nil {
				return failed("take the address "+a.String(), bad)
			}
		}
		routes = append(routes, tcpip.Route{Destination: all, NIC: nic})
	}
	s.s.SetRouteTable(routes)
	return nil
}

func (s *Stack) families() []Family {
	all := []Family{s.c.V4, s.c.V6}
	if !s.c.V6.Address.IsValid() {
		return all[:1]
	}
	return all
}

// The sizes of a connection's buffers: at least, at first, at most, in bytes.
const minBuffer, usualBuffer, maxBuffer = 4 << 10, 1 << 20, 8 << 20

// tune is for a link that loses nothing and delays nothing.
func (s *Stack) tune() error {
	sack, moderate, recovery := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true), tcpip.TCPRecovery(0)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: minBuffer, Default: usualBuffer, Max: maxBuffer}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: minBuffer, Default: usualBuffer, Max: maxBuffer}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &recovery, &receive, &send} {
		if bad := s.s.SetTransportProtocolOption(tcp.ProtocolNumber, o); bad != nil {
			return failed("set options of TCP", bad)
		}
	}
	return nil
}

func failed(op string, err tcpip.Error) error {
	return &fault.Error{Op: op, Err: errors.New(err.String())}
}

// tapped is the device with what is answered before the stack sees it.
func (s *Stack) tapped(link stack.LinkEndpoint) stack.LinkEndpoint {
	e := &tapEndpoint{s: s}
	e.Init(link, e)
	return e
}

// A tapEndpoint takes echo requests out of what the device gives.
type tapEndpoint struct {
	nested.Endpoint
	s *Stack
}

// DeliverNetworkPacket is stack.NetworkDispatcher's.
func (e *tapEndpoint) DeliverNetworkPacket(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if e.s.takeEcho(protocol, pkt) {
		return
	}
	e.Endpoint.DeliverNetworkPacket(protocol, pkt)
}

// target is what an address of the container's world is on the host; invalid: it
// cannot be reached.
func (s *Stack) target(a netip.Addr) netip.Addr {
	a = a.Unmap()
	switch {
	case a == s.c.V4.Gateway || a == s.c.V6.Gateway:
		if !s.c.HostLoopback {
			return netip.Addr{}
		}
		if a.Is4() {
			return netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		return netip.IPv6Loopback()
	case a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240):
		return netip.Addr{}
	case a.Is6() && (a.IsLinkLocalUnicast() || embedsLoopback(a)):
		return netip.Addr{}
	case s.c.V4.Address.Masked().Contains(a) || s.c.V6.Address.IsValid() && s.c.V6.Address.Masked().Contains(a):
		return netip.Addr{}
	}
	return a
}

// embedsLoopback reports whether an IPv6 address is the old form of an IPv4 one,
// which some kernel may take for that: RFC 4291, 2.5.5.1.
func embedsLoopback(a netip.Addr) bool {
	b := a.As16()
	return [12]byte(b[:12]) == [12]byte{}
}

// seen is the address under which the container sees who connects to a port, and
// its family; an invalid address is the gateway.
func (s *Stack) seen(client netip.AddrPort) (netip.AddrPort, Family) {
	a := client.Addr().Unmap()
	f := s.c.V4
	if a.Is6() && s.c.V6.Address.IsValid() {
		f = s.c.V6
	}
	if a.Is6() != f.Gateway.Is6() || a.IsLoopback() || a.IsLinkLocalUnicast() || !a.IsValid() || a == f.Address.Addr() {
		return netip.AddrPortFrom(f.Gateway, 0), f
	}
	return netip.AddrPortFrom(a, client.Port()), f
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

func number(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func addrOf(a tcpip.Address, port uint16) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(ip, port)
}
