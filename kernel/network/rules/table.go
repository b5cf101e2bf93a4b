package rules

import (
	"errors"
	"maps"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/network"
	"kiste/kernel/network/nft"
)

// Rules is the table of one network namespace.
type Rules struct {
	conn *nft.Conn
	t    nft.Table
}

// Open is the table with the name in the calling thread's network namespace,
// there or not.
func Open(name string) (*Rules, error) {
	c, err := nft.Open()
	if err != nil {
		return nil, err
	}
	return &Rules{c, named(name)}, nil
}

// OpenIn is Open for the network namespace n.
func OpenIn(n *network.Namespace, name string) (*Rules, error) {
	c, err := connIn(n)
	if err != nil {
		return nil, err
	}
	return &Rules{c, named(name)}, nil
}

func connIn(n *network.Namespace) (*nft.Conn, error) {
	s, err := n.Netlink(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, &fault.Error{Op: "open netlink socket of the packet filter", Err: err}
	}
	return nft.On(s), nil
}

// Close gives the descriptor back.
func (r *Rules) Close() error { return r.conn.Close() }

// tries bounds how often a change is begun anew because somebody else was faster.
const tries = 50

// Add adds s in one transaction, and makes the table where it is missing: then
// what others had in it is missing too, and theirs to add again. One that lacks a
// set, as one of an older version may, is made anew with what it has. What is there
// already stays; a port that somebody else has is fault.Exists, and who has it
// is in its text.
func (r *Rules) Add(s State) error {
	if err := s.check(); err != nil {
		return err
	}
	found := whole
	err := r.settle(func(refused map[string]string) error {
		err := r.add(s, found, refused)
		kind := fault.KindOf(err)
		if r.aboutCopy(err) != "" || kind != fault.NotFound && (kind != fault.Exists || found != missing) {
			return err
		}
		// Somebody was faster, or this is the first, or the first of this version.
		now, bad := r.find()
		if bad != nil {
			return bad
		}
		found = now
		return errAgain{err}
	})
	switch fault.KindOf(err) {
	case "":
		r.forget(s.Ports, Port.strays)
	case fault.Exists:
		return r.taken(s, err)
	}
	return err
}

// errAgain says that a change is to be begun anew.
type errAgain struct{ error }

func (e errAgain) Unwrap() error { return e.error }

// settle does a change that builds on what it has read, until nobody has changed
// that meanwhile. Refused tells it which copies the kernel did not take.
func (r *Rules) settle(change func(refused map[string]string) error) (err error) {
	refused := map[string]string{}
	for range tries {
		err = change(refused)
		var again errAgain
		if !errors.As(err, &again) && !errors.Is(err, syscall.ERESTART) && !r.refused(err, refused) {
			break
		}
	}
	return err
}

// A condition is what a table is found in.
type condition int

// The conditions.
const (
	whole   condition = iota // it is there
	missing                  // it is not there
	damaged                  // it lacks something, or is of another version
)

func (r *Rules) find() (condition, error) {
	ok, err := r.whole()
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return missing, nil
	case err != nil || !ok:
		return damaged, err
	}
	return whole, nil
}

func (r *Rules) add(s State, found condition, refused map[string]string) error {
	generation, err := r.conn.Generation()
	if err != nil {
		return err
	}
	var b nft.Batch
	all := elements(s)
	if found == damaged {
		if err := r.renew(&b, all, refused); err != nil {
			return err
		}
		return r.conn.DoAt(&b, generation)
	}
	if found == missing {
		base(&b, r.t)
	}
	r.main().add(&b, all)
	alone := b.Len()
	if err := r.addToCopies(&b, all, found == missing, refused); err != nil {
		return err
	}
	if b.Len() == alone {
		generation = 0 // nothing builds on what was read
	}
	return r.conn.DoAt(&b, generation)
}

