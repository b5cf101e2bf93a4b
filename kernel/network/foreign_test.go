package network_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/network"
)

// An ordinary user has the rights of the owner over namespaces of his that are
// siblings: he makes a bridge in one and leads it into the other.
func TestForeign(t *testing.T) {
	need.Power(t, host.Userns)
	if os.Geteuid() == 0 {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestForeign$", "-test.v")
		cmd.Dir, cmd.Env = "/", []string{"KISTE_REQUIRE=userns"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61234, Gid: 61234}}
		out, err := cmd.CombinedOutput()
		if t.Logf("%s", out); err != nil {
			t.Fatal(err)
		}
		return
	}
	outside, inside := owned(t), owned(t)
	gateway, address := at("10.79.3.1/24"), at("10.79.3.2/24")
	for range 2 { // the second finds what the first has made
		if _, err := outside.MakeBridge(network.Bridge{Name: "br0", Addresses: []network.Prefix{gateway}, LocalNet: true, Router: true}); err != nil {
			t.Fatal(err)
		}
	}
	err := outside.Attach(network.Endpoint{Parent: "br0", Outer: "v0", Name: "eth0", Addresses: []network.Prefix{address}, Gateways: []network.Addr{gateway.Addr()}, Hairpin: true}, inside)
	if err != nil {
		t.Fatal(err)
	}
	link, err := inside.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if all, err := inside.Addresses(link.Index); err != nil || len(all) == 0 || all[0] != address {
		t.Errorf("addresses inside: %v, %v", all, err)
	}
	sockets, err := inside.Sockets(syscall.AF_INET, syscall.SOCK_DGRAM, 9)
	if err != nil || len(sockets) != 9 {
		t.Fatalf("%d sockets, %v", len(sockets), err)
	}
	for _, f := range sockets {
		f.Close()
	}
	filter, err := outside.Netlink(syscall.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	filter.Close()
	if err := outside.Forward6(); err != nil {
		t.Error(err)
	}
}

func owned(t *testing.T) *network.Namespace {
	t.Helper()
	n, err := network.NewOwned()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if !n.Foreign() {
		t.Error("a thread of ours may enter it")
	}
	return n
}
