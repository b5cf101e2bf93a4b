// Command bench measures what PROMISES.md promises about starting, against
// Debian's peers on the same root file system. Rounds are interleaved, so that
// a busy moment of the machine hits everybody; the table shows medians.
//
//	takes    bin/kiste and bin/kisted, and the peers that are installed
//	gives    a table on standard output
//	touches  containers of all engines, below a temporary directory
//	state    none: what it starts it ends
//
// A peer that is not installed or does not run here is left out, with a line
// that says why. The exit code is 1 where a promise is broken.
package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
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

var rounds = flag.Int("rounds", 30, "how often each command is run")

func main() {
	flag.Parse()
	verdict.Main("bench", measure)
}

func measure() (int, error) {
	dir, err := os.MkdirTemp("", "kiste-bench")
	if err != nil {
		return 0, err
	}
	b := &bench{dir: dir}
	defer b.end()
	if err := b.prepare(); err != nil {
		return 0, err
	}
	b.add("empty Go program", true, b.empty, nil)
	b.add("kiste version", true, b.version, nil)
	for _, peer := range []struct {
		name string
		set  func() ([]string, []string, error)
	}{
		{"kiste run", b.kiste},
		{"crun run (bare)", b.crun},
		{"runc run (bare)", b.runc},
		{"podman run", b.podman},
		{"docker run", b.docker},
	} {
		args, env, err := peer.set()
		if err != nil {
			fmt.Printf("left out: %s: %v\n", peer.name, err)
			continue
		}
		b.add(peer.name, !strings.HasPrefix(peer.name, "docker"), args, env)
		if peer.name == "kiste run" {
			b.add(onBridge, true, onDefault(args), env)
			b.ends = append(b.ends, func() { // the bridge goes with the last container's gc
				gc := exec.Command(args[0], "gc")
				gc.Env = append(os.Environ(), env...)
				_ = gc.Run()
			})
		}
	}
	engines := b.engines()
	if err := b.addLive(engines); err != nil {
		return 0, err
	}
	for range *rounds {
		for _, e := range b.entries {
			if err := e.run(); err != nil {
				return 0, err
			}
		}
	}
	for _, e := range b.entries {
		if err := e.measureRSS(b.file("rss")); err != nil {
			return 0, err
		}
	}
	code := b.report()
	live, err := b.gatherAll(engines)
	return max(code, live), err
}

// onBridge is a start on the default network, which "kiste run" leaves out as all
// peers do.
const onBridge = "kiste run, bridge"

// onDefault is the command with no word of a network.
func onDefault(args []string) []string {
	i := slices.Index(args, "--network")
	return slices.Delete(slices.Clone(args), i, i+2)
}

// bridgeCPU is what the default network may cost a start.
const bridgeCPU = 6 * time.Millisecond

// engines are those among the entries that keep containers.
func (b *bench) engines() (all []engine) {
	for _, e := range []engine{{name: "kiste", process: ofKiste}, {name: "docker", process: ofDocker}} {
		entry := b.entry(e.name + " run")
		if entry == nil {
			continue
		}
		i := slices.Index(entry.args, "run")
		e.command, e.env, e.image = entry.args[:i], entry.env, "bench"
		all = append(all, e)
	}
	return all
}

// A bench is the things under comparison, and what has to end with them.
type bench struct {
	dir            string
	empty, version []string
	entries        []*entry
	ends           []func()
}

// An entry is one command and what its runs took.
type entry struct {
	name string
	cpu  bool // the CPU time of the command is all there is: no daemon works for it
	args []string
	env  []string

	wall, used []time.Duration
	rss        int64 // bytes
}

// add takes a command in, unless it fails.
func (b *bench) add(name string, cpu bool, args, env []string) {
	e := &entry{name: name, cpu: cpu, args: args, env: env}
	if err := e.run(); err != nil {
		fmt.Printf("left out: %s: %v\n", name, err)
		return
	}
	e.wall, e.used = nil, nil
	b.entries = append(b.entries, e)
}

func (e *entry) run() error {
	cmd := exec.Command(e.args[0], e.args[1:]...)
	cmd.Env = append(os.Environ(), e.env...)
	var text bytes.Buffer
	cmd.Stderr = &text
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(e.args, " "), err, strings.TrimSpace(text.String()))
	}
	e.wall = append(e.wall, wall)
	e.used = append(e.used, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	return nil
}

