package engine

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/container/bundle"
	"kiste/container/process"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/sys"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
	"kiste/store"
)

// Networks of several containers of an ordinary user are in a network namespace of
// his, one for the store, where all is as root has it on the host: bridges, rules,
// published ports. Its way out is a tap device and the built-in stack. The
// namespace lives by a descriptor of the stack's attendant, and so without a
// process of its own; it ends with the last lease, and is made anew, with all that
// was in it, when the attendant is killed.

// Files in the directory of the shared namespace, beside those of a network that
// a program is.
const (
	sharedLock  = "lock"
	sharedPorts = "ports"           // SharedPorts
	sharedHave  = "ports.published" // PublishedPorts
)

// sharedFD is the attendant's descriptor of the namespace.
const sharedFD = firstPassed + 1

// sharedLink is the way out of the namespace.
const sharedLink = "out0"

// SharedPorts are the ports of the host that the stack of the shared namespace
// forwards: one document, replaced by who holds the lock. A port leads to the
// same one of the namespace, where the rules know the container.
type SharedPorts struct {
	Serial int
	Ports  []SharedPort
}

// A SharedPort is one, with the id of its container.
type SharedPort struct {
	Owner string
	bundle.Port

	// Version is that of IP by which it leads there, 4 or 6; 0: that of its client.
	Version int `json:",omitempty"`
}

// PublishedPorts is what the stack says of those with the serial: why some cannot
// be had, by their keys.
type PublishedPorts struct {
	Serial int
	Failed map[string]string
}

// Key names a port in PublishedPorts.
func (p SharedPort) Key() string { return fmt.Sprintf("%s:%d/%s", p.HostIP, p.Host, p.Proto) }

// shares reports whether this process's user has his bridges in a namespace of
// his own, and not on the host.
func shares() bool { return os.Geteuid() != 0 }

func (e *Engine) sharedFile(name string) string { return filepath.Join(e.Store.Shared(), name) }

// bridgeHost opens the network namespace in which bridges and rules are. Where it
// is not there it is fault.NotFound. It is the caller's to close.
func (e *Engine) bridgeHost() (*network.Namespace, error) {
	if !shares() {
		return network.Here()
	}
	keeper, err := e.sharedKeeper()
	if err != nil {
		return nil, err
	}
	return network.Open(sharedPath(keeper))
}

// sharedKeeper is the attendant that has the namespace.
func (e *Engine) sharedKeeper() (id process.Identity, err error) {
	text, err := os.ReadFile(e.sharedFile(networkServer))
	if err == nil {
		_, err = fmt.Sscan(string(text), &id.PID, &id.Start)
	}
	if err != nil || !id.Alive() {
		return id, &fault.Error{Op: "find the network namespace of your containers", Kind: fault.NotFound}
	}
	return id, nil
}

func sharedPath(keeper process.Identity) string {
	return fmt.Sprintf("/proc/%d/fd/%d", keeper.PID, sharedFD)
}

func (e *Engine) lockShared() (*store.Lock, error) {
	if err := os.MkdirAll(e.Store.Shared(), 0o700); err != nil {
		return nil, err
	}
	return store.LockFile(e.sharedFile(sharedLock), true)
}

// share gives the path of the shared namespace, which is made where it is missing.
// Whoever calls it has a lease, so that nobody ends it.
func (e *Engine) share() (string, error) {
	if keeper, err := e.sharedKeeper(); err == nil {
		return sharedPath(keeper), nil
	}
	lock, err := e.lockShared()
	if err != nil {
		return "", err
	}
	defer lock.Unlock()
	if keeper, err := e.sharedKeeper(); err == nil {
		return sharedPath(keeper), nil
	}
	keeper, err := e.makeShared()
	if err != nil {
		return "", &fault.Error{Op: "make the network namespace of your containers", Err: err}
	}
	return sharedPath(keeper), nil
}

// makeShared makes the namespace, its way out, and what containers that run had in
// an earlier one. The caller holds the lock.
func (e *Engine) makeShared() (keeper process.Identity, err error) {
	n, err := network.NewOwned()
	if err != nil {
		return keeper, err
	}
	defer n.Close()
	s, err := e.startShared(n)
	if err != nil {
		return keeper, err
	}
	if err = s.await(); err == nil {
		err = e.reconnect(n)
	}
	if err == nil {
		err = s.writeDown()
	}
	if err != nil {
		s.process.Kill()
		s.process.Wait()
		return keeper, err
	}
	return process.Identify(s.process.Pid)
}

