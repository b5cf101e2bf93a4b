package rules_test

import (
	"strings"
	"testing"

	"kiste/internal/need"
	"kiste/kernel/network"
	"kiste/kernel/network/nft"
	"kiste/kernel/network/rules"
)

// What the host's own rules drop stays dropped, Firewalls names who drops it,
// and its commands open the way.
func TestADropOfTheHostStaysADrop(t *testing.T) {
	for _, tt := range []struct {
		owner, program string
		lines          []string
		chain          string
	}{
		{"nftables", "nft", []string{"nft add table inet filter", "nft 'add chain inet filter forward { type filter hook forward priority 0; policy drop; }'"}, "inet filter forward"},
		{"nftables", "nft", []string{"nft add table ip mine", "nft 'add chain ip mine gate { type filter hook forward priority 50; policy drop; }'"}, "ip mine gate"},
		{"iptables", "iptables-nft", []string{"iptables-nft -P FORWARD DROP"}, "ip filter FORWARD"},
		{"Docker", "iptables-nft", []string{"iptables-nft -N DOCKER-USER", "iptables-nft -I FORWARD -j DOCKER-USER", "iptables-nft -P FORWARD DROP"}, "ip filter FORWARD"},
		{"ufw", "iptables-nft", []string{"iptables-nft -N ufw-before-forward", "iptables-nft -I FORWARD -j ufw-before-forward", "iptables-nft -P FORWARD DROP"}, "ip filter FORWARD"},
	} {
		t.Run(tt.owner+" "+tt.chain, func(t *testing.T) {
			need.Program(t, tt.program)
			s := set(t)
			must(t, s.rules.Add(rules.State{Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80}}}))
			if all := walls(t, s.host); len(all) != 0 {
				t.Errorf("our own table is named as a firewall: %+v", all)
			}
			shell(t, s.host, tt.lines...)
			answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "")
			answers(t, "web", s.web, "tcp", "192.0.2.2:80", "")
			all := walls(t, s.host)
			if len(all) != 1 || all[0].Owner != tt.owner || all[0].Chain != tt.chain || all[0].Input || len(all[0].Allow) == 0 {
				t.Fatalf("%+v", all)
			}
			if tt.owner == "ufw" { // only its chain was there, not its program
				return
			}
			for _, line := range all[0].Allow {
				shell(t, s.host, strings.ReplaceAll(line, "iptables ", "iptables-nft "))
			}
			answers(t, "a stranger whom the host lets through", s.stranger, "tcp", "192.0.2.1:8080", "192.0.2.2")
			answers(t, "web", s.web, "tcp", "192.0.2.2:80", "192.0.2.1")
			answers(t, "a container of another bridge", s.other, "tcp", "10.2.0.2:80", "")
		})
	}
}

func TestAFirewallForInputIsExplained(t *testing.T) {
	need.Program(t, "nft")
	s := set(t)
	must(t, s.rules.Add(rules.State{Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80}}}))
	shell(t, s.host, "nft add table inet filter", "nft 'add chain inet filter input { type filter hook input priority 0; policy drop; }'")
	_, err := s.rules.Reconcile(rules.State{Bridges: bridges, Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80}}})
	must(t, err)
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "")
	all := walls(t, s.host)
	if len(all) != 1 || !all[0].Input || len(all[0].Allow) != 1 || !strings.Contains(all[0].Says, "published ports too") {
		t.Fatalf("%+v", all)
	}
	shell(t, s.host, strings.ReplaceAll(all[0].Allow[0], "PORT", "8080"))
	_, err = s.rules.Reconcile(rules.State{Bridges: bridges, Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80}}})
	must(t, err)
	answers(t, "a stranger whom the host lets in", s.stranger, "tcp", "192.0.2.1:8080", "192.0.2.2")
}

func walls(t *testing.T, n *network.Namespace) []rules.Firewall {
	t.Helper()
	var all []rules.Firewall
	must(t, n.Do(func() error {
		c, err := nft.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		all, err = rules.Firewalls(c, "br")
		return err
	}))
	return all
}

func shell(t *testing.T, n *network.Namespace, lines ...string) {
	t.Helper()
	for _, l := range lines {
		must(t, n.Do(func() error { return run("sh", "-c", l) }))
	}
}