// renew makes the table and its copies anew, with what the table has and with
// more. What a port has in a set that is missing is made from the others.
func (r *Rules) renew(b *nft.Batch, more map[string][]nft.Element, refused map[string]string) error {
	all := map[string][]nft.Element{}
	var had State
	for _, s := range sets {
		list, err := r.conn.Elements(r.t, s.Name)
		if ignoreMissing(err) != nil {
			return err
		}
		all[s.Name] = list
		for _, e := range list {
			if p, ok := portOf(s.Name, e); ok {
				had.Ports = append(had.Ports, p)
			}
		}
	}
	for _, also := range []map[string][]nft.Element{elements(had), more} {
		for set, list := range also {
			all[set] = append(all[set], without(list, all[set])...)
		}
	}
	b.DeleteTable(r.t)
	base(b, r.t)
	r.main().add(b, all)
	return r.reconcileCopies(b, all, refused)
}

// taken names the owner of a port that is taken.
func (r *Rules) taken(s State, cause error) error {
	have, err := r.Ports()
	if err != nil {
		return cause
	}
	for _, want := range s.Ports {
		for _, p := range have {
			if want.Meets(p) && p != want {
				return &fault.Error{Op: "publish port", On: want.String(), Kind: fault.Exists, Err: errors.New("it is published already: " + p.String() + owner(p))}
			}
		}
	}
	return cause
}

func owner(p Port) string {
	if p.Owner == "" {
		return ""
	}
	return " of " + p.Owner
}

// Remove takes s out in one transaction. What is not there is no error; nor is
// a table that is not there.
func (r *Rules) Remove(s State) error {
	defer r.forget(s.Ports, Port.leads)
	unwanted := elements(s)
	copies, err := r.there()
	if err != nil {
		return err
	}
	places := []place{r.main()}
	for _, t := range copies {
		places = append(places, copyPlace(t))
	}
	var b nft.Batch
	for _, p := range places {
		p.delete(&b, unwanted)
	}
	if err := r.conn.Do(&b); fault.KindOf(err) != fault.NotFound {
		return err
	}
	for _, p := range places { // something is not there: the rest is
		err = errors.Join(err, r.removeRest(p, unwanted))
	}
	return err
}

// removeRest takes out what is there.
func (r *Rules) removeRest(p place, unwanted map[string][]nft.Element) error {
	have, err := p.read(r.conn)
	if err != nil {
		return ignoreMissing(err)
	}
	rest := map[string][]nft.Element{}
	for set, list := range unwanted {
		rest[set] = without(list, without(list, have[set]))
	}
	var b nft.Batch
	p.delete(&b, rest)
	return r.conn.Do(&b)
}

// Delete deletes the table and its copies of others; what is not there is no
// error.
func (r *Rules) Delete() error {
	copies, err := r.there()
	for _, t := range append(slices.Collect(maps.Values(copies)), r.t) {
		var b nft.Batch
		b.DeleteTable(t)
		err = errors.Join(err, ignoreMissing(r.conn.Do(&b)))
	}
	return err
}

