package resolver

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"kiste/container/process"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/network"
)

// A box is a process in a network namespace of its own: a container, as far as
// names go.
type box struct {
	t   testing.TB
	cmd *exec.Cmd
	process.Identity
}

func newBox(t testing.TB) *box {
	t.Helper()
	need.Power(t, host.Root)
	need.Program(t, "nsenter")
	need.Clean(t)
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, cmd: cmd}
	t.Cleanup(b.end)
	id, err := process.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	b.Identity = id
	return b
}

func (b *box) end() {
	_ = b.cmd.Process.Kill()
	_, _ = b.cmd.Process.Wait()
}

// in runs a program inside and gives what it prints.
func (b *box) in(args ...string) string {
	b.t.Helper()
	need.Program(b.t, args[0])
	out, err := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(b.PID), "-n", "--"}, args...)...).CombinedOutput()
	if err != nil {
		return strings.TrimSpace(string(out)) + "\n" + err.Error()
	}
	return strings.TrimSpace(string(out))
}

// do does something inside.
func (b *box) do(f func() error) {
	b.t.Helper()
	ns, err := network.OpenProcess(b.PID)
	if err != nil {
		b.t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Do(f); err != nil {
		b.t.Fatal(err)
	}
}

// dial connects to the resolver from inside.
func (b *box) dial(network string) (c net.Conn) {
	b.t.Helper()
	b.do(func() (err error) {
		c, err = net.Dial(network, netip.AddrPortFrom(Address, dnsPort).String())
		return err
	})
	b.t.Cleanup(func() { c.Close() })
	return c
}

func dig(args ...string) []string {
	return append([]string{"dig", "@127.0.0.11", "+time=20", "+tries=1"}, args...)
}

// queryTime is how long an answer took, as dig says, which was started before.
func queryTime(said string) time.Duration {
	_, after, _ := strings.Cut(said, ";; Query time: ")
	var ms int
	if _, err := fmt.Sscanf(after, "%d msec", &ms); err != nil {
		return time.Hour
	}
	return time.Duration(ms) * time.Millisecond
}

// A fakeServer answers as its function says, by UDP and TCP, on 127.0.0.x of
// where it is made.
type fakeServer struct {
	port  uint16
	asked atomic.Int64
}

// answers makes the answers to a message: several, none.
type answers func(raw []byte, tcp bool) [][]byte

func serveFake(t testing.TB, at string, port uint16, do answers) *fakeServer {
	t.Helper()
	addr := netip.AddrPortFrom(netip.MustParseAddr(at), port)
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	f := &fakeServer{port: uint16(udp.LocalAddr().(*net.UDPAddr).Port)}
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr.Addr(), f.port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			f.asked.Add(1)
			for _, a := range do(slices.Clone(b[:n]), false) {
				_, _ = udp.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			if raw, err := readMessage(c, maxMessage); err == nil {
				for _, a := range do(raw, true) {
					_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
				}
			}
			c.Close()
		}
	}()
	return f
}

// address answers with this one.
func address(a string) answers {
	return func(raw []byte, _ bool) [][]byte { return [][]byte{simple(raw, a)} }
}

func simple(raw []byte, a string) []byte {
	return answerTo(raw, binary.BigEndian.Uint16(raw), func(m *dnsmessage.Message) {
		m.Answers[0].Body = &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()}
	})
}

// start starts a resolver whose host asks these servers, all at one port.
func start(t testing.TB, port uint16, servers ...string) (r *Resolver, conf string) {
	t.Helper()
	conf = filepath.Join(t.TempDir(), "resolv.conf")
	name(t, conf, servers...)
	r = New(Options{HostConf: conf, ResolvedConf: conf + ".resolved", Port: port})
	t.Cleanup(r.Close)
	return r, conf
}

