package rules_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"kiste/kernel/network"
	"kiste/kernel/network/rules"
)

// A client that goes on asking from one port, as clients of UDP do, is led where
// the port leads now, and nowhere when it has gone; also one who has asked before
// anything was published.
func TestFlowsOfUDPFollowThePort(t *testing.T) {
	for _, tt := range []struct{ host, web, peer string }{
		{"192.0.2.1:8080", "10.2.0.2", "10.2.0.3"}, {"[2001:db8::1]:8080", "fd02::2", "fd02::3"},
	} {
		t.Run(tt.host, func(t *testing.T) {
			s := set(t)
			says(t, s.web, tt.web, "web")
			says(t, s.peer, tt.peer, "peer")
			var c net.Conn
			must(t, s.stranger.Do(func() (err error) { c, err = net.Dial("udp", tt.host); return err }))
			defer c.Close()
			expect := func(who, want string) {
				t.Helper()
				if got := talk(c, want); got != want {
					t.Errorf("%s: %q answers; want %q", who, got, want)
				}
			}
			to := func(a string) rules.State {
				return rules.State{Ports: []rules.Port{{Proto: rules.UDP, HostPort: 8080, To: addr(a), ToPort: 81}}}
			}
			expect("nothing is published", "")
			must(t, s.rules.Add(to(tt.web)))
			expect("published", "web")
			must(t, s.rules.Remove(to(tt.web)))
			expect("gone", "")
			must(t, s.rules.Add(to(tt.peer)))
			expect("it leads to another", "peer")
			_, err := s.rules.Reconcile(rules.State{Bridges: bridges, Ports: to(tt.web).Ports})
			must(t, err)
			expect("made anew", "web")
			must(t, s.rules.Add(to(tt.web)))
			expect("the same again", "web")
		})
	}
}

// says answers each datagram to port 81 with who it is, and with what was asked.
func says(t *testing.T, n *network.Namespace, address, who string) {
	t.Helper()
	var p net.PacketConn
	must(t, n.Do(func() (err error) { p, err = net.ListenPacket("udp", net.JoinHostPort(address, "81")); return err }))
	t.Cleanup(func() { p.Close() })
	go func() {
		b := make([]byte, 10)
		for {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = p.WriteTo(append([]byte(who), b[:n]...), from)
		}
	}()
}

// asked numbers what talk asks: answers to what was asked before may be late.
var asked int

// talk asks until somebody answers, for longer where somebody should.
func talk(c net.Conn, want string) string {
	asked++
	question := fmt.Sprintf("?%d", asked)
	tries := 3 // the first may meet an old error
	if want != "" {
		tries = 100 // or addresses that are not ready yet
	}
	b := make([]byte, 20)
	for range tries {
		_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		_, _ = c.Write([]byte(question))
		for {
			n, err := c.Read(b)
			if err != nil {
				break
			}
			if who, ours := strings.CutSuffix(string(b[:n]), question); ours {
				return who
			}
		}
	}
	return ""
}
