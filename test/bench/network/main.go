// Command network measures what PROMISES.md promises about networks, in one
// interleaved run: Kiste's bridge and published ports against a plain veth pair,
// loopback, and Debian's Docker on a host of its own.
//
//	takes    docker, where it is installed; root
//	gives    a table on standard output, and verdicts
//	touches  network namespaces of its own, a dockerd in one of them, a temporary directory
//	state    none: what it starts it ends
//
// Each host is a network namespace with an uplink, behind which there is a
// stranger who asks for published ports. A round measures each way for a short
// slice, so that a busy moment of the machine hits both sides of a ratio; ratios
// are taken round by round, and their median is judged. After some rounds
// all hosts and connections are made anew, lest what comes of where their memory
// lies, and who runs on which processor, is taken for the way's. The median is
// shown with its interval (of 95 times in 100): where what was promised is inside
// of that, more rounds decide. The exit code is 1 where a promise is broken.
//
// Beside throughput there is what it costs, which is steadier: the processors'
// time per gigabyte and per 1,000 connections, that of the whole machine, where
// softirqs are in it whoever was interrupted, and that of this process alone, which
// has both ends, for machines that others use meanwhile. The time that
// a hypervisor takes is in neither. On one processor alone, costs are the steadiest:
//
//	go build -o network ./test/bench/network && GOMAXPROCS=1 taskset -c 1 ./network -rounds 100
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"kiste/kernel/network"
	"kiste/kernel/network/rules"
	"kiste/test/bench/verdict"
)

var (
	rounds = flag.Int("rounds", 40, "how often each thing is measured")
	anew   = flag.Int("anew", 10, "after how many rounds all hosts and connections are made anew")
	slice  = flag.Duration("slice", 200*time.Millisecond, "how long each measurement takes")
	only   = flag.String("only", "", "measure these ways and metrics alone, with commas between, as bridge,veth pair,Gbit/s")
)

// chosen are those of all with a name that -only has, and all where none has one.
func chosen[T any](all []T, names func(T) []string) []T {
	wanted := strings.Split(*only, ",")
	some := slices.DeleteFunc(slices.Clone(all), func(one T) bool {
		return !slices.ContainsFunc(names(one), func(name string) bool { return slices.Contains(wanted, name) })
	})
	if len(some) == 0 {
		return all
	}
	return some
}

func main() {
	flag.Parse()
	verdict.Main("network bench", measure)
}

// A way is from a client to an address of a server.
type way struct {
	name    string
	client  *network.Namespace
	server  *network.Namespace
	address string // that the client asks
	port    string // that the server has; the client's may be another
	stream  *stream
	got     map[string][]sample
}

// A sample is one slice of one way.
type sample struct {
	rate   float64 // per second
	amount float64 // what was done
	cost   cost
}

// A bench is the ways under comparison, what has to end with them, and what was
// measured of them and of those before, by their names and by metrics.
type bench struct {
	ways []*way
	ends []func()
	got  map[string]map[string][]sample

	withoutDocker bool
}

// end ends the ways; their names stay.
func (b *bench) end() {
	for _, end := range slices.Backward(b.ends) {
		end()
	}
	b.ends = nil
}

// A metric is what is measured of each way.
type metric struct {
	name   string
	digits int
	take   func(*way) (float64, error) // per second
	cost   string                      // what processors' time is given for; empty: it is not
	per    float64                     // how much of it is one of these
}

var metrics = []metric{
	{"Gbit/s", 2, throughput, "GB", 8},
	{"connections/s", 0, connections, "1,000 connections", 1000},
	{"round trip µs", 1, latency, "", 0},
}

// promises are ratios of medians: of the first way to the second.
var promises = []struct {
	metric, of, to string
	least          float64
}{
	{"Gbit/s", "bridge", "veth pair", 0.95},
	{"Gbit/s", "internal bridge", "veth pair", 1.1},
	{"Gbit/s", "published", "docker published", 0.95},
	{"connections/s", "published", "docker published", 1},
	{"connections/s", "bridge", "docker bridge", 1},
}

// A host is what some of the ways lead through.
type host struct {
	ways []string
	make func(*bench) error
}

var hosts = []host{
	{[]string{"loopback", "veth pair"}, (*bench).plain},
	{[]string{"bridge", "internal bridge", "published", "published, from the host"}, (*bench).kiste},
	{[]string{"docker bridge", "docker published", "docker, from the host"}, (*bench).docker},
}

func measure() (int, error) {
	hosts = chosen(hosts, func(h host) []string { return h.ways })
	metrics = chosen(metrics, func(m metric) []string { return []string{m.name} })
	b := &bench{got: map[string]map[string][]sample{}}
	some := max(*anew, 1)
	for done := 0; done < *rounds; done += some {
		if err := b.measure(done, min(done+some, *rounds)); err != nil {
			return 0, err
		}
	}
	return b.report(), nil
}

