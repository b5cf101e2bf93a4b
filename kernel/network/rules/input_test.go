package rules_test

import (
	"strings"
	"testing"

	"kiste/internal/need"
	"kiste/kernel/network/nft"
	"kiste/kernel/network/rules"
)

var webPorts = []rules.Port{
	{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80}, {Proto: rules.UDP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80},
	{Proto: rules.TCP, HostPort: 8080, To: addr("fd02::2"), ToPort: 80}, {Proto: rules.TCP, Host: addr("192.0.2.1"), HostPort: 8443, To: addr("10.2.0.2"), ToPort: 80},
}

// What the host closes in chains for input is closed for published ports too:
// for strangers, and by the port that was published; and opened by the same
// rules as ports of the host's own programs.
func TestChainsForInputDecideAboutPublishedPorts(t *testing.T) {
	for _, tt := range []struct {
		name, program string
		close, open   []string
	}{
		{"nftables, by policy", "nft", []string{
			"nft add table inet filter", "nft 'add chain inet filter input { type filter hook input priority 0; policy drop; }'", "nft add rule inet filter input iifname br0 accept", "nft add rule inet filter input meta l4proto ipv6-icmp accept"},
			[]string{"nft add rule inet filter input tcp dport 8080 accept", "nft add rule inet filter input udp dport 8080 accept"}},
		{"nftables, by rules of chains, sets and maps", "nft", []string{
			"nft add table inet f", "nft 'add chain inet f gate { type filter hook input priority 10; policy accept; }'", "nft add chain inet f strangers",
			"nft 'add set inet f shut { type inet_service; flags interval; elements = { 22, 8000-8100, 8101-8200, 8443 }; }'",
			"nft 'add rule inet f strangers meta l4proto { tcp, udp } th dport @shut counter log prefix \"shut\" reject with icmpx type admin-prohibited'",
			"nft 'add rule inet f gate ct state established,related accept'", "nft 'add rule inet f gate meta iifname vmap { lo : accept, eth0 : jump strangers }'"},
			[]string{"nft 'delete element inet f shut { 8000-8100 }'", "nft 'delete element inet f shut { 8443 }'"}},
		{"nftables, of one family", "nft", []string{
			"nft add table ip mine", "nft 'add set ip mine open { type inet_service; }'", "nft 'add chain ip mine in { type filter hook input priority 5; }'",
			"nft add rule ip mine in ct state established accept", "nft add rule ip mine in meta l4proto { tcp, udp } th dport @open accept",
			"nft add rule ip mine in iifname br0 accept", "nft add rule ip mine in meta l4proto tcp reject with tcp reset", "nft add rule ip mine in ip saddr 192.0.2.0/24 drop",
			"nft add table ip6 mine", "nft 'add chain ip6 mine in { type filter hook input priority 5; policy drop; }'", "nft add rule ip6 mine in meta l4proto ipv6-icmp accept"},
			[]string{"nft 'add element ip mine open { 8080 }'", "nft add rule ip6 mine in tcp dport 8080 accept"}},
		{"iptables", "iptables-nft", []string{
			"iptables-nft -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", "iptables-nft -N LIMITED", "iptables-nft -A INPUT -j LIMITED",
			"iptables-nft -A LIMITED -p tcp -m multiport --dports 1,2 -m limit --limit 3/min -j LOG", "iptables-nft -A INPUT -j REJECT --reject-with icmp-host-prohibited",
			// Else a stranger who asks while nobody is let in may be told later that there is no host.
			"ip6tables-nft -A INPUT -p icmpv6 -j ACCEPT", "ip6tables-nft -P INPUT DROP"},
			[]string{"iptables-nft -I INPUT -p tcp -m multiport --dports 8080 -j ACCEPT", "iptables-nft -I INPUT -p udp --dport 8080 -m addrtype --dst-type LOCAL -j ACCEPT", "ip6tables-nft -A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			need.Program(t, tt.program, "nft")
			s := set(t)
			shell(t, s.host, tt.close...)
			state := rules.State{Bridges: bridges, Ports: webPorts}
			must(t, s.rules.Add(state))
			for _, port := range []string{"192.0.2.1:8080", "192.0.2.1:8443", "[2001:db8::1]:8080"} {
				answers(t, "a stranger", s.stranger, "tcp", port, "")
			}
			answers(t, "a stranger", s.stranger, "udp", "192.0.2.1:8080", "")
			answers(t, "the host", s.host, "tcp", "192.0.2.1:8080", "192.0.2.1")
			answers(t, "the host", s.host, "tcp", "127.0.0.1:8080", "10.2.0.1")
			answers(t, "the neighbour", s.peer, "tcp", "192.0.2.1:8080", "10.2.0.1")
			shell(t, s.host, "nft list ruleset >/dev/null") // the program nft understands what we wrote
			if changed, err := s.rules.Reconcile(state); changed || err != nil {
				t.Errorf("what is as it should be is changed: %v, %v", changed, err)
			}
			notClosed(t, s)
			shell(t, s.host, tt.open...)
			if changed, err := s.rules.Reconcile(state); !changed || err != nil {
				t.Errorf("the host's rules have changed, but not their copy: %v, %v", changed, err)
			}
			notClosed(t, s)
			answers(t, "a stranger whom the host lets in", s.stranger, "tcp", "192.0.2.1:8080", "192.0.2.2")
			answers(t, "a stranger whom the host lets in", s.stranger, "udp", "192.0.2.1:8080", "192.0.2.2")
			answers(t, "a stranger whom the host lets in", s.stranger, "tcp", "[2001:db8::1]:8080", "2001:db8::2")
			must(t, s.rules.Remove(rules.State{Ports: webPorts}))
			if _, err := s.rules.Reconcile(rules.State{Bridges: bridges}); err != nil {
				t.Error(err)
			}
			if all := copiesOf(t, s); len(all) != 0 {
				t.Errorf("nothing is published, and there are copies: %+v", all)
			}
		})
	}
}

