package engine

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"kiste/container/bundle"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
	"kiste/kernel/privilege"
)

// choose settles which networks a new container is on: the default one, where
// nothing is said and this host lets us.
func (p *Prepared) choose() error {
	w := &p.Wishes
	if err := p.checkRates(); err != nil {
		return err
	}
	if shares() && !w.OnUserNetwork() {
		return nil // see userNet
	}
	if w.Network.Kind == bundle.Default {
		if !mayNetwork() {
			w.Network.Kind = bundle.None
			if len(w.Ports) > 0 || w.PublishAll {
				return &fault.Error{Op: "publish ports", Kind: fault.Denied, Err: errors.New("kiste has no CAP_NET_ADMIN here")}
			}
			p.o.Warn("it has no network: kiste has no CAP_NET_ADMIN here")
			return nil
		}
		w.Network = bundle.Namespace{Kind: bundle.Bridge}
		w.Networks = []bundle.NetworkWish{{Name: DefaultNetwork}}
	}
	places, err := w.Places()
	if err != nil {
		return &fault.Error{Op: "use network", Kind: fault.Invalid, Err: err}
	}
	for _, wish := range places {
		n, err := p.e.networkFor(wish.Name, p.o.DryRun)
		if errors.Is(err, fault.NotFound) && !shares() {
			if at := plugged(wish); at != nil {
				p.Plugged = append(p.Plugged, *at)
				continue
			}
		}
		if err != nil {
			return err
		}
		if p.Endpoint(n.ID) != nil {
			return networkError("join", n.Name, fault.Invalid, "network %q is specified multiple times", n.Name)
		}
		p.Endpoints = append(p.Endpoints, inspect.Endpoint{Wish: wish, Network: n.ID, Name: n.Name, Driver: n.Driver, User: n.User()})
		p.chosen = append(p.chosen, n)
	}
	return nil
}

// networkFacts are what the container's files say of its networks.
func (p *Prepared) networkFacts(f *bundle.Facts) error {
	resolv := "/etc/resolv.conf"
	switch p.Wishes.Network.Kind {
	case bundle.HostNS:
		f.Hosts, _ = readSmall("/etc/hosts")
	case bundle.Container:
		other, err := p.running(p.Wishes.Network.Of)
		if err != nil {
			return err
		}
		f.Hosts, _ = readSmall(other.FilePaths["/etc/hosts"])
		resolv = other.FilePaths["/etc/resolv.conf"]
	}
	f.ResolvConf, _ = readSmall(resolv)
	if shares() && slices.ContainsFunc(p.Wishes.Hosts, func(h bundle.Host) bool { return h.IP == "host-gateway" }) {
		f.Gateways = userGateways()
	}
	if len(p.Endpoints) == 0 {
		return nil
	}
	if bundle.OnlyLoopback(f.ResolvConf) {
		// Where systemd-resolved keeps the servers that it asks itself.
		if own, err := readSmall("/run/systemd/resolve/resolv.conf"); err == nil {
			f.ResolvConf = own
		}
	}
	if len(p.Wishes.DNS) == 0 && bundle.OnlyLoopback(f.ResolvConf) {
		// Only the host reaches them, and the resolver is there.
		p.joining.plan.Names = bundle.ResolverAddress
	}
	f.Resolver = p.joining.plan.Names != ""
	for i := range p.Endpoints {
		f.Addresses = append(f.Addresses, p.Endpoints[i].Addresses()...)
	}
	for i, way := range p.way() {
		if way != nil && !shares() {
			f.Gateways = append(f.Gateways, []string{way.Gateway, way.Gateway6}[i])
		}
	}
	return nil
}

// mayNetwork reports whether this process may make links.
func mayNetwork() bool {
	held, err := privilege.Held()
	return err == nil && slices.Contains(held.Names(), "CAP_NET_ADMIN")
}

// networkFor finds a network by what a container says. With dry nothing is
// made: the default network is then what it would be.
func (e *Engine) networkFor(query string, dry bool) (*Network, error) {
	n, err := e.network(query)
	if query != DefaultNetwork || !errors.Is(err, fault.NotFound) {
		return n, err
	}
	if !dry {
		return e.defaultNetwork()
	}
	n = newNetwork(NetworkOptions{Name: DefaultNetwork})
	return n, e.giveSubnets(n, NetworkOptions{})
}

