// Command system measures how long a whole Debian with systemd takes to be up and
// to be down again, against Debian's LXC and systemd-nspawn.
//
//	takes    bin/kiste, lxc and systemd-container; mmdebstrap makes the Debian, once
//	gives    tables and verdicts on standard output
//	touches  containers and their cgroups, a store and roots in a directory of its own
//	state    test/cache keeps the Debian
//
// Up is when systemctl is-system-running says so, which all are asked in the same
// way: by nsenter(1) from the host. Each gets a fresh overlay over the same files.
// Rounds are interleaved, so that a busy moment of the machine hits everybody. Memory
// is the proportional set size of all processes in the containers and of those that
// hold them, of ten at once. The exit code is 1 where a promise is broken. Run it as
// root on a quiet machine:
//
//	go run ./test/bench/system
package main

import (
	"flag"
	"fmt"
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
	rounds = flag.Int("rounds", 7, "how often each is started and stopped")
	where  = flag.String("bin", "bin", "the directory of kiste")
	crowd  = flag.Int("crowd", 10, "how many there are at once when memory is measured")
)

func main() {
	flag.Parse()
	verdict.Main("bench", measure)
}

// A system is a Debian that runs.
type system struct {
	init int          // its first process
	stop func() error // politely; one that is killed before ends at once
}

// A contestant starts systems.
type contestant struct {
	name  string
	start func(name string) (system, error)
	own   []string // begins of command lines of its own processes, which name the directory of this run

	up, down []time.Duration
	memory   int64 // bytes, of one of a crowd
}

