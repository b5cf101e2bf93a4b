package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kiste/container/bundle"
	"kiste/container/process"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/stub"
	"kiste/internal/sys"
	"kiste/kernel/network"
	"kiste/store"
)

// An ordinary user may make no links on the host. So a program carries what his
// container sends to ordinary sockets of his: pasta, where a good one is
// installed, else the stack in kisted (package userstack). It has an attendant,
// which ends it with the container and starts it anew when it is killed; so
// nobody else has to know of it.

// A userNetwork is such a network of one container that is going to start.
type userNetwork struct {
	driver   *userDriver
	why      string // where the choice comes from, for --plan
	options  []string
	mtu      int  // bytes
	six      bool // IPv6 too
	loopback bool // the gateway is the host's loopback
	copied   bool // the container has the host's addresses and not the usual ones
	ports    []bundle.Port
}

// A userDriver is a program that can be a container's network.
type userDriver struct {
	name string // of --network
	what string // in words
	read func(n *userNetwork, options string) error
	// run gives the program's arguments, its path first, and its further
	// descriptors, from firstPassed on.
	run func(e *Engine, n *userNetwork, pid int, work string) (args []string, files []*os.File, err error)
}

func userDrivers() []*userDriver {
	return []*userDriver{
		{bundle.Pasta, "pasta", (*userNetwork).readPasta, runPasta},
		{bundle.Slirp, "the built-in stack", (*userNetwork).readSlirp, runUserStack},
	}
}

// The addresses of a user's container, as slirp4netns has them: many scripts know
// them. Those of IPv6 begin with the name.
const (
	userIP, userGateway, userDNS    = "10.0.2.100", "10.0.2.2", "10.0.2.3"
	userBits, userBits6             = 24, 64
	userIP6, userGateway6, userDNS6 = "fd6b:6973:7465::100", "fd6b:6973:7465::2", "fd6b:6973:7465::3"

	// copiedDNS forwards queries where the container has the host's addresses: Podman's.
	copiedDNS = "169.254.1.1"
)

// userMTU is the largest that IP can have: there is no wire.
const userMTU = 65520

// userLink is the container's interface.
const userLink = "eth0"

// userNet decides whether the container gets such a network, and which.
func (p *Prepared) userNet([]string) error {
	w := &p.Wishes
	kind, root := w.Network.Kind, os.Geteuid() == 0
	i := slices.IndexFunc(userDrivers(), func(d *userDriver) bool { return d.name == kind })
	switch {
	case i >= 0 && root:
		return &fault.Error{Op: "use network", On: kind, Kind: fault.Unsupported, Err: errors.New("it serves the containers of ordinary users"), Hint: "root's are on bridges: --network bridge"}
	case i < 0 && (root || len(p.Endpoints) > 0 || kind != bundle.Default && kind != bundle.Bridge):
		return nil
	}
	n := &userNetwork{mtu: userMTU, six: host.HasIPv6Route(), ports: w.Published(p.Image), why: "--network"}
	if i >= 0 {
		n.driver = userDrivers()[i]
	} else if err := n.choose(kind == bundle.Default); err != nil {
		if kind != bundle.Default || len(n.ports) > 0 {
			return err
		}
		p.o.Warn("the container has no network: " + plain(err))
		return nil
	}
	if err := n.driver.read(n, w.Network.Of); err != nil {
		return &fault.Error{Op: "read option --network", On: w.Network.String(), Kind: fault.Invalid, Err: err}
	}
	p.Result.Origin["linux.namespaces.network"] = n.why + ": " + n.driver.what
	p.tellAddresses(n)
	p.network = n
	return nil
}

// choose takes pasta, or else the stack. Pastas of before 2024 are passed over:
// in theirs a published port whose server speaks first says nothing.
func (n *userNetwork) choose(unasked bool) error {
	if unasked {
		n.why = "default"
	}
	n.driver = userDrivers()[1]
	if host.PastaVersion() >= goodPasta {
		n.driver = userDrivers()[0]
	}
	if err := sys.Access(network.TunDevice, access); err != nil {
		return network.NoTun(err)
	}
	return nil
}

// goodPasta is a day from which on its versions are good.
const goodPasta = 20240101

const access = 4 | 2 // R_OK, W_OK

// readPasta reads what follows "pasta:", which are options for it, separated by
// commas, as Podman has them.
func (n *userNetwork) readPasta(options string) error {
	if options == "" {
		return nil
	}
	n.options, n.copied = strings.Split(options, ","), true
	for _, o := range n.options {
		if slices.Contains([]string{"-d", "--debug", "--trace", "-f", "--foreground", "-P", "--pid", "--netns", "--userns", "--netns-only", "-l", "--log-file", "-p", "--pcap", "--runas"}, o) {
			return fmt.Errorf("%s is not for users of containers", o)
		}
	}
	return nil
}

