// Command resolver measures how long a container waits for a name, against
// Debian's docker, in one interleaved run.
//
//	takes    kiste in bin/, a number of rounds; root
//	gives    a table of times and rates
//	touches  containers and networks of both engines, below a temporary directory
//	state    none: what it starts it ends
//
// Each engine has two containers on a network of a user. The questions are
// asked from inside of one, by a socket that is opened in its network namespace, one
// after another, then many at once: for the name of the other, and for names
// outside, which a server on the host, this program, answers to both engines.
// Docker is left out where it is not installed. The exit code is 1 where a
// promise is broken.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"kiste/kernel/network"
	"kiste/test/bench/verdict"
)

// What is promised.
const (
	median = 200 * time.Microsecond
	late   = 2 * time.Millisecond // of a hundred questions one may take longer
	rate   = 2000                 // questions in a second, of one container
)

const (
	questions = 1000 // of a round, one after another
	atOnce    = 16
	burst     = time.Second
	patience  = time.Second
)

func main() {
	rounds := 5
	if len(os.Args) > 1 {
		rounds, _ = strconv.Atoi(os.Args[1])
	}
	verdict.Main("resolver bench", func() (int, error) { return measure(max(rounds, 1)) })
}

// An engine is one that answers.
type engine struct {
	name    string
	command []string
	env     []string
	subnet  string // its first three numbers

	pid int // of the container that asks

	near, far []time.Duration // for the other container, and for a name outside
	crowd     []time.Duration // for names outside, many at once
	rates     []int           // questions in a second, for the other container and outside
	farRates  []int
	lost      int
}

type bench struct {
	dir  string
	ends []func()
}

func (b *bench) end() {
	for _, f := range slices.Backward(b.ends) {
		f()
	}
	os.RemoveAll(b.dir)
}

func measure(rounds int) (code int, err error) {
	b := &bench{}
	if b.dir, err = os.MkdirTemp("", "kiste-bench"); err != nil {
		return 0, err
	}
	defer b.end()
	if err := b.root(); err != nil {
		return 0, err
	}
	kiste, err := filepath.Abs("bin/kiste")
	if err != nil {
		return 0, err
	}
	engines := []*engine{{name: "kiste", command: []string{kiste}, subnet: "10.213.8", env: []string{"KISTE_LIB=" + b.dir + "/lib", "KISTE_RUN=" + b.dir + "/run"}}}
	b.ends = append(b.ends, func() { _, _ = engines[0].do("gc") }) // the rules of a store stay as long as it does
	if docker, err := b.docker(); err == nil {
		engines = append(engines, &engine{name: "docker", command: docker, subnet: "10.213.9"})
	} else {
		fmt.Println("left out: docker:", err)
	}
	for _, e := range engines {
		if err := b.start(e); err != nil {
			return 0, err
		}
	}
	for _, e := range engines {
		if err := e.check(); err != nil {
			return 0, err
		}
	}
	for range rounds {
		for _, e := range engines {
			if err := e.round(); err != nil {
				return 0, fmt.Errorf("%s: %w", e.name, err)
			}
		}
	}
	fmt.Printf("%-8s %10s %10s %10s %10s %10s %10s %12s %12s %6s\n", "", "median", "99%", "outside", "99%", "many", "99%", "questions/s", "outside/s", "lost")
	for _, e := range engines {
		slices.Sort(e.near)
		slices.Sort(e.far)
		slices.Sort(e.crowd)
		slices.Sort(e.rates)
		slices.Sort(e.farRates)
		fmt.Printf("%-8s %10v %10v %10v %10v %10v %10v %12d %12d %6d\n", e.name, at(e.near, 50), at(e.near, 99), at(e.far, 50), at(e.far, 99), at(e.crowd, 50), at(e.crowd, 99),
			e.rates[len(e.rates)/2], e.farRates[len(e.farRates)/2], e.lost)
	}
	fmt.Printf("kiste's resolver has %d KiB of memory\n", memory(b.dir)>>10)
	return judge(engines[0]), nil
}