// startShared starts the way out of the namespace n.
func (e *Engine) startShared(n *network.Namespace) (*attended, error) {
	if e.Kisted == nil {
		return nil, &fault.Error{Op: "find", On: "kisted", Kind: fault.NotFound}
	}
	path, err := e.Kisted()
	if err != nil {
		return nil, err
	}
	s := &attended{work: e.Store.Shared(), what: "the built-in stack"}
	if err := s.forget(sharedHave); err != nil {
		return nil, err
	}
	out := &userNetwork{mtu: userMTU, six: host.HasIPv6Route()}
	c := out.stack(s.work)
	c.Watch, c.Watched = e.sharedFile(sharedPorts), e.sharedFile(sharedHave)
	text, err := store.Encode(c)
	if err != nil {
		return nil, err
	}
	tap, err := n.Tap(sharedLink)
	if err != nil {
		return nil, err
	}
	defer tap.Close()
	if err := setUp(n, sharedLink, c.MTU, c.V4, c.V6); err != nil {
		return nil, err
	}
	space, err := os.Open(sys.FDPath(n.FD))
	if err != nil {
		return nil, err
	}
	defer space.Close()
	// The attendant is ended by a signal: what it waits for besides is a pipe of
	// which it has both ends.
	never, open, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer never.Close()
	defer open.Close()
	return s, s.start(never, []string{path, "kiste", UserStackCommand, string(text)}, []*os.File{tap, space, open})
}

// reconnect brings the containers that run back onto their networks, whose bridges
// ended with an earlier namespace.
func (e *Engine) reconnect(n *network.Namespace) error {
	ids, err := e.ids()
	if err != nil {
		return err
	}
	for _, id := range ids {
		c, err := e.read(id)
		if err != nil || !c.runs() || !e.lives(c) || len(c.Endpoints) == 0 {
			continue
		}
		if err := e.reconnectOne(n, c); err != nil {
			return &fault.Error{Op: "reconnect container", On: c.Name, Err: err}
		}
	}
	return nil
}

func (e *Engine) reconnectOne(outside *network.Namespace, c *Container) error {
	networks, err := e.networksOf(c.Endpoints)
	if err != nil {
		return err
	}
	inside, err := network.OpenProcess(c.State.PID)
	if err != nil {
		return err
	}
	defer inside.Close()
	ways := waysOut(c.Endpoints, networks)
	for i := range c.Endpoints {
		at, n := &c.Endpoints[i], networks[i]
		if at.ID == "" {
			continue
		}
		if err := e.makeBridge(outside, n); err != nil {
			return err
		}
		link, err := n.endpoint(at, ways)
		if err != nil {
			return err
		}
		link.Sends, link.Receives = c.Wishes.Rates()
		link.Hairpin = len(c.Bindings)+len(c.Parked) > 0
		_ = inside.Delete(link.Name) // whose other end is gone
		if err := outside.Attach(link, inside); err != nil {
			return err
		}
	}
	if ports := rulesOf(c); len(ports) > 0 {
		return e.withRulesIn(outside, func(r *rules.Rules) error { return r.Add(rules.State{Ports: ports}) })
	}
	return nil
}

// endShared ends the shared namespace when nobody has a lease any more.
func (e *Engine) endShared() {
	if !shares() && !e.Inside || !isDir(e.Store.Shared()) {
		return
	}
	lock, err := e.lockShared()
	if err != nil {
		return
	}
	defer lock.Unlock()
	e.sweepLeases()
	if e.anyLease() {
		return
	}
	stack := e.sharedStack()
	s := &attended{work: e.Store.Shared()}
	s.end(0)
	if stack.PID > 0 {
		awaitProcess(stack) // its ports are free then
	}
	for _, name := range []string{sharedPorts, sharedHave} {
		_ = os.Remove(e.sharedFile(name))
	}
}

// anyLease reports whether any network has one.
func (e *Engine) anyLease() bool {
	all, _ := filepath.Glob(e.Store.Leases("*") + "/*")
	return len(all) > 0
}