// readSlirp reads what follows "slirp4netns:", with Podman's names.
func (n *userNetwork) readSlirp(options string) error {
	for o := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(o, "=")
		var err error
		switch key {
		case "", "port_handler":
		case "allow_host_loopback":
			n.loopback, err = strconv.ParseBool(value)
		case "enable_ipv6":
			n.six, err = strconv.ParseBool(value)
		case "mtu":
			if n.mtu, err = strconv.Atoi(value); err == nil && (n.mtu < 1280 || n.mtu > userMTU) {
				err = fmt.Errorf("want 1280 to %d", userMTU)
			}
		default:
			err = errors.New("the built-in stack has allow_host_loopback, enable_ipv6 and mtu")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o, err)
		}
	}
	return nil
}

// userGateways is where an ordinary user's container reaches the host: at the
// address by which the host itself reaches others.
func userGateways() []string {
	here, err := network.Here()
	if err != nil {
		return nil
	}
	defer here.Close()
	routes, err := here.Routes()
	if err != nil {
		return nil
	}
	for _, r := range routes {
		if r.Destination.IsValid() || !r.Gateway.Is4() {
			continue
		}
		all, _ := here.Addresses(r.Link)
		for _, p := range all {
			if p.Addr().Is4() {
				return []string{p.Addr().String()}
			}
		}
	}
	return nil
}

// tellAddresses writes the server into resolv.conf, and the container's own
// address into hosts.
func (p *Prepared) tellAddresses(n *userNetwork) {
	server, own := userDNS, userIP
	if n.copied {
		server, own = copiedDNS, ""
	}
	for i := range p.Result.Files {
		f := &p.Result.Files[i]
		switch {
		case f.Path == "/etc/resolv.conf" && len(p.Wishes.DNS) == 0:
			f.Data = servedBy(f.Data, server)
		case f.Path == "/etc/hosts" && own != "":
			f.Data = append(f.Data, p.hostsLine(own)...)
		}
	}
}

// servedBy is a resolv.conf(5) with servers in place of its own.
func servedBy(conf []byte, servers ...string) []byte {
	var out []byte
	for _, s := range servers {
		out = append(out, "nameserver "+s+"\n"...)
	}
	for line := range strings.Lines(string(conf)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] != "nameserver" {
			out = append(out, line...)
		}
	}
	return out
}

// Files in the container's running directory.
const (
	networkServer = "network"       // the attendant: its number and its start
	networkReady  = "network.ready" // not empty: the program forwards
	networkEnds   = "network.ends"  // how it has ended, a wait status of 8 bytes each time
	networkErrors = "network.err"   // what it says
)

// serveNetwork starts the network of the process pid, which waits. It returns
// when it forwards.
func (p *Prepared) serveNetwork(pid int) error {
	n := p.network
	if err := findPorts(n.ports); err != nil {
		return err
	}
	s := &attended{work: p.work, what: n.driver.what}
	if err := s.forget(); err != nil {
		return err
	}
	args, files, err := n.driver.run(p.e, n, pid, p.work)
	if err == nil {
		err = s.startFor(pid, args, files)
	}
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		return &fault.Error{Op: "start the network", On: n.driver.what, Err: err}
	}
	if err = s.await(); err == nil {
		err = s.writeDown()
	}
	if err != nil {
		s.process.Kill()
		s.process.Wait()
		return err
	}
	p.Served, p.Bindings = n.place(), bindingsOf(n.ports)
	return nil
}

// findPorts finds a free port of the host where none or several are named, and
// sees to it that all can be had: what pasta says of one that cannot is hard to
// understand.
func findPorts(ports []bundle.Port) error {
	for i := range ports {
		p := &ports[i]
		if p.Proto == "sctp" {
			return noSCTP(p)
		}
		var address []byte
		if p.HostIP != "" {
			a, err := network.ParseAddr(p.HostIP)
			if err != nil {
				return err
			}
			address = a.AsSlice()
		}
		if err := findPort(p, address); err != nil {
			return explainPort(p, err)
		}
	}
	return nil
}

func noSCTP(p *bundle.Port) error {
	return &fault.Error{Op: "publish port", On: p.Key(), Kind: fault.Unsupported, Err: errors.New("sctp is forwarded for root's containers only")}
}

