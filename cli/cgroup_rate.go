package cli

import (
	"fmt"
	"strings"

	"kiste/cli/option"
	"kiste/container/bundle"
	"kiste/fault"
	"kiste/kernel/cgroup"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
)

// groupRates are values of --network-rate for a group. They are no limits of
// package cgroup: the packet filter of this network namespace keeps them.
type groupRates []bundle.NetworkRate

func (r *groupRates) row() option.Row {
	return option.Row{Names: "--network-rate", Value: "RATE[:egress][:ingress]", Help: "most that it sends and receives here: 10mbit, 1gbit:ingress, none",
		Var: list((*[]bundle.NetworkRate)(r), bundle.ParseNetworkRate)}
}

const groupRatesHelp = `

--network-rate is of what sockets of the group send and receive in this network namespace, as a rule: that of the host. What is more is dropped. Who moves on into a network of his own has none there, and a process that is moved into the group keeps the sockets that it has open as they are.`

// set puts them in force for a group; a direction of which none speaks stays as
// it is.
func (r groupRates) set(l cgroup.Layout, group string) error {
	if len(r) == 0 {
		return nil
	}
	c := rateOf(l, group)
	if err := c.Read(rules.DefaultName); err != nil {
		return err
	}
	for _, rate := range r {
		rate.Into(&c.Sends, &c.Receives)
	}
	return c.Set(rules.DefaultName)
}

func rateOf(l cgroup.Layout, group string) rules.CgroupRate {
	mount := l.Unified.Mount
	if mount == "" {
		return rules.CgroupRate{Group: group}
	}
	return rules.CgroupRate{Mount: mount, Group: strings.TrimPrefix(l.Unified.Dir(group), mount)}
}

// showRates is the line of a group that has rates; empty: it has none, or only
// root may know.
func showRates(l cgroup.Layout, group string) string {
	c := rateOf(l, group)
	if err := c.Read(rules.DefaultName); err != nil || c.Sends == 0 && c.Receives == 0 {
		return ""
	}
	word := func(r network.Rate) string {
		if r == 0 {
			return "no limit"
		}
		return r.String()
	}
	return fmt.Sprintf("sends %s, receives %s", word(c.Sends), word(c.Receives))
}

// sweepRates takes rates away of groups that are gone.
func sweepRates() error {
	err := rules.SweepCgroupRates(rules.DefaultName)
	if kind := fault.KindOf(err); kind == fault.Denied || kind == fault.Unsupported {
		return nil // then there are none of ours
	}
	return err
}
