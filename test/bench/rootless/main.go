// Command rootless measures how fast the networks of ordinary users' containers
// are: pasta, slirp4netns and Kiste's own stack, in one interleaved run.
//
//	takes    bin/kiste, iperf3, pasta, slirp4netns; root, who becomes a user
//	gives    a table on standard output
//	touches  a link and a temporary directory, which go at the end
//	state    none: what it starts it ends
//
// The container is a process of busybox in a user namespace; iperf3 enters its
// network. Nothing is promised here: the table says what to expect.
//
//	go run ./test/bench/rootless
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kiste/test/bench/verdict"
)

var (
	rounds  = flag.Int("rounds", 3, "how often each thing is measured")
	seconds = flag.Int("seconds", 1, "how long each measurement takes")
)

const (
	user    = 20000
	link    = "krbench"
	address = "198.18.9.1" // of the host
	port    = 25201        // of the host's server
	inside  = 5201         // of the container's
)

func main() {
	flag.Parse()
	b := &bench{}
	verdict.Main("rootless bench", func() (int, error) {
		defer b.end()
		return 0, b.measure()
	})
}

// A driver is one network under comparison.
type driver struct {
	name      string
	options   []string // of kiste run
	published int      // the host's port that leads to the container's
	pid       string
	got       map[string][]float64
}

type bench struct {
	dir     string
	drivers []*driver
	ends    []func()
}

func (b *bench) end() {
	for _, end := range slices.Backward(b.ends) {
		end()
	}
}

// asUser is a command of the ordinary user, with a store of his own.
func (b *bench) asUser(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "XDG_RUNTIME_DIR=" + b.dir + "/run"}
	cmd.Dir = b.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	return cmd
}

