package userstack

import (
	"net"
	"net/netip"
	"time"

	"kiste/container/proxy"
	"kiste/container/resolver"
	"kiste/internal/sys"
)

const (
	maxResolvConf = 64 << 10
	maxServers    = 3 // as resolv.conf(5) has it
	maxQuery      = 4 << 10
	serverTimeout = 2 * time.Second // for one server
)

// servers are those that the host asks now.
func (s *Stack) servers() []netip.AddrPort {
	text, err := sys.ReadFile(s.c.ResolvConf, maxResolvConf)
	if err != nil {
		return nil
	}
	return parseServers(string(text))
}

// parseServers are the servers of a resolv.conf(5).
func parseServers(text string) (servers []netip.AddrPort) {
	for _, a := range resolver.Servers(text, maxServers) {
		servers = append(servers, netip.AddrPortFrom(a, dnsPort))
	}
	return servers
}

// answerQueries forwards the queries of one flow. A flow may have many, and
// their answers come in any order.
func (s *Stack) answerQueries(inside net.Conn) {
	defer inside.Close()
	buffer := make([]byte, maxQuery)
	for {
		_ = inside.SetReadDeadline(time.Now().Add(proxy.IdleUnanswered))
		n, err := inside.Read(buffer)
		if err != nil {
			return
		}
		if !s.queries.Take() {
			continue
		}
		query := append([]byte(nil), buffer[:n]...)
		go func() {
			defer s.queries.Give()
			if answer := s.askServers(query); answer != nil {
				_, _ = inside.Write(answer)
			}
		}()
	}
}

// askServers asks one after the other. Each has a socket of its own, with a port
// of the kernel's choice: so nobody else can guess it.
func (s *Stack) askServers(query []byte) []byte {
	for _, server := range s.servers() {
		if answer, err := s.askServer(server, query); err == nil {
			return answer
		}
	}
	return nil
}

func (s *Stack) askServer(server netip.AddrPort, query []byte) ([]byte, error) {
	c, err := s.dial.Dial("udp", server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(serverTimeout))
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	answer := make([]byte, proxy.MaxDatagram)
	n, err := c.Read(answer)
	return answer[:n], err
}
