package engine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"kiste/container/bundle"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/sys"
	"kiste/kernel/network"
	"kiste/kernel/network/nft"
	"kiste/kernel/network/rules"
)

// checkPorts refuses ports of a container without networks.
func (p *Prepared) checkPorts() error {
	if len(p.Wishes.Published(p.Image)) == 0 {
		return nil
	}
	switch kind := p.Wishes.Network.Kind; {
	case kind == bundle.HostNS:
		p.o.Warn("Published ports are discarded when using host network mode")
	case slices.Contains([]string{bundle.Container, bundle.Path}, kind):
		return &fault.Error{Op: "publish ports", Kind: fault.Invalid, Err: errors.New("conflicting options: port publishing and the container type network mode")}
	}
	return nil
}

// publishing keeps the rules from being made anew, by this process, from
// documents that do not have yet what is being published.
var publishing sync.RWMutex

// publish takes the ports of the host that the container's are reached by. They
// are reserved by sockets that nobody reads, as long as this process keeps the
// container: who wants to listen there is told that they are taken.
func (p *Prepared) publish() error {
	p.Bindings, p.Parked = nil, nil
	ports := p.Wishes.Published(p.Image)
	if len(ports) == 0 {
		return nil
	}
	ways := p.way()
	if ways[0] == nil && ways[1] == nil {
		p.o.Warn("its ports are not published: nothing leads out of its networks")
		return nil
	}
	for _, port := range ports {
		if err := p.publishOne(port, ways); err != nil {
			p.freePorts()
			return err
		}
	}
	switch {
	case p.dry():
	case shares(): // who listens there is a program, which the host's rules know
		if err := p.e.forward(p.ID, portsOf(p.Container)); err != nil {
			return err
		}
	default:
		p.warnWalls()
	}
	p.joining.plan.Rules.Ports = rulesOf(p.Container)
	for _, port := range p.proxied() {
		p.joining.plan.Proxied = append(p.joining.plan.Proxied, port.String())
	}
	for i := range p.joining.plan.Endpoints {
		e := &p.joining.plan.Endpoints[i]
		e.Hairpin = e.Kind == "veth" // so that it reaches itself by the host
	}
	return nil
}

// publishOne publishes a port for the families that it is meant for.
func (p *Prepared) publishOne(port bundle.Port, ways [2]*inspect.Endpoint) error {
	host := port.Host
	for _, address := range p.bindingAddresses(port, ways) {
		a, err := network.ParseAddr(address)
		if err != nil {
			return err
		}
		b := inspect.Binding{Port: port.Key(), IP: address, Host: host, Carried: isCarried(a, ways)}
		aim(&b, a, ways, p.joining.networks)
		if !p.dry() {
			if b.Host, err = p.reserve(port, a, host, b.Carried); err != nil {
				return err
			}
			host = b.Host // of both families the same
		}
		p.Bindings = append(p.Bindings, b)
	}
	return nil
}

// aim lets b, at the address a of the host, lead by one of these ways into these
// networks; false: none is for it.
func aim(b *inspect.Binding, a network.Addr, ways [2]*inspect.Endpoint, networks []*Network) bool {
	way, to := leadsTo(a, b.Carried, ways)
	if way == nil {
		return false
	}
	b.To, b.Unjudged, b.Direct = to, unjudged(networks, way), !b.Carried && direct(networks, way, a.Is4())
	return true
}

// unjudged reports whether the host's chains for input have no say about ports
// that lead to way.
func unjudged(networks []*Network, way *inspect.Endpoint) bool {
	return slices.ContainsFunc(networks, func(n *Network) bool { return n.ID == way.Network && n.Options[firewallOption] == firewallForward })
}

// direct reports whether published ports are reached at way's own address of a
// family.
func direct(networks []*Network, way *inspect.Endpoint, four bool) bool {
	return slices.ContainsFunc(networks, func(n *Network) bool { return n.ID == way.Network && n.gatewayMode(four) == "routed" })
}