// measure measures some rounds, with hosts and connections of their own.
func (b *bench) measure(from, to int) error {
	b.ways = nil
	defer b.end()
	for _, h := range hosts {
		if err := h.make(b); err != nil {
			return err
		}
	}
	b.ways = chosen(b.ways, func(w *way) []string { return []string{w.name} })
	for _, w := range b.ways {
		if err := w.connect(); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		b.ends = append(b.ends, w.stream.Close)
	}
	for i := from; i < to; i++ {
		for _, m := range metrics {
			for k := range b.ways { // who is first in one round is last in another
				if err := b.ways[(i+k)%len(b.ways)].measure(m); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// measure measures one slice.
func (w *way) measure(m metric) error {
	before, err := costs()
	if err != nil {
		return err
	}
	start := time.Now()
	v, err := m.take(w)
	if err != nil {
		return fmt.Errorf("%s, %s: %w", w.name, m.name, err)
	}
	after, err := costs()
	w.got[m.name] = append(w.got[m.name], sample{v, v * time.Since(start).Seconds(), after.since(before)})
	return err
}

// add adds a way. Its client sends by reno, which all may use in a namespace: a
// host's bbr paces by timers, which cost more than what is measured.
func (b *bench) add(name string, client, server *network.Namespace, address, port string) {
	_ = client.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte("reno"), 0) })
	if b.got[name] == nil {
		b.got[name] = map[string][]sample{}
	}
	b.ways = append(b.ways, &way{name: name, client: client, server: server, address: address, port: port, got: b.got[name]})
}

// space is a new network namespace that ends with the bench.
func (b *bench) space() (*network.Namespace, error) {
	n, err := network.New()
	if err == nil {
		b.ends = append(b.ends, func() { n.Close() })
	}
	return n, err
}

func at(s string) network.Prefix {
	p, err := network.ParsePrefix(s)
	if err != nil {
		panic(err)
	}
	return p
}

// pair is two namespaces with a cable: 192.0.2.1 and 192.0.2.2.
func (b *bench) pair() (first, second *network.Namespace, err error) {
	first, err1 := b.space()
	second, err2 := b.space()
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, err
	}
	err = errors.Join(first.Create(network.Link{Name: "eth0", Kind: "veth", Up: true, Peer: "eth0", PeerNS: second.FD}),
		second.SetUp("eth0"), first.AddAddress("eth0", at("192.0.2.1/24")), second.AddAddress("eth0", at("192.0.2.2/24")))
	return first, second, err
}

// plain are the things that all others are made of.
func (b *bench) plain() error {
	one, two, err := b.pair()
	if err != nil {
		return err
	}
	b.add("loopback", one, one, "127.0.0.1", "5201")
	b.add("veth pair", two, one, "192.0.2.1", "5201")
	return nil
}

// kiste is a host with a bridge and two nodes, of which the second publishes a
// port, and an internal bridge with two more.
func (b *bench) kiste() error {
	host, stranger, err := b.pair()
	if err != nil {
		return err
	}
	// As on a host where nobody has loaded br_netfilter; Docker's is so too.
	_ = host.Do(func() error {
		for _, name := range []string{"iptables", "ip6tables"} {
			_ = os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0)
		}
		return nil
	})
	nodes, err1 := b.nodes(host, 2, false)
	inner, err2 := b.nodes(host, 3, true)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	all := rules.State{Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8201, To: at("10.2.0.3/24").Addr(), ToPort: 5201}},
		Bridges: []rules.Bridge{{Name: "kb-2", Subnets: []network.Prefix{at("10.2.0.1/24")}}, {Name: "kb-3", Internal: true, Subnets: []network.Prefix{at("10.3.0.1/24")}}}}
	err = host.Do(func() error {
		r, err := rules.Open(rules.DefaultName)
		if err != nil {
			return err
		}
		defer r.Close()
		return r.Add(all)
	})
	if err := errors.Join(err, host.Forward()); err != nil {
		return err
	}
	b.add("bridge", nodes[0], nodes[1], "10.2.0.3", "5201")
	b.add("internal bridge", inner[0], inner[1], "10.3.0.3", "5201")
	b.add("published", stranger, nodes[1], "192.0.2.1", "8201:5201")
	b.add("published, from the host", host, nodes[1], "127.0.0.1", "8201:5201")
	return nil
}

// nodes are two on a bridge of the host of their own, number i.
func (b *bench) nodes(host *network.Namespace, i int, internal bool) (nodes [2]*network.Namespace, err error) {
	bridge, gateway := fmt.Sprintf("kb-%d", i), at(fmt.Sprintf("10.%d.0.1/24", i))
	if _, err := host.MakeBridge(network.Bridge{Name: bridge, Addresses: []network.Prefix{gateway}, LocalNet: !internal}); err != nil {
		return nodes, err
	}
	for k := range nodes {
		if nodes[k], err = b.space(); err != nil {
			return nodes, err
		}
		err := host.Attach(network.Endpoint{Parent: bridge, Outer: fmt.Sprintf("k%d%d", i, k), Name: "eth0", BigPackets: internal, Shortcut: true,
			Addresses: []network.Prefix{at(fmt.Sprintf("10.%d.0.%d/24", i, 2+k))}, Gateways: []network.Addr{gateway.Addr()}}, nodes[k])
		if err != nil {
			return nodes, err
		}
	}
	return nodes, nil
}