func findPort(p *bundle.Port, address []byte) error {
	for port := p.Host; ; port++ {
		free, err := sys.CanBind(p.Proto == "udp", address, int(port))
		if err == nil {
			p.Host, p.HostLast = uint16(free), 0
			return nil
		}
		if port >= p.HostLast {
			return err
		}
	}
}

func explainPort(p *bundle.Port, err error) error {
	e := &fault.Error{Op: "publish port", On: fmt.Sprintf("%s/%s", p.HostPort(), p.Proto), Err: err}
	switch {
	case errors.Is(err, syscall.EACCES):
		e.Kind = fault.Denied
		e.Hint = fmt.Sprintf("ordinary users have those from %d on: publish one of them, or let root run: sysctl -w net.ipv4.ip_unprivileged_port_start=%d", host.FirstUserPort(), p.Host)
	case errors.Is(err, syscall.EADDRINUSE):
		e.Kind, e.Hint = fault.Conflict, "another process has it: ss -lnp shows which"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Kind, e.Hint = fault.Invalid, "the host has no such address"
	}
	return e
}

// place is what the container's document says of its network.
func (n *userNetwork) place() *inspect.Endpoint {
	place := &inspect.Endpoint{Network: n.driver.name, Name: n.driver.name, Link: userLink}
	if !n.copied {
		place.IP, place.Gateway = fmt.Sprintf("%s/%d", userIP, userBits), userGateway
		if n.six {
			place.IP6, place.Gateway6 = fmt.Sprintf("%s/%d", userIP6, userBits6), userGateway6
		}
	}
	return place
}

// bindingsOf is what it says of ports that are published on all addresses of the
// host, or on one.
func bindingsOf(ports []bundle.Port) (bindings []inspect.Binding) {
	for _, p := range ports {
		ips := []string{p.HostIP}
		if p.HostIP == "" {
			ips = []string{"0.0.0.0", "::"}
		}
		for _, ip := range ips {
			bindings = append(bindings, inspect.Binding{Port: p.Key(), IP: ip, Host: p.Host})
		}
	}
	return bindings
}

// runPasta gives pasta's arguments.
func runPasta(_ *Engine, n *userNetwork, pid int, work string) ([]string, []*os.File, error) {
	path, err := exec.LookPath("pasta")
	if err != nil {
		return nil, nil, &fault.Error{Op: "find", On: "pasta", Kind: fault.NotFound, Err: errors.New("it is not installed"), Hint: host.Pasta.Remedy}
	}
	return append([]string{path}, n.pasta(pid, filepath.Join(work, networkReady))...), nil, nil
}

// pasta are its arguments: pasta(1).
func (n *userNetwork) pasta(pid int, ready string) []string {
	space := fmt.Sprintf("/proc/%d/ns/", pid)
	args := []string{"pasta", "--foreground", "--quiet", "--config-net", "--pid", ready, "--userns", space + "user", "--netns", space + "net"}
	if n.copied {
		args = append(args, "--dns-forward", copiedDNS)
	} else {
		args = append(args, "--dns-forward", userDNS, "--address", userIP, "--netmask", strconv.Itoa(userBits), "--gateway", userGateway)
		if n.six {
			args = append(args, "--address", userIP6, "--gateway", userGateway6)
		} else {
			args = append(args, "--ipv4-only")
		}
	}
	if !n.has("-I", "--ns-ifname") {
		args = append(args, "--ns-ifname", userLink)
	}
	// Nothing of the host's loopback is seen inside, and nothing is published
	// that nobody asked for, unless options say so.
	if !n.has("--map-gw", "--no-map-gw") {
		args = append(args, "--no-map-gw")
	}
	for _, d := range []struct{ short, long, proto string }{{"-t", "--tcp-ports", "tcp"}, {"-u", "--udp-ports", "udp"}, {"-T", "--tcp-ns", ""}, {"-U", "--udp-ns", ""}} {
		if n.has(d.short, d.long) {
			continue
		}
		specs := n.specs(d.proto)
		for _, s := range specs {
			args = append(args, d.long, s)
		}
		if len(specs) == 0 {
			args = append(args, d.long, "none")
		}
	}
	return append(args, slices.DeleteFunc(slices.Clone(n.options), func(o string) bool { return o == "--map-gw" })...)
}

// has reports whether the user gives an option, under one of its names.
func (n *userNetwork) has(names ...string) bool {
	return slices.ContainsFunc(n.options, func(o string) bool {
		name, _, _ := strings.Cut(o, "=")
		return slices.Contains(names, name)
	})
}