func at(sorted []time.Duration, percent int) time.Duration {
	return sorted[len(sorted)*percent/100].Round(time.Microsecond)
}

func judge(e *engine) (code int) {
	for _, p := range []struct {
		what string
		kept bool
	}{
		{fmt.Sprintf("a name within %v", median), at(e.near, 50) <= median},
		{fmt.Sprintf("99 of 100 within %v", late), at(e.near, 99) < late},
		{fmt.Sprintf("99 of 100 outside within %v", late), at(e.far, 99) < late},
		{fmt.Sprintf("%d questions per second", rate), e.rates[len(e.rates)/2] >= rate},
		{"no question is lost", e.lost == 0},
	} {
		word := "kept  "
		if !p.kept {
			word, code = "BROKEN", 1
		}
		fmt.Println(word, p.what)
	}
	return code
}

// root makes the tar of a static busybox.
func (b *bench) root() error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	bin := filepath.Join(b.dir, "root", "bin")
	program, err := os.ReadFile(busybox)
	if err := errors.Join(err, os.MkdirAll(bin, 0o755), os.WriteFile(bin+"/sleep", program, 0o755)); err != nil {
		return err
	}
	_, err = run(nil, "tar", "-C", b.dir+"/root", "-cf", b.dir+"/root.tar", ".")
	return err
}

func run(env []string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}

// docker starts a daemon that touches none of the host's rules.
func (b *bench) docker() ([]string, error) {
	socket := "unix://" + b.dir + "/docker.sock"
	daemon := exec.Command("dockerd", "--data-root", b.dir+"/docker", "--exec-root", b.dir+"/docker-run", "--pidfile", b.dir+"/docker.pid",
		"--host", socket, "--iptables=false", "--ip6tables=false", "--bridge=none")
	if err := daemon.Start(); err != nil {
		return nil, err
	}
	b.ends = append(b.ends, func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/docker")
		for _, g := range append(groups, "/sys/fs/cgroup/docker") {
			_ = os.Remove(g)
		}
	})
	docker := []string{"/usr/bin/docker", "-H", socket} // not another one that is first in the path
	for range 100 {
		if _, err := run(nil, append(docker, "version")...); err == nil {
			return docker, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, errors.New("the daemon does not start")
}

// do runs a command of the engine.
func (e *engine) do(args ...string) (string, error) {
	return run(e.env, append(slices.Clone(e.command), args...)...)
}

// start makes the engine's network and containers, and the server outside.
func (b *bench) start(e *engine) error {
	if _, err := e.do("import", b.dir+"/root.tar", "bench"); err != nil {
		return err
	}
	if _, err := e.do("network", "create", "--subnet", e.subnet+".0/24", "--gateway", e.subnet+".1", "bench"); err != nil {
		return err
	}
	b.ends = append(b.ends, func() {
		_, _ = e.do("rm", "-f", "one", "two")
		_, _ = e.do("network", "rm", "bench")
	})
	for _, name := range []string{"one", "two"} {
		if _, err := e.do("run", "-d", "--name", name, "--network", "bench", "--dns", e.subnet+".1", "bench", "/bin/sleep", "3600"); err != nil {
			return err
		}
	}
	pid, err := e.do("inspect", "-f", "{{.State.Pid}}", "one")
	if err == nil {
		e.pid, err = strconv.Atoi(pid)
	}
	if err != nil {
		return err
	}
	return b.serve(e.subnet + ".1:53")
}

// serve answers all questions with one address.
func (b *bench) serve(at string) error {
	conn, err := net.ListenPacket("udp4", at)
	if err != nil {
		return err
	}
	b.ends = append(b.ends, func() { conn.Close() })
	go func() {
		in := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(in)
			if err != nil {
				return
			}
			var p dnsmessage.Parser
			h, err := p.Start(in[:n])
			q, err1 := p.Question()
			if err != nil || err1 != nil {
				continue
			}
			out := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: h.ID, Response: true, RecursionAvailable: true})
			_ = out.StartQuestions()
			_ = out.Question(q)
			_ = out.StartAnswers()
			_ = out.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}})
			if msg, err := out.Finish(); err == nil {
				_, _ = conn.WriteTo(msg, from)
			}
		}
	}()
	return nil
}

