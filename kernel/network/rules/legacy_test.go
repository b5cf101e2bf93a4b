package rules_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"kiste/internal/need"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
)

// oldWalls are those that iptables-legacy has in n.
func oldWalls(t *testing.T, n *network.Namespace) []rules.Firewall {
	t.Helper()
	return slices.DeleteFunc(walls(t, n), func(f rules.Firewall) bool { return !strings.HasSuffix(f.Owner, "-legacy") })
}

func needLegacy(t *testing.T, n *network.Namespace) {
	t.Helper()
	need.Program(t, "iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft", "nft")
	if err := n.Do(exec.Command("iptables-legacy", "-t", "filter", "-S").Run); err != nil {
		need.Missing(t, "legacy_iptables", "modprobe iptable_filter")
	}
}

// What iptables-legacy drops for input is not asked about published ports, and
// that is said; the command that is given carries it over.
func TestLegacyInputIsSaidAndCarriedOver(t *testing.T) {
	s := set(t)
	needLegacy(t, s.host)
	must(t, s.rules.Add(rules.State{Ports: webPorts}))
	for _, lines := range [][]string{
		{"iptables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT", "ip6tables-legacy -A INPUT -p icmpv6 -j ACCEPT"},
		{"iptables-legacy -N UNUSED", "iptables-legacy -A UNUSED -j DROP", "iptables-legacy -A OUTPUT -p tcp --dport 1 -j DROP", "iptables-legacy -A FORWARD -p tcp --dport 1 -j DROP"},
	} {
		shell(t, s.host, lines...)
		if all := oldWalls(t, s.host); len(all) != 0 {
			t.Fatalf("nothing is dropped for input, and it is said of %+v", all)
		}
	}
	shell(t, s.host, "iptables-legacy -N GATE", "iptables-legacy -N DEEP", "iptables-legacy -A INPUT -i eth0 -p tcp -m multiport --dports 8080,8443", "iptables-legacy -A INPUT -i eth0 -g GATE",
		"iptables-legacy -A GATE -p tcp -j DEEP", "iptables-legacy -A DEEP -p tcp --dport 8080 -j REJECT --reject-with tcp-reset",
		"ip6tables-legacy -P INPUT DROP")
	all := oldWalls(t, s.host)
	if len(all) != 2 || !all[0].Input || !all[0].Unasked || all[0].Owner != "iptables-legacy" || all[0].Chain != "ip filter INPUT" || all[1].Owner != "ip6tables-legacy" || all[1].Chain != "ip6 filter INPUT" {
		t.Fatalf("%+v", all)
	}
	answers(t, "a stranger, for this is what is said", s.stranger, "tcp", "192.0.2.1:8080", "192.0.2.2")
	for _, f := range all {
		shell(t, s.host, f.Allow...)
	}
	if _, err := s.rules.Reconcile(rules.State{Bridges: bridges, Ports: webPorts}); err != nil {
		t.Error(err)
	}
	notClosed(t, s)
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "")
	answers(t, "a stranger", s.stranger, "tcp", "[2001:db8::1]:8080", "")
	answers(t, "a stranger whom the host lets in", s.stranger, "tcp", "192.0.2.1:8443", "192.0.2.2")
}

// What iptables-legacy drops of what is forwarded stays dropped, and what is said
// lets it through.
func TestLegacyForwardIsObeyed(t *testing.T) {
	s := set(t)
	needLegacy(t, s.host)
	must(t, s.rules.Add(rules.State{Ports: webPorts}))
	shell(t, s.host, "iptables-legacy -P FORWARD DROP")
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "")
	answers(t, "web", s.web, "tcp", "192.0.2.2:80", "")
	all := oldWalls(t, s.host)
	if len(all) != 1 || all[0].Input || all[0].Chain != "ip filter FORWARD" {
		t.Fatalf("%+v", all)
	}
	shell(t, s.host, all[0].Allow...)
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "192.0.2.2")
	answers(t, "web", s.web, "tcp", "192.0.2.2:80", "192.0.2.1")
}