// Ports lists the published ports; none where there is no table.
func (r *Rules) Ports() ([]Port, error) {
	var all []Port
	for _, set := range []string{ports4, any4, ports6, any6} {
		list, err := r.conn.Elements(r.t, set)
		if fault.KindOf(err) == fault.NotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if p, ok := portOf(set, e); ok {
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// Reconcile makes the table hold want and nothing else, in one transaction, and
// says whether something had to be done. One that was flushed, one of another
// version and one that somebody took rules out of are made anew; so are copies
// of chains that somebody has changed. Who else adds at the same time must be
// kept out by the caller.
func (r *Rules) Reconcile(want State) (changed bool, err error) {
	if err := want.check(); err != nil {
		return false, err
	}
	err = r.settle(func(refused map[string]string) error {
		generation, err := r.conn.Generation()
		if err != nil {
			return err
		}
		b, err := r.reconcile(want)
		if err != nil {
			return err
		}
		if err := r.reconcileCopies(b, elements(want), refused); err != nil {
			return err
		}
		changed = b.Len() > 0
		return r.conn.DoAt(b, generation)
	})
	if changed && err == nil {
		r.forget(want.Ports, Port.strays)
	}
	return changed && err == nil, err
}

func (r *Rules) reconcile(want State) (*nft.Batch, error) {
	var b nft.Batch
	whole, err := r.whole()
	switch {
	case fault.KindOf(err) == fault.NotFound:
	case err != nil:
		return nil, err
	case whole:
		have, err := r.main().read(r.conn)
		if err != nil {
			return nil, err
		}
		r.main().change(&b, have, elements(want))
		return &b, nil
	default:
		b.DeleteTable(r.t)
	}
	base(&b, r.t)
	r.main().add(&b, elements(want))
	return &b, nil
}

// whole reports whether the table has our version, and each chain its rules.
func (r *Rules) whole() (bool, error) {
	t, err := r.conn.Table(r.t.Family, r.t.Name)
	if err != nil {
		return false, err
	}
	if t.Comment != version {
		return false, nil
	}
	want := map[string]int{}
	for _, rule := range table() {
		want[rule.Chain]++
	}
	for _, c := range chains {
		n, err := r.conn.CountRules(r.t, c.Name)
		if err != nil || n != want[c.Name] {
			return false, ignoreMissing(err)
		}
	}
	n, err := r.conn.CountSets(r.t)
	return n == len(sets), err
}

func ignoreMissing(err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	return err
}

// A Resolver says to which ports of 127.0.0.11 a namespace's questions for names
// are led: those that go to its port 53.
type Resolver struct{ UDP, TCP uint16 }

// ResolverAddress is where containers ask, as in Docker.
var ResolverAddress, _ = network.AddrFromSlice([]byte{127, 0, 0, 11})

// resolverTable is inside the containers' namespaces.
const resolverTable = "kiste-resolver"

// Compile is the batch that leads questions to v's ports, in a namespace where
// nothing did so before. It is pure. The ports are changed packet by packet, and
// back in the answers: a nat chain would have the kernel follow each connection
// of the namespace, whatever it is for.
func (v Resolver) Compile() *nft.Batch {
	var b nft.Batch
	t := nft.Table{Family: nft.IPv4, Name: resolverTable}
	b.AddTable(t)
	b.AddChain(t, nft.Chain{Name: "output", Type: "filter", Hook: nft.Output, Priority: nft.PriorityRaw})
	for _, l := range []struct {
		proto Proto
		port  uint16
		sum   nft.Checksum
	}{{UDP, v.UDP, nft.ChecksumUDP}, {TCP, v.TCP, nft.ChecksumTCP}} {
		const source, destination = 0, 2 // where a header has the ports
		for _, way := range []struct {
			address func(nft.Register) nft.Expr
			offset  uint32
			is, to  uint16
		}{{nft.Destination4, destination, dnsPort, l.port}, {nft.Source4, source, l.port, dnsPort}} {
			b.AddRule(t, rule("output",
				way.address(nft.R(0)), nft.Is(nft.R(0), ResolverAddress.AsSlice()),
				nft.Load(nft.L4Proto, nft.R(0)), nft.Is(nft.R(0), []byte{byte(l.proto)}),
				nft.Payload(nft.Transport, way.offset, 2, nft.R(0)), nft.Is(nft.R(0), nft.Port(way.is)),
				nft.Put(nft.R(0), nft.Port(way.to)), nft.Rewrite(way.offset, 2, l.sum, nft.R(0))))
		}
	}
	return &b
}

const dnsPort = 53

// Lead leads the questions of the network namespace n to v's ports; they may be
// others than before.
func (v Resolver) Lead(n *network.Namespace) error {
	c, err := connIn(n)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Table(nft.IPv4, resolverTable)
	switch fault.KindOf(err) {
	case fault.NotFound:
		return c.Do(v.Compile())
	case "":
		var b nft.Batch
		b.DeleteTable(nft.Table{Family: nft.IPv4, Name: resolverTable})
		b.Append(v.Compile())
		return c.Do(&b)
	}
	return err
}