// measureRSS asks GNU time, which is small: what a process peaks at counts
// from before its execve, when it still had the memory of this program.
func (e *entry) measureRSS(file string) error {
	cmd := exec.Command("time", append([]string{"-f", "%M", "-o", file}, e.args...)...)
	cmd.Env = append(os.Environ(), e.env...)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("time %s: %w", e.name, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	kilobytes, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	e.rss = kilobytes << 10
	return err
}

func (b *bench) prepare() error {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	if err := b.rootTar(); err != nil {
		return err
	}
	source := filepath.Join(b.dir, "empty.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		return err
	}
	b.empty = []string{filepath.Join(b.dir, "empty")}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.empty[0], source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	b.version = []string{filepath.Join(bin, "kiste"), "version"}
	return nil
}

// kiste has its own store, and the image as the others have it.
func (b *bench) kiste() (args, env []string, err error) {
	store := []string{"KISTE_LIB=" + b.file("kiste/lib"), "KISTE_RUN=" + b.file("kiste/run")}
	load := exec.Command(b.version[0], "import", b.file("root.tar"), "bench")
	load.Env = append(os.Environ(), store...)
	if out, err := load.CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("import: %w: %s", err, out)
	}
	return []string{b.version[0], "run", "--rm", "--network", "none", "bench", "/bin/true"}, store, nil
}

func (b *bench) file(name string) string { return filepath.Join(b.dir, name) }

func prepare(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// rootTar writes the root that all share: a static busybox, also as "true".
func (b *bench) rootTar() error {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys"} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}))
	}
	err = errors.Join(err, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))}))
	_, bad := w.Write(program)
	for _, name := range []string{"bin/true", "bin/sleep"} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "busybox"}))
	}
	err = errors.Join(err, bad, w.Close())
	return errors.Join(err, os.WriteFile(b.file("root.tar"), out.Bytes(), 0o644))
}

// bundle makes an OCI bundle for a bare runtime, as "runtime spec" writes it.
func (b *bench) bundle(runtime string) (string, error) {
	dir := b.file(runtime + "-bundle")
	if err := os.MkdirAll(dir+"/rootfs", 0o755); err != nil {
		return "", err
	}
	if err := prepare("tar", "-x", "-f", b.file("root.tar"), "-C", dir+"/rootfs"); err != nil {
		return "", err
	}
	cmd := exec.Command(runtime, "spec")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	var spec map[string]any
	config := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(config)
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return "", err
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		return "", errors.New("its spec has no process")
	}
	process["terminal"], process["args"] = false, []string{"/bin/true"}
	delete(process, "rlimits")
	if text, err = json.Marshal(spec); err != nil {
		return "", err
	}
	return dir, os.WriteFile(config, text, 0o644)
}

// drain takes the controllers off cgroup version 2 where version 1 has the
// others: Debian's crun refuses such hosts otherwise.
func (b *bench) drain() error {
	left, err := os.ReadFile("/sys/fs/cgroup/unified/cgroup.controllers")
	if err != nil || !strings.Contains(string(left), "hugetlb") {
		return nil
	}
	dir := b.file("hugetlb")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := prepare("mount", "-t", "cgroup", "-o", "hugetlb", "none", dir); err != nil {
		return err
	}
	b.ends = append(b.ends, func() { prepare("umount", dir) })
	return nil
}

func (b *bench) crun() (args, env []string, err error) {
	if err := b.drain(); err != nil {
		return nil, nil, err
	}
	return b.bare("crun")
}

func (b *bench) runc() (args, env []string, err error) { return b.bare("runc") }

func (b *bench) bare(runtime string) (args, env []string, err error) {
	dir, err := b.bundle(runtime)
	return []string{runtime, "--root", b.file(runtime), "run", "-b", dir, "kiste-bench"}, nil, err
}

