package engine

import (
	"errors"
	"os"
	"slices"
	"strings"

	"kiste/container/bundle"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
)

// Connect brings a container onto a network: at once, if it runs, and at each
// start.
func (e *Engine) Connect(query, container string, wish bundle.NetworkWish) error {
	n, err := e.Network(query)
	if err != nil {
		return err
	}
	if n.Predefined() && n.Name != DefaultNetwork {
		return networkError("connect to", n.Name, fault.Denied, "container cannot be connected to %s network", n.Name)
	}
	return e.onLive(container, func(c *Container) error {
		switch kind := c.Wishes.Network.Kind; {
		case kind == bundle.Container || kind == bundle.Path:
			return networkError("connect to", n.Name, fault.Conflict, "container sharing network namespace with another container or host cannot be connected to any other network")
		case kind == bundle.HostNS:
			return networkError("connect to", n.Name, fault.Conflict, "container cannot be connected to multiple networks with one of the networks in host mode")
		case c.runs() && c.Served != nil:
			return &fault.Error{Op: "connect to network", On: n.Name, Kind: fault.Unsupported, Err: errors.New("the container runs in a network of its own, " + c.Served.Name),
				Hint: "stop it, connect it and start it; or run it with --network"}
		case c.Endpoint(n.ID) != nil:
			return networkError("connect to", n.Name, fault.Conflict, "endpoint with name %s already exists in network %s", c.Name, n.Name)
		}
		if wish.Name = n.Name; c.runs() && !c.Lasting {
			return networkError("connect to", n.Name, fault.Unsupported, "whoever started the container keeps it")
		}
		c.Endpoints = append(c.Endpoints, inspect.Endpoint{Wish: wish, Network: n.ID, Name: n.Name, Driver: n.Driver, User: n.User()})
		c.Wishes.Network = bundle.Namespace{Kind: bundle.Bridge}
		c.Wishes.Networks = append(c.Wishes.Networks, wish)
		if !c.runs() {
			return nil
		}
		if err := e.joinLive(c, n, &c.Endpoints[len(c.Endpoints)-1]); err != nil {
			return err
		}
		e.EmitNetwork("connect", n, map[string]string{"container": c.ID})
		return nil
	})
}

// onLive changes a container's document, and its names and files where it runs.
func (e *Engine) onLive(container string, do func(*Container) error) error {
	found, err := e.Find(container)
	if err != nil {
		return err
	}
	l, err := e.lockState(found.ID)
	if err != nil {
		return err
	}
	defer l.Unlock()
	c, err := e.load(found.ID)
	if err != nil {
		return err
	}
	if err := do(c); err != nil {
		return err
	}
	if err := e.write(c); err != nil || !c.runs() {
		return err
	}
	bad := []error{e.renameLive(c)}
	for _, reader := range e.inNetworkOf(c) {
		bad = append(bad, c.resolveLive(reader), c.hostsLive(reader))
	}
	return errors.Join(bad...)
}

// inNetworkOf are a container that runs and those that have joined its network,
// whose files say the same.
func (e *Engine) inNetworkOf(c *Container) []*Container {
	all := []*Container{c}
	others, _, _ := e.Brief() // a damaged document's are told of by "kiste ps"
	for _, o := range others {
		if o.Wishes.Network.Kind != bundle.Container || !o.runs() {
			continue
		}
		if id, err := e.id(o.Wishes.Network.Of); err != nil || id != c.ID {
			continue
		}
		if whole, err := e.read(o.ID); err == nil { // with its files
			all = append(all, whole)
		}
	}
	return all
}

// live opens the network that bridges are in and that of a container that runs.
func (e *Engine) live(c *Container, do func(host, inside *network.Namespace) error) error {
	host, err := e.bridgeHost()
	if err != nil {
		return err
	}
	defer host.Close()
	inside, err := network.OpenProcess(c.State.PID)
	if err != nil {
		return err
	}
	defer inside.Close()
	if !identity(c.State).Alive() { // the number may be another's by now
		return &fault.Error{Op: "open the network of", On: c.Name, Kind: fault.Conflict, Err: errors.New("it has just ended")}
	}
	return do(host, inside)
}

