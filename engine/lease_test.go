package engine

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"kiste/container/bundle"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/store"
)

func testEngine(t *testing.T) *Engine {
	t.Helper()
	dir := t.TempDir()
	return &Engine{Store: store.Store{Lib: dir + "/lib", Run: dir + "/run"}}
}

// being makes it look as if the container id were being made or run.
func (e *Engine) being(t *testing.T, id string) (end func()) {
	t.Helper()
	if err := os.MkdirAll(e.Store.Container(id), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := e.keeperLock(id)
	if err != nil {
		t.Fatal(err)
	}
	return func() { l.Unlock() }
}

// Two hundred at once get two hundred addresses.
func TestLeasesOfManyAtOnce(t *testing.T) {
	e := testEngine(t)
	n, err := e.CreateNetwork(NetworkOptions{Name: "many", Subnets: []string{"10.250.0.0/24", "fd00:250::/64"}})
	if err != nil {
		t.Fatal(err)
	}
	const count = 200
	var mu sync.Mutex
	seen := map[string]bool{}
	var wait sync.WaitGroup
	for i := range count {
		wait.Go(func() {
			p := &inspect.Endpoint{Network: n.ID}
			err := e.lease(n, p, fmt.Sprintf("%064x", i), false)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[p.IP] || seen[p.IP6] || p.IP == "" || p.IP6 == "" {
				t.Errorf("%d: %q %q twice or not at all: %v", i, p.IP, p.IP6, err)
			}
			seen[p.IP], seen[p.IP6] = true, true
		})
	}
	wait.Wait()
}

// Who is killed takes no address with him: a lease of a container that does not
// run is void when it is needed, and gone with the next gc.
func TestLeasesOfTheKilledAreVoid(t *testing.T) {
	e := testEngine(t)
	n, err := e.CreateNetwork(NetworkOptions{Name: "small", Subnets: []string{"10.251.0.0/29"}})
	if err != nil {
		t.Fatal(err)
	}
	const room = 5 // of eight: not the network, the gateway, the last
	var ends []func()
	for i := range room {
		id := fmt.Sprintf("%064x", i)
		ends = append(ends, e.being(t, id))
		if err := e.lease(n, &inspect.Endpoint{Network: n.ID}, id, false); err != nil {
			t.Fatal(err)
		}
	}
	late := fmt.Sprintf("%064x", 99)
	defer e.being(t, late)()
	if err := e.lease(n, &inspect.Endpoint{Network: n.ID}, late, false); !errors.Is(err, fault.Unavailable) {
		t.Errorf("lease of a full network: %v", err)
	}
	static := bundle.NetworkWish{IP: "10.251.0.4"}
	if err := e.lease(n, &inspect.Endpoint{Network: n.ID, Wish: static}, late, false); !errors.Is(err, fault.Conflict) {
		t.Errorf("lease of another's address: %v", err)
	}
	ends[2]() // as a kill does
	p := &inspect.Endpoint{Network: n.ID, Wish: static}
	if err := e.lease(n, p, late, false); err != nil || p.IP != "10.251.0.4/29" || p.Gateway != "10.251.0.1" {
		t.Errorf("lease of the address of who was killed: %+v, %v", p, err)
	}
	e.giveBack(p, late)
	p = &inspect.Endpoint{Network: n.ID}
	if err := e.lease(n, p, late, false); err != nil || p.IP != "10.251.0.4/29" {
		t.Errorf("lease of what was given back: %+v, %v", p, err)
	}
	ends[3]()
	if got := e.sweepLeases(); got != 1 {
		t.Errorf("gc took %d leases; want 1", got)
	}
}

func TestStaticAddresses(t *testing.T) {
	e := testEngine(t)
	n, err := e.CreateNetwork(NetworkOptions{Name: "n", Subnets: []string{"10.252.0.0/24"}, Aux: map[string]string{"nas": "10.252.0.9"}})
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := e.CreateNetwork(NetworkOptions{Name: "chosen"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		n    *Network
		ip   string
		kind fault.Kind
	}{
		{n, "10.252.0.77", ""}, {n, "10.252.0.1", fault.Conflict}, {n, "10.252.0.9", fault.Conflict}, {n, "10.252.0.0", fault.Conflict}, {n, "10.252.0.255", fault.Conflict},
		{n, "10.253.0.1", fault.Invalid}, {chosen, mustPrefix(chosen.Subnets[0].Subnet).Last().String(), fault.Invalid},
	} {
		err := e.lease(tt.n, &inspect.Endpoint{Network: tt.n.ID, Wish: bundle.NetworkWish{IP: tt.ip}}, newID(), false)
		if (err == nil) != (tt.kind == "") || err != nil && fault.KindOf(err) != tt.kind {
			t.Errorf("%s on %s: %v; want %q", tt.ip, tt.n.Name, err, tt.kind)
		}
	}
}