// The real ufw, on a copy of its settings.
func TestUFW(t *testing.T) {
	need.Program(t, "ufw")
	need.Program(t, "unshare")
	s := set(t)
	state := rules.State{Bridges: bridges, Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80}, {Proto: rules.TCP, HostPort: 8080, To: addr("fd02::2"), ToPort: 80}}}
	must(t, s.rules.Add(state))
	reconcile := func() {
		t.Helper()
		if _, err := s.rules.Reconcile(state); err != nil {
			t.Error(err)
		}
	}
	dir := t.TempDir()
	must(t, run("cp", "-a", "/etc/ufw", "/etc/default", dir))
	ufw := func(line string) {
		t.Helper()
		shell(t, s.host, "exec unshare -m sh -c 'mount --bind "+dir+"/ufw /etc/ufw && mount --bind "+dir+"/default /etc/default && mount -t tmpfs none /run && "+line+"'")
	}
	ufw("ufw --force enable")
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "")
	answers(t, "a stranger", s.stranger, "tcp", "[2001:db8::1]:8080", "")
	answers(t, "web", s.web, "tcp", "192.0.2.2:80", "")
	allowed := map[bool]bool{}
	for _, f := range walls(t, s.host) {
		if f.Owner != "ufw" {
			t.Errorf("%+v", f)
		}
		for _, line := range f.Allow {
			if f.Input && !allowed[true] {
				reconcile()
				answers(t, "a stranger whom ufw lets through, but not in", s.stranger, "tcp", "192.0.2.1:8080", "")
			}
			ufw(strings.ReplaceAll(line, "PORT", "8080"))
			allowed[f.Input] = true
		}
	}
	if !allowed[true] || !allowed[false] {
		t.Error("nothing says how to allow it")
	}
	reconcile()
	notClosed(t, s)
	if len(copiesOf(t, s)) != 2 {
		t.Errorf("%+v", copiesOf(t, s))
	}
	answers(t, "a stranger whom ufw lets through", s.stranger, "tcp", "192.0.2.1:8080", "192.0.2.2")
	answers(t, "a stranger whom ufw lets through", s.stranger, "tcp", "[2001:db8::1]:8080", "2001:db8::2")
	answers(t, "web", s.web, "tcp", "192.0.2.2:80", "192.0.2.1")
}

// The real firewalld, on a bus of its own: what a zone does not open is closed,
// and firewall-cmd opens it.
func TestFirewalld(t *testing.T) {
	for _, p := range []string{"firewalld", "firewall-cmd", "dbus-daemon", "unshare", "nsenter"} {
		need.Program(t, p)
	}
	s := set(t)
	state := rules.State{Bridges: bridges, Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 80}, {Proto: rules.TCP, HostPort: 8080, To: addr("fd02::2"), ToPort: 80}}}
	must(t, s.rules.Add(state))
	dir := t.TempDir()
	// All that it starts ends with the pid namespace, whose first process is sh.
	shell(t, s.host, `cd `+dir+` && unshare -m -p -f --mount-proc sh -c 'mount -t tmpfs none /run && mkdir -p /run/dbus && cp -a /etc/firewalld conf && mount --bind conf /etc/firewalld &&
dbus-daemon --system --fork --nopidfile && firewalld --nofork --nopid & exec sleep 1000' >log 2>&1 & echo $! >`+dir+`/pid`)
	defer shell(t, s.host, "kill -9 $(pgrep -P $(cat "+dir+"/pid)) $(cat "+dir+"/pid)")
	cmd := func(line string) {
		shell(t, s.host, "cd "+dir+"; exec nsenter -m -t $(pgrep -P $(cat pid)) "+line+" 2>&1")
	}
	shell(t, s.host, "cd "+dir+"; for i in $(seq 100); do nsenter -m -t $(pgrep -P $(cat pid)) firewall-cmd --state && exit; sleep 0.2; done; cat log; exit 1")
	reconcile := func() {
		t.Helper()
		if _, err := s.rules.Reconcile(state); err != nil {
			t.Error(err)
		}
		notClosed(t, s)
	}
	reconcile()
	answers(t, "a stranger", s.stranger, "tcp", "192.0.2.1:8080", "")
	answers(t, "a stranger", s.stranger, "tcp", "[2001:db8::1]:8080", "")
	answers(t, "the neighbour", s.peer, "tcp", "192.0.2.1:8080", "10.2.0.1")
	opened := false
	for _, f := range walls(t, s.host) {
		if f.Owner != "firewalld" {
			t.Errorf("%+v", f)
		}
		for _, line := range f.Allow {
			opened = opened || f.Input
			cmd(strings.ReplaceAll(line, "PORT", "8080"))
		}
	}
	if !opened {
		t.Errorf("nothing says how to open it: %+v", walls(t, s.host))
	}
	reconcile()
	answers(t, "a stranger whom firewalld lets in", s.stranger, "tcp", "192.0.2.1:8080", "192.0.2.2")
	answers(t, "a stranger whom firewalld lets in", s.stranger, "tcp", "[2001:db8::1]:8080", "2001:db8::2")
	answers(t, "web", s.web, "tcp", "192.0.2.2:80", "192.0.2.1")
}