func output(cmd *exec.Cmd) (string, error) {
	cmd.Stderr = nil
	out, err := cmd.Output()
	if bad, ok := err.(*exec.ExitError); ok {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bad.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// start starts a program that is ended with the bench.
func (b *bench) start(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	b.ends = append(b.ends, func() { cmd.Process.Kill(); cmd.Wait() })
	return nil
}

func (b *bench) prepare() error {
	var err error
	if b.dir, err = os.MkdirTemp("", "kiste-rootless"); err != nil {
		return err
	}
	b.ends = append(b.ends, func() { os.RemoveAll(b.dir) })
	for _, args := range [][]string{
		{"mkdir", "-p", b.dir + "/root/bin", b.dir + "/root/proc", b.dir + "/run", b.dir + "/bin"},
		{"sh", "-c", "cp $(command -v busybox) " + b.dir + "/root/bin/busybox; cp bin/kiste bin/kisted " + b.dir + "/bin/"},
		{"chown", "-R", strconv.Itoa(user), b.dir},
		{"ip", "link", "add", link, "type", "bridge"},
		{"ip", "addr", "add", address + "/24", "dev", link},
		{"ip", "link", "set", link, "up"},
	} {
		if _, err := output(exec.Command(args[0], args[1:]...)); err != nil {
			return err
		}
	}
	b.ends = append(b.ends, func() { _ = exec.Command("ip", "link", "del", link).Run() })
	return b.start(exec.Command("iperf3", "-s", "-p", strconv.Itoa(port)))
}

func (b *bench) measure() error {
	if err := b.prepare(); err != nil {
		return err
	}
	b.drivers = []*driver{
		{name: "pasta", options: []string{"--network", "pasta"}, published: 25301},
		{name: "slirp4netns", options: []string{"--network", "none"}, published: 25302},
		{name: "kiste's stack", options: []string{"--network", "slirp4netns"}, published: 25303},
	}
	for _, d := range b.drivers {
		if err := b.container(d); err != nil {
			return err
		}
	}
	time.Sleep(time.Second)
	for range *rounds {
		for _, m := range b.metrics() {
			for _, d := range b.drivers {
				v, err := b.iperf(m.args(d))
				if err != nil {
					return fmt.Errorf("%s, %s: %w", d.name, m.name, err)
				}
				d.got[m.name] = append(d.got[m.name], v)
			}
		}
	}
	return b.report()
}

// container starts one, with its network and a server.
func (b *bench) container(d *driver) error {
	d.got = map[string][]float64{}
	name := strings.ReplaceAll(strings.ReplaceAll(d.name, "'", ""), " ", "-")
	args := append([]string{b.dir + "/bin/kiste", "run", "-d", "--name", name}, d.options...)
	if d.name != "slirp4netns" {
		args = append(args, "-p", fmt.Sprintf("%d:%d", d.published, inside))
	}
	args = append(args, "--rootfs", b.dir+"/root", "/bin/busybox", "sleep", "1000")
	if _, err := output(b.asUser(args...)); err != nil {
		return err
	}
	b.ends = append(b.ends, func() { _ = b.asUser(b.dir+"/bin/kiste", "rm", "-f", name).Run() })
	var err error
	if d.pid, err = output(b.asUser(b.dir+"/bin/kiste", "inspect", "-f", "{{.State.Pid}}", name)); err != nil {
		return err
	}
	if d.name == "slirp4netns" {
		if err := b.slirp(d); err != nil {
			return err
		}
	}
	return b.start(b.inside(d, "iperf3", "-s", "-p", strconv.Itoa(inside)))
}

// inside is a command in the container's network.
func (b *bench) inside(d *driver, args ...string) *exec.Cmd {
	return b.asUser(append([]string{"nsenter", "-t", d.pid, "-U", "-n", "--preserve-credentials"}, args...)...)
}

// slirp starts slirp4netns, and lets it publish the port.
func (b *bench) slirp(d *driver) error {
	api := filepath.Join(b.dir, "slirp.api")
	if err := b.start(b.asUser("slirp4netns", "--configure", "--mtu=65520", "--api-socket", api, d.pid, "tap0")); err != nil {
		return err
	}
	var c net.Conn
	var err error
	for range 100 {
		if c, err = net.Dial("unix", api); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintf(c, `{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"127.0.0.1","host_port":%d,"guest_port":%d}}`, d.published, inside)
	c.(*net.UnixConn).CloseWrite()
	answer := make([]byte, 1000)
	n, err := c.Read(answer)
	if err == nil && strings.Contains(string(answer[:n]), "error") {
		err = fmt.Errorf("slirp4netns: %s", answer[:n])
	}
	return err
}

type metric struct {
	name string
	args func(*driver) *exec.Cmd
}

func (b *bench) metrics() []metric {
	long := strconv.Itoa(*seconds)
	return []metric{
		{"out", func(d *driver) *exec.Cmd {
			return b.inside(d, "iperf3", "-J", "-c", address, "-p", strconv.Itoa(port), "-t", long)
		}},
		{"in", func(d *driver) *exec.Cmd {
			return b.inside(d, "iperf3", "-J", "-R", "-c", address, "-p", strconv.Itoa(port), "-t", long)
		}},
		{"published", func(d *driver) *exec.Cmd {
			return exec.Command("iperf3", "-J", "-c", "127.0.0.1", "-p", strconv.Itoa(d.published), "-t", long)
		}},
	}
}

// iperf gives Gbit/s as the receiver has seen them.
func (b *bench) iperf(cmd *exec.Cmd) (float64, error) {
	time.Sleep(300 * time.Millisecond) // the server ends the test before slowly
	out, err := cmd.Output()
	var r struct {
		Error string
		End   struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if bad := json.Unmarshal(out, &r); bad == nil && r.Error != "" {
		return 0, fmt.Errorf("%s", r.Error)
	}
	return r.End.Received.Bits / 1e9, err
}

func (b *bench) report() error {
	fmt.Printf("Gbit/s of one TCP connection, the median of %d runs of %d s\n%-16s", *rounds, *seconds, "")
	for _, m := range b.metrics() {
		fmt.Printf("%12s", m.name)
	}
	fmt.Println()
	for _, d := range b.drivers {
		fmt.Printf("%-16s", d.name)
		for _, m := range b.metrics() {
			all := slices.Sorted(slices.Values(d.got[m.name]))
			fmt.Printf("%12.2f", all[len(all)/2])
		}
		fmt.Println()
	}
	return nil
}
