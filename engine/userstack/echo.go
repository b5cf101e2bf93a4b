package userstack

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"kiste/container/proxy"
	"kiste/internal/sys"
)

// A pinger sends echo requests of one version of IP. The kernel writes the
// identifier, so that each is a socket of its own.
type pinger struct {
	v6 bool
}

// open makes a ping socket; an error where this user may have none.
func (p *pinger) open() (net.PacketConn, error) {
	fd, err := sys.PingSocket(p.v6)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close()
	return net.FilePacketConn(f)
}

// openPings finds out which versions may be pinged.
func (s *Stack) openPings() {
	for i := range s.pings {
		p := &pinger{v6: i == 1}
		if c, err := p.open(); err == nil {
			c.Close()
			s.pings[i] = p
		}
	}
}

// An echo is a request of the container.
type echo struct {
	from, to netip.Addr
	mac      tcpip.LinkAddress // of the container's interface
	message  []byte            // of ICMP, from its type on
}

// Sizes and places of ICMP's header, the same in both versions: RFC 792, RFC 4443.
const (
	icmpHeader   = 8
	icmpType     = 0
	icmpChecksum = 2
	icmpID       = 4
)

// takeEcho takes an echo request to another than the gateway, which the stack
// itself answers. It reports whether the packet was one.
func (s *Stack) takeEcho(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) bool {
	if protocol != ipv4.ProtocolNumber && protocol != ipv6.ProtocolNumber {
		return false
	}
	// Most packets are none: look at the first bytes only.
	view, ok := pkt.Data().PullUp(min(pkt.Data().Size(), header.IPv6MinimumSize+icmpHeader))
	if !ok || !mayBeEcho(view) {
		return false
	}
	e, ok := parseEcho(pkt.Data().AsRange().ToSlice())
	if !ok || e.to == s.c.V4.Gateway || e.to == s.c.V6.Gateway {
		return false
	}
	if link := header.Ethernet(pkt.LinkHeader().Slice()); len(link) >= header.EthernetMinimumSize {
		e.mac = tcpip.LinkAddress(append([]byte(nil), link.SourceAddress()...))
	}
	if to := s.target(e.to); to.IsValid() && s.pinger(to) != nil && s.echoes.Take() {
		go func() {
			defer s.echoes.Give()
			s.ping(e)
		}()
	}
	return true
}

func (s *Stack) pinger(to netip.Addr) *pinger {
	if to.Is4() {
		return s.pings[0]
	}
	return s.pings[1]
}

func mayBeEcho(ip []byte) bool {
	switch {
	case len(ip) >= header.IPv4MinimumSize && ip[0]>>4 == 4:
		return ip[9] == uint8(header.ICMPv4ProtocolNumber)
	case len(ip) >= header.IPv6MinimumSize && ip[0]>>4 == 6:
		return ip[6] == uint8(header.ICMPv6ProtocolNumber)
	}
	return false
}

// parseEcho reads an IP packet that is a whole echo request.
func parseEcho(b []byte) (e echo, ok bool) {
	if !mayBeEcho(b) {
		return e, false
	}
	if b[0]>>4 == 4 {
		ip := header.IPv4(b)
		if !ip.IsValid(len(b)) || ip.More() || ip.FragmentOffset() != 0 {
			return e, false
		}
		e.from, e.to = netip.AddrFrom4(ip.SourceAddress().As4()), netip.AddrFrom4(ip.DestinationAddress().As4())
		e.message = ip.Payload()
		return e, len(e.message) >= icmpHeader && e.message[icmpType] == byte(header.ICMPv4Echo)
	}
	ip := header.IPv6(b)
	if !ip.IsValid(len(b)) {
		return e, false
	}
	e.from, e.to = netip.AddrFrom16(ip.SourceAddress().As16()), netip.AddrFrom16(ip.DestinationAddress().As16())
	e.message = ip.Payload()
	return e, len(e.message) >= icmpHeader && e.message[icmpType] == byte(header.ICMPv6EchoRequest)
}

// echoTimeout is how long an answer may take.
const echoTimeout = 10 * time.Second

// ping asks in the container's place, and answers it.
func (s *Stack) ping(e echo) {
	to := s.target(e.to)
	c, err := s.pinger(to).open()
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(echoTimeout))
	if _, err := c.WriteTo(e.message, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 0))); err != nil {
		return
	}
	answer := make([]byte, proxy.MaxDatagram)
	n, _, err := c.ReadFrom(answer)
	if err != nil || n < icmpHeader {
		return
	}
	copy(answer[icmpID:icmpID+2], e.message[icmpID:])
	packet, protocol := e.reply(answer[:n])
	_ = s.s.WritePacketToRemote(nic, e.mac, protocol, buffer.MakeWithData(packet))
}

// ttl is that of packets that are made here.
const ttl = 64

// reply is the IP packet with the answer to e.
func (e *echo) reply(message []byte) ([]byte, tcpip.NetworkProtocolNumber) {
	binary.BigEndian.PutUint16(message[icmpChecksum:], 0)
	from, to := tcpip.AddrFromSlice(e.to.AsSlice()), tcpip.AddrFromSlice(e.from.AsSlice())
	if e.to.Is4() {
		ip := make(header.IPv4, header.IPv4MinimumSize, header.IPv4MinimumSize+len(message))
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(cap(ip)), TTL: ttl, Protocol: uint8(header.ICMPv4ProtocolNumber), SrcAddr: from, DstAddr: to})
		ip.SetChecksum(^ip.CalculateChecksum())
		binary.BigEndian.PutUint16(message[icmpChecksum:], ^checksum.Checksum(message, 0))
		return append(ip, message...), ipv4.ProtocolNumber
	}
	ip := make(header.IPv6, header.IPv6MinimumSize, header.IPv6MinimumSize+len(message))
	ip.Encode(&header.IPv6Fields{PayloadLength: uint16(len(message)), TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: ttl, SrcAddr: from, DstAddr: to})
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, from, to, uint16(len(message)))
	binary.BigEndian.PutUint16(message[icmpChecksum:], ^checksum.Checksum(message, sum))
	return append(ip, message...), ipv6.ProtocolNumber
}