// name writes a resolv.conf.
func name(t testing.TB, conf string, servers ...string) {
	t.Helper()
	text := "# of a test\n"
	for _, s := range servers {
		text += "nameserver " + s + "\n"
	}
	if err := os.WriteFile(conf+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(conf+".new", conf); err != nil {
		t.Fatal(err)
	}
}

func (b *box) container(c Container) Container {
	c.Process = b.Identity
	return c
}

func mustSet(t testing.TB, r *Resolver, all ...Container) {
	t.Helper()
	if failed := r.Set(all); len(failed) > 0 {
		t.Fatal(failed)
	}
}

func TestRealClientsFindPeers(t *testing.T) {
	one, two := newBox(t), newBox(t)
	r, _ := start(t, 53, "127.0.0.1")
	mustSet(t, r, one.container(web), two.container(web2))
	for _, tt := range []struct{ args, want string }{
		{"+short web", "10.9.0.2"},
		{"+short AAAA web", "fd09::2"},
		{"+short +tcp web.front", "10.9.0.2"},
		{"+short -x 10.9.0.2", "Web.Front."},
		{"+short -x fd09::2", "Web.Front."},
		{"+noall +comments AAAA web-2.x", "status: NOERROR"},
		{"+noall +comments AAAA web-2.x", "ANSWER: 0"},
		{"+noall +comments -x 10.9.0.77", "status: NXDOMAIN"},
		{"+noall +comments +noedns web", "flags: qr rd ra;"},
		{"+noall +comments web", "EDNS: version: 0, flags:; udp: 1232"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			two.t = t
			if got := two.in(dig(strings.Fields(tt.args)...)...); !strings.Contains(got, tt.want) {
				t.Errorf("%s; want %s", got, tt.want)
			}
		})
	}
}

func TestTheLibraryOfCFindsPeers(t *testing.T) {
	need.Program(t, "ip", "unshare", "getent")
	one, two := newBox(t), newBox(t)
	r, _ := start(t, 53, "127.0.0.1")
	mustSet(t, r, one.container(web), two.container(web2))
	conf := filepath.Join(t.TempDir(), "inside")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.11\noptions ndots:0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	two.in("sh", "-c", "ip link add eth0 type veth peer name eth1 && ip link set eth1 up && ip link set eth0 up && ip addr add fd09::3/64 dev eth0 nodad && ip addr add 10.9.0.3/24 dev eth0")
	inside := func(script string) string {
		return two.in("unshare", "-m", "sh", "-c", "mount --bind "+conf+" $(readlink -f /etc/resolv.conf) && "+script)
	}
	for script, want := range map[string]string{
		"getent ahostsv4 web":       "10.9.0.2 STREAM web",
		"getent ahostsv6 web.front": "fd09::2 STREAM web.front",
		"getent hosts 10.9.0.2":     "10.9.0.2 Web.Front",
		"getent hosts fd09::2":      "fd09::2 Web.Front",
	} {
		if got := strings.Join(strings.Fields(inside(script)), " "); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s; want %s", script, got, want)
		}
	}
}

// Whoever joins or leaves is found, or not, by the next question.
func TestContainersComeAndGo(t *testing.T) {
	one, two := newBox(t), newBox(t)
	r, _ := start(t, 53, "127.0.0.1")
	mustSet(t, r, two.container(web2))
	has := func(want string) {
		t.Helper()
		if got := two.in(dig("+short", "www.front")...); len(strings.Fields(got)) != len(strings.Fields(want)) {
			t.Errorf("found %q, want %q", got, want)
		}
	}
	has("10.9.0.3")
	mustSet(t, r, two.container(web2), one.container(web))
	has("10.9.0.3 10.9.0.2")
	mustSet(t, r, two.container(web2))
	has("10.9.0.3")
	if got := one.in("dig", "@127.0.0.11", "+time=1", "+tries=1", "web"); !strings.Contains(got, "no servers could be reached") {
		t.Errorf("who has left is told %s", got)
	}
}

// The namespace of a container that has ended is not kept.
func TestEndedContainersAreLetGo(t *testing.T) {
	one := newBox(t)
	r, _ := start(t, 53, "127.0.0.1")
	mustSet(t, r, one.container(web))
	s := r.services["web"]
	one.end()
	select {
	case <-s.ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("the sockets of a container that has ended are kept")
	}
	if failed := r.Set([]Container{one.container(web2)}); failed["web2"] == nil {
		t.Error("one that has ended can be answered")
	}
}

