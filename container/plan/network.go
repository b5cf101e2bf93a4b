package plan

import (
	"fmt"
	"strings"

	"kiste/kernel/network"
	"kiste/kernel/network/rules"
)

// A Network is a container's way into its networks: what the parent does while
// the child waits in its network namespace. The zero value is none.
type Network struct {
	Bridges   []network.Bridge // they stay: they are their networks'
	Rules     rules.State
	Table     string // of the rules
	Endpoints []network.Endpoint

	// Host is the path of the network namespace in which the bridges and the rules
	// are; empty: the parent's.
	Host string

	// Names is where somebody answers for names, before the program begins;
	// empty: nobody.
	Names string

	// Proxied are the ports of the host at which a proxy listens, in words.
	Proxied []string
}

const networkField = "linux.namespaces.network"

// joinNetworks adds the acts: the bridges first, then the rules, since a port that is
// taken is an error that costs nothing, the links last.
func (c *compiler) joinNetworks(n *Network) {
	for _, b := range n.Bridges {
		c.act("make the bridge "+b.Name+" with "+addressText(b.Addresses)+", unless it is there", networkField, Act{Kind: ActBridge, Bridge: &b, Host: n.Host})
	}
	if len(n.Rules.Bridges)+len(n.Rules.Ports) > 0 {
		c.act("let packets through: "+rulesText(n.Rules), networkField, Act{Kind: ActRules, Name: n.Table, Rules: &n.Rules, Host: n.Host})
	}
	for _, e := range n.Endpoints {
		c.act("join by "+e.String(), networkField, Act{Kind: ActEndpoint, Endpoint: &e, Host: n.Host})
	}
	if n.Names != "" {
		c.act("let the resolver answer at "+n.Names, networkField, Act{Kind: ActNames})
	}
	if len(n.Proxied) > 0 {
		c.act("let the proxy listen: "+strings.Join(n.Proxied, ", "), networkField, Act{Kind: ActProxy})
	}
}

func addressText(all []network.Prefix) string {
	words := make([]string, len(all))
	for i, p := range all {
		words[i] = p.String()
	}
	if len(words) == 0 {
		return "no address"
	}
	return strings.Join(words, " and ")
}

func rulesText(s rules.State) string {
	var words []string
	for _, b := range s.Bridges {
		word := b.Name
		for _, w := range []struct {
			on   bool
			text string
		}{{b.Internal, "internal"}, {b.Open4, "open"}, {b.Open6, "open for IPv6"}, {b.Routed4, "routed"}, {b.Routed6, "routed for IPv6"}} {
			if w.on {
				word += " (" + w.text + ")"
			}
		}
		words = append(words, word)
	}
	for _, p := range s.Ports {
		words = append(words, fmt.Sprint(p))
	}
	return strings.Join(words, ", ")
}
