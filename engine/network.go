package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"kiste/fault"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
	"kiste/store"
)

// A Network is one network's document: what was wished of it. Its bridge,
// addresses and rules are the kernel's, and made by who needs them first.
type Network struct {
	Schema     int               `json:"schema"`
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Created    time.Time         `json:"created"`
	Driver     string            `json:"driver"` // "bridge", "macvlan", "ipvlan"; "host" and "null" have no document
	Subnets    []Subnet          `json:"subnets,omitempty"`
	NoIPv4     bool              `json:"noIPv4,omitempty"`
	IPv6       bool              `json:"ipv6,omitempty"`
	Internal   bool              `json:"internal,omitempty"`
	Attachable bool              `json:"attachable,omitempty"` // kept for those who ask; containers always may join
	ConfigOnly bool              `json:"configOnly,omitempty"` // no network, but what others are made of by ConfigFrom; its driver is "null"
	ConfigFrom string            `json:"configFrom,omitempty"` // the name of such a one
	IPAM       map[string]string `json:"ipam,omitempty"`       // options of who gives addresses: kept for those who ask
	Options    map[string]string `json:"options,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// A Subnet is one of a network's ranges of addresses.
type Subnet struct {
	Subnet  string            `json:"subnet"`            // "10.72.0.0/20"
	Gateway string            `json:"gateway,omitempty"` // empty: none
	Range   string            `json:"range,omitempty"`   // containers get their addresses here; empty: in all of it
	Aux     map[string]string `json:"aux,omitempty"`     // addresses that nobody gets, by names
	Chosen  bool              `json:"chosen,omitempty"`  // nobody asked for this one, so static addresses are refused
}

// DefaultNetwork is the network that a container joins of which nothing else
// is said.
const DefaultNetwork = "bridge"

// The networks that need no document. Their ids are theirs on every host.
var builtin = []*Network{
	{ID: "686f737400000000000000000000000000000000000000000000000000000000", Name: "host", Driver: "host"},
	{ID: "6e6f6e6500000000000000000000000000000000000000000000000000000000", Name: "none", Driver: "null"},
}

// Predefined reports whether the network is there without anybody's doing.
func (n *Network) Predefined() bool {
	return n.Name == DefaultNetwork || !n.ConfigOnly && (n.Driver == "host" || n.Driver == "null")
}

// User reports whether names are resolved on it, and addresses chosen: it is not
// the default one.
func (n *Network) User() bool { return !n.Predefined() }

// BridgePrefix begins the names of bridges that nobody gave another name.
const BridgePrefix = "kb-"

// Link is the name of its bridge on the host, or of the link that macvlan and
// ipvlan stand on; empty: it has none.
func (n *Network) Link() string {
	switch n.Driver {
	case "bridge":
		if name := n.Options["com.docker.network.bridge.name"]; name != "" {
			return name
		}
		return BridgePrefix + short(n.ID)
	case "macvlan", "ipvlan":
		return n.Options["parent"]
	}
	return ""
}

func (e *Engine) networkDocument(id string) string {
	return filepath.Join(e.Store.Network(id), "config.json")
}

// readNetwork reads one document.
func (e *Engine) readNetwork(id string) (*Network, error) {
	n := &Network{}
	err := store.ReadJSON(e.networkDocument(id), n)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, noNetwork(short(id))
	case err != nil:
		return nil, &fault.Error{Op: "read network", On: short(id), Kind: fault.KindOf(err), Err: err, Hint: "its document is damaged: remove " + e.Store.Network(id)}
	case n.Schema > Schema:
		return nil, &fault.Error{Op: "read network", On: short(id), Kind: fault.Unsupported, Err: fmt.Errorf("it has schema %d and this kiste knows %d", n.Schema, Schema), Hint: "use the newer kiste that wrote it"}
	case n.ID != id:
		return nil, &fault.Error{Op: "read network", On: short(id), Kind: fault.Invalid, Err: errors.New("its document is damaged"), Hint: "remove " + e.Store.Network(id)}
	}
	return n, nil
}

func noNetwork(query string) error {
	return &fault.Error{Op: "find network", On: query, Kind: fault.NotFound, Err: errors.New("network " + query + " not found"), Hint: `"kiste network ls" lists them`}
}

func (e *Engine) networkIDs() ([]string, error) { return idsIn(e.Store.Networks(), fs.ModeDir) }

// Networks lists all networks by name, the predefined ones too. What cannot be
// read is told of in bad.
func (e *Engine) Networks() (all []*Network, bad []error, err error) {
	if e.Store.Check() == nil && isDir(e.Store.Lib) {
		_, _ = e.defaultNetwork() // else it would come with the first container
	}
	all, bad, err = e.networks()
	plugged, wrong := cniNetworks()
	return append(all, plugged...), append(bad, wrong...), err
}

func (e *Engine) networks() (all []*Network, bad []error, err error) {
	ids, err := e.networkIDs()
	if err != nil {
		return nil, nil, err
	}
	all = slices.Clone(builtin)
	for _, id := range ids {
		n, err := e.readNetwork(id)
		switch {
		case errors.Is(err, fault.NotFound): // it goes this moment
		case err != nil:
			bad = append(bad, err)
		default:
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b *Network) int { return strings.Compare(a.Name, b.Name) })
	return all, bad, nil
}

// Network finds a network by its name, its id, or the beginning of an id that
// only one has. The default one is made if need be.
func (e *Engine) Network(query string) (*Network, error) {
	n, err := e.network(query)
	if query == DefaultNetwork && errors.Is(err, fault.NotFound) {
		return e.defaultNetwork()
	}
	return n, err
}

func (e *Engine) network(query string) (*Network, error) {
	if checkNetworkName(query) == nil {
		for _, n := range builtin {
			if n.Name == query {
				return n, nil
			}
		}
		if id, err := os.Readlink(e.Store.NetworkName(query)); err == nil && isID(id) {
			if n, err := e.readNetwork(id); !errors.Is(err, fault.NotFound) {
				return n, err
			}
		}
	}
	ids, err := e.networkIDs()
	if err != nil {
		return nil, err
	}
	for _, n := range builtin {
		ids = append(ids, n.ID)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return query == "" || !strings.HasPrefix(id, query) })
	switch len(ids) {
	case 0:
		return nil, noNetwork(query)
	case 1:
		if i := slices.IndexFunc(builtin, func(n *Network) bool { return n.ID == ids[0] }); i >= 0 {
			return builtin[i], nil
		}
		return e.readNetwork(ids[0])
	}
	return nil, &fault.Error{Op: "find network", On: query, Kind: fault.Invalid, Err: fmt.Errorf("%d networks begin so", len(ids)), Hint: "write more of the id"}
}

// NetworkOptions say what network to make. The zero value but for the name is
// a bridge with addresses that nobody else has.
type NetworkOptions struct {
	Name       string
	Driver     string // "bridge" (or empty), "macvlan", "ipvlan"
	Subnets    []string
	Gateways   []string
	Ranges     []string
	Aux        map[string]string
	NoIPv4     bool
	IPv6       bool
	Internal   bool
	Attachable bool
	Scope      string // "local", or empty
	ConfigOnly bool
	ConfigFrom string // a network that is ConfigOnly: its name or id
	IPAM       map[string]string
	Options    map[string]string
	Labels     map[string]string
}

// CreateNetwork makes a network. A name that is taken is fault.Conflict, a
// subnet that overlaps another network's fault.Conflict.
func (e *Engine) CreateNetwork(o NetworkOptions) (*Network, error) {
	if err := checkNetworkName(o.Name); err != nil {
		return nil, err
	}
	if o.Name == DefaultNetwork || o.Name == "host" || o.Name == "none" {
		return nil, networkError("create", o.Name, fault.Conflict, "operation is not permitted on predefined %s network", o.Name)
	}
	switch {
	case o.Scope != "" && o.Scope != "local":
		return nil, networkError("create", o.Name, fault.Unsupported, "there is no scope %q: networks are of this host, and their scope is local", o.Scope)
	case o.ConfigOnly && (o.Internal || o.Attachable || o.Scope != ""):
		return nil, networkError("create", o.Name, fault.Denied, "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported")
	case o.ConfigFrom != "":
		if err := e.configure(&o); err != nil {
			return nil, err
		}
	}
	return e.makeNetwork(o)
}

// configure fills in what a network gets from one that is ConfigOnly. It may have
// nothing of that kind of its own.
func (e *Engine) configure(o *NetworkOptions) error {
	from, err := e.network(o.ConfigFrom)
	switch {
	case o.ConfigOnly:
		return networkError("create", o.Name, fault.Denied, "a configuration network cannot depend on another configuration network")
	case len(o.Options) > 0:
		return networkError("create", o.Name, fault.Denied, "network driver options are not supported if the network depends on a configuration network")
	case o.IPv6 || o.NoIPv4 || len(o.Subnets)+len(o.Gateways)+len(o.Ranges)+len(o.Aux)+len(o.IPAM)+len(o.Labels) > 0:
		return networkError("create", o.Name, fault.Denied, "user specified configurations are not supported if the network depends on a configuration network")
	case errors.Is(err, fault.NotFound) || err == nil && !from.ConfigOnly:
		return networkError("create", o.Name, fault.NotFound, "configuration network %q does not exist", o.ConfigFrom)
	case err != nil:
		return err
	}
	o.ConfigFrom, o.Options, o.Labels, o.IPAM, o.IPv6, o.NoIPv4 = from.Name, from.Options, from.Labels, from.IPAM, from.IPv6, from.NoIPv4
	o.Aux = map[string]string{}
	for _, s := range from.Subnets {
		o.Subnets = append(o.Subnets, s.Subnet)
		maps.Copy(o.Aux, s.Aux)
		if s.Gateway != "" {
			o.Gateways = append(o.Gateways, s.Gateway)
		}
		if s.Range != "" {
			o.Ranges = append(o.Ranges, s.Range)
		}
	}
	return nil
}

func networkError(verb, name string, kind fault.Kind, format string, args ...any) error {
	return &fault.Error{Op: verb + " network", On: name, Kind: kind, Err: fmt.Errorf(format, args...)}
}

// defaultNetwork is the network that containers join, made by the first who
// needs it.
func (e *Engine) defaultNetwork() (*Network, error) {
	n, err := e.network(DefaultNetwork)
	if !errors.Is(err, fault.NotFound) {
		return n, err
	}
	n, err = e.makeNetwork(NetworkOptions{Name: DefaultNetwork})
	if errors.Is(err, fault.Conflict) {
		if there, missing := e.network(DefaultNetwork); missing == nil { // somebody was faster
			return there, nil
		}
	}
	return n, err
}

// makeNetwork writes the document. Who makes two at once waits, so that their
// addresses differ.
func (e *Engine) makeNetwork(o NetworkOptions) (*Network, error) {
	n := newNetwork(o)
	if err := checkNetwork(n); err != nil {
		return nil, err
	}
	if shares() && n.Driver != "bridge" {
		return nil, networkError("create", o.Name, fault.Unsupported, "driver %s needs a link of the host, which is root's: ordinary users have bridges", n.Driver)
	}
	if err := e.Store.Open(); err != nil {
		return nil, err
	}
	for _, dir := range []string{e.Store.Networks(), filepath.Dir(e.Store.NetworkName("x"))} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	lock, err := store.LockDir(e.Store.Networks(), true)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	if _, err := e.network(o.Name); !errors.Is(err, fault.NotFound) {
		if err == nil {
			err = networkError("create", o.Name, fault.Conflict, "network with name %s already exists", o.Name)
		}
		return nil, err
	}
	if err := e.giveSubnets(n, o); err != nil {
		return nil, err
	}
	if err := e.writeNetwork(n); err != nil {
		return nil, &fault.Error{Op: "create network", On: o.Name, Err: err}
	}
	e.EmitNetwork("create", n, nil)
	return n, nil
}

// newNetwork is a network as it is wished.
func newNetwork(o NetworkOptions) *Network {
	n := &Network{Schema: Schema, ID: newID(), Name: o.Name, Created: time.Now(), Driver: o.Driver, NoIPv4: o.NoIPv4, IPv6: o.IPv6, Internal: o.Internal,
		Attachable: o.Attachable, ConfigOnly: o.ConfigOnly, ConfigFrom: o.ConfigFrom, IPAM: o.IPAM, Options: maps.Clone(o.Options), Labels: o.Labels}
	if n.ConfigOnly {
		n.Driver = "null"
	}
	if n.Driver == "" {
		n.Driver = "bridge"
	}
	return n
}

// writeNetwork writes the document first and the name last: a directory
// without a name is of who was killed, and taken for nothing.
func (e *Engine) writeNetwork(n *Network) error {
	if err := os.Mkdir(e.Store.Network(n.ID), 0o700); err != nil {
		return err
	}
	err := store.WriteJSON(e.networkDocument(n.ID), n)
	if err == nil {
		_ = os.Remove(e.Store.NetworkName(n.Name)) // of one that is gone
		err = os.Symlink(n.ID, e.Store.NetworkName(n.Name))
	}
	if err != nil {
		_ = os.RemoveAll(e.Store.Network(n.ID))
	}
	return err
}

// checkNetworkName is Docker's rule for names, of which ours are paths.
func checkNetworkName(name string) error {
	for i, r := range name {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !plain && (i == 0 || !strings.ContainsRune("_.-", r)) {
			name = name[:min(len(name), 64)]
			return networkError("name", name, fault.Invalid, "invalid network name: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
		}
	}
	if name == "" || len(name) > 128 {
		return networkError("name", name[:min(len(name), 64)], fault.Invalid, "invalid network name: want 1 to 128 characters")
	}
	return nil
}

// RemoveNetwork removes a network that no container that runs is on.
func (e *Engine) RemoveNetwork(query string) error {
	n, err := e.Network(query)
	switch {
	case err != nil:
		return err
	case n.Predefined():
		return networkError("remove", n.Name, fault.Conflict, "%s is a pre-defined network and cannot be removed", n.Name)
	}
	lock, err := store.LockDir(e.Store.Networks(), true)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if n, err = e.readNetwork(n.ID); err != nil {
		return err
	}
	leases, err := e.lockLeases(n)
	if err != nil {
		return err
	}
	defer leases.Unlock()
	users, err := e.onNetwork(n)
	if err != nil {
		return err
	}
	var active []string
	for _, c := range users {
		if IsActive(c.State.Status) {
			active = append(active, fmt.Sprintf("name:%q id:%q", c.Name, short(c.ID)))
		}
	}
	if n.ConfigOnly {
		if err := e.isConfigured(n); err != nil {
			return err
		}
	}
	if len(active) > 0 {
		err := networkError("remove", n.Name, fault.Conflict, "error while removing network: network %s has active endpoints (%s)", n.Name, strings.Join(active, ", ")).(*fault.Error)
		err.Hint = "stop these containers first, or kiste network disconnect -f " + n.Name + " NAME"
		return err
	}
	return e.discardNetwork(n)
}

// isConfigured refuses where other networks were made of n.
func (e *Engine) isConfigured(n *Network) error {
	all, _, err := e.networks()
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.ConfigFrom == n.Name {
			err := networkError("remove", n.Name, fault.Conflict, "configuration network %q is in use", n.Name).(*fault.Error)
			err.Hint = "network " + other.Name + " was made of it"
			return err
		}
	}
	return nil
}

// discardNetwork removes a network's links, leases and document, the name
// first: who looks for it finds all of it or nothing.
func (e *Engine) discardNetwork(n *Network) error {
	if id, _ := os.Readlink(e.Store.NetworkName(n.Name)); id == n.ID {
		if err := os.Remove(e.Store.NetworkName(n.Name)); err != nil {
			return err
		}
	}
	err := errors.Join(e.takeDown(n), os.RemoveAll(e.Store.Network(n.ID)), os.RemoveAll(e.Store.Leases(n.ID)))
	if err == nil {
		e.EmitNetwork("destroy", n, nil)
	}
	return err
}

// takeDown takes a network's bridge and its place in the rules away.
func (e *Engine) takeDown(n *Network) error {
	if n.Driver != "bridge" {
		return nil
	}
	host, err := e.bridgeHost()
	if shares() && errors.Is(err, fault.NotFound) {
		return nil // and so it is not there
	}
	if err != nil {
		return err
	}
	defer host.Close()
	err = host.Delete(n.Link())
	if fault.KindOf(err) == fault.NotFound || errors.Is(err, syscall.ENODEV) {
		return nil // it never was there, and no rule is for it
	}
	return errors.Join(err, e.withRules(func(r *rules.Rules) error { return r.Remove(rules.State{Bridges: []rules.Bridge{n.rules()}}) }))
}

// withRules opens this store's table, where bridges are.
func (e *Engine) withRules(do func(r *rules.Rules) error) error {
	host, err := e.bridgeHost()
	if shares() && errors.Is(err, fault.NotFound) {
		return nil // it went with all its rules
	}
	if err != nil {
		return err
	}
	defer host.Close()
	return e.withRulesIn(host, do)
}

func (e *Engine) withRulesIn(host *network.Namespace, do func(r *rules.Rules) error) error {
	r, err := rules.OpenIn(host, e.table())
	if err != nil {
		return err
	}
	defer r.Close()
	return do(r)
}

func (e *Engine) deleteRules() error {
	return e.withRules(func(r *rules.Rules) error { return r.Delete() })
}

// onNetwork gives the containers that are on a network, or will be when they
// run.
func (e *Engine) onNetwork(n *Network) ([]*Container, error) {
	all, bad, err := e.Brief()
	if err != nil || len(bad) > 0 {
		return nil, errors.Join(append(bad, err)...)
	}
	return slices.DeleteFunc(all, func(c *Container) bool { return c.Endpoint(n.ID) == nil }), nil
}

// PruneNetworks removes the networks that no container has and that goes
// chooses, but for those that are only configurations, and gives their names.
func (e *Engine) PruneNetworks(goes func(n *Network) bool) (names []string, err error) {
	all, bad, err := e.networks()
	if err != nil {
		return nil, err
	}
	containers, damaged, err := e.Brief()
	if bad = append(bad, damaged...); err != nil || len(damaged) > 0 {
		return nil, errors.Join(append(bad, err)...)
	}
	for _, n := range all {
		used := slices.ContainsFunc(containers, func(c *Container) bool { return c.Endpoint(n.ID) != nil })
		if n.Predefined() || n.ConfigOnly || used || !goes(n) {
			continue
		}
		err := e.RemoveNetwork(n.ID)
		switch {
		case err == nil:
			names = append(names, n.Name)
		case !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Conflict):
			bad = append(bad, err)
		}
	}
	return names, errors.Join(bad...)
}
