package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"kiste/test/bench/verdict"
)

// A scenario is done by everybody in turn, for some rounds.
type scenario struct {
	name   string
	part   int           // of the rounds: 1 is all of them
	rest   time.Duration // before each
	before func(c *contestant) error
	do     func(c *contestant) error
	after  func(c *contestant) error
}

func nothing(*contestant) error { return nil }

// id is a name that no other contestant uses: it is that of a cgroup, too.
func (c *contestant) id(name string) string {
	return name + "-" + filepath.Base(filepath.Dir(c.bundle.Dir))
}

// settling is how long the kernel's own threads end the networks and cgroups of 20
// containers, some time after these have ended (RCU). Without a rest it is the next
// crowd, another contestant's, that has a tenth and more of its time from that; see also besideMany.
const settling = 50 * time.Millisecond

var scenarios = []scenario{
	{"run", 1, 0, nothing, run, nothing},
	{"create, start, delete", 1, 0, nothing, createStartDelete, nothing},
	{"exec", 1, 0, sleeper, func(c *contestant) error { return c.call("exec", c.id("sleeper"), "/bin/true") }, wake},
	{"100 in sequence", 4, 0, nothing, func(c *contestant) error {
		var err error
		for range 100 {
			err = errors.Join(err, run(c))
		}
		return err
	}, nothing},
	{"20 at once", 1, settling, nothing, func(c *contestant) error { return c.atOnce(20) }, nothing},
}

func run(c *contestant) error { return c.call("run", "-b", c.bundle.Dir, c.id("bench")) }

func createStartDelete(c *contestant) error {
	file := filepath.Join(c.bundle.Dir, "pid")
	if err := c.call("create", "-b", c.bundle.Dir, "--pid-file", file, c.id("bench")); err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	err = c.call("start", c.id("bench"))
	if err == nil {
		err = await(pid)
	}
	return errors.Join(err, c.call("delete", c.id("bench")))
}

// sleeper starts a container that stays.
func sleeper(c *contestant) error { return c.stay("sleeper") }

func wake(c *contestant) error { return c.call("delete", "--force", c.id("sleeper")) }

// stay starts the container name, which sleeps.
func (c *contestant) stay(name string) error {
	args := c.bundle.Spec.Process.Args
	c.bundle.Spec.Process.Args = []string{"/bin/sleep", "10000"}
	err := c.bundle.Save()
	if err == nil {
		err = c.call("run", "-d", "-b", c.bundle.Dir, c.id(name))
	}
	c.bundle.Spec.Process.Args = args
	return errors.Join(err, c.bundle.Save())
}