// ports are the client's and the server's.
func (w *way) ports() (client, server string) {
	for i, c := range w.port {
		if c == ':' {
			return w.port[:i], w.port[i+1:]
		}
	}
	return w.port, w.port
}

// serve answers each connection by do until the returned function is called.
func (w *way) serve(do func(net.Conn)) (stop func(), err error) {
	_, port := w.ports()
	var l net.Listener
	if err := w.server.Do(func() (err error) { l, err = net.Listen("tcp4", ":"+port); return err }); err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			do(c)
		}
	}()
	return func() { l.Close() }, nil
}

func (w *way) dial() (net.Conn, error) {
	port, _ := w.ports()
	c, err := net.DialTimeout("tcp4", w.address+":"+port, 5*time.Second)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(*slice + 5*time.Second))
	}
	return c, err
}

// reset ends a connection without leaving it in TIME_WAIT.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// connections are made one after the other; each is used for one byte.
func connections(w *way) (float64, error) {
	stop, err := w.serve(func(c net.Conn) { _, _ = c.Write([]byte{1}); c.Close() })
	if err != nil {
		return 0, err
	}
	defer stop()
	n := 0
	start := time.Now()
	err = w.client.Do(func() error {
		b := make([]byte, 1)
		for time.Since(start) < *slice {
			c, err := w.dial()
			if err != nil {
				return err
			}
			_, err = io.ReadFull(c, b)
			reset(c)
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return float64(n) / time.Since(start).Seconds(), err
}

// latency is the median of a byte's way there and back.
func latency(w *way) (float64, error) {
	stop, err := w.serve(func(c net.Conn) { _, _ = io.Copy(c, c); c.Close() })
	if err != nil {
		return 0, err
	}
	defer stop()
	var all []float64
	err = w.client.Do(func() error {
		c, err := w.dial()
		if err != nil {
			return err
		}
		defer reset(c)
		b := make([]byte, 1)
		for start := time.Now(); time.Since(start) < *slice/4; {
			one := time.Now()
			if _, err := c.Write(b); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, b); err != nil {
				return err
			}
			all = append(all, float64(time.Since(one).Nanoseconds())/1000)
		}
		return nil
	})
	return verdict.Median(all), err
}

func (b *bench) way(name string) *way {
	i := slices.IndexFunc(b.ways, func(w *way) bool { return w.name == name })
	if i < 0 {
		return nil
	}
	return b.ways[i]
}

func (w *way) rates(metric string) []float64 {
	var all []float64
	for _, v := range w.got[metric] {
		all = append(all, v.rate)
	}
	return all
}

// cost is what one of the metric's units costs a way, in seconds, all slices
// taken together.
func (w *way) cost(metric string) cost {
	var spent cost
	amount := 0.0
	for _, v := range w.got[metric] {
		spent.machine += v.cost.machine
		spent.own += v.cost.own
		amount += v.amount
	}
	return spent.per(amount)
}

func (b *bench) report() (code int) {
	for _, m := range metrics {
		fmt.Printf("%-26s%16s", "", m.name)
		if m.cost != "" {
			fmt.Printf("%16s%16s   CPU ms for %s", "whole machine", "own", m.cost)
		}
		fmt.Println()
		for _, w := range b.ways {
			fmt.Printf("%-26s%16.*f", w.name, m.digits, verdict.Median(w.rates(m.name)))
			if c := w.cost(m.name).per(0.001 / m.per); m.cost != "" {
				fmt.Printf("%16.1f%16.1f", c.machine, c.own)
			}
			fmt.Println()
		}
	}
	for _, p := range promises {
		of, to := b.way(p.of), b.way(p.to)
		if of == nil || to == nil || len(of.got[p.metric]) == 0 {
			continue
		}
		var rates, owns []float64
		for i, v := range of.got[p.metric] {
			other := to.got[p.metric][i]
			rates = append(rates, v.rate/other.rate)
			owns = append(owns, v.cost.own/v.amount*other.amount/other.cost.own)
		}
		word := "holds"
		if verdict.Median(rates) < p.least {
			word, code = "BROKEN", 1
		}
		mine, theirs := of.cost(p.metric), to.cost(p.metric)
		fmt.Printf("%-7s %s: %s / %s = %s, promised %.2f; CPU %s, whole machine %.2f\n", word, p.metric, p.of, p.to,
			middle(rates), p.least, middle(owns), mine.machine/theirs.machine)
	}
	return code
}

// middle is the median, with where that of many more would be, 95 times in 100,
// whatever the distribution: the values that are 0.98 times the root of their
// number away from the middle.
func middle(all []float64) string {
	if len(all) == 0 {
		return "nothing"
	}
	all = slices.Sorted(slices.Values(all))
	half, away := float64(len(all))/2, 0.98*math.Sqrt(float64(len(all)))
	return fmt.Sprintf("%.3f (%.3f to %.3f)", verdict.Median(all), all[max(0, int(half-away))], all[min(len(all)-1, int(half+away))])
}
