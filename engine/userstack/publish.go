package userstack

import (
	"context"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"kiste/container/proxy"
)

// Publish makes these the ports that are published, which listen on the host and
// lead to the container: their To has no address, or any of a version of IP, by
// which it leads there whoever asks. Those that cannot be had are in failed.
func (s *Stack) Publish(all []proxy.Port) (failed map[proxy.Port]error) { return s.proxy.Set(all) }

// DialTCP connects to a port in the container as client; where it refuses one of
// IPv6, as the gateway by IPv4.
func (s *Stack) DialTCP(ctx context.Context, client, to netip.AddrPort) (proxy.Stream, error) {
	from, f := s.seenAt(client, to)
	c, err := s.dialAs(ctx, from, netip.AddrPortFrom(f.Address.Addr(), to.Port()))
	if err != nil && from.Addr().Is6() {
		v4 := s.c.V4
		c, err = s.dialAs(ctx, netip.AddrPortFrom(v4.Gateway, 0), netip.AddrPortFrom(v4.Address.Addr(), to.Port()))
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DialUDP is the same for datagrams, for which nobody can be refused.
func (s *Stack) DialUDP(client, to netip.AddrPort) (net.Conn, error) {
	from, f := s.seenAt(client, to)
	local, remote := full(from), full(netip.AddrPortFrom(f.Address.Addr(), to.Port()))
	return gonet.DialUDP(s.s, &local, &remote, number(from.Addr()))
}

// seenAt is seen where a port may lead by one version of IP alone.
func (s *Stack) seenAt(client, to netip.AddrPort) (netip.AddrPort, Family) {
	from, f := s.seen(client)
	for _, only := range s.families() {
		if to.Addr().IsValid() && to.Addr().Is4() == only.Gateway.Is4() && f != only {
			return netip.AddrPortFrom(only.Gateway, 0), only
		}
	}
	return from, f
}

func (s *Stack) dialAs(ctx context.Context, from, to netip.AddrPort) (*gonet.TCPConn, error) {
	return gonet.DialTCPWithBind(ctx, s.s, full(from), full(to), number(to.Addr()))
}