func (c *contestant) atOnce(n int) error {
	var (
		pids   []int
		failed error
	)
	for i := range n {
		pid, err := c.start("run", "-b", c.bundle.Dir, c.id(strconv.Itoa(i)))
		if failed = errors.Join(failed, err); err == nil {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		failed = errors.Join(failed, await(pid))
	}
	return c.told(failed, "run")
}

func (s scenario) measure(r *report, all []*contestant) error {
	samples := map[string][]sample{}
	for _, c := range all {
		if err := s.before(c); err != nil {
			return err
		}
	}
	var failed error
	for round := range 1 + max(1, *rounds/s.part) {
		for _, c := range inTurn(all, round) {
			time.Sleep(s.rest)
			got, err := sampleOf(func() error { return s.do(c) })
			if err != nil {
				failed = fmt.Errorf("%s: %w", s.name, err)
			}
			if round > 0 { // the first one warms up
				samples[c.name] = append(samples[c.name], got)
			}
		}
	}
	for _, c := range all {
		failed = errors.Join(failed, s.after(c))
		walls, used := of(samples[c.name], wall), of(samples[c.name], cpu)
		r.add(s.name+", best ms", c.name, milliseconds(best(walls)))
		r.add(s.name+", median ms", c.name, milliseconds(walls[len(walls)/2]))
		r.add(s.name+", CPU ms", c.name, milliseconds(used[len(used)/2]))
	}
	return failed
}

// seldom: whom no promise is about has one round of so many, and the first that counts.
const seldom = 10

// inTurn are those that are measured in a round, in another order each time: what
// the kernel has still to do after one of them the next one feels.
func inTurn(all []*contestant, round int) []*contestant {
	turn := slices.DeleteFunc(slices.Clone(all), func(c *contestant) bool { return round > 1 && round%seldom != 0 && !promised(c.name) })
	if round%2 == 1 {
		slices.Reverse(turn)
	}
	return turn
}

// promised reports whether a promise is about a contestant.
func promised(name string) bool {
	return name == ours || slices.ContainsFunc(promises, func(p promise) bool { return p.of == name })
}

// A quantity is measured once for everybody.
type quantity struct {
	name    string
	measure func(r *report, all []*contestant) error
}

var quantities = []quantity{
	{"peak RSS", each(peakRSS)},
	{"system calls", each(systemCalls)},
	{"binary", each(binary)},
	{"least memory limit", each(leastMemory)},
	{"containers alive", each(besideMany)},
	{"host mounts", each(manyMounts)},
}

func each(f func(r *report, c *contestant) error) func(*report, []*contestant) error {
	return func(r *report, all []*contestant) error {
		for _, c := range all {
			if err := f(r, c); err != nil {
				return err
			}
		}
		return nil
	}
}

// peakRSS asks GNU time, which is small: what a process peaks at counts from
// before its execve, when it still had the memory of this program.
func peakRSS(r *report, c *contestant) error {
	if err := sleeper(c); err != nil {
		return err
	}
	defer wake(c)
	file := filepath.Join(c.bundle.Dir, "rss")
	for _, what := range []struct {
		name string
		args []string
	}{
		{"run", []string{"run", "-b", c.bundle.Dir, c.id("bench")}},
		{"create", []string{"create", "-b", c.bundle.Dir, c.id("bench")}},
		{"exec", []string{"exec", c.id("sleeper"), "/bin/true"}},
	} {
		if err := c.under([]string{"time", "-f", "%M", "-o", file}, what.args...); err != nil {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		kilobytes, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
		if err != nil {
			return err
		}
		r.add(what.name+", peak RSS MB", c.name, kilobytes/1024)
	}
	return c.call("delete", "--force", c.id("bench"))
}

// under calls the runtime by another program.
func (c *contestant) under(program []string, args ...string) error {
	inner := c.Command(args...)
	cmd := exec.Command(program[0], append(program[1:len(program):len(program)], append([]string{inner.Path}, inner.Args[1:]...)...)...)
	cmd.Stderr = c.errors
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, c.said())
	}
	return nil
}

func systemCalls(r *report, c *contestant) error {
	file := filepath.Join(c.bundle.Dir, "strace")
	if err := c.under([]string{"strace", "-f", "-c", "-o", file}, "run", "-b", c.bundle.Dir, c.id("bench")); err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		// "100.00    0.006402           6      1008        33 total"
		if f := strings.Fields(line); len(f) > 4 && f[len(f)-1] == "total" {
			n, err := strconv.ParseFloat(f[3], 64)
			r.add("run, system calls", c.name, n)
			return err
		}
	}
	return fmt.Errorf("strace counted nothing: %s", text)
}

func binary(r *report, c *contestant) error {
	info, err := os.Stat(c.Path)
	if err == nil {
		r.add("binary MB", c.name, float64(info.Size())/(1<<20))
	}
	return err
}

// leastMemory is the smallest limit with which five starts of five succeed.
func leastMemory(r *report, c *contestant) error {
	resources := c.bundle.Spec.Linux.Resources
	defer func() {
		c.bundle.Spec.Linux.Resources = resources
		c.bundle.Save()
	}()
	for _, kilobytes := range []int64{128, 256, 384, 512, 1024, 2048, 3072, 4096, 6144, 8192, 16384, 32768} {
		limit := kilobytes << 10
		limited := *resources
		limited.Memory = &specs.LinuxMemory{Limit: &limit}
		c.bundle.Spec.Linux.Resources = &limited
		if err := c.bundle.Save(); err != nil {
			return err
		}
		good := 0
		for range 5 {
			if run(c) != nil {
				c.call("delete", "--force", c.id("bench"))
				break
			}
			good++
		}
		if good == 5 {
			r.add("least memory limit, kB", c.name, float64(kilobytes))
			return nil
		}
	}
	return nil
}

