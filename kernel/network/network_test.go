package network_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/network"
)

// The tests start themselves again, since Own is for a process that becomes
// another: $NETWORK_TEST is the bridge's name.
func TestMain(m *testing.M) {
	words := strings.Fields(os.Getenv("NETWORK_TEST"))
	if len(words) == 0 {
		os.Exit(m.Run())
	}
	o := network.Options{Bridge: words[0]}
	if len(words) > 1 {
		o.Address = at(words[1])
	}
	if err := network.Own(o); err != nil {
		fmt.Println("cannot", err)
		os.Exit(int(exitCode(err)))
	}
	n, err := network.Here()
	if err == nil {
		err = show(n)
	}
	if err != nil {
		fmt.Println("cannot", err)
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test lets go
}

func exitCode(err error) int {
	if errors.Is(err, fault.Exists) {
		return 4
	}
	return 1
}

func show(n *network.Namespace) error {
	l, err := n.Link("eth0")
	if err != nil {
		return err
	}
	addresses, err := n.Addresses(l.Index)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if a.Addr().Is4() {
			fmt.Println(a)
		}
	}
	return nil
}

// at is ParsePrefix of what is well formed.
func at(s string) network.Prefix {
	p, err := network.ParsePrefix(s)
	if err != nil {
		panic(err)
	}
	return p
}

func fresh(t testing.TB) *network.Namespace {
	t.Helper()
	n, err := network.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// cable connects two new namespaces: 10.1.1.1 and 10.1.1.2.
func cable(t testing.TB) (a, b *network.Namespace) {
	t.Helper()
	a, b = fresh(t), fresh(t)
	must(t, a.Create(network.Link{Name: "left", Kind: "veth", Up: true, Peer: "right", PeerNS: b.FD}),
		a.AddAddress("left", at("10.1.1.1/24")),
		b.AddAddress("right", at("10.1.1.2/24")),
		b.SetUp("right"))
	return a, b
}

// transfer sends bytes from one namespace to the address in the other, and
// gives bytes per second.
func transfer(t testing.TB, from, to *network.Namespace, address string, size int) float64 {
	t.Helper()
	var l net.Listener
	must(t, to.Do(func() (err error) { l, err = net.Listen("tcp", address+":0"); return err }))
	defer l.Close()
	type result struct {
		n    int64
		took time.Duration
	}
	got := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- result{}
			return
		}
		defer c.Close()
		start := time.Now()
		n, _ := io.Copy(io.Discard, c)
		got <- result{n, time.Since(start)}
	}()
	var c net.Conn
	must(t, from.Do(func() (err error) { c, err = net.DialTimeout("tcp", l.Addr().String(), time.Minute); return err }))
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Error(err)
	}
	c.Close()
	r := <-got
	if r.n != int64(size) {
		t.Fatalf("%d of %d bytes came", r.n, size)
	}
	return float64(r.n) / r.took.Seconds()
}

func TestTwoNamespacesReachEachOther(t *testing.T) {
	need.Power(t, host.Root)
	a, b := cable(t)
	transfer(t, a, b, "10.1.1.2", 1000)
	transfer(t, b, a, "10.1.1.1", 1000)
}

func TestRateIsKept(t *testing.T) {
	need.Power(t, host.Root)
	a, b := cable(t)
	least := 0.8
	if testing.Short() {
		least = 0.1 // an emulated processor may be too slow for the rate
	}
	for _, want := range []network.Rate{500_000, 4_000_000} {
		must(t, a.Limit("left", want))
		got := transfer(t, a, b, "10.1.1.2", int(want)*5/4)
		t.Logf("set %v, measured %.0f bytes/s", want, got)
		if got < least*float64(want) || got > 1.2*float64(want) {
			t.Errorf("set %d bytes/s, measured %.0f", want, got)
		}
	}
	must(t, a.Limit("left", 0), a.Limit("left", 0))
	if got := transfer(t, a, b, "10.1.1.2", 20_000_000); got < least*10_000_000 {
		t.Errorf("without a limit %.0f bytes/s", got)
	}
}