// A port of which the user says so is not asked about, and nothing is copied
// where nothing drops.
func TestUnjudgedPorts(t *testing.T) {
	need.Program(t, "nft")
	s := set(t)
	shell(t, s.host, "nft add table inet filter", "nft 'add chain inet filter input { type filter hook input priority 0; }'", "nft add rule inet filter input tcp dport 22 accept")
	must(t, s.rules.Add(rules.State{Ports: webPorts[:1]}))
	if all := copiesOf(t, s); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	shell(t, s.host, "nft add rule inet filter input drop")
	free := webPorts[0]
	free.HostPort, free.Unjudged = 8081, true
	must(t, s.rules.Add(rules.State{Ports: []rules.Port{free}}))
	must(t, s.rules.Add(rules.State{Ports: webPorts[1:2]}))
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "")
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8081", "192.0.2.2")
}

// Where a chain cannot be copied nobody comes in, and it is said; but a rule that
// lets somebody through is only left out.
func TestWhatCannotBeCopiedIsClosed(t *testing.T) {
	need.Program(t, "nft")
	for _, tt := range []struct {
		rule, says string
		open       bool
	}{
		{"rt classid 7 accept", "without: rt", true},
		{"rt classid 7 drop", "closed: ", false},
		{"tcp dport 1 synproxy mss 1460 wscale 7", "closed: ", false},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			s := set(t)
			shell(t, s.host, "nft add table ip filter", "nft 'add chain ip filter input { type filter hook input priority 0; policy drop; }'",
				"nft add rule ip filter input iifname br0 accept", "nft add rule ip filter input "+tt.rule, "nft add rule ip filter input tcp dport 8080 accept")
			must(t, s.rules.Add(rules.State{Bridges: bridges, Ports: webPorts[:1]}))
			all := copiesOf(t, s)
			if len(all) != 1 || !strings.Contains(all[0].Comment, tt.says) {
				t.Errorf("%+v", all)
			}
			answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", map[bool]string{true: "192.0.2.2"}[tt.open])
			answers(t, "the host", s.host, "tcp", "127.0.0.1:8080", "10.2.0.1")
			walls := walls(t, s.host)
			if len(walls) != 1 || !tt.open && !strings.Contains(walls[0].Says, "cannot be asked") {
				t.Errorf("%+v", walls)
			}
		})
	}
}

// What the kernel refuses to have at the other hook is closed, once and for all.
func TestWhatTheKernelRefusesIsClosed(t *testing.T) {
	need.Program(t, "iptables-nft")
	s := set(t)
	shell(t, s.host, "iptables-nft -A INPUT -m realm --realm 5 -j DROP")
	state := rules.State{Bridges: bridges, Ports: webPorts[:1]}
	must(t, s.rules.Add(state))
	all := copiesOf(t, s)
	if len(all) != 1 || !strings.Contains(all[0].Comment, "closed: the kernel does not take it") {
		t.Fatalf("%+v", all)
	}
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "")
	if changed, err := s.rules.Reconcile(state); changed || err != nil {
		t.Errorf("%v, %v", changed, err)
	}
	must(t, s.rules.Delete())
	if all := copiesOf(t, s); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

func notClosed(t *testing.T, s *stage) {
	t.Helper()
	for _, c := range copiesOf(t, s) {
		if strings.Contains(c.Comment, ": ") {
			t.Error(c.Comment)
		}
	}
}

// copiesOf are the copies that were made.
func copiesOf(t *testing.T, s *stage) (all []nft.Table) {
	t.Helper()
	must(t, s.host.Do(func() error {
		c, err := nft.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		tables, err := c.Tables()
		for _, table := range tables {
			if strings.HasPrefix(table.Name, "kiste-input-") {
				all = append(all, table)
			}
		}
		return err
	}))
	return all
}