// warnWalls tells of chains that keep strangers from published ports because
// they could not be copied, and of those that should, and cannot.
func (p *Prepared) warnWalls() {
	c, err := nft.Open()
	if err != nil {
		return
	}
	defer c.Close()
	walls, _ := rules.Firewalls(c, BridgePrefix)
	for _, w := range walls {
		switch {
		case !slices.ContainsFunc(p.Bindings, judged):
		case w.Closed:
			p.o.Warn("its published ports are closed to other hosts by chain " + w.Chain + "; kiste doctor says why")
		case w.Unasked:
			p.o.Warn("its published ports are open to other hosts whatever chain INPUT of " + w.Owner + " says; kiste doctor says how to have it asked")
		}
	}
}

// judged reports whether the host's chains for input are to be asked about b: others
// reach it, not by a program that listens, which they meet anyway, and its network is
// not one that they are not asked about.
func judged(b inspect.Binding) bool {
	return !b.Unjudged && !b.Carried && !strings.HasPrefix(b.IP, "127.")
}

// bindingAddresses are those of the host where a port is published: the one that is
// said, or all of the families that the container has.
func (p *Prepared) bindingAddresses(port bundle.Port, ways [2]*inspect.Endpoint) (all []string) {
	if port.HostIP != "" {
		return []string{port.HostIP}
	}
	if way := ways[0]; way != nil {
		all = append(all, p.bindingAddress(way))
	}
	if ways[1] != nil {
		all = append(all, "::")
	}
	return all
}

// bindingAddress is where ports are published by IPv4 of which no address is said.
func (p *Prepared) bindingAddress(way *inspect.Endpoint) string {
	for _, n := range p.joining.networks {
		if a := n.Options["com.docker.network.bridge.host_binding_ipv4"]; n.ID == way.Network && a != "" {
			return a
		}
	}
	return "0.0.0.0"
}

// reserve takes a port of the host: the one that is wanted, the first that is
// free of a range, or any.
func (p *Prepared) reserve(port bundle.Port, a network.Addr, want uint16, carried bool) (uint16, error) {
	proto, err := rules.ParseProto(port.Proto)
	if err != nil {
		return 0, err
	}
	last := max(want, port.HostLast)
	if want != port.Host { // the other family has chosen
		last = want
	}
	switch {
	case port.Proto != "sctp":
	case shares():
		return 0, noSCTP(&port)
	case carried:
		return 0, noCarriedSCTP(port)
	}
	for try := want; ; try++ {
		f, got, err := reserveOne(proto, a, try, carried)
		switch {
		case err == nil:
			p.reserved = append(p.reserved, f...)
			return got, nil
		case errors.Is(err, syscall.EACCES):
			port.Host, port.HostLast = try, 0
			return 0, explainPort(&port, err)
		case errors.Is(err, syscall.EPROTONOSUPPORT): // SCTP, which the kernel has as a module
			return p.unpublished(port.Proto, try)
		case !errors.Is(err, syscall.EADDRINUSE) || try >= last:
			return 0, p.e.whoHas(port.Proto, a, want, err)
		}
	}
}

// reserveOne takes a port. Where a program is going to listen on it, it only finds
// out whether that can.
func reserveOne(proto rules.Proto, a network.Addr, port uint16, carried bool) ([]*os.File, uint16, error) {
	if shares() || carried {
		got, err := sys.CanBind(proto.String() == "udp", a.AsSlice(), int(port))
		return nil, uint16(got), err
	}
	f, got, err := sys.Reserve(int(proto), a.AsSlice(), port)
	return []*os.File{f}, got, err
}

// unpublished is the port that is wanted, or the first that no container has, of a
// protocol that the host itself does not speak.
func (p *Prepared) unpublished(proto string, want uint16) (uint16, error) {
	const first, last = 49152, 65535 // RFC 6335
	for try := uint16(first); want == 0; try++ {
		switch {
		case !p.Container.publishes(proto, try) && p.e.publisher(proto, try) == nil:
			want = try
		case try == last:
			return 0, &fault.Error{Op: "publish port", On: "any " + proto, Kind: fault.Unavailable, Err: errors.New("all are published")}
		}
	}
	return want, nil
}

