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
// Published traffic is changed before it is looked at, and then forwarded: chains
// for what is forwarded decide about it, since an accept in our table overrules
// nobody. Those for input decide too, by a copy that is asked first, about the
// port that was published.
type Firewall struct {
	Owner   string   // "Docker", "ufw", "firewalld", "iptables", "nftables"
	Chain   string   // "ip filter FORWARD"
	Input   bool     // it is for input: it decides about published ports alone
	Closed  bool     // of input: it could not be copied, and so lets nobody to published ports
	Unasked bool     // of input: it has no say about published ports, and should have
	Says    string   // what that means, a sentence
	Allow   []string // commands that let the containers' traffic through; PORT stands for a published port; Unasked: that give it its say
}

// Firewalls lists those of a host, for bridges whose names begin with prefix: what
// nf_tables has, iptables in its variant for it included; and what the older variant
// has in the network namespace of the calling thread, which must be that of c.
func Firewalls(c *nft.Conn, prefix string) ([]Firewall, error) {
	chains, err := c.Chains()
	if err != nil {
		return nil, err
	}
	all := firewalls(chains, prefix)
	copies, err := copies(c, DefaultName)
	if err != nil {
		return append(all, legacy(prefix)...), err
	}
	made, err := c.Tables()
	for _, o := range copies {
		all = complain(all, o, chains, made)
	}
	return append(all, legacy(prefix)...), err
}

// complain says of the chains of o what their copy lacks; made are the tables
// that may be it.
func complain(all []Firewall, o inputCopy, chains []nft.Listed, made []nft.Table) []Firewall {
	for _, t := range made {
		if t.Family == o.from.Family && strings.HasSuffix(t.Name, copyInfix+o.from.Name) && strings.HasPrefix(t.Comment, o.mark+closedWord) {
			o.cannot = strings.TrimPrefix(t.Comment, o.mark+closedWord)
		}
	}
	text := ""
	switch {
	case o.cannot != "":
		text = "it cannot be asked about published ports, which are closed to strangers: " + o.cannot
	case len(o.without) > 0:
		text = "its rules that let through by " + strings.Join(o.without, ", ") + " cannot be asked about published ports, and let nobody to them"
	default:
		return all
	}
	for _, chain := range o.chains {
		name := o.from.String() + " " + chain.Name
		i := slices.IndexFunc(all, func(f Firewall) bool { return f.Input && f.Chain == name })
		if i < 0 {
			i = len(all)
			all = append(all, Firewall{Owner: keeperOf(chain.Listed, chains).owner, Chain: name, Input: true})
		}
		all[i].Says = text + ". " + Unjudge
		if all[i].Closed = o.cannot != ""; all[i].Closed {
			all[i].Allow = nil
		}
	}
	return all
}

// Unjudge says how a network is not asked about.
const Unjudge = "A network made with the option kiste.firewall=forward has ports that it has no say about"

const inputText = "it decides about published ports too, as if the host's own programs had them. " + Unjudge

func firewalls(chains []nft.Listed, prefix string) []Firewall {
	var all []Firewall
	for _, c := range chains {
		k := keeperOf(c, chains)
		if !isIP(c.Table.Family) || c.Type != "filter" || !(c.Drop || slices.Contains(k.rejects, c.Name)) || c.Hook != nft.Forward && c.Hook != nft.Input {
			continue
		}
		f := Firewall{Owner: k.owner, Chain: c.Table.String() + " " + c.Name, Input: c.Hook == nft.Input, Says: k.says, Allow: k.allow(c, prefix)}
		if f.Input {
			f.Says, f.Allow = inputText, k.open(c)
		}
		all = append(all, f)
	}
	return all
}

// A keeper is a program that has a firewall.
type keeper struct {
	owner   string
	table   string   // its table; empty: any
	chain   string   // a chain that its table has; empty: any
	rejects []string // chains that drop by a rule, where the policy is to accept
	says    string
	allow   func(c nft.Listed, prefix string) []string
	open    func(c nft.Listed) []string // a port, in a chain for input
}

const closedText = "it drops what is forwarded and not allowed: containers on bridges do not get out, and published ports are not reached from outside"

// keepers are known by what is in their tables; the first that fits.
func keepers() []keeper {
	return []keeper{
		{owner: "firewalld", table: "firewalld", rejects: []string{"filter_FORWARD", "filter_INPUT"},
			says:  "it decides by zones: published ports pass, unless StrictForwardPorts is set in firewalld.conf; whether containers get out says the zone of the host's link",
			allow: both("firewall-cmd --permanent --zone=trusted --add-interface=%s+", "firewall-cmd --reload"),
			open: func(nft.Listed) []string {
				return []string{"firewall-cmd --permanent --add-port=PORT/tcp", "firewall-cmd --reload"}
			}},
		{owner: "ufw", chain: "ufw-before-forward", says: closedText, allow: both("ufw route allow in on %s+", "ufw route allow out on %s+"), open: ufwOpen},
		{owner: "ufw", chain: "ufw6-before-forward", says: closedText, allow: both("ufw route allow in on %s+", "ufw route allow out on %s+"), open: ufwOpen},
		{owner: "Docker", chain: "DOCKER-USER", says: closedText + ". Docker set this, and left a chain for others",
			allow: func(c nft.Listed, prefix string) []string {
				return both(iptables(c)+" -I DOCKER-USER -i %s+ -j ACCEPT", iptables(c)+" -I DOCKER-USER -o %s+ -j ACCEPT")(c, prefix)
			}, open: iptablesOpen},
		{owner: "iptables", table: "filter", chain: "FORWARD", says: closedText,
			allow: func(c nft.Listed, prefix string) []string {
				return both(iptables(c)+" -I FORWARD -i %s+ -j ACCEPT", iptables(c)+" -I FORWARD -o %s+ -j ACCEPT")(c, prefix)
			}, open: iptablesOpen},
		{owner: "nftables", says: closedText,
			allow: func(c nft.Listed, prefix string) []string {
				insert := fmt.Sprintf("nft 'insert rule %v %s ", c.Table, c.Name)
				return both(insert+`iifname "%s*" accept'`, insert+`oifname "%s*" accept'`)(c, prefix)
			},
			open: func(c nft.Listed) []string {
				return []string{fmt.Sprintf("nft 'insert rule %v %s tcp dport PORT accept'", c.Table, c.Name)}
			}},
	}
}

func ufwOpen(nft.Listed) []string { return []string{"ufw allow PORT/tcp"} }

func iptablesOpen(c nft.Listed) []string {
	return []string{iptables(c) + " -I " + c.Name + " -p tcp --dport PORT -j ACCEPT"}
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
	known := keepers()
	i := slices.IndexFunc(known, func(k keeper) bool {
		return !(k.owner == "Docker" && c.Hook == nft.Input) && (k.table == "" || k.table == c.Table.Name) && (k.chain == "" || slices.ContainsFunc(all, func(o nft.Listed) bool {
			return o.Table.Family == c.Table.Family && o.Table.Name == c.Table.Name && o.Name == k.chain
		}))
	})
	return known[i]
}
