package rules

import (
	"strings"
	"testing"

	"kiste/kernel/network/nft"
)

func TestWhoHasAFirewallIsKnownByItsChains(t *testing.T) {
	ip, inet := nft.Table{Family: nft.IPv4, Name: "filter"}, nft.Table{Family: nft.Inet, Name: "firewalld"}
	forward := nft.Listed{Table: ip, Chain: nft.Chain{Name: "FORWARD", Type: "filter", Hook: nft.Forward, Drop: true}}
	for _, tt := range []struct {
		owner, allow string
		chains       []nft.Listed
	}{
		{"iptables", "iptables -I FORWARD -i kb-+", []nft.Listed{forward}},
		{"Docker", "DOCKER-USER -o kb-+", []nft.Listed{forward, {Table: ip, Chain: nft.Chain{Name: "DOCKER-USER"}}}},
		{"ufw", "ufw route allow in on kb-+", []nft.Listed{forward, {Table: ip, Chain: nft.Chain{Name: "ufw-before-forward"}}, {Table: ip, Chain: nft.Chain{Name: "DOCKER-USER"}}}},
		{"firewalld", "firewall-cmd", []nft.Listed{{Table: inet, Chain: nft.Chain{Name: "filter_FORWARD", Type: "filter", Hook: nft.Forward}}}},
		{"", "", []nft.Listed{{Table: ip, Chain: nft.Chain{Name: "FORWARD", Type: "filter", Hook: nft.Forward}}}},
	} {
		got := firewalls(tt.chains, "kb-")
		if tt.owner == "" {
			if len(got) != 0 {
				t.Errorf("one that accepts: %+v", got)
			}
			continue
		}
		if len(got) != 1 || got[0].Owner != tt.owner || !strings.Contains(strings.Join(got[0].Allow, "\n"), tt.allow) {
			t.Errorf("%s: %+v", tt.owner, got)
		}
	}
}
