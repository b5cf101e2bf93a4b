// Command oci measures what PROMISES.md promises about kiste-runtime, against
// runc and crun of Debian and the newest runc, on the same bundle: what "runc
// spec" writes, with a static program that only exits.
//
//	takes    bin/kiste-runtime, and the peers that are installed; the newest runc is built (see peers)
//	gives    tables and verdicts on standard output
//	touches  containers and their cgroups; a temporary directory in a mount namespace of its own,
//	         another for programs below -bin
//	state    test/cache keeps the newest runc
//
// Rounds are interleaved, so that a busy moment of the machine hits everybody.
// Everybody's program is copied anew before each thing that is measured, in the same
// way: how it came into the page cache, and whether it has been reclaimed since, is
// worth as much as a tenth (docs/design/0004-what-a-start-costs.md).
// CPU time is that of the runtime and of all processes that it starts, the median;
// the best wall time is the mean of the best tenth: one run in which nobody came
// between is luck. Before each crowd of 20 there is a rest, so that nobody has the
// time of the kernel's own threads that end another's. Whom no promise is about is asked
// less often. How much more a start takes beside many containers and among many mounts stands
// beside what the kernel alone takes more, of which floor.go asks it. The exit code is 1
// where a promise is broken. Run it as root on a quiet machine:
//
//	go run ./test/bench/oci
package main

import (
	"errors"
	"flag"
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

	"kiste/internal/sys"
	"kiste/test/bench/verdict"
	"kiste/test/peer"
)

var (
	rounds = flag.Int("rounds", 100, "how often each thing is done")
	where  = flag.String("bin", "bin", "the directory of kiste-runtime")
	only   = flag.String("only", "", "measure only what has a name that begins so")
	alive  = flag.Int("alive", 500, "how many containers are alive when it is measured whether that matters")
	mounts = flag.Int("mounts", 1000, "how many mounts the host has when it is measured whether that matters")
)

const (
	ours   = "kiste-runtime"
	newest = "runc (newest)"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == floorWord {
		floor(os.Args[2:])
	}
	flag.Parse()
	run := measure
	if os.Getenv(inOwnMounts) == "" {
		run = ownMounts
	}
	verdict.Main("bench", run)
}

// A contestant is a runtime with a bundle of its own.
type contestant struct {
	*peer.Runtime
	name   string
	bundle *peer.Bundle
	null   *os.File // its standard input and output
	errors *os.File // where its standard error goes: no pipe is read while the clock runs

	environment []string

	installed, copied string // the program, and the directory of its copies
}

