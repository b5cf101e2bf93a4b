package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"kiste/cli/option"
	"kiste/engine"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/sys"
	"kiste/kernel/network"
	"kiste/kernel/network/nft"
	"kiste/kernel/network/rules"
	"kiste/store"
)

// A diagnosis is what "kiste doctor --json" prints.
type diagnosis struct {
	Kernel      string        `json:"kernel"`
	Store       string        `json:"store"`
	Run         string        `json:"run"`
	Filesystem  string        `json:"filesystem"`
	Landlock    int           `json:"landlock"` // version of the interface; 0: none
	Healthy     bool          `json:"healthy"`
	Reason      string        `json:"reason,omitempty"`
	Powers      []powerReport `json:"powers"`
	Firewalls   []wallReport  `json:"firewalls,omitempty"`
	NoShortcuts string        `json:"noShortcuts,omitempty"` // what the host looks at bridges with
}

type wallReport struct {
	Owner   string   `json:"owner"`
	Chain   string   `json:"chain"`
	Says    string   `json:"says"`
	Input   bool     `json:"input,omitempty"`   // it decides about published ports alone
	Unasked bool     `json:"unasked,omitempty"` // and should, but has no say
	Allow   []string `json:"allow,omitempty"`
}

type powerReport struct {
	Group  string `json:"group"`
	Name   string `json:"name"`
	Text   string `json:"text"`
	Have   bool   `json:"have"`
	Remedy string `json:"remedy,omitempty"`
}

func doctorCommand() *Command {
	var asJSON bool
	return &Command{
		Name:  "doctor",
		Short: "tell what this host can do, and what to do about the rest",
		Long: `Lists the powers of this host that Kiste makes use of, for the user who asks, and the remedy for each that is missing. Nothing is changed.

Root is also told which firewalls of the host (nftables, iptables, ufw, firewalld, Docker's) drop what containers on bridges send or are sent, and the commands that let it through. What the host drops stays dropped: Kiste overrules nobody. Chains for input decide about published ports as about ports of the host's own programs; which of them cannot be asked is said too, and closes published ports to other hosts. Rules of iptables-legacy are obeyed for what is forwarded; its chain INPUT is not asked, which is said with the command that has it asked. A network made with "-o kiste.firewall=forward" has ports that they have no say about. And root is told what looks at what bridges switch: as long as something does, what containers send each other takes no shortcut past their bridge, and is slower.

The exit code is 0 if containers can run, else 1. Missing powers that have a next best, such as cgroup2, do not count.`,
		Options: []option.Row{{"--json", "", "print JSON", option.Bool(&asJSON)}},
		Run: func(_ context.Context, env *Env, _ []string) error {
			d := diagnose()
			if err := d.print(env, asJSON); err != nil {
				return err
			}
			if !d.Healthy {
				return &ExitError{1}
			}
			return nil
		},
	}
}

func diagnose() diagnosis {
	s := store.Locate()
	d := diagnosis{Kernel: host.Release(), Store: s.Lib, Run: s.Run, Filesystem: filesystemOf(s.Lib)}
	for _, g := range host.Groups() {
		for _, p := range g.Powers {
			r := powerReport{Group: g.Name, Name: p.Name, Text: p.Text, Have: p.Have()}
			if !r.Have {
				r.Remedy = p.Remedy
			}
			d.Powers = append(d.Powers, r)
		}
	}
	d.Firewalls = firewalls()
	d.NoShortcuts = bridgeFilter()
	d.Landlock, _ = sys.LandlockVersion()
	d.Reason = ailment()
	d.Healthy = d.Reason == ""
	return d
}

// firewalls are the host's own, which decide about containers too. Who may not
// look at them sees none.
func firewalls() []wallReport {
	c, err := nft.Open()
	if err != nil {
		return nil
	}
	defer c.Close()
	found, _ := rules.Firewalls(c, engine.BridgePrefix)
	var all []wallReport
	for _, f := range found {
		all = append(all, wallReport{f.Owner, f.Chain, f.Says, f.Input, f.Unasked, f.Allow})
	}
	return all
}