func measure() (int, error) {
	dir, err := os.MkdirTemp("", "kiste-bench-system")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	tree, err := debian(dir)
	if err != nil {
		return 0, err
	}
	all, err := contestants(dir, tree)
	if err != nil {
		return 0, err
	}
	defer func() { _ = run(filepath.Join(*where, "kiste"), "gc") }() // the default network's bridge stays as long as the store
	for range *rounds {
		for _, c := range all {
			if err := c.round(); err != nil {
				return 0, fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	for _, c := range all {
		if err := c.gather(dir); err != nil {
			return 0, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return report(all), nil
}

// debian is a directory with the files of one; scripts use the same archive.
func debian(dir string) (string, error) {
	archive, err := filepath.Abs("test/cache/debian-system.tar")
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(archive); err != nil {
		err := run("mmdebstrap", "--quiet", "--variant=minbase", "--include=procps,systemd-sysv,dbus", "--format=tar", "bookworm", archive)
		if err != nil {
			return "", err
		}
	}
	tree := filepath.Join(dir, "debian")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", err
	}
	if err := run("tar", "-xf", archive, "-C", tree, "--numeric-owner", "--exclude=./dev/*"); err != nil {
		return "", err
	}
	syscall.Sync() // or the first to unmount an overlay waits for what is to be written of it
	// What would be a dialogue of the first boot; kiste sees to it itself.
	return tree, os.WriteFile(filepath.Join(tree, "etc/machine-id"), nil, 0o444)
}

func contestants(dir, tree string) ([]*contestant, error) {
	kiste, err := filepath.Abs(filepath.Join(*where, "kiste"))
	if err != nil {
		return nil, err
	}
	os.Setenv("KISTE_LIB", filepath.Join(dir, "lib"))
	os.Setenv("KISTE_RUN", filepath.Join(dir, "run"))
	all := []*contestant{{name: "kiste", own: []string{"kiste __monitor", kiste + " kiste __monitor", "kiste-holder"}, start: func(name string) (system, error) { return startKiste(kiste, tree, name) }}}
	r := roots{dir: dir, lower: tree}
	for _, c := range []*contestant{
		{name: "lxc", own: []string{"[lxc monitor]"}, start: r.startLXC},
		{name: "systemd-nspawn", own: []string{"systemd-nspawn"}, start: r.startNspawn},
	} {
		program := map[string]string{"lxc": "lxc-start"}[c.name]
		if program == "" {
			program = c.name
		}
		if _, err := exec.LookPath(program); err != nil {
			fmt.Printf("%s is not installed\n", program)
			continue
		}
		all = append(all, c)
	}
	return all, nil
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func startKiste(kiste, tree, name string) (system, error) {
	if err := run(kiste, "run", "-d", "--name", name, "rootfs:"+tree, "/sbin/init"); err != nil {
		return system{}, err
	}
	out, err := exec.Command(kiste, "inspect", "-f", "{{.State.Pid}}", name).Output()
	if err != nil {
		return system{}, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	stop := func() error {
		if err := run(kiste, "stop", "-t", "30", name); err != nil {
			return err
		}
		return run(kiste, "rm", name)
	}
	return system{pid, stop}, err
}

// roots are fresh overlays for those that want a directory.
type roots struct{ dir, lower string }

func (r roots) mount(name string) (at string, unmount func() error, err error) {
	top := filepath.Join(r.dir, "roots", name)
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			return "", nil, err
		}
	}
	at = filepath.Join(top, "root")
	err = syscall.Mount("overlay", at, "overlay", 0, "lowerdir="+r.lower+",upperdir="+top+"/upper,workdir="+top+"/work")
	return at, func() error {
		if err := syscall.Unmount(at, 0); err != nil {
			return err
		}
		return os.RemoveAll(top)
	}, err
}

const lxcConfig = `lxc.uts.name = %s
lxc.rootfs.path = dir:%s
lxc.net.0.type = empty
lxc.init.cmd = /sbin/init
lxc.signal.halt = SIGRTMIN+3
lxc.mount.auto = proc:mixed sys:ro cgroup:mixed
lxc.pty.max = 16
lxc.apparmor.profile = unconfined
`

func (r roots) startLXC(name string) (system, error) {
	at, unmount, err := r.mount(name)
	if err != nil {
		return system{}, err
	}
	lxc := filepath.Join(r.dir, "lxc")
	if err := os.MkdirAll(filepath.Join(lxc, name), 0o755); err != nil {
		return system{}, err
	}
	config := filepath.Join(lxc, name, "config")
	if err := os.WriteFile(config, fmt.Appendf(nil, lxcConfig, name, at), 0o644); err != nil {
		return system{}, err
	}
	if err := run("lxc-start", "-P", lxc, "-n", name, "-d", "-o", filepath.Join(lxc, name, "log")); err != nil {
		return system{}, err
	}
	out, err := exec.Command("lxc-info", "-P", lxc, "-n", name, "-pH").Output()
	if err != nil {
		return system{}, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	return system{pid, func() error {
		if err := run("lxc-stop", "-P", lxc, "-n", name, "-t", "30"); err != nil {
			return err
		}
		removeGroups("lxc.pivot")
		return unmount()
	}}, err
}

func (r roots) startNspawn(name string) (system, error) {
	at, unmount, err := r.mount(name)
	if err != nil {
		return system{}, err
	}
	// Without a group of its own two of them would share theirs. Its console is a
	// terminal: a getty fails without.
	const script = `for tree in systemd unified .; do dir=/sys/fs/cgroup/$tree/kiste-bench-$0
		[ -e "/sys/fs/cgroup/$tree/cgroup.procs" ] && mkdir -p "$dir" && echo $$ >"$dir/cgroup.procs"
	done
	exec script -qec "systemd-nspawn -q -b --register=no --keep-unit --private-network --link-journal=no -M $0 -D $1" /dev/null >/dev/null </dev/null`
	cmd := exec.Command("sh", "-c", script, name, at)
	if err := cmd.Start(); err != nil {
		return system{}, err
	}
	s := system{}
	for range 500 {
		if s.init = firstBelow(cmd.Process.Pid); s.init != 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.stop = func() error {
		_ = syscall.Kill(s.init, syscall.Signal(37)) // SIGRTMIN+3
		if err := cmd.Wait(); err != nil {
			return err
		}
		removeGroups("kiste-bench-" + name)
		return unmount()
	}
	return s, nil
}

// removeGroups removes empty cgroups of a name from all hierarchies.
func removeGroups(name string) {
	_ = exec.Command("sh", "-c", `find /sys/fs/cgroup -type d -name "$0" -prune | while read -r top; do find "$top" -depth -type d -exec rmdir {} ";"; done`, name).Run()
}

// firstBelow is the first process of a pid namespace below the process pid.
func firstBelow(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for f := range strings.FieldsSeq(string(text)) {
		child, _ := strconv.Atoi(f)
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
		for line := range strings.Lines(string(status)) {
			if ids := strings.Fields(line); len(ids) > 2 && ids[0] == "NSpid:" && ids[len(ids)-1] == "1" {
				return child
			}
		}
		if below := firstBelow(child); below != 0 {
			return below
		}
	}
	return 0
}

// patience is how long a system may take to be up.
const patience = 2 * time.Minute

// await waits until the system is up.
func (s system) await() error {
	began, state := time.Now(), ""
	for time.Since(began) < patience {
		args := []string{"-t", strconv.Itoa(s.init), "-m", "-p", "-u", "-i", "-n", "-C"}
		if map0, _ := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", s.init)); len(strings.Fields(string(map0))) > 1 && strings.Fields(string(map0))[1] != "0" {
			args = append(args, "-U")
		}
		out, _ := exec.Command("nsenter", append(args, "systemctl", "is-system-running")...).Output()
		if state = strings.TrimSpace(string(out)); state == "running" {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("after %v it is %q", patience, state)
}

// kill ends one that is not as it should be, with what holds it.
func (s system) kill() {
	if s.init > 0 {
		_ = syscall.Kill(s.init, syscall.SIGKILL)
	}
	_ = s.stop()
}

// round starts and stops one.
func (c *contestant) round() error {
	began := time.Now()
	s, err := c.start("bench")
	if err != nil {
		return err
	}
	if err := s.await(); err != nil {
		s.kill()
		return err
	}
	c.up = append(c.up, time.Since(began))
	began = time.Now()
	if err := s.stop(); err != nil {
		return err
	}
	c.down = append(c.down, time.Since(began))
	return nil
}

// gather has a crowd at once, and looks at its memory.
func (c *contestant) gather(dir string) error {
	var all []system
	for i := range *crowd {
		s, err := c.start(fmt.Sprintf("crowd%d", i))
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	spaces := map[string]bool{}
	for _, s := range all {
		if err := s.await(); err != nil {
			for _, s := range all {
				s.kill()
			}
			return err
		}
		space, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", s.init))
		spaces[space] = true
	}
	time.Sleep(quiet)
	c.memory = c.pss(dir, spaces) / int64(*crowd)
	for _, s := range all {
		if err := s.stop(); err != nil {
			return err
		}
	}
	return nil
}

// quiet is how long nothing has happened in systems whose memory is measured.
const quiet = 5 * time.Second

// pss adds up the proportional set sizes of the processes in the pid namespaces and
// of the contestant's own, which have the directory of this run in their arguments
// or environment: others may run beside. It is Pss of proc_pid_smaps(5), in bytes.
func (c *contestant) pss(run string, spaces map[string]bool) (sum int64) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		space, _ := os.Readlink(dir + "/ns/pid")
		line, _ := os.ReadFile(dir + "/cmdline")
		env, _ := os.ReadFile(dir + "/environ")
		words := strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
		mine := strings.Contains(words+string(env), run) &&
			slices.ContainsFunc(c.own, func(begin string) bool { return strings.HasPrefix(words, begin) })
		if !spaces[space] && !mine {
			continue
		}
		text, _ := os.ReadFile(dir + "/smaps_rollup")
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
				n, _ := strconv.ParseInt(f[1], 10, 64)
				sum += n << 10
			}
		}
	}
	return sum
}

// report prints the tables. A promise is that no other is better in the same run.
func report(all []*contestant) (code int) {
	fmt.Printf("%-20s %12s %12s %24s\n", "a Debian with systemd", "up", "down", fmt.Sprintf("memory, each of %d", *crowd))
	for _, c := range all {
		fmt.Printf("%-20s %9.0f ms %9.0f ms %20.2f MB\n", c.name, ms(verdict.Median(c.up)), ms(verdict.Median(c.down)), float64(c.memory)/(1<<20))
	}
	fmt.Println()
	ours := all[0]
	for _, c := range all[1:] {
		code = max(code,
			verdict.Print("up, kiste / "+c.name, ms(verdict.Median(ours.up))/ms(verdict.Median(c.up)), 1, "%.2f"),
			verdict.Print("down, kiste / "+c.name, ms(verdict.Median(ours.down))/ms(verdict.Median(c.down)), 1, "%.2f"),
			verdict.Print("memory, kiste / "+c.name, float64(ours.memory)/float64(c.memory), 1, "%.2f"))
	}
	return code
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