// specs are the ports of a protocol as pasta takes them.
func (n *userNetwork) specs(proto string) (all []string) {
	for _, p := range n.ports {
		if p.Proto != proto {
			continue
		}
		s := fmt.Sprintf("%d:%d", p.Host, p.Container)
		if p.HostIP != "" {
			s = p.HostIP + "/" + s
		}
		all = append(all, s)
	}
	return all
}

// UserStackCommand is the hidden command that is the built-in stack. Its argument
// is a UserStack.
const UserStackCommand = "__userstack"

// firstPassed is the first descriptor of a program that an attendant starts.
const firstPassed = 5

// A UserStack says to kisted what the network is. The tap device is the
// descriptor Tap.
type UserStack struct {
	Tap      int
	Ready    string // a file to write when it forwards
	MTU      int
	V4, V6   UserFamily
	Ports    []bundle.Port
	Loopback bool

	// Watch is a file of SharedPorts that are published too, as it changes, and
	// Watched where that is told, as PublishedPorts. Empty: there is none.
	Watch, Watched string
}

// A UserFamily has a family's addresses; all empty: there is none.
type UserFamily struct{ Address, Gateway, DNS string }

// runUserStack makes the tap device, and gives kisted's arguments.
func runUserStack(e *Engine, n *userNetwork, pid int, work string) ([]string, []*os.File, error) {
	if e.Kisted == nil {
		return nil, nil, &fault.Error{Op: "find", On: "kisted", Kind: fault.NotFound}
	}
	path, err := e.Kisted()
	if err != nil {
		return nil, nil, err
	}
	c := n.stack(work)
	text, err := store.Encode(c)
	if err != nil {
		return nil, nil, err
	}
	there, err := process.OpenNetwork(pid)
	if err != nil {
		return nil, nil, err
	}
	defer there.Close()
	tap, err := there.Tap(userLink)
	if err != nil {
		return nil, nil, err
	}
	if err := setUp(there, userLink, n.mtu, c.V4, c.V6); err != nil {
		tap.Close()
		return nil, nil, err
	}
	return []string{path, "kiste", UserStackCommand, string(text)}, []*os.File{tap}, nil
}

// stack is what the stack in kisted is told, which has its files in the directory
// work.
func (n *userNetwork) stack(work string) UserStack {
	c := UserStack{Tap: firstPassed, Ready: filepath.Join(work, networkReady), MTU: n.mtu, Ports: n.ports, Loopback: n.loopback,
		V4: UserFamily{fmt.Sprintf("%s/%d", userIP, userBits), userGateway, userDNS}}
	if n.six {
		c.V6 = UserFamily{fmt.Sprintf("%s/%d", userIP6, userBits6), userGateway6, userDNS6}
	}
	return c
}