// bridgeFilter is why root's containers have no shortcuts; others have none.
func bridgeFilter() string {
	if !host.Root.Have() {
		return ""
	}
	n, err := network.Here()
	if err != nil {
		return ""
	}
	defer n.Close()
	return n.BridgeFilter()
}

// ailment is why containers cannot run; "" if they can.
func ailment() string {
	if !host.Kernel(5, 14) {
		return "the kernel is older than Linux 5.14"
	}
	needed := []host.Power{host.Openat2, host.MountSetattr, host.Pidfd, host.Overlay}
	if !host.Root.Have() {
		needed = append(needed, host.UsernsTry)
	}
	for _, p := range needed {
		if !p.Have() {
			return "no " + p.Name + ": " + p.Remedy
		}
	}
	return ""
}

func (d diagnosis) print(env *Env, asJSON bool) error {
	if asJSON {
		b, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Out, "%s\n", b)
		return err
	}
	fmt.Fprintf(env.Out, "kernel  %s\nstore   %s (%s)\nrun     %s\nlandlock interface version %d\n", d.Kernel, d.Store, d.Filesystem, d.Run, d.Landlock)
	group := ""
	for _, p := range d.Powers {
		if p.Group != group {
			group = p.Group
			fmt.Fprintf(env.Out, "\n%s\n", group)
		}
		word := "no"
		if p.Have {
			word = "yes"
		}
		fmt.Fprintf(env.Out, "  %-3s  %-18s %s\n", word, p.Name, p.Text)
		if p.Remedy != "" {
			fmt.Fprintf(env.Out, "       %-18s to get it: %s\n", "", p.Remedy)
		}
	}
	d.printFirewalls(env)
	d.printBridges(env)
	if d.Healthy {
		fmt.Fprintf(env.Out, "\nContainers can run.\n")
		return nil
	}
	_, err := fmt.Fprintf(env.Out, "\nContainers cannot run: %s.\n", d.Reason)
	return err
}

func (d diagnosis) printFirewalls(env *Env) {
	if len(d.Firewalls) == 0 {
		return
	}
	fmt.Fprintf(env.Out, "\nFirewalls of this host, which Kiste leaves as they are\n")
	for _, f := range d.Firewalls {
		fmt.Fprintf(env.Out, "  %s, chain %s: %s.\n", f.Owner, f.Chain, f.Says)
		what := "to let containers through"
		switch {
		case f.Unasked:
			what = "to have it asked"
		case f.Input:
			what = "to open a published port"
		}
		for _, line := range f.Allow {
			fmt.Fprintf(env.Out, "       %s: %s\n", what, line)
		}
	}
}

func (d diagnosis) printBridges(env *Env) {
	if d.NoShortcuts == "" {
		return
	}
	fmt.Fprintf(env.Out, "\nBridges of this host\n  %s looks at what they switch: containers take no shortcuts past them.\n", d.NoShortcuts)
	if d.NoShortcuts == network.BridgeNetfilter {
		fmt.Fprintf(env.Out, "       to have them, where nobody's rules count on it: sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0\n")
	}
}

// filesystemOf names the file system that dir is or will be on.
func filesystemOf(dir string) string {
	st, err := sys.Statfs(dir)
	for fault.KindOf(err) == fault.NotFound && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		st, err = sys.Statfs(dir)
	}
	if err != nil {
		var path *os.PathError
		errors.As(err, &path)
		return "unknown: " + path.Err.Error()
	}
	for _, known := range []struct {
		magic uint32
		name  string
	}{
		{0xef53, "ext4"}, {0x58465342, "xfs"}, {0x9123683e, "btrfs"}, {0x01021994, "tmpfs"}, {0x794c7630, "overlay"},
		{0xf2f52010, "f2fs"}, {0x2fc12fc1, "zfs"}, {0x6969, "nfs"}, {0x65735546, "fuse"}, {0xca451a4e, "bcachefs"},
	} {
		if uint32(st.Type) == known.magic {
			return known.name
		}
	}
	return "0x" + strconv.FormatUint(uint64(uint32(st.Type)), 16)
}