func TestForward(t *testing.T) {
	one := newBox(t)
	onHost := serveFake(t, "127.0.0.1", 0, address("192.0.2.1"))
	other := serveFake(t, "127.0.0.9", onHost.port, address("192.0.2.9"))
	r, conf := start(t, onHost.port, "127.0.0.1")
	c := one.container(web)
	mustSet(t, r, c)
	is := func(want string, args ...string) {
		t.Helper()
		if got := one.in(dig(args...)...); !strings.Contains(got, want) {
			t.Errorf("%s; want %s", got, want)
		}
	}
	is("192.0.2.1", "+short", "a.example")
	is("192.0.2.1", "+short", "+tcp", "a.example")
	name(t, conf, "127.0.0.9")
	is("192.0.2.9", "+short", "a.example")
	name(t, conf, "127.0.0.53")
	name(t, conf+".resolved", "127.0.0.1")
	is("192.0.2.1", "+short", "a.example")
	name(t, conf+".resolved", "127.0.0.9")
	is("192.0.2.9", "+short", "a.example")

	// What peers have is never asked outside.
	before := onHost.asked.Load() + other.asked.Load()
	is("ANSWER: 0", "MX", "web")
	is("ANSWER: 0", "AAAA", "web.back.end")
	is("NXDOMAIN", "-x", "10.9.0.200")
	if now := onHost.asked.Load() + other.asked.Load(); now != before {
		t.Errorf("%d questions for peers went outside", now-before)
	}

	// Servers of its own are where it is.
	one.do(func() error { serveFake(t, "127.0.0.77", onHost.port, address("192.0.2.77")); return nil })
	c.Servers = addresses("127.0.0.11", "127.0.0.77")
	mustSet(t, r, c)
	is("192.0.2.77", "+short", "a.example")
	c.Servers = addresses("127.0.0.1") // its own loopback, not the host's
	mustSet(t, r, c)
	is("SERVFAIL", "a.example")
	c.Servers = addresses("127.0.0.11")
	mustSet(t, r, c)
	is("SERVFAIL", "a.example")

	c.Servers, c.Qualified = nil, true
	mustSet(t, r, c)
	is("NXDOMAIN", "onelabel")
	is("192.0.2.9", "+short", "a.example")
	c.Closed = true
	mustSet(t, r, c)
	is("SERVFAIL", "a.example")
	is("10.9.0.2", "+short", "web")
}

// One server that is silent and one that fails cost a moment once.
func TestServersThatDoNotAnswer(t *testing.T) {
	one := newBox(t)
	silent := serveFake(t, "127.0.0.1", 0, func([]byte, bool) [][]byte { return nil })
	serveFake(t, "127.0.0.2", silent.port, func(raw []byte, _ bool) [][]byte {
		return [][]byte{answerTo(raw, binary.BigEndian.Uint16(raw), func(m *dnsmessage.Message) { m.RCode, m.Answers = dnsmessage.RCodeServerFailure, nil })}
	})
	serveFake(t, "127.0.0.3", silent.port, address("192.0.2.3"))
	r, conf := start(t, silent.port, "127.0.0.1", "127.0.0.2", "127.0.0.3")
	mustSet(t, r, one.container(web))
	for i := range 4 {
		if got := one.in(dig("a.example")...); !strings.Contains(got, "192.0.2.3") || queryTime(got) > patience-time.Second {
			t.Errorf("question %d: %s", i, got)
		}
	}
	name(t, conf, "127.0.0.1")
	if got := one.in(dig("a.example")...); !strings.Contains(got, "SERVFAIL") || queryTime(got) > 2*patience {
		t.Errorf("nobody answers: %s", got)
	}
	if n := silent.asked.Load(); n < 3 {
		t.Errorf("the only server was asked %d times, not again", n)
	}
	name(t, conf, "127.0.0.2")
	if got := one.in(dig("a.example")...); !strings.Contains(got, "SERVFAIL") {
		t.Errorf("all servers fail: %s", got)
	}
}

// Who guesses ids, answers other questions, or sends what is no message, is not
// heard; who cuts is asked again by TCP, through us.
func TestHostileServers(t *testing.T) {
	one := newBox(t)
	good := func(raw []byte) []byte { return simple(raw, "192.0.2.1") }
	var do atomic.Value
	server := serveFake(t, "127.0.0.1", 0, func(raw []byte, tcp bool) [][]byte { return do.Load().(answers)(raw, tcp) })
	r, _ := start(t, server.port, "127.0.0.1")
	mustSet(t, r, one.container(web))
	id := func(raw []byte) uint16 { return binary.BigEndian.Uint16(raw) }
	for _, tt := range []struct {
		name string
		do   answers
		want string
	}{
		{"another id first", func(raw []byte, _ bool) [][]byte {
			return [][]byte{answerTo(raw, id(raw)+1, nil), answerTo(raw, 0, nil), good(raw)}
		}, "192.0.2.1"},
		{"another name first", func(raw []byte, _ bool) [][]byte {
			return [][]byte{answerTo(raw, id(raw), func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("b.example.") }), good(raw)}
		}, "192.0.2.1"},
		{"no message first", func(raw []byte, _ bool) [][]byte {
			loop := append(slices.Clone(good(raw)[:len(raw)]), 0xc0, byte(len(raw)))
			loop[7] = 1
			return [][]byte{nil, {1}, make([]byte, 12), raw, good(raw)[:20], loop, good(raw)}
		}, "192.0.2.1"},
		{"too long for UDP", func(raw []byte, tcp bool) [][]byte {
			if tcp {
				return [][]byte{good(raw)}
			}
			return [][]byte{append(good(raw), make([]byte, 9000)...)}
		}, "192.0.2.1"},
		{"cut by UDP", func(raw []byte, tcp bool) [][]byte {
			return [][]byte{answerTo(raw, id(raw), func(m *dnsmessage.Message) {
				if m.Truncated = !tcp; tcp {
					m.Answers = slices.Repeat(m.Answers, 3000)
				} else {
					m.Answers = nil
				}
			})}
		}, strings.TrimSpace(strings.Repeat("192.0.2.1\n", 3000))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			one.t = t
			do.Store(tt.do)
			if got := one.in(dig("+short", "a.example")...); got != tt.want {
				t.Errorf("%.200s; want %.200s", got, tt.want)
			}
		})
	}
}

