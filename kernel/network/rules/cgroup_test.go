package rules_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/network"
	"kiste/kernel/network/nft"
	"kiste/kernel/network/rules"
)

// group is a new cgroup of version 2.
func group(t *testing.T) rules.CgroupRate {
	t.Helper()
	need.Power(t, host.Root, host.NFT)
	mount := rules.Cgroup2()
	if mount == "" {
		t.Skip("NEEDS cgroups of version 2")
	}
	name := fmt.Sprintf("/kiste-rates-%d", os.Getpid())
	if err := os.Mkdir(mount+name, 0o755); err != nil {
		t.Skipf("NEEDS a cgroup that may be made: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(mount + name) })
	return rules.CgroupRate{Mount: mount, Group: name}
}

// pump has a process of the group send or receive for a while, and gives bytes
// per second.
func pump(t *testing.T, n *network.Namespace, c rules.CgroupRate, send bool) float64 {
	t.Helper()
	need.Program(t, "nc")
	const long = 2 * time.Second
	var l net.Listener
	must(t, n.Do(func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:0"); return err }))
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	client := exec.Command("sh", "-c", "echo $$ > "+filepath.Join(c.Mount, c.Group, "cgroup.procs")+" && exec nc 127.0.0.1 "+port)
	if send {
		zero, err := os.Open("/dev/zero")
		must(t, err)
		defer zero.Close()
		client.Stdin = zero
	} else {
		in, err := client.StdinPipe()
		must(t, err)
		defer in.Close()
	}
	start := time.Now() // what comes before it is taken counts
	must(t, n.Do(client.Start))
	defer func() { _ = client.Process.Kill(); _ = client.Wait() }()
	must(t, l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute)))
	peer, err := l.Accept()
	must(t, err)
	defer peer.Close()
	if _ = peer.SetDeadline(time.Now().Add(long)); send {
		got, _ := io.Copy(io.Discard, peer)
		return float64(got) / time.Since(start).Seconds()
	}
	b := make([]byte, 16<<10)
	got := 0
	start = time.Now()
	for time.Since(start) < long {
		k, err := peer.Write(b)
		got += k
		if err != nil {
			break
		}
	}
	return float64(got) / time.Since(start).Seconds()
}

func TestRatesOfACgroup(t *testing.T) {
	c := group(t)
	n := fresh(t)
	set := func() { t.Helper(); must(t, n.Do(func() error { return c.Set("kiste") })) }
	const slow = 1_000_000
	c.Sends = slow
	set()
	if got := pump(t, n, c, true); got < 0.2*slow || got > 1.7*slow {
		t.Errorf("it sends %.0f bytes/s; want %d", got, slow)
	}
	if got := pump(t, n, c, false); got < 5*slow {
		t.Errorf("it receives %.0f bytes/s without a limit", got)
	}
	read := rules.CgroupRate{Mount: c.Mount, Group: c.Group}
	must(t, n.Do(func() error { return read.Read("kiste") }))
	if read != c {
		t.Errorf("%+v is read as %+v", c, read)
	}
	c.Sends, c.Receives = 0, slow
	set()
	if got := pump(t, n, c, true); got < 5*slow {
		t.Errorf("it sends %.0f bytes/s without a limit", got)
	}
	// What lies in the sockets' buffers counts as sent here.
	if got := pump(t, n, c, false); got > 5*slow {
		t.Errorf("it receives %.0f bytes/s; want %d", got, slow)
	}
	c.Receives = 0
	set()
	set()
	if got := pump(t, n, c, false); got < 5*slow {
		t.Errorf("it receives %.0f bytes/s after all limits were taken away", got)
	}
}

// Rates of groups that are gone go, and the table with the last of them.
func TestRatesOfGroupsThatAreGone(t *testing.T) {
	c := group(t)
	n := fresh(t)
	gone := c
	gone.Group, gone.Receives = c.Group+"/below", 1000
	must(t, os.Mkdir(gone.Mount+gone.Group, 0o755))
	must(t, n.Do(func() error { return gone.Set("kiste") }))
	must(t, os.Remove(gone.Mount+gone.Group))
	left := func() []nft.ListedRule {
		t.Helper()
		var all []nft.ListedRule
		must(t, n.Do(func() error {
			conn, err := nft.Open()
			if err == nil {
				all, err = conn.Rules(nft.Table{Family: nft.Inet, Name: "kiste-rates"})
				conn.Close()
			}
			return err
		}))
		return all
	}
	c.Sends = 1000
	must(t, n.Do(func() error { return c.Set("kiste") }))
	if all := left(); len(all) != 1 || all[0].Comment != "8kbit of "+c.Group {
		t.Errorf("after the next group's: %+v", all)
	}
	must(t, os.Remove(c.Mount+c.Group))
	for range 2 {
		must(t, n.Do(func() error { return rules.SweepCgroupRates("kiste") }))
	}
	must(t, n.Do(func() error {
		conn, err := nft.Open()
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Table(nft.Inet, "kiste-rates"); !errors.Is(err, fault.NotFound) {
			t.Errorf("the table of no rates: %v", err)
		}
		return nil
	}))
}

func TestCgroupsThatCannotBeLimited(t *testing.T) {
	c := group(t)
	n := fresh(t)
	for path, want := range map[string]fault.Kind{"/": fault.Invalid, "/no/such/group": fault.NotFound} {
		c.Group, c.Sends = path, 1000
		if err := n.Do(func() error { return c.Set("kiste") }); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	v1 := rules.CgroupRate{Group: "/web", Sends: 1000}
	if err := v1.Set("kiste"); !errors.Is(err, fault.Unsupported) || fault.HintOf(err) == "" {
		t.Errorf("version 1 alone: %v", err)
	}
}