func (b *bench) podman() (args, env []string, err error) {
	podman := []string{"podman", "--root", b.file("podman"), "--runroot", b.file("podman-run"), "--cgroup-manager", "cgroupfs"}
	if err := prepare(append(podman, "import", b.file("root.tar"), "bench")...); err != nil {
		return nil, nil, err
	}
	b.ends = append(b.ends, func() {
		prepare(append(podman, "rmi", "-a", "-f")...)
		cgroups, _ := filepath.Glob("/sys/fs/cgroup/*/libpod_parent")
		for _, c := range append(cgroups, "/sys/fs/cgroup/libpod_parent") {
			os.Remove(filepath.Join(c, "conmon"))
			os.Remove(c)
		}
		syscall.Unmount(b.file("podman")+"/overlay", 0)
	})
	// its own defaults raise limits, which not every host permits
	return append(podman, "run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "bench", "/bin/true"), nil, nil
}

// docker starts a dockerd of its own, which ends with the bench.
func (b *bench) docker() (args, env []string, err error) {
	socket := "unix://" + b.file("docker.sock")
	daemon := exec.Command("dockerd", "--data-root", b.file("docker"), "--exec-root", b.file("docker-run"), "--pidfile", b.file("docker.pid"),
		"--host", socket, "--iptables=false", "--ip6tables=false", "--bridge=none")
	if err := daemon.Start(); err != nil {
		return nil, nil, err
	}
	b.ends = append(b.ends, func() {
		daemon.Process.Signal(syscall.SIGTERM)
		daemon.Wait()
		cgroups, _ := filepath.Glob("/sys/fs/cgroup/*/docker")
		for _, c := range append(cgroups, "/sys/fs/cgroup/docker") {
			os.Remove(c)
		}
	})
	docker := []string{"/usr/bin/docker", "-H", socket} // not another one that is first in the path
	for range 100 {
		if err = prepare(append(docker, "import", b.file("root.tar"), "bench")...); err == nil {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	return append(docker, "run", "--rm", "--network", "none", "bench", "/bin/true"), nil, err
}

// end ends what was started, the last first, and removes the directory.
func (b *bench) end() {
	for _, f := range slices.Backward(b.ends) {
		f()
	}
	os.RemoveAll(b.dir)
}

// A promise is a ratio of two entries.
type promise struct {
	name, of string
	cpu      bool
	most     float64
}

func promises() []promise {
	return []promise{
		{"kiste version", "empty Go program", false, 1.5},
		{"kiste run", "docker run", false, 1.0 / 15},
		{onBridge, "docker run", false, 1.0 / 12},
		{"kiste run", "podman run", false, 1.0 / 8},
		{"kiste ps of 100", "docker ps of 100", false, 1.0 / 3},
		{"kiste run", "crun run (bare)", true, 1},
		{"kiste exec", "docker exec", false, 1.0 / 8},
		{"kiste run -d, rm -f", "docker run -d, rm -f", false, 1.0 / 12},
		{"kiste run -d, rm -f alone", "docker run -d, rm -f", false, 1.0 / 12},
	}
}

const rssLimit = 8 << 20

func (b *bench) report() (code int) {
	fmt.Printf("\n%-26s %10s %10s %10s\n", "", "wall", "CPU", "peak RSS")
	for _, e := range b.entries {
		cpu, rss := milliseconds(verdict.Median(e.used)), strconv.FormatFloat(float64(e.rss)/(1<<20), 'f', 1, 64)+" MB"
		if !e.cpu {
			cpu = "(daemon)"
		}
		fmt.Printf("%-26s %10s %10s %10s\n", e.name, milliseconds(verdict.Median(e.wall)), cpu, rss)
	}
	fmt.Println()
	for _, p := range promises() {
		a, of := b.entry(p.name), b.entry(p.of)
		switch {
		case a == nil:
			fmt.Printf("%s did not run\n", p.name)
			code = 1
			continue
		case of == nil:
			continue
		}
		x, y, what := verdict.Median(a.wall), verdict.Median(of.wall), "wall"
		if p.cpu {
			x, y, what = verdict.Median(a.used), verdict.Median(of.used), "CPU"
		}
		ratio := float64(x) / float64(y)
		code = max(code, verdict.Print(fmt.Sprintf("%s / %s, %s", p.name, p.of, what), ratio, p.most, "%.3f"))
	}
	if with, without := b.entry(onBridge), b.entry("kiste run"); with != nil && without != nil {
		more := verdict.Median(with.used) - verdict.Median(without.used)
		code = max(code, verdict.Print("the default network, CPU in ms", float64(more)/1e6, float64(bridgeCPU)/1e6, "%.1f"))
	}
	if e := b.entry("kiste run"); e != nil {
		code = max(code, verdict.Print("kiste run, peak RSS in MB", float64(e.rss)/(1<<20), rssLimit>>20, "%.1f"))
	}
	return code
}

func (b *bench) entry(name string) *entry {
	i := slices.IndexFunc(b.entries, func(e *entry) bool { return e.name == name })
	if i < 0 {
		return nil
	}
	return b.entries[i]
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 2, 64) + " ms"
}