// joinLive makes the link of an endpoint of a container that runs. Where it is
// the way out from now on, published ports lead to it.
func (e *Engine) joinLive(c *Container, n *Network, at *inspect.Endpoint) (err error) {
	if err := e.place(n, c, at, false); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			e.giveBack(at, c.ID)
		}
	}()
	if shares() {
		if _, err := e.share(); err != nil {
			return err
		}
	}
	networks, err := e.networksOf(c.Endpoints)
	if err != nil {
		return err
	}
	link, err := n.endpoint(at, waysOut(c.Endpoints, networks))
	if err != nil {
		return err
	}
	link.Sends, link.Receives = c.Wishes.Rates()
	link.Hairpin = link.Kind == "veth" && len(c.Bindings)+len(c.Parked) > 0
	return e.live(c, func(host, inside *network.Namespace) error {
		if n.Driver == "bridge" {
			if err := e.makeBridge(host, n); err != nil {
				return err
			}
		}
		if len(link.Gateways) > 0 {
			dropDefaults(inside, link.Gateways)
		}
		if err := host.Attach(link, inside); err != nil {
			return err
		}
		if err := e.lead(c, c.Endpoints, networks); err != nil {
			return errors.Join(err, inside.Delete(at.Link))
		}
		return nil
	})
}

// makeBridge makes a network's bridge and its place in the rules in the namespace
// host, unless they are there.
func (e *Engine) makeBridge(host *network.Namespace, n *Network) error {
	if _, err := host.MakeBridge(n.bridge()); err != nil {
		return err
	}
	return e.withRulesIn(host, func(r *rules.Rules) error { return r.Add(rules.State{Bridges: []rules.Bridge{n.rules()}}) })
}

// dropDefaults takes the default routes away of the families that get others.
func dropDefaults(n *network.Namespace, gateways []network.Addr) {
	for _, g := range gateways {
		_ = n.DeleteDefault(g.Is4())
	}
}