// A joining is a container's way into its networks, in the making.
type joining struct {
	networks []*Network // of the endpoints
	plan     plan.Network

	sends, receives network.Rate // on each of them
}

// connect leases the container's addresses and makes what its plan has to do
// for its networks.
func (p *Prepared) connect() error {
	p.joining = joining{}
	if len(p.Endpoints) == 0 {
		return p.checkPorts()
	}
	networks, err := p.networks()
	if err != nil {
		return err
	}
	j := &p.joining
	j.networks = networks
	for i, n := range networks {
		if err := p.e.place(n, p.Container, &p.Endpoints[i], p.dry()); err != nil {
			return err
		}
		if n.User() {
			j.plan.Names = bundle.ResolverAddress
		}
	}
	j.plan.Table = p.e.table()
	if shares() && !p.dry() {
		var err error
		if j.plan.Host, err = p.e.share(); err != nil {
			return err
		}
	}
	j.sends, j.receives = p.Wishes.Rates()
	ways := p.way()
	for i := range p.Endpoints {
		if err := j.add(&p.Endpoints[i], j.networks[i], ways); err != nil {
			return err
		}
	}
	return p.publish()
}

// networks are those of the container's endpoints. What choose has read counts
// once: a lease is refused where the network is gone by then.
func (p *Prepared) networks() ([]*Network, error) {
	all := p.chosen
	p.chosen = nil
	if len(all) == len(p.Endpoints) {
		return all, nil
	}
	all = nil
	for i := range p.Endpoints {
		n, err := p.e.networkOf(&p.Endpoints[i], p.o.DryRun)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// dry reports whether nothing is to be taken that a container has only while it
// runs.
func (p *Prepared) dry() bool { return p.o.DryRun || p.o.creating }

// forgetPlaces forgets what would have been taken.
func (p *Prepared) forgetPlaces() {
	p.Bindings, p.Parked = nil, nil
	for i := range p.Endpoints {
		p.Endpoints[i].Clear()
	}
}

// networkOf is the network of an endpoint: by its id, or by its name where it
// was made anew.
func (e *Engine) networkOf(at *inspect.Endpoint, dry bool) (*Network, error) {
	n, err := e.readNetwork(at.Network)
	if errors.Is(err, fault.NotFound) {
		n, err = e.networkFor(at.Wish.Name, dry)
	}
	if err == nil {
		at.Network, at.Name, at.Driver, at.User = n.ID, n.Name, n.Driver, n.User()
	}
	return n, err
}

// place gives a container what it has on a network as long as it runs.
func (e *Engine) place(n *Network, c *Container, at *inspect.Endpoint, dry bool) error {
	at.Clear()
	if err := n.accepts(&at.Wish); err != nil {
		return err
	}
	if err := e.lease(n, at, c.ID, dry); err != nil {
		return err
	}
	at.ID, at.Link = newID(), n.linkName(c, at)
	if n.Driver == "bridge" {
		at.Outside = "kv" + at.ID[:12]
	}
	if at.MAC = at.Wish.MAC; at.MAC == "" && n.Driver != "ipvlan" {
		at.MAC = macFor(at)
	}
	if n.User() {
		at.Names = namesOf(c, at)
	}
	return nil
}

// accepts refuses what a network cannot give.
func (n *Network) accepts(w *bundle.NetworkWish) error {
	switch {
	case n.ConfigOnly:
		return networkError("join", n.Name, fault.Denied, "cannot create endpoint on configuration-only network")
	case len(w.Aliases) > 0 && !n.User():
		return networkError("join", n.Name, fault.Invalid, "network-scoped alias is supported only for containers in user defined networks")
	case (w.IP != "" || w.IP6 != "") && !n.User():
		return networkError("join", n.Name, fault.Invalid, "user specified IP address is supported on user defined networks only")
	case w.MAC != "" && n.Driver == "ipvlan":
		return networkError("join", n.Name, fault.Invalid, "on ipvlan all have the MAC address of the parent")
	}
	return nil
}

// linkName is that of a container's link on n.
func (n *Network) linkName(c *Container, at *inspect.Endpoint) string {
	if name := at.Wish.Options["com.docker.network.endpoint.ifname"]; name != "" {
		return name
	}
	prefix := n.Options["com.docker.network.container_iface_prefix"]
	if prefix == "" {
		prefix = "eth"
	}
	return c.freeLink(prefix)
}

// freeLink is the first name that no link of the container has.
func (c *Container) freeLink(prefix string) string {
	for i := 0; ; i++ {
		name := fmt.Sprint(prefix, i)
		has := func(at inspect.Endpoint) bool { return at.Link == name }
		if !slices.ContainsFunc(c.Endpoints, has) && !slices.ContainsFunc(c.Plugged, has) {
			return name
		}
	}
}

// macFor is a MAC address that follows from the IP address, so that what others
// on the network remember of the address stays true of the next who has it.
func macFor(at *inspect.Endpoint) string {
	a := mustPrefix(at.IP).Addr()
	if !a.IsValid() {
		a = mustPrefix(at.IP6).Addr()
	}
	b := a.AsSlice()
	if len(b) < 4 {
		return ""
	}
	b = b[len(b)-4:]
	return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
}

// namesOf are those by which others find a container on a network of users.
func namesOf(c *Container, at *inspect.Endpoint) []string {
	var names []string
	for _, name := range slices.Concat([]string{c.Name}, at.Wish.Aliases, []string{short(c.ID), c.Wishes.Hostname}) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// way is the endpoint through which the container reaches all else.
func (p *Prepared) way() [2]*inspect.Endpoint { return waysOut(p.Endpoints, p.joining.networks) }

// waysOut are the endpoints through which who has them on these networks reaches
// all else, for each family: of the highest priority, then the first by name. Nil:
// there is none.
func waysOut(all []inspect.Endpoint, networks []*Network) (ways [2]*inspect.Endpoint) {
	for _, at := range sortedEndpoints(all) {
		i := slices.IndexFunc(networks, func(n *Network) bool { return n.ID == at.Network })
		if i >= 0 && networks[i].Internal {
			continue
		}
		for family, gateway := range []string{at.Gateway, at.Gateway6} {
			if gateway != "" && ways[family] == nil {
				ways[family] = at
			}
		}
	}
	return ways
}

// add adds what has to be done for an endpoint.
func (j *joining) add(at *inspect.Endpoint, n *Network, ways [2]*inspect.Endpoint) error {
	e, err := n.endpoint(at, ways)
	if err != nil {
		return err
	}
	e.Sends, e.Receives = j.sends, j.receives
	if err := e.Check(); err != nil {
		return err
	}
	j.plan.Endpoints = append(j.plan.Endpoints, e)
	if n.Driver == "bridge" {
		j.plan.Bridges = append(j.plan.Bridges, n.bridge())
		j.plan.Rules.Bridges = append(j.plan.Rules.Bridges, n.rules())
	}
	return nil
}

// endpoint is the container's link on n as package network makes it.
func (n *Network) endpoint(at *inspect.Endpoint, ways [2]*inspect.Endpoint) (network.Endpoint, error) {
	mtu, err := n.mtu()
	if err != nil {
		return network.Endpoint{}, err
	}
	e := network.Endpoint{Kind: "veth", Parent: n.Link(), Outer: at.Outside, Name: at.Link, MAC: at.MAC, MTU: mtu, Isolated: !n.on("com.docker.network.bridge.enable_icc"), BigPackets: n.bigPackets()}
	e.Shortcut = !e.Isolated && n.on(shortcutOption)
	if n.Driver != "bridge" {
		e.Kind, e.Mode = n.Driver, n.Mode()
		e.Isolated, e.BigPackets, e.Shortcut = false, false, false
	}
	if sysctls := at.Wish.Options["com.docker.network.endpoint.sysctls"]; sysctls != "" {
		e.Sysctls = strings.Split(sysctls, ",")
	}
	for _, prefix := range slices.Concat([]string{at.IP, at.IP6}, linkLocal(at.Wish.LinkLocal)) {
		if p := mustPrefix(prefix); p.IsValid() {
			e.Addresses = append(e.Addresses, p)
		}
	}
	for family, gateway := range []string{at.Gateway, at.Gateway6} {
		if a, err := network.ParseAddr(gateway); err == nil && ways[family] == at {
			e.Gateways = append(e.Gateways, a)
		}
	}
	return e, nil
}

// linkLocal are further addresses with the sizes of the networks that such are in.
func linkLocal(all []string) []string {
	out := make([]string, len(all))
	for i, a := range all {
		out[i] = a + "/16"
		if strings.Contains(a, ":") {
			out[i] = a + "/64"
		}
	}
	return out
}

// bridge is n's on the host.
func (n *Network) bridge() network.Bridge {
	b := network.Bridge{Name: n.Link(), LocalNet: !n.Internal, Router: !n.Internal}
	b.MTU, _ = n.mtu() // checked when the network was made
	for _, s := range n.Subnets {
		gateway, err := network.ParseAddr(s.Gateway)
		if err == nil && !n.hostless(gateway.Is4()) {
			b.Addresses = append(b.Addresses, network.PrefixFrom(gateway, mustPrefix(s.Subnet).Bits()))
		}
	}
	return b
}

// rules are what the packet filter has to know of n's bridge.
func (n *Network) rules() rules.Bridge {
	masquerades := n.on("com.docker.network.bridge.enable_ip_masquerade")
	r := rules.Bridge{Name: n.Link(), Internal: n.Internal, Routed4: n.gatewayMode(true) == "routed" || !masquerades, Routed6: n.gatewayMode(false) == "routed" || !masquerades,
		Open4: n.gatewayMode(true) == "nat-unprotected", Open6: n.gatewayMode(false) == "nat-unprotected"}
	for _, s := range n.Subnets {
		r.Subnets = append(r.Subnets, mustPrefix(s.Subnet))
	}
	return r
}

// table is the name of this store's table of rules.
func (e *Engine) table() string {
	if e.Store.First() {
		return rules.DefaultName
	}
	return fmt.Sprintf("%s-%012x", rules.DefaultName, network.Hash(filepath.Clean(e.Store.Run))>>16)
}

// announceNames lets the resolver answer for the container whose process is pid.
func (p *Prepared) announceNames(pid int) error {
	id, err := process.Identify(pid)
	if err != nil {
		return err
	}
	return p.e.announce(Resolver, p.ID, p.e.named(p.Container, p.joining.networks, id))
}

// named is what the resolver is told of a container.
func (e *Engine) named(c *Container, networks []*Network, id process.Identity) *Named {
	n := &Named{ID: c.ID, Process: id, Servers: c.Wishes.DNS, Closed: true, Qualified: hasDots(c.Wishes.DNSOptions)}
	for _, at := range sortedEndpoints(c.Endpoints) {
		i := slices.IndexFunc(networks, func(n *Network) bool { return n.ID == at.Network })
		if i < 0 {
			continue
		}
		net := networks[i]
		n.Closed = n.Closed && net.Internal
		place := Place{Network: net.ID, Name: net.Name, Names: at.Names, Addresses: at.Addresses()}
		for _, s := range net.Subnets {
			place.Subnets = append(place.Subnets, s.Subnet)
		}
		n.Places = append(n.Places, place)
	}
	return n
}

// hasDots reports whether options of resolv.conf(5) ask for more than no dots.
func hasDots(options []string) bool {
	return slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "ndots:") && o != "ndots:0" })
}