func measure() (int, error) {
	// This program's own monitor would wake up some fifty times in each run; children
	// have the timers of the thread that makes them.
	runtime.LockOSThread()
	sys.SlowMonitor()
	dir, err := os.MkdirTemp("", "kiste-bench-oci")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	// State and bundles are in memory, as below /run.
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return 0, fmt.Errorf("mount tmpfs: %w", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	if err := adoptOrphans(); err != nil {
		return 0, err
	}
	if err := hideUnified(); err != nil {
		return 0, err
	}
	programs, err := ownCopies(*where)
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(programs)
	all, err := contestants(dir, programs)
	if err != nil {
		return 0, err
	}
	defer func() {
		for _, c := range all {
			c.sweep()
		}
	}()
	r := &report{}
	var things []quantity
	for _, s := range scenarios {
		things = append(things, quantity{s.name, s.measure})
	}
	for _, q := range append(things, quantities...) {
		if !strings.HasPrefix(q.name, *only) {
			continue
		}
		if err := renew(all); err != nil {
			return 0, err
		}
		if err := q.measure(r, all); err != nil {
			return 0, err
		}
	}
	return r.print(all), nil
}

// ownCopies makes the directory of this process's copies of programs, and removes those of
// processes that were killed.
func ownCopies(dir string) (string, error) {
	const prefix = ".bench-"
	all, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, d := range all {
		pid, err := strconv.Atoi(strings.TrimPrefix(d.Name(), prefix))
		if err == nil && strings.HasPrefix(d.Name(), prefix) && syscall.Kill(pid, 0) == syscall.ESRCH {
			os.RemoveAll(filepath.Join(dir, d.Name()))
		}
	}
	own := filepath.Join(dir, prefix+strconv.Itoa(os.Getpid()))
	return own, os.Mkdir(own, 0o755)
}

// contestants are those that start a container here; the others are named.
func contestants(dir, programs string) ([]*contestant, error) {
	bin, err := filepath.Abs(*where)
	if err != nil {
		return nil, err
	}
	var all []*contestant
	for _, name := range append(peer.Names[:len(peer.Names):len(peer.Names)], newest) {
		own := strings.Fields(name)[0] + strconv.Itoa(len(all))
		c, err := contest(name, bin, filepath.Join(dir, own))
		if err == nil {
			c.installed, c.copied = c.Path, filepath.Join(programs, own)
			err = renew([]*contestant{c})
		}
		if err == nil {
			err = run(c)
		}
		if err == nil {
			all = append(all, c)
			continue
		}
		if name == ours {
			return nil, err
		}
		fmt.Printf("left out: %s: %v\n", name, err)
	}
	return all, nil
}

func contest(name, bin, dir string) (*contestant, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c := &contestant{name: name}
	var err error
	if name == newest {
		var path string
		if path, err = buildRunc(); err == nil {
			c.Runtime, err = peer.New(peer.Names[0], path, dir)
			c.Runtime.Name = name
		}
	} else {
		c.Runtime, err = peer.New(name, bin, dir)
	}
	if err != nil {
		return nil, err
	}
	if c.bundle, err = peer.NewBundle(filepath.Join(dir, "bundle"), "/bin/true"); err != nil {
		return nil, err
	}
	os.Remove(c.bundle.Root("bin/true"))
	if err := peer.True(c.bundle.Root("bin/true")); err != nil {
		return nil, err
	}
	c.environment = c.Command().Environ()
	if c.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	c.errors, err = os.Create(filepath.Join(dir, "errors"))
	return c, err
}

// buildRunc builds the newest runc, once, and returns the directory in which
// it lies under the name that peer.New looks for. It wants a C compiler and libseccomp.
func buildRunc() (string, error) {
	text, err := os.ReadFile("test/bench/oci/peers/go.mod")
	if err != nil {
		return "", fmt.Errorf("run it in the repository: %w", err)
	}
	_, version, _ := strings.Cut(string(text), "opencontainers/runc ")
	version, _, _ = strings.Cut(version, "\n")
	dir, err := filepath.Abs("test/cache/runc-" + version)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, peer.Names[0])
	if _, err := os.Stat(path); err == nil {
		return dir, nil
	}
	build := exec.Command("go", "build", "-trimpath", "-tags", "seccomp", "-ldflags", "-s -w", "-o", path, "tool")
	build.Dir = "test/bench/oci/peers"
	build.Env = append(os.Environ(), "CGO_ENABLED=1", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return dir, nil
}

// renew copies everybody's program anew, as "make build" writes ours.
func renew(all []*contestant) error {
	for _, c := range all {
		program, err := os.ReadFile(c.installed)
		if err != nil {
			return err
		}
		if err := errors.Join(os.RemoveAll(c.copied), os.Mkdir(c.copied, 0o755)); err != nil {
			return err
		}
		c.Path = filepath.Join(c.copied, filepath.Base(c.installed))
		if err := write(c.Path, program); err != nil {
			return err
		}
	}
	return nil
}

// write writes two megabytes at once, and the rest in small parts.
func write(path string, program []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	first := min(len(program), 2<<20)
	_, err = f.Write(program[:first])
	for part := range slices.Chunk(program[first:], 64<<10) {
		_, failed := f.Write(part)
		err = errors.Join(err, failed)
	}
	return errors.Join(err, f.Close())
}

// call runs the runtime to its end.
func (c *contestant) call(args ...string) error {
	pid, err := c.start(args...)
	if err == nil {
		err = await(pid)
	}
	return c.told(err, args...)
}

// start starts the runtime, with as little between it and the kernel as can be.
func (c *contestant) start(args ...string) (pid int, err error) {
	cmd, null := c.Command(args...), c.null.Fd()
	return syscall.ForkExec(cmd.Path, cmd.Args, &syscall.ProcAttr{Env: c.environment, Files: []uintptr{null, null, c.errors.Fd()}, Sys: cmd.SysProcAttr})
}

// told is an error with what the runtime has written.
func (c *contestant) told(err error, args ...string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w: %s", c.name, strings.Join(args, " "), err, c.said())
}

// sweep deletes what is left after an error.
func (c *contestant) sweep() {
	left, _ := os.ReadDir(c.Root)
	for _, d := range left {
		c.call("delete", "--force", d.Name())
	}
	c.null.Close()
	c.errors.Close()
}

func (c *contestant) said() string {
	text, _ := os.ReadFile(c.errors.Name())
	return strings.TrimSpace(string(text[max(0, len(text)-500):]))
}

// A sample is what one thing took.
type sample struct{ wall, cpu time.Duration }

// sampleOf times f, and all processes that ended meanwhile.
func sampleOf(f func() error) (sample, error) {
	used, start := childrenTime(), time.Now()
	err := f()
	wall := time.Since(start)
	reap()
	return sample{wall, childrenTime() - used}, err
}

func of(samples []sample, what func(sample) time.Duration) []time.Duration {
	var d []time.Duration
	for _, s := range samples {
		d = append(d, what(s))
	}
	slices.Sort(d)
	return d
}

// best is the mean of the best tenth, of one at least.
func best(sorted []time.Duration) (mean time.Duration) {
	few := sorted[:max(1, len(sorted)/10)]
	for _, d := range few {
		mean += d / time.Duration(len(few))
	}
	return mean
}

func wall(s sample) time.Duration { return s.wall }
func cpu(s sample) time.Duration  { return s.cpu }

// A row is one thing that was measured: a number for each contestant, in the
// unit of the row's name.
type row struct {
	name   string
	values map[string]float64
}

type report struct{ rows []*row }

func (r *report) add(name, who string, value float64) {
	i := slices.IndexFunc(r.rows, func(x *row) bool { return x.name == name })
	if i < 0 {
		i = len(r.rows)
		r.rows = append(r.rows, &row{name, map[string]float64{}})
	}
	r.rows[i].values[who] = value
}

func (r *report) value(name, who string) (float64, bool) {
	for _, x := range r.rows {
		if x.name == name {
			v, ok := x.values[who]
			return v, ok
		}
	}
	return 0, false
}

// print prints the table and the verdicts, and returns the exit code.
func (r *report) print(all []*contestant) (code int) {
	fmt.Printf("\n%-37s", runtime.GOARCH)
	for _, c := range all {
		fmt.Printf("%15s", c.name)
	}
	for _, x := range r.rows {
		fmt.Printf("\n%-37s", x.name)
		for _, c := range all {
			v, ok := x.values[c.name]
			text := "-"
			if ok {
				text = strconv.FormatFloat(v, 'f', decimals(x.name), 64)
			}
			if of, there := x.values[ours]; ok && there && c.name != ours && v > 0 {
				text += fmt.Sprintf(" (%.2f)", of/v)
			}
			fmt.Printf("%15s", text)
		}
	}
	fmt.Printf("\n\nIn brackets: kiste-runtime as a part of it.\n\n")
	for _, p := range promises {
		code = max(code, p.verdict(r))
	}
	return code
}

func decimals(name string) int {
	if strings.HasSuffix(name, " ms") || strings.Contains(name, "times") || strings.HasSuffix(name, " MB") {
		return 2
	}
	return 0
}

// A promise is about one row: at most a factor times what of has, plus a term.
// Without of the term alone.
type promise struct {
	row    string
	of     string
	factor float64
	plus   float64
}

var promises = []promise{
	{"run, CPU ms", "crun", 0.6, 0},
	{"run, best ms", "crun", 0.6, 0},
	{"create, start, delete, CPU ms", "crun", 0.5, 0},
	{"create, start, delete, best ms", "crun", 0.5, 0},
	{"exec, CPU ms", "crun", 0.7, 0},
	{"exec, best ms", "crun", 0.7, 0},
	{"100 in sequence, CPU ms", "crun", 0.6, 0},
	{"100 in sequence, best ms", "crun", 0.6, 0},
	{"20 at once, CPU ms", "crun", 0.6, 0},
	{"20 at once, best ms", "crun", 0.6, 0},
	{"run, peak RSS MB", "crun", 1, 2},
	{"create, peak RSS MB", "crun", 1, 2},
	{"exec, peak RSS MB", "crun", 1, 2},
	{"run, system calls", "", 0, 1008},
	{"binary MB", "", 0, 6},
	{"least memory limit, kB", "", 0, 256},
	{"run beside many, times beside 1", "", 0, 1.2},
	{"more for many mounts, ms", "crun", 1, 0},
}

// verdict prints the promise and returns 1 where it is broken.
func (p promise) verdict(r *report) int {
	got, ok := r.value(p.row, ours)
	if !ok {
		return 0
	}
	most := p.plus
	text := fmt.Sprintf("%s: %.2f", p.row, got)
	if p.of != "" {
		theirs, ok := r.value(p.row, p.of)
		if !ok {
			fmt.Printf("%-60s %s is not there\n", text, p.of)
			return 0
		}
		most += p.factor * theirs
		text += fmt.Sprintf(" (%.2f of %s's)", got/theirs, p.of)
	}
	word, code := "kept", 0
	if got > most {
		word, code = "BROKEN", 1
	}
	fmt.Printf("%-60s at most %8.2f  %s\n", text, most, word)
	return code
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