// networksOf are the networks of endpoints.
func (e *Engine) networksOf(all []inspect.Endpoint) (networks []*Network, err error) {
	for i := range all {
		n, err := e.readNetwork(all[i].Network)
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	return networks, nil
}

// Disconnect takes a container off a network. With force also one of which the
// network's links are gone, or whose document cannot be trusted to be.
func (e *Engine) Disconnect(query, container string, force bool) error {
	n, err := e.Network(query)
	if err != nil {
		return err
	}
	return e.onLive(container, func(c *Container) error {
		i := slices.IndexFunc(c.Endpoints, func(p inspect.Endpoint) bool { return p.Network == n.ID })
		if i < 0 {
			if c.Wishes.Network.Kind == bundle.HostNS && n.Driver == "host" {
				return networkError("disconnect from", n.Name, fault.Denied, "cannot disconnect container from host network - container was created in host network mode")
			}
			return networkError("disconnect from", n.Name, fault.Conflict, "container %s is not connected to network %s", c.ID, n.Name)
		}
		at := c.Endpoints[i]
		if c.runs() {
			if err := e.leaveLive(c, i); err != nil && !force {
				return err
			}
			e.giveBack(&at, c.ID)
			e.endShared()
			e.EmitNetwork("disconnect", n, map[string]string{"container": c.ID})
		}
		c.Endpoints = slices.Delete(c.Endpoints, i, i+1)
		c.Wishes.Networks = slices.DeleteFunc(c.Wishes.Networks, func(w bundle.NetworkWish) bool { return w.Name == at.Wish.Name })
		if len(c.Endpoints) == 0 {
			c.Wishes.Network = bundle.Namespace{Kind: bundle.None}
		}
		return nil
	})
}

// leaveLive takes the link of the i-th endpoint away, and finds another way out
// where it was that, for published ports too.
func (e *Engine) leaveLive(c *Container, i int) error {
	at := c.Endpoints[i]
	rest := slices.Delete(slices.Clone(c.Endpoints), i, i+1)
	networks, err := e.networksOf(rest)
	if err != nil {
		return err
	}
	if err := e.lead(c, rest, networks); err != nil {
		return err
	}
	return e.live(c, func(_, inside *network.Namespace) error {
		if err := inside.Delete(at.Link); err != nil && fault.KindOf(err) != fault.NotFound {
			return err
		}
		for family, way := range waysOut(rest, networks) {
			if way == nil {
				continue
			}
			gateway, err := network.ParseAddr([]string{way.Gateway, way.Gateway6}[family])
			if err != nil {
				continue
			}
			if err := inside.AddRoute(network.Route{Gateway: gateway}); err != nil && fault.KindOf(err) != fault.Exists {
				return err
			}
		}
		return nil
	})
}

// lead lets the published ports of a container that runs lead to its ways out,
// by these endpoints. Where there is none for its family, a port is parked.
func (e *Engine) lead(c *Container, all []inspect.Endpoint, networks []*Network) error {
	before, proxied, bindings := rulesOf(c), c.proxied(), slices.Concat(c.Bindings, c.Parked)
	ways := waysOut(all, networks)
	c.Bindings, c.Parked = nil, nil
	for _, b := range bindings {
		a, err := network.ParseAddr(b.IP)
		switch {
		case err != nil || b.To == "": // a plugin's: it leads where that has led it
			c.Bindings = append(c.Bindings, b)
		case aim(&b, a, ways, networks):
			c.Bindings = append(c.Bindings, b)
		default:
			c.Parked = append(c.Parked, b)
		}
	}
	if err := e.proxyAnew(c, proxied); err != nil {
		return err
	}
	after := rulesOf(c)
	if slices.Equal(before, after) {
		return nil
	}
	gone := slices.DeleteFunc(before, func(p rules.Port) bool { return slices.Contains(after, p) })
	return e.withRules(func(r *rules.Rules) error {
		return errors.Join(r.Remove(rules.State{Ports: gone}), r.Add(rules.State{Ports: after}))
	})
}

// renameLive tells the resolver of a container's new places, if it is on a network
// of users, or ever was.
func (e *Engine) renameLive(c *Container) error {
	tell := e.tell
	if !e.told(Resolver, c.ID) {
		tell = e.announce
		if !c.onUserNetwork() {
			return nil
		}
	}
	networks, err := e.networksOf(c.Endpoints)
	if err != nil {
		return err
	}
	return tell(Resolver, c.ID, e.named(c, networks, identity(c.State)))
}

func (c *Container) onUserNetwork() bool {
	return slices.ContainsFunc(c.Endpoints, func(at inspect.Endpoint) bool { return at.User })
}

// resolveLive lets a reader in c's network that has started with the host's servers
// ask the resolver as long as c is on a network of users, and them again after
// that, where he has left his resolv.conf as it was made. The resolver answers
// further, for who has read the file before.
func (c *Container) resolveLive(reader *Container) error {
	i := slices.IndexFunc(reader.Result.Files, func(f bundle.File) bool { return f.Path == "/etc/resolv.conf" })
	if i < 0 || reader != c && len(reader.Wishes.DNS) > 0 { // the resolver asks c's servers
		return nil
	}
	from := string(reader.Result.Files[i].Data)
	to := bundle.ResolverConf(&reader.Wishes, []byte(from))
	if !c.onUserNetwork() {
		from, to = to, from
	}
	path := reader.FilePaths["/etc/resolv.conf"]
	if text, err := readSmall(path); err != nil || string(text) != from || from == to {
		return nil
	}
	return overwrite(path, []byte(to))
}

// overwrite writes a file in place, since it is bound.
func overwrite(path string, b []byte) error {
	f, err := sys.OpenPlain(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(b)))
}

// hostsLive writes c's addresses into the /etc/hosts of a reader in its network:
// the file is bound, so that it is written in place.
func (c *Container) hostsLive(reader *Container) error {
	path := reader.FilePaths["/etc/hosts"]
	text, err := readSmall(path)
	if path == "" || err != nil {
		return nil
	}
	own := c.hostsLine("")
	var lines []byte
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n") + "\n"
		if i := strings.IndexByte(line, '\t'); i < 0 || line[i:] != own {
			lines = append(lines, line...)
		}
	}
	for _, at := range slices.Concat(c.Endpoints, c.Plugged) {
		for _, a := range at.Addresses() {
			lines = append(lines, c.hostsLine(a)...)
		}
	}
	return overwrite(path, lines)
}

// hostsLine is that of /etc/hosts for an address of the container's own. With
// --uts host its name is the host's.
func (c *Container) hostsLine(address string) string {
	name := c.Result.Spec.Hostname
	if name == "" {
		name = hostName()
	}
	return address + "\t" + bundle.HostsNames(name, c.Result.Spec.Domainname) + "\n"
}