// A container that floods, opens all connections and sends rubbish waits for
// itself: others are answered as before.
func TestHostileContainers(t *testing.T) {
	bad, good := newBox(t), newBox(t)
	silent := serveFake(t, "127.0.0.1", 0, func([]byte, bool) [][]byte { return nil })
	r, _ := start(t, silent.port, "127.0.0.1")
	mustSet(t, r, bad.container(web), good.container(web2))
	for range 2 * connections {
		bad.dial("tcp")
	}
	stop := make(chan struct{})
	defer close(stop)
	flood := bad.dial("udp")
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			_, _ = flood.Write(askFor(fmt.Sprint(i, ".example."), dnsmessage.TypeA, 0))
			_, _ = flood.Write(askFor("web.", dnsmessage.TypeA, 0)[:i%20])
		}
	}()
	time.Sleep(300 * time.Millisecond)
	c := good.dial("udp")
	b := make([]byte, 512)
	var took []time.Duration
	for range 300 {
		began := time.Now()
		_ = c.SetDeadline(began.Add(time.Minute))
		if _, err := c.Write(askFor("web.", dnsmessage.TypeA, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("beside a flood: median %v, 99%% %v", took[150], took[297])
	if n := len(r.services["web"].slots); n > underWay || n == 0 {
		t.Errorf("%d questions of one container are under way", n)
	}
	if took[297] > 3*time.Second {
		t.Errorf("another's flood delays answers: %v", took[297])
	}
}

// A server of the container's own may have port 53, also where it listens
// everywhere.
func TestPort53IsTheContainers(t *testing.T) {
	one := newBox(t)
	r, _ := start(t, 53, "127.0.0.1")
	mustSet(t, r, one.container(web))
	one.do(func() error { serveFake(t, "0.0.0.0", 53, address("192.0.2.53")); return nil })
	if got := one.in("dig", "@127.0.0.1", "+short", "a.example"); got != "192.0.2.53" {
		t.Errorf("its own server answers %s", got)
	}
	for _, args := range []string{"+short web", "+short +tcp web"} {
		if got := one.in(dig(strings.Fields(args)...)...); got != "10.9.0.2" {
			t.Errorf("the resolver beside its own server: %s", got)
		}
	}
}

// Questions of one connection are answered one after another.
func TestManyQuestionsOfOneConnection(t *testing.T) {
	one := newBox(t)
	r, _ := start(t, 53, "127.0.0.1")
	mustSet(t, r, one.container(web))
	c := one.dial("tcp")
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	q := askFor("www.", dnsmessage.TypeA, 0)
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
	if _, err := c.Write(slices.Repeat(framed, 50)); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := readMessage(c, maxMessage); err != nil {
			t.Fatal(i, err)
		}
	}
}

// Sixteen ask for names outside, as fast as they are answered.
func BenchmarkOutside(b *testing.B) {
	one := newBox(b)
	at := serveFake(b, "127.0.0.1", 0, address("192.0.2.1"))
	r, _ := start(b, at.port, "127.0.0.1")
	c := one.container(web)
	mustSet(b, r, c)
	one.do(func() error { serveFake(b, "127.0.0.77", at.port, address("192.0.2.77")); return nil })
	c.Servers = addresses("127.0.0.77")
	mustSet(b, r, c)
	b.ReportAllocs()
	b.SetParallelism(16 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		conn := one.dial("udp")
		q, in := askFor("n.example.", dnsmessage.TypeA, 0), make([]byte, plainUDP)
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		for pb.Next() {
			if _, err := conn.Write(q); err != nil {
				b.Error(err)
				return
			}
			if n, err := conn.Read(in); err != nil || n <= len(q) {
				b.Error(n, err)
				return
			}
		}
	})
}