// setUp gives a tap device its addresses.
func setUp(there *network.Namespace, link string, mtu int, families ...UserFamily) error {
	if err := there.SetMTU(link, mtu); err != nil {
		return err
	}
	if err := there.SetUp(link); err != nil {
		return err
	}
	for _, f := range families {
		if f.Address == "" {
			continue
		}
		p, err := network.ParsePrefix(f.Address)
		if err != nil {
			return err
		}
		gateway, err := network.ParseAddr(f.Gateway)
		if err == nil {
			err = there.AddAddress(link, p)
		}
		if err == nil {
			err = there.AddRoute(network.Route{Gateway: gateway})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// An attended is a program that serves a container, and its attendant.
type attended struct {
	work    string
	what    string
	process *os.Process // the attendant
}

// forget removes what an earlier one has written, and more files of the directory.
func (s *attended) forget(more ...string) error {
	for _, name := range append(more, networkReady, networkEnds, networkErrors) {
		if err := os.Remove(filepath.Join(s.work, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// startFor starts the attendant of the process pid over a program.
func (s *attended) startFor(pid int, args []string, files []*os.File) error {
	fd, err := sys.PidfdOpen(pid)
	if err != nil {
		return err
	}
	served := os.NewFile(uintptr(fd), "pidfd")
	defer served.Close()
	return s.start(served, args, files)
}

// start starts an attendant over a program, which ends both when served can be
// read.
func (s *attended) start(served *os.File, args []string, files []*os.File) error {
	ends, err := os.OpenFile(filepath.Join(s.work, networkEnds), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer ends.Close()
	says, err := os.OpenFile(filepath.Join(s.work, networkErrors), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer says.Close()
	program, err := stub.Attendant(runtime.GOARCH)
	if err != nil {
		return err
	}
	memory, err := sys.Memory("kiste-attendant", program)
	if err != nil {
		return err
	}
	defer memory.Close()
	cmd := exec.Command(sys.FDPath(int(memory.Fd())))
	cmd.Args, cmd.Dir = args, "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = says, says
	cmd.ExtraFiles = append([]*os.File{served, ends}, files...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	s.process = cmd.Process
	return err
}

// writeDown lets others find the attendant.
func (s *attended) writeDown() error {
	id, err := process.Identify(s.process.Pid)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.work, networkServer), fmt.Appendln(nil, id.PID, id.Start), 0o600)
}

// How long a network may take to start, and how often we look.
const networkPatience, networkGlance = 30 * time.Second, 500 * time.Microsecond

// await waits until the program says that it serves, or ends.
func (s *attended) await() error {
	for late := time.Now().Add(networkPatience); time.Now().Before(late); time.Sleep(networkGlance) {
		if size(filepath.Join(s.work, networkReady)) > 0 {
			return nil
		}
		if size(filepath.Join(s.work, networkEnds)) > 0 {
			return &fault.Error{Op: "start the network", On: s.what, Kind: fault.Unavailable, Err: errors.New(lastWords(s.work))}
		}
	}
	return &fault.Error{Op: "start the network", On: s.what, Kind: fault.Unavailable, Err: fmt.Errorf("it is not ready after %s: %s", networkPatience, lastWords(s.work))}
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// maxWords bounds what is shown of what a program says, in bytes.
const maxWords = 4 << 10

// lastWords is what the program has said, without pasta's complaints that there
// is no log.
func lastWords(work string) string {
	text, _ := sys.ReadFile(filepath.Join(work, networkErrors), maxWords)
	var lines []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "Usage:") {
			break // what is wrong stands above
		}
		if line != "" && !strings.HasSuffix(line, "to syslog") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return "it has ended without a word"
	}
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// served is what serves the container's network from outside, in words; empty:
// nothing does.
func (p *Prepared) served() string {
	if p.network != nil {
		return p.network.driver.what
	}
	return p.cniText()
}

// serve starts that for the process pid, which waits.
func (p *Prepared) serve(pid int) error {
	if p.network != nil {
		return p.serveNetwork(pid)
	}
	return p.plug(pid)
}

// endNetwork waits until what has served a container's network has ended, so that
// its ports are free. The container has ended, or is going to at once.
func (e *Engine) endNetwork(c *Container) {
	if c.Served == nil {
		return
	}
	c.Served, c.Bindings = nil, nil
	s := &attended{work: e.Store.Running(c.ID)}
	s.end(networkEnding)
}

// end ends the attendant that has written down where it is, unless it ends by
// itself before that.
func (s *attended) end(patience time.Duration) {
	file := filepath.Join(s.work, networkServer)
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	_ = os.Remove(file)
	var server process.Identity
	if _, err := fmt.Sscan(string(text), &server.PID, &server.Start); err != nil {
		return
	}
	fd, err := server.Open()
	if err == nil {
		if ended, err := sys.PollFor(patience, fd); err == nil && !ended[0] {
			_ = sys.PidfdSignal(fd, syscall.SIGKILL)
		}
		sys.Close(fd)
	}
	_, _ = sys.TryReap(server.PID)
}

// networkEnding is how long that may take.
const networkEnding = 2 * time.Second

// NetworkEnds is how often the program that is a container's network has ended
// while the container ran.
type NetworkEnds struct {
	Times int
	Last  syscall.WaitStatus // of the last time
	Says  string             // its last words
	Gone  bool               // it is not started anew any more
}

// networkEnds reads what the attendant has written down.
func (e *Engine) networkEnds(id string) (n NetworkEnds) {
	work := e.Store.Running(id)
	const most = 8 * stub.Attempts
	text, err := sys.ReadFile(filepath.Join(work, networkEnds), most)
	if err != nil || len(text) < 8 {
		return n
	}
	n.Times = len(text) / 8
	n.Last = syscall.WaitStatus(binary.LittleEndian.Uint64(text[8*(n.Times-1):]))
	n.Says, n.Gone = lastWords(work), n.Times >= stub.Attempts
	return n
}

// findings say it in words.
func (n NetworkEnds) findings() []Finding {
	if n.Times == 0 {
		return nil
	}
	how := fmt.Sprintf("with code %d", n.Last.ExitStatus())
	if n.Last.Signaled() {
		how = "by " + signalName(n.Last.Signal())
	}
	f := Finding{fmt.Sprintf("The program that is its network has ended %d times and was started anew, the last time %s: %s. Connections were lost.", n.Times, how, n.Says), ""}
	if n.Gone {
		f.Says = fmt.Sprintf("The program that is its network has ended %d times, the last time %s, and is not started any more: %s.", n.Times, how, n.Says)
		f.Remedy = "restart the container"
	}
	return []Finding{f}
}