// dial opens a socket inside of the container.
func (e *engine) dial() (c net.Conn, err error) {
	ns, err := network.OpenProcess(e.pid)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = ns.Do(func() error {
		c, err = net.Dial("udp4", "127.0.0.11:53")
		return err
	})
	return c, err
}

// check asks once: without an answer there is nothing to measure.
func (e *engine) check() error {
	c, err := e.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if e.ask(c, "two.", 1); e.lost > 0 {
		return fmt.Errorf("%s does not answer", e.name)
	}
	return nil
}

// round asks one after another, and then many at once.
func (e *engine) round() error {
	c, err := e.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range questions {
		e.near = append(e.near, e.ask(c, "two.", uint16(i)))
	}
	for i := range questions / 4 {
		e.far = append(e.far, e.ask(c, fmt.Sprintf("n%d.example.", i), uint16(i)))
	}
	e.rates, _, err = e.burst(e.rates, "two.")
	if err != nil {
		return err
	}
	var times []time.Duration
	e.farRates, times, err = e.burst(e.farRates, "n.example.")
	e.crowd = append(e.crowd, times...)
	return err
}

// ask gives how long the answer took.
func (e *engine) ask(c net.Conn, name string, id uint16) time.Duration {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	_ = b.StartQuestions()
	_ = b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET})
	msg, _ := b.Finish()
	began := time.Now()
	_ = c.SetDeadline(began.Add(patience))
	_, err := c.Write(msg)
	var in [512]byte
	for err == nil {
		var n int
		if n, err = c.Read(in[:]); err == nil && n > 12 && binary.BigEndian.Uint16(in[:]) == id && in[7] == 1 {
			return time.Since(began)
		}
	}
	e.lost++
	return time.Since(began)
}

// burst counts the questions of a second that many ask, and gives how long each
// took.
func (e *engine) burst(rates []int, name string) (_ []int, times []time.Duration, err error) {
	var all sync.WaitGroup
	var mu sync.Mutex
	sum := 0
	end := time.Now().Add(burst)
	for range atOnce {
		c, err := e.dial()
		if err != nil {
			return nil, nil, err
		}
		all.Go(func() {
			defer c.Close()
			one := engine{}
			var took []time.Duration
			for n := 0; time.Now().Before(end); n++ {
				took = append(took, one.ask(c, name, uint16(n)))
			}
			mu.Lock()
			defer mu.Unlock()
			sum, e.lost, times = sum+len(took)-one.lost, e.lost+one.lost, append(times, took...)
		})
	}
	all.Wait()
	return append(rates, int(float64(sum)/burst.Seconds())), times, nil
}

// memory is the proportional set size of kiste's resolver, in bytes.
func memory(dir string) (bytes int64) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range all {
		line, _ := os.ReadFile(file)
		env, _ := os.ReadFile(filepath.Dir(file) + "/environ")
		if !strings.HasSuffix(string(line), "__resolver\x00") || !strings.Contains(string(env), "KISTE_RUN="+dir+"/run\x00") {
			continue
		}
		text, _ := os.ReadFile(filepath.Dir(file) + "/smaps_rollup")
		for l := range strings.Lines(string(text)) {
			if f := strings.Fields(l); len(f) > 1 && f[0] == "Pss:" {
				n, _ := strconv.ParseInt(f[1], 10, 64)
				bytes += n << 10
			}
		}
	}
	return bytes
}