// tellNetworks tells that a container has joined its networks, or left them.
func (e *Engine) tellNetworks(action string, c *Container) {
	for i := range c.Endpoints {
		if at := &c.Endpoints[i]; at.ID != "" {
			e.EmitNetwork(action, &Network{ID: at.Network, Name: at.Name, Driver: at.Driver}, map[string]string{"container": c.ID})
		}
	}
}

// disconnect gives back what a container had on networks while it ran. The
// links are the kernel's to end.
func (e *Engine) disconnect(c *Container) {
	e.unpublish(c)
	for i := range c.Endpoints {
		at := &c.Endpoints[i]
		if at.ID == "" {
			continue
		}
		e.giveBack(at, c.ID)
		at.Clear()
	}
	for i := range c.Plugged {
		c.Plugged[i].Clear()
	}
	e.endShared()
}

// sortedEndpoints are a container's in the order in which the default route is
// looked for: the highest priority first, then by name, as Docker has it.
func sortedEndpoints(all []inspect.Endpoint) []*inspect.Endpoint {
	var sorted []*inspect.Endpoint
	for i := range all {
		sorted = append(sorted, &all[i])
	}
	slices.SortStableFunc(sorted, func(a, b *inspect.Endpoint) int {
		return cmp.Or(cmp.Compare(b.Wish.Priority, a.Wish.Priority), strings.Compare(a.Name, b.Name))
	})
	return sorted
}
