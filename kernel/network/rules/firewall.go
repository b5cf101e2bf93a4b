package rules

import (
	"fmt"
	"slices"
	"strings"

	"kiste/kernel/network/nft"
)

// A Firewall is a chain of somebody else's that decides about containers too: it
// drops what it has no rule for.
//
// Published traffic is changed before it is looked at, and then forwarded. So
// chains for what is forwarded decide about it, and those for input do not: as
// with every router, and with Docker. What they drop stays dropped, since an
// accept in our table overrules nobody.
type Firewall struct {
	Owner string   // "Docker", "ufw", "firewalld", "iptables", "nftables"
	Chain string   // "ip filter FORWARD"
	Input bool     // it is for input, and decides nothing about published ports
	Says  string   // what that means, a sentence
	Allow []string // commands that let the containers' traffic through
}

// Firewalls lists those of a host, for bridges whose names begin with prefix. It
// sees what nf_tables has, iptables in its variant for it included.
func Firewalls(c *nft.Conn, prefix string) ([]Firewall, error) {
	chains, err := c.Chains()
	if err != nil {
		return nil, err
	}
	return firewalls(chains, prefix), nil
}

func firewalls(chains []nft.Listed, prefix string) []Firewall {
	var all []Firewall
	for _, c := range chains {
		k := keeperOf(c, chains)
		ip := c.Table.Family == nft.Inet || c.Table.Family == nft.IPv4 || c.Table.Family == nft.IPv6
		if !ip || c.Type != "filter" || !(c.Drop || k.rejects == c.Name) || c.Hook != nft.Forward && c.Hook != nft.Input {
			continue
		}
		f := Firewall{Owner: k.owner, Chain: c.Table.String() + " " + c.Name, Input: c.Hook == nft.Input}
		if f.Input {
			f.Says = "it closes ports of the host's own programs; published ports are forwarded, which it does not see. To keep one from strangers publish it at 127.0.0.1, or drop it in a chain for forward"
		} else {
			f.Says = k.says
			f.Allow = k.allow(c, prefix)
		}
		all = append(all, f)
	}
	return all
}

// A keeper is a program that has a firewall.
type keeper struct {
	owner   string
	table   string // its table; empty: any
	chain   string // a chain that its table has; empty: any
	rejects string // a chain that drops by a rule, where the policy is to accept
	says    string
	allow   func(c nft.Listed, prefix string) []string
}

const closedText = "it drops what is forwarded and not allowed: containers on bridges do not get out, and published ports are not reached from outside"

// keepers are known by what is in their tables; the first that fits.
var keepers = []keeper{
	{owner: "firewalld", table: "firewalld", rejects: "filter_FORWARD",
		says:  "it decides by zones: published ports pass, unless StrictForwardPorts is set in firewalld.conf; whether containers get out says the zone of the host's link",
		allow: both("firewall-cmd --permanent --zone=trusted --add-interface=%s+", "firewall-cmd --reload")},
	{owner: "ufw", chain: "ufw-before-forward", says: closedText, allow: both("ufw route allow in on %s+", "ufw route allow out on %s+")},
	{owner: "ufw", chain: "ufw6-before-forward", says: closedText, allow: both("ufw route allow in on %s+", "ufw route allow out on %s+")},
	{owner: "Docker", chain: "DOCKER-USER", says: closedText + ". Docker set this, and left a chain for others",
		allow: func(c nft.Listed, prefix string) []string {
			return both(iptables(c)+" -I DOCKER-USER -i %s+ -j ACCEPT", iptables(c)+" -I DOCKER-USER -o %s+ -j ACCEPT")(c, prefix)
		}},
	{owner: "iptables", table: "filter", chain: "FORWARD", says: closedText,
		allow: func(c nft.Listed, prefix string) []string {
			return both(iptables(c)+" -I FORWARD -i %s+ -j ACCEPT", iptables(c)+" -I FORWARD -o %s+ -j ACCEPT")(c, prefix)
		}},
	{owner: "nftables", says: closedText,
		allow: func(c nft.Listed, prefix string) []string {
			insert := fmt.Sprintf("nft 'insert rule %v %s ", c.Table, c.Name)
			return both(insert+`iifname "%s*" accept'`, insert+`oifname "%s*" accept'`)(c, prefix)
		}},
}

func both(formats ...string) func(nft.Listed, string) []string {
	return func(_ nft.Listed, prefix string) []string {
		lines := make([]string, len(formats))
		for i, f := range formats {
			lines[i] = strings.ReplaceAll(f, "%s", prefix)
		}
		return lines
	}
}

func iptables(c nft.Listed) string {
	if c.Table.Family == nft.IPv6 {
		return "ip6tables"
	}
	return "iptables"
}

func keeperOf(c nft.Listed, all []nft.Listed) keeper {
	i := slices.IndexFunc(keepers, func(k keeper) bool {
		return (k.table == "" || k.table == c.Table.Name) && (k.chain == "" || slices.ContainsFunc(all, func(o nft.Listed) bool {
			return o.Table.Family == c.Table.Family && o.Table.Name == c.Table.Name && o.Name == k.chain
		}))
	})
	return keepers[i]
}