// whoHas says why a port cannot be published.
func (e *Engine) whoHas(proto string, a network.Addr, port uint16, cause error) error {
	at := hostPort(a.String(), port)
	f := &fault.Error{Op: "publish port", On: at + "/" + proto, Kind: fault.Conflict, Err: cause}
	switch {
	case errors.Is(cause, syscall.EADDRNOTAVAIL):
		f.Kind, f.Hint = fault.Invalid, "the host has no address "+a.String()
		return f
	case !errors.Is(cause, syscall.EADDRINUSE):
		return f
	}
	f.Err = fmt.Errorf("Bind for %s failed: port is already allocated", at)
	if c := e.publisher(proto, port); c != nil {
		f.Hint = fmt.Sprintf("port %d is used by container %s", port, c.Name)
	} else if pid, name := host.PortOwner(proto, port); pid != 0 {
		f.Hint = fmt.Sprintf("port %d is used by process %d (%s)", port, pid, name)
	}
	return f
}

// hostPort is an address and a port as people write them.
func hostPort(address string, port uint16) string {
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	return fmt.Sprintf("%s:%d", address, port)
}

// publishes reports whether a container has the port of the host.
func (c *Container) publishes(proto string, port uint16) bool {
	return slices.ContainsFunc(c.Bindings, func(b inspect.Binding) bool { return b.Host == port && strings.HasSuffix(b.Port, "/"+proto) })
}

// publisher is a container that runs and has the port; nil: none was found.
func (e *Engine) publisher(proto string, port uint16) *Container {
	ids, err := e.ids()
	if err != nil {
		return nil
	}
	for _, id := range ids {
		c, err := e.read(id)
		if err == nil && c.publishes(proto, port) {
			return c
		}
	}
	return nil
}

// rulesOf are a container's published ports as the packet filter has them.
func rulesOf(c *Container) []rules.Port {
	var all []rules.Port
	for _, b := range c.Bindings {
		if b.Carried && !shares() {
			continue // see proxied
		}
		ports, err := bundle.ParsePort(b.Port)
		to, err2 := network.ParseAddr(b.To)
		at, err3 := network.ParseAddr(b.IP)
		if errors.Join(err, err2, err3) != nil {
			continue // a damaged document
		}
		proto, err := rules.ParseProto(ports[0].Proto)
		if err != nil {
			continue
		}
		p := rules.Port{Proto: proto, Host: at, HostPort: b.Host, To: to, ToPort: ports[0].Container, Owner: c.ID, Unjudged: b.Unjudged, Direct: b.Direct}
		if b.IP == "0.0.0.0" || b.IP == "::" || shares() { // to the shared namespace all come at one address
			p.Host = network.Addr{}
		}
		all = append(all, p)
	}
	return all
}

// unpublish takes a container's ports out of the rules.
func (e *Engine) unpublish(c *Container) {
	if ports := rulesOf(c); len(ports) > 0 {
		_ = e.withRules(func(r *rules.Rules) error { return r.Remove(rules.State{Ports: ports}) })
	}
	if shares() && c.Served == nil && len(c.Bindings)+len(c.Parked) > 0 {
		_ = e.forward(c.ID, nil)
	}
	c.Bindings, c.Parked = nil, nil
}

// freePorts lets others have the ports that were reserved.
func (p *Prepared) freePorts() { closeAll(p.reserved); p.reserved = nil }

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// reserveAgain reserves the ports of a container that another monitor has kept.
// Who took one meanwhile keeps it: its connections come to the container.
func reserveAgain(c *Container) (reserved []*os.File) {
	if shares() {
		return nil // the stack has them
	}
	for _, p := range rulesOf(c) {
		at := p.Host.AsSlice()
		if !p.Host.IsValid() {
			at = make([]byte, len(p.To.AsSlice()))
		}
		if f, _, err := sys.Reserve(int(p.Proto), at, p.HostPort); err == nil {
			reserved = append(reserved, f)
		}
	}
	return reserved
}