// sharedStack is the program that forwards; PID 0: there is none.
func (e *Engine) sharedStack() (id process.Identity) {
	text, err := os.ReadFile(e.sharedFile(networkReady))
	if err != nil {
		return id
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil {
		id, err = process.Identify(pid)
	}
	if err != nil {
		return process.Identity{}
	}
	return id
}

// awaitProcess waits until a process has ended, for so long as a network may take
// for that.
func awaitProcess(id process.Identity) (ended bool) {
	fd, err := id.Open()
	if err != nil {
		return true
	}
	defer sys.Close(fd)
	over, err := sys.PollFor(networkEnding, fd)
	return err == nil && over[0]
}

// forward has the stack forward ports of the container id, or with none no more of
// them, and waits until it does.
func (e *Engine) forward(id string, ports []SharedPort) error {
	serial, err := e.writePorts(id, ports)
	if err != nil || serial == 0 {
		return err
	}
	have, err := e.awaitPorts(serial)
	if err != nil {
		return err
	}
	for _, p := range ports {
		if why := have.Failed[p.Key()]; why != "" {
			return &fault.Error{Op: "publish port", On: p.HostPort() + "/" + p.Proto, Kind: fault.Conflict, Err: errors.New(why)}
		}
	}
	return nil
}

// writePorts writes down which ports the container id has, and gives the serial of
// that; 0: nothing has changed.
func (e *Engine) writePorts(id string, ports []SharedPort) (serial int, err error) {
	lock, err := e.lockShared()
	if err != nil {
		return 0, err
	}
	defer lock.Unlock()
	var all SharedPorts
	err = store.ReadJSON(e.sharedFile(sharedPorts), &all)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	before := len(all.Ports)
	all.Ports = slices.DeleteFunc(all.Ports, func(p SharedPort) bool { return p.Owner == id || !e.running(p.Owner) })
	if len(ports) == 0 && len(all.Ports) == before {
		return 0, nil
	}
	all.Ports = append(all.Ports, ports...)
	all.Serial++
	b, err := store.Encode(all)
	if err != nil {
		return 0, err
	}
	return all.Serial, store.WriteBriefly(e.sharedFile(sharedPorts), b)
}

// awaitPorts waits until the stack has seen the ports of the serial; without one
// there is nothing to wait for.
func (e *Engine) awaitPorts(serial int) (have PublishedPorts, err error) {
	for late := time.Now().Add(networkPatience); time.Now().Before(late); time.Sleep(networkGlance) {
		if err := store.ReadJSON(e.sharedFile(sharedHave), &have); err == nil && have.Serial >= serial {
			return have, nil
		}
		if _, err := e.sharedKeeper(); err != nil {
			return have, nil
		}
	}
	return have, &fault.Error{Op: "publish ports", Kind: fault.Unavailable, Err: errors.New(cmp.Or(lastWords(e.Store.Shared()), "the stack does not answer"))}
}

// portsOf are a container's bindings as the stack forwards them: to the same port
// of the shared namespace.
func portsOf(c *Container) (ports []SharedPort) {
	for _, b := range c.Bindings {
		all, err := bundle.ParsePort(b.Port)
		if err != nil {
			continue // a damaged document
		}
		p := SharedPort{Owner: c.ID, Port: bundle.Port{HostIP: b.IP, Host: b.Host, Container: b.Host, Proto: all[0].Proto}}
		if to, err := network.ParseAddr(b.To); b.Carried && err == nil {
			p.Version = []int{4, 6}[familyOf(to)]
		}
		ports = append(ports, p)
	}
	return ports
}

// watchShared makes the shared namespace anew when it is lost under containers that
// run. One goroutine does so, as long as they need it.
func (s *supervisor) watchShared() {
	for (s.e.hasShared() || s.e.sharedLost()) && s.sharing.CompareAndSwap(false, true) {
		s.e.awaitShared()
		for pause := sharedPause; s.e.sharedLost(); s.e.awaitShared() {
			time.Sleep(pause)
			pause = min(2*pause, longestPause)
			if _, err := s.e.share(); err == nil {
				pause = sharedPause
			}
		}
		s.sharing.Store(false)
	}
}

// How long it is left alone when it is lost: at first, and after many failures.
const sharedPause, longestPause = 200 * time.Millisecond, time.Minute

// hasShared reports whether the shared namespace is there.
func (e *Engine) hasShared() bool {
	_, err := e.sharedKeeper()
	return err == nil
}

// awaitShared waits for the end of the shared namespace's keeper, if there is one.
func (e *Engine) awaitShared() {
	keeper, err := e.sharedKeeper()
	if err != nil {
		return
	}
	fd, err := keeper.Open()
	if err != nil {
		return // it has ended just now
	}
	f, err := sys.Watched(fd, "keeper")
	if err != nil {
		sys.Close(fd)
		return
	}
	defer f.Close()
	_ = sys.WaitPidfd(f)
	_, _ = sys.TryReap(keeper.PID)
}

// sharedLost reports whether containers that run need the shared namespace, and it
// is not there: who ends it takes the file of its keeper away first.
func (e *Engine) sharedLost() bool {
	_, err := os.Lstat(e.sharedFile(networkServer))
	return err == nil && !e.hasShared() && e.anyLease()
}