// besideMany compares runs beside one living container and beside many, in turn: each
// number beside many with those beside one before and after it, since a machine may be slower for
// a minute by more than what is looked for. It is the median of these that counts. There is a rest before
// each run: the kernel holds a lock of all cgroups while it ends those of the one before, for the longer the more
// containers there are. What that costs who starts one after the other is shown, too.
func besideMany(r *report, c *contestant) error {
	started := 0
	defer func() { c.end(&started, 0) }()
	numbers, times := []int{1, *alive / 5, *alive}, 1
	ways := []*beside{{name: "run", rest: settling, do: run}, {name: "in a row", do: run}}
	if c.name == ours {
		times = pairs
		ways = append(ways, &beside{name: floorWord, rest: settling, do: runFloor})
	}
	for i := range times*len(numbers) + 1 {
		n := numbers[i%len(numbers)]
		c.end(&started, n)
		for ; started < n; started++ {
			if err := c.stay("alive" + strconv.Itoa(started)); err != nil {
				return err
			}
		}
		for _, w := range ways {
			d, err := leastRun(c, w.rest, w.do)
			if err != nil {
				return err
			}
			w.took[i%len(numbers)] = append(w.took[i%len(numbers)], d)
		}
	}
	for i, n := range numbers {
		r.add(fmt.Sprintf("run beside %d, CPU ms", n), c.name, milliseconds(slices.Min(ways[0].took[i])))
	}
	for _, w := range ways {
		growth, more := grown(w.took[0], w.took[len(numbers)-1])
		if w.name != floorWord {
			r.add(w.name+" beside many, times beside 1", c.name, growth)
		}
		r.add(w.name+", more beside many, ms", c.name, more)
	}
	return nil
}

// A beside is a way to start containers beside others, and what it took each time beside one, some, and many.
type beside struct {
	name string
	rest time.Duration
	do   func(*contestant) error
	took [3][]time.Duration
}

// pairs is how often ours is measured so; of the others nothing is promised here.
const pairs = 9

// grown says how many times, and how many milliseconds more, it took each time than both times
// around it: the medians.
func grown(around, took []time.Duration) (times, more float64) {
	var factors, differences []float64
	for i, d := range took {
		before := (around[i] + around[i+1]) / 2
		factors = append(factors, float64(d)/float64(before))
		differences = append(differences, milliseconds(d-before))
	}
	return verdict.Median(factors), verdict.Median(differences)
}

// end deletes the living containers from left on.
func (c *contestant) end(started *int, left int) {
	for ; *started > left; *started-- {
		c.call("delete", "--force", c.id("alive"+strconv.Itoa(*started-1)))
	}
}

// leastRun is the CPU time of the best tenth of runs by start; of half as many with a rest before each.
func leastRun(c *contestant, rest time.Duration, start func(*contestant) error) (time.Duration, error) {
	var samples []sample
	n := *rounds
	if !promised(c.name) {
		n = max(1, n/seldom)
	}
	if rest > 0 {
		n = max(1, n/2)
	}
	for range n {
		time.Sleep(rest)
		s, err := sampleOf(func() error { return start(c) })
		if err != nil {
			return 0, err
		}
		samples = append(samples, s)
	}
	return of(samples, cpu)[n/10], nil
}

// manyMounts compares runs where the host has few more mounts and many more.
func manyMounts(r *report, c *contestant) error {
	took, floors := map[int]time.Duration{}, map[int]time.Duration{}
	for _, n := range []int{10, *mounts} {
		err := amongMounts(filepath.Join(c.bundle.Dir, "mounts"), n, func() (err error) {
			if c.name == ours {
				floors[n], err = leastRun(c, 0, runFloor)
			}
			if err == nil {
				took[n], err = leastRun(c, 0, run)
			}
			return err
		})
		if err != nil {
			return err
		}
		r.add(fmt.Sprintf("run among %d mounts, CPU ms", n), c.name, milliseconds(took[n]))
	}
	r.add("more for many mounts, ms", c.name, milliseconds(took[*mounts]-took[10]))
	if c.name == ours {
		r.add(floorWord+", more for many mounts, ms", c.name, milliseconds(floors[*mounts]-floors[10]))
	}
	return nil
}