func TestLinks(t *testing.T) {
	need.Power(t, host.Root)
	n := fresh(t)
	must(t, n.Create(network.Link{Name: "br0", Kind: "bridge", Up: true}))
	br, err := n.Link("br0")
	must(t, err)
	must(t, n.Create(network.Link{Name: "v0", Kind: "veth", Peer: "v1", Master: br.Index, MAC: "02:00:00:00:00:07", MTU: 1400}))
	v, err := n.Link("v0")
	must(t, err)
	if v.Kind != "veth" || v.Master != br.Index || v.MAC != "02:00:00:00:00:07" || v.MTU != 1400 || v.Up {
		t.Errorf("v0 is %+v", v)
	}
	must(t, n.SetMaster("v0", 0), n.SetMTU("v0", 1300), n.SetMAC("v0", "02:00:00:00:00:08"), n.SetUp("v0"))
	v, err = n.Link("v0")
	must(t, err)
	if v.Master != 0 || v.MTU != 1300 || v.MAC != "02:00:00:00:00:08" || !v.Up {
		t.Errorf("v0 is then %+v", v)
	}
	other := fresh(t)
	must(t, n.Move("v1", other))
	if _, err := other.Link("v1"); err != nil {
		t.Error(err)
	}
	must(t, n.Delete("v0"))
	if _, err := n.Link("v0"); !errors.Is(err, fault.NotFound) {
		t.Errorf("Link of a deleted one: %v", err)
	}
	if _, err := other.Link("v1"); !errors.Is(err, fault.NotFound) {
		t.Errorf("Link of a deleted veth's other end: %v", err)
	}
	if err := n.Create(network.Link{Name: "br0", Kind: "bridge"}); !errors.Is(err, fault.Exists) {
		t.Errorf("Create of a name that is taken: %v", err)
	}
	if err := n.Create(network.Link{Name: "x", Kind: "nosuchkind"}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("Create of an unknown kind: %v", err)
	}
}

func TestIPv6(t *testing.T) {
	need.Power(t, host.Root)
	a, b := cable(t)
	must(t, a.AddAddress("left", at("fd00:77::1/64")), b.AddAddress("right", at("fd00:77::2/64")))
	transfer(t, a, b, "[fd00:77::2]", 1000)
}

// start gives a process a network of its own on bridge; stop ends it.
func start(t *testing.T, words string) (said string, code int, stop func()) {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "NETWORK_TEST="+words)
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	b := make([]byte, 1024)
	n, _ := out.Read(b)
	said = strings.TrimSpace(string(b[:n]))
	stop = func() { in.Close(); _ = c.Wait(); code = c.ProcessState.ExitCode() }
	if strings.HasPrefix(said, "cannot") {
		stop()
	}
	return said, code, stop
}

func TestOwnLeasesAnAddressAndGivesItBack(t *testing.T) {
	need.Power(t, host.Root)
	here, err := network.Here()
	must(t, err)
	defer here.Close()
	bridge := fmt.Sprintf("kt%d", os.Getpid())
	defer func() { must(t, here.Delete(bridge)) }()
	first, _, stop1 := start(t, bridge)
	second, _, stop2 := start(t, bridge)
	p1, err1 := network.ParsePrefix(first)
	p2, err2 := network.ParsePrefix(second)
	if err1 != nil || err2 != nil || p2.Addr() != p1.Addr().Next() || p1.Masked() != p2.Masked() {
		t.Fatalf("leases %q and %q", first, second)
	}
	if said, code, _ := start(t, bridge+" "+first); code != 4 {
		t.Errorf("an address that is in use: %q, code %d", said, code)
	}
	stop1()
	stop2()
	l, err := here.Link(bridge)
	must(t, err)
	for range 3000 {
		links, err := here.Links()
		must(t, err)
		if !slices.ContainsFunc(links, func(x network.Link) bool { return x.Master == l.Index }) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the bridge keeps a port of a network that is gone")
}

func TestWhatNeedsABridge(t *testing.T) {
	if err := network.Own(network.Options{Rate: 1000}); !errors.Is(err, fault.Invalid) {
		t.Errorf("Own = %v; want it refused", err)
	}
}
