package rules

import (
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
	"kiste/kernel/network/nft"
)

// iptables has an older variant, iptables-legacy, whose rules are in tables of their
// own and not in nf_tables. The kernel obeys both, so that its chain FORWARD decides
// about containers too; but its chain INPUT cannot be copied as those of nf_tables
// are, and has no say about published ports. That is said, with the command that
// carries the rules over.

// legacyText is what it means that an INPUT of iptables-legacy drops something.
const legacyText = "it is not asked about published ports, which other hosts reach whatever it says, as those of Docker: " +
	"Kiste asks chains of nf_tables alone. A port that is published at 127.0.0.1, as by -p 127.0.0.1:8080:80, is reached by this host alone"

// legacyFamilies are the variants for IPv4 and IPv6.
var legacyFamilies = []struct {
	family        nft.Family
	socket        int
	program, from string
}{
	{nft.IPv4, unix.AF_INET, "iptables", "ip_tables_names"},
	{nft.IPv6, unix.AF_INET6, "ip6tables", "ip6_tables_names"},
}

// legacy lists what iptables-legacy has in the network namespace of the calling
// thread. Who may not look sees nothing.
func legacy(prefix string) []Firewall {
	var all []Firewall
	for _, f := range legacyFamilies {
		names, err := sys.ReadKnob("/proc/thread-self/net/"+f.from, 4096)
		if err != nil || !slices.Contains(strings.Fields(names), "filter") { // which the question would make
			continue
		}
		info, entries, err := sys.Xtables(f.socket, "filter")
		if err != nil {
			continue
		}
		chains, drops := parseLegacy(f.family, info, entries)
		for _, wall := range firewalls(chains, prefix) {
			if wall.Input {
				continue
			}
			for i, line := range wall.Allow {
				wall.Allow[i] = strings.Replace(line, f.program+" ", f.program+"-legacy ", 1)
			}
			wall.Owner = legacyOwner(wall.Owner, f.program)
			all = append(all, wall)
		}
		if drops {
			all = append(all, Firewall{Owner: f.program + "-legacy", Chain: f.family.String() + " filter INPUT", Input: true, Unasked: true, Says: legacyText,
				Allow: []string{f.program + "-legacy-save -t filter | " + f.program + "-nft-restore -n"}})
		}
	}
	return all
}

// legacyOwner is the program that has a chain: one that calls iptables, or that
// itself.
func legacyOwner(owner, program string) string {
	if owner == "iptables" {
		return program + "-legacy"
	}
	return owner
}

// A legacyLayout is where an entry has what: struct ipt_entry, struct ip6t_entry.
type legacyLayout struct{ target, next, size int }

func legacyLayoutOf(f nft.Family) legacyLayout {
	if f == nft.IPv6 {
		return legacyLayout{140, 142, 168}
	}
	return legacyLayout{88, 90, 112}
}

// A legacyEntry is a rule, a policy, or the head of a chain.
type legacyEntry struct {
	next    int
	target  string // empty: a verdict
	verdict int32  // of those: at least 0 is the place of a chain
	name    string // of the chain that begins here
}

// The names and numbers of linux/netfilter/x_tables.h.
const (
	legacyError = "ERROR" // the target of a chain's head
	legacyDrop  = -1      // NF_DROP, as verdicts are written: -NF_DROP - 1
)

// legacyDrops are targets that let nothing through.
var legacyDrops = []string{"REJECT", "TARPIT", "NFQUEUE"}

// parseLegacy reads a table filter: its chains, of which those of hooks have their
// policies, and whether the one for input may drop something.
func parseLegacy(f nft.Family, info, entries []byte) (chains []nft.Listed, drops bool) {
	const hooksAt, policiesAt, least = 36, 56, 84 // of struct ipt_getinfo
	if len(info) < least {
		return nil, false
	}
	layout, table := legacyLayoutOf(f), nft.Table{Family: f, Name: "filter"}
	for _, h := range []struct {
		name string
		hook nft.Hook
	}{{"INPUT", nft.Input}, {"FORWARD", nft.Forward}} {
		start, policy := binary.NativeEndian.Uint32(info[hooksAt+4*h.hook:]), binary.NativeEndian.Uint32(info[policiesAt+4*h.hook:])
		e, ok := layout.at(entries, int(policy))
		if !ok || binary.NativeEndian.Uint32(info[32:])&(1<<h.hook) == 0 {
			continue
		}
		drop := e.target == "" && e.verdict == legacyDrop
		chains = append(chains, nft.Listed{Table: table, Chain: nft.Chain{Name: h.name, Type: "filter", Hook: h.hook, Drop: drop}})
		if h.hook == nft.Input {
			drops = drop || layout.drops(entries, int(start), int(policy))
		}
	}
	for at := 0; ; {
		e, ok := layout.at(entries, at)
		if !ok {
			return chains, drops
		}
		if e.target == legacyError && e.name != legacyError { // the last entry's
			chains = append(chains, nft.Listed{Table: table, Chain: nft.Chain{Name: e.name}})
		}
		at = e.next
	}
}

// drops reports whether the chain from start to its policy, or one that it calls,
// has a rule that drops.
func (l legacyLayout) drops(entries []byte, start, policy int) bool {
	seen := map[int]bool{policy: true}
	for queue := []int{start}; len(queue) > 0; queue = queue[1:] {
		for at := queue[0]; !seen[at]; {
			seen[at] = true
			e, ok := l.at(entries, at)
			if !ok || e.target == legacyError { // the next chain begins
				break
			}
			if e.target == "" && e.verdict == legacyDrop || slices.Contains(legacyDrops, e.target) {
				return true
			}
			if e.target == "" && e.verdict >= 0 {
				queue = append(queue, int(e.verdict))
			}
			at = e.next
		}
	}
	return false
}

// at is the entry there; false: there is none.
func (l legacyLayout) at(entries []byte, at int) (e legacyEntry, ok bool) {
	if at < 0 || at > len(entries)-l.size {
		return e, false
	}
	b := entries[at:]
	target, next := int(binary.NativeEndian.Uint16(b[l.target:])), int(binary.NativeEndian.Uint16(b[l.next:]))
	const head = 32 // struct xt_entry_target: size, name, revision
	if next < l.size || target < l.size || target+head > next || next > len(b) {
		return e, false
	}
	e.next = at + next
	e.target = text(b[target+2 : target+head-1])
	data := b[target+head : next]
	switch {
	case e.target == legacyError:
		e.name = text(data)
	case e.target == "" && len(data) >= 4:
		e.verdict = int32(binary.NativeEndian.Uint32(data))
	case e.target == "":
		return e, false
	}
	return e, true
}

// text is what stands before the first zero.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
