package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
	"kiste/store"
)

// A lease is a link run/networks/ID/ADDRESS that has the id of the container
// whose address it is. It is void when that does not run, so nobody who is
// killed takes an address with him. Leases are made under the lock of their
// directory.

func (e *Engine) lockLeases(n *Network) (*store.Lock, error) {
	dir := e.Store.Leases(n.ID)
	l, err := store.LockDir(dir, true)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o711); err == nil {
			l, err = store.LockDir(dir, true)
		}
	}
	if err == nil && !l.Holds(dir) { // the network was removed, and may be there again
		l.Unlock()
		return nil, noNetwork(n.Name)
	}
	return l, err
}

// lease gives the container id its addresses on a network, and writes them
// into its endpoint. With dry they are those that it would get.
func (e *Engine) lease(n *Network, p *inspect.Endpoint, id string, dry bool) error {
	if !dry {
		lock, err := e.lockLeases(n)
		if err != nil {
			return err
		}
		defer lock.Unlock()
		if _, err := os.Lstat(e.networkDocument(n.ID)); errors.Is(err, fs.ErrNotExist) {
			return noNetwork(n.Name) // it was removed since it was read
		}
	}
	taken := map[string]bool{}
	entries, err := os.ReadDir(e.Store.Leases(n.ID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, d := range entries {
		taken[d.Name()] = true
	}
	for _, f := range []struct {
		four    bool
		static  string
		to, way *string
	}{{true, p.Wish.IP, &p.IP, &p.Gateway}, {false, p.Wish.IP6, &p.IP6, &p.Gateway6}} {
		l := &leasing{e: e, n: n, id: id, dry: dry, taken: taken, four: f.four}
		address, s, err := l.find(f.static)
		if err != nil {
			return err
		}
		if s == nil {
			continue
		}
		*f.to = network.PrefixFrom(address, mustPrefix(s.Subnet).Bits()).String()
		if !n.Internal || n.Driver == "bridge" {
			*f.way = s.Gateway
		}
		if dry {
			continue
		}
		link := filepath.Join(e.Store.Leases(n.ID), address.String())
		_ = os.Remove(link) // one that is void
		if err := os.Symlink(id, link); err != nil {
			return err
		}
	}
	return nil
}

// A leasing is the search for an address.
type leasing struct {
	e     *Engine
	n     *Network
	id    string // of the container
	dry   bool
	taken map[string]bool
	four  bool // of IPv4
}

// find gives the address, and the subnet that it is in; nil: the network has
// none of the family.
func (l *leasing) find(static string) (network.Addr, *Subnet, error) {
	if static != "" {
		return l.static(static)
	}
	a, s, any := l.first()
	if s == nil && any && !l.dry {
		l.forgetVoid()
		a, s, _ = l.first()
	}
	if s != nil || !any {
		return a, s, nil
	}
	return network.Addr{}, nil, &fault.Error{Op: "find an address", On: l.n.Name, Kind: fault.Unavailable, Err: fmt.Errorf("no available addresses on this network's address pools: %s (%s)", l.n.Name, short(l.n.ID)),
		Hint: "stop a container, or make a larger network: kiste network create --subnet …/16"}
}

// first is the first address of the family's subnets that nobody has, and the
// subnet that it is in; nil: there is none. Any: there are such subnets.
func (l *leasing) first() (a network.Addr, s *Subnet, any bool) {
	for i := range l.n.Subnets {
		s := &l.n.Subnets[i]
		if mustPrefix(s.Subnet).Addr().Is4() != l.four {
			continue
		}
		any = true
		if a := l.free(s); a.IsValid() {
			return a, s, true
		}
	}
	return network.Addr{}, nil, any
}

// free is the first address of a subnet that nobody has.
func (l *leasing) free(s *Subnet) network.Addr {
	net := mustPrefix(s.Subnet)
	pool := net
	if s.Range != "" {
		pool = mustPrefix(s.Range)
	}
	end := pool.After()
	for a := pool.Masked().Addr(); a.IsValid() && a != end; a = a.Next() {
		if !l.taken[a.String()] && !l.forbidden(s, net, a) {
			return a
		}
	}
	return network.Addr{}
}

// forbidden reports whether no container may have the address: it is the
// network's own, the last of IPv4, the gateway's, or kept for somebody else.
func (l *leasing) forbidden(s *Subnet, net network.Prefix, a network.Addr) bool {
	text := a.String()
	return a == net.Masked().Addr() || a.Is4() && net.Bits() < 31 && a == net.Last() || text == s.Gateway || s.keeps(text)
}

// static takes the address that the container asks for.
func (l *leasing) static(text string) (network.Addr, *Subnet, error) {
	refuse := func(kind fault.Kind, hint, format string, args ...any) (network.Addr, *Subnet, error) {
		return network.Addr{}, nil, &fault.Error{Op: "use address", On: text, Kind: kind, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	a, err := network.ParseAddr(text)
	if err != nil {
		return network.Addr{}, nil, err
	}
	s := l.n.find(a)
	switch {
	case s == nil:
		return refuse(fault.Invalid, "kiste network inspect "+l.n.Name+" shows its subnets", "no configured subnet or ip-range contain the IP address %s", text)
	case s.Chosen:
		return refuse(fault.Invalid, "make the network with --subnet", "user specified IP address is supported only when connecting to networks with user configured subnets")
	case l.forbidden(s, mustPrefix(s.Subnet), a):
		return refuse(fault.Conflict, "", "Address already in use: it is the network's, its gateway's or kept")
	case !l.taken[a.String()]:
		return a, s, nil
	}
	owner, _ := os.Readlink(filepath.Join(l.e.Store.Leases(l.n.ID), a.String()))
	if owner != l.id && l.e.running(owner) {
		return refuse(fault.Conflict, "container "+l.e.nameOf(owner)+" has it", "Address already in use")
	}
	return a, s, nil
}

// nameOf is a container's name, or the beginning of its id.
func (e *Engine) nameOf(id string) string {
	if c, err := e.read(id); err == nil {
		return c.Name
	}
	return short(id)
}

// forgetVoid removes the leases of containers that do not run.
func (l *leasing) forgetVoid() {
	dir := l.e.Store.Leases(l.n.ID)
	for address := range l.taken {
		if owner, err := os.Readlink(filepath.Join(dir, address)); err == nil && owner != l.id && !l.e.running(owner) && os.Remove(filepath.Join(dir, address)) == nil {
			delete(l.taken, address)
		}
	}
}

// giveBack gives back the addresses that a container has on a network.
func (e *Engine) giveBack(p *inspect.Endpoint, id string) {
	for _, prefix := range []string{p.IP, p.IP6} {
		a := mustPrefix(prefix).Addr()
		if !a.IsValid() {
			continue
		}
		link := filepath.Join(e.Store.Leases(p.Network), a.String())
		if owner, _ := os.Readlink(link); owner == id {
			_ = os.Remove(link)
		}
	}
}

// sweepLeases removes leases of containers that do not run, and what was left
// of networks that are gone.
func (e *Engine) sweepLeases() int {
	all, err := os.ReadDir(filepath.Dir(e.Store.Leases("x")))
	if err != nil {
		return 0
	}
	n := 0
	for _, d := range all {
		network := &Network{ID: d.Name()}
		lock, err := e.lockLeases(network)
		if err != nil {
			continue
		}
		dir := e.Store.Leases(d.Name())
		n += removeEach(dir, func(path string) bool {
			owner, err := os.Readlink(path)
			return err == nil && !e.running(owner)
		})
		if _, err := os.Lstat(e.Store.Network(d.Name())); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(dir)
		}
		lock.Unlock()
	}
	return n
}

// UsedNetworks are the ids of the networks that containers have.
func (e *Engine) UsedNetworks() (map[string]bool, error) {
	all, _, err := e.Brief()
	used := map[string]bool{}
	for _, c := range all {
		for _, p := range c.Endpoints {
			used[p.Network] = true
		}
	}
	return used, err
}

// sweepNetworks takes the bridges of networks away that no container is on, and
// with the last of them this store's rules. Who comes next makes them again.
func (e *Engine) sweepNetworks() error {
	if shares() || e.Inside {
		e.endShared()
		return nil
	}
	if err := rules.SweepCgroupRates(rules.DefaultName); err != nil && fault.KindOf(err) != fault.Denied && fault.KindOf(err) != fault.Unsupported {
		return err
	}
	all, _, err := e.networks()
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b *Network) int { return strings.Compare(a.ID, b.ID) })
	unused, used := []*Network{}, false
	for _, n := range all {
		if n.Driver != "bridge" {
			continue
		}
		lock, err := e.lockLeases(n) // nobody who gets an address before it is unlocked finds no bridge after that
		if err != nil {
			return err
		}
		defer lock.Unlock()
		leases, err := os.ReadDir(e.Store.Leases(n.ID))
		if err != nil {
			return err
		}
		if len(leases) > 0 {
			used = true
		} else {
			unused = append(unused, n)
		}
	}
	for _, n := range unused {
		err = errors.Join(err, e.takeDown(n))
	}
	if used || err != nil {
		return err
	}
	return e.deleteRules()
}
