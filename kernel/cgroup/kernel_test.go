package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/internal/sys"
)

var serial atomic.Int32

// ground is this host's layout and a path for a new group. After the test all
// hierarchies are as before.
func ground(t testing.TB) (Layout, string) {
	t.Helper()
	l, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	parent, err := Delegated(l)
	if err != nil {
		need.Power(t, host.Root)
		t.Skipf("NEEDS cgroups of its own: %v", err)
	}
	before := map[string]bool{}
	for _, h := range l.All() {
		_, err := os.Stat(h.Dir(parent))
		before[h.Mount] = err == nil
	}
	group := fmt.Sprintf("%s/test.%d-%d", parent, serial.Add(1), os.Getpid())
	t.Cleanup(func() {
		if g, err := Open(l, group); err == nil {
			end(t, g)
		}
		for _, h := range l.All() {
			if !before[h.Mount] {
				sys.Rmdir(h.Dir(parent)) // stays if another test needs it
			}
		}
	})
	return l, group
}

// end kills what is in g and removes it.
func end(t testing.TB, g *Group) {
	t.Helper()
	// Not t.Context: it has ended when a test cleans up.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	g.Thaw(ctx)
	if err := errors.Join(g.Kill(ctx), g.Remove(ctx)); err != nil {
		t.Errorf("left a cgroup behind: %v", err)
	}
}

func within(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// create makes a group with lim, or skips where the host cannot.
func create(t testing.TB, lim Limits) *Group {
	t.Helper()
	l, p := ground(t)
	g, err := Create(l, p, lim, Options{Account: true})
	if errors.Is(err, fault.Unsupported) {
		t.Skipf("NEEDS %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// inGroup is a shell that enters g and runs script.
func inGroup(g *Group, script string) *exec.Cmd {
	enter := `for d in "$@"; do echo $$ > "$d/cgroup.procs" || exit 99; done; `
	return exec.Command("sh", append([]string{"-c", enter + script, "sh"}, g.Dirs()...)...)
}

// startFed runs script in g and gives its standard input.
func startFed(t testing.TB, g *Group, script string) io.WriteCloser {
	t.Helper()
	c := inGroup(g, script)
	feed, err := c.StdinPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return feed
}

// start runs script in g.
func start(t testing.TB, g *Group, script string) *exec.Cmd {
	t.Helper()
	c := inGroup(g, script)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c
}

// settle waits until ok, which has no event of its own, for at most a minute.
func settle(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func inside(g *Group) int {
	pids, _ := g.Procs()
	return len(pids)
}

// entered reports whether somebody is in g in all hierarchies.
func entered(g *Group) bool {
	for _, d := range g.Dirs() {
		if b, err := os.ReadFile(d + "/cgroup.procs"); err != nil || len(b) == 0 {
			return false
		}
	}
	return true
}

func TestDetectFindsThisHost(t *testing.T) {
	l, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := l.Base(); !ok {
		t.Skip("NEEDS a cgroup hierarchy")
	}
	for _, h := range l.All() {
		if _, err := os.Stat(h.Mount + "/cgroup.procs"); err != nil {
			t.Errorf("%s: %v", h.Mount, err)
		}
	}
	if own, err := Of(l, 0); err != nil || !strings.HasPrefix(own, "/") {
		t.Errorf("Of(self) = %q, %v", own, err)
	}
	if _, err := Of(l, 1<<30); !errors.Is(err, fault.NotFound) {
		t.Errorf("Of(nobody) = %v, want not found", err)
	}
}

func TestMemoryLimitKills(t *testing.T) {
	g := create(t, Limits{Memory: Memory{Limit: 16 << 20, Swap: 16 << 20}})
	c := start(t, g, "head -c 200M /dev/zero | tail -c 100M | wc -c; exit 0")
	c.Wait()
	u, err := g.Usage()
	if err != nil || u.Memory == nil {
		t.Fatalf("Usage = %+v, %v", u, err)
	}
	if u.Memory.OOMKill == 0 || u.Memory.Limit != 16<<20 || u.Memory.Peak > 17<<20 {
		t.Errorf("memory %+v; want a kill within 16 MiB", *u.Memory)
	}
}

func TestPidsLimitStopsForkBomb(t *testing.T) {
	g := create(t, Limits{Pids: 8})
	c := start(t, g, "i=0; while [ $i -lt 40 ]; do sleep 20 & i=$((i+1)); done; exit 0") // a bomb that ends
	if err := c.Wait(); err == nil {
		t.Error("40 processes fitted into 8")
	}
	u, err := g.Usage()
	if err != nil || u.Pids == nil || u.Pids.Current > 8 || u.Pids.Refused == 0 {
		t.Errorf("pids %+v, %v; want at most 8 and refusals", u.Pids, err)
	}
}

func TestCPUQuotaThrottles(t *testing.T) {
	g := create(t, Limits{CPU: CPU{CPUs: 0.2}})
	began := time.Now()
	start(t, g, "while :; do :; done")
	settle(t, "a throttled period", func() bool {
		u, err := g.Usage()
		return err == nil && u.CPU != nil && u.CPU.Throttled >= 3
	})
	u, _ := g.Usage()
	wall := time.Since(began)
	if u.CPU.Quota != 0.2 || u.CPU.ThrottledTime == 0 {
		t.Errorf("cpu %+v", *u.CPU)
	}
	if u.CPU.Total > wall/2+100*time.Millisecond {
		t.Errorf("used %v of %v with 0.2 CPUs", u.CPU.Total, wall)
	}
}

func TestFreezeAndThaw(t *testing.T) {
	g := create(t, Limits{})
	c := start(t, g, "while :; do :; done")
	settle(t, "the process is in", func() bool { return entered(g) })
	ctx, cancel := within(t, time.Minute)
	defer cancel()
	if err := g.Freeze(ctx); err != nil || !g.Frozen() {
		t.Fatalf("Freeze: %v, Frozen %v", err, g.Frozen())
	}
	first := ticks(t, c.Process.Pid)
	time.Sleep(50 * time.Millisecond)
	if now := ticks(t, c.Process.Pid); now != first {
		t.Errorf("a frozen process went from %q to %q", first, now)
	}
	if err := g.Thaw(ctx); err != nil || g.Frozen() {
		t.Fatalf("Thaw: %v, Frozen %v", err, g.Frozen())
	}
	settle(t, "it runs again", func() bool { return ticks(t, c.Process.Pid) != first })
}

// ticks is the CPU time of a process as /proc/PID/stat has it.
func ticks(t testing.TB, pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b))
	return f[13] + "+" + f[14]
}

func TestKillEndsAllAndRemoveWaits(t *testing.T) {
	for _, tt := range []struct {
		name   string
		frozen bool
		kill   func(*Group, context.Context) error
	}{
		{"a running group", false, (*Group).Kill},
		{"a frozen group", true, (*Group).Kill},
		{"by signals", false, (*Group).killAll},
		{"a frozen group by signals", true, (*Group).killAll},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := create(t, Limits{Pids: 50})
			c := start(t, g, "sleep 100 & sleep 100 & setsid sleep 100 & wait")
			settle(t, "four processes", func() bool { return inside(g) == 4 })
			go c.Wait()
			ctx, cancel := within(t, time.Minute)
			defer cancel()
			if tt.frozen {
				if err := g.Freeze(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if err := tt.kill(g, ctx); err != nil {
				t.Fatal(err)
			}
			if err := g.Remove(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(g.layout, g.Path); !errors.Is(err, fault.NotFound) {
				t.Errorf("after Remove: %v", err)
			}
		})
	}
}

func TestRemoveOfGroupInUseSaysWhoIsInIt(t *testing.T) {
	g := create(t, Limits{})
	start(t, g, "sleep 100")
	settle(t, "the process is in", func() bool { return entered(g) })
	ctx, cancel := within(t, 50*time.Millisecond)
	defer cancel()
	if err := g.Remove(ctx); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "process") {
		t.Errorf("Remove = %v, want a conflict that names the process", err)
	}
}

// Who has got into the unified hierarchy only, so far, must find the others
// still there.
func TestRemoveSparesGroupThatIsBeingEntered(t *testing.T) {
	g := create(t, Limits{Pids: 5})
	if g.Dir() == "" || len(g.Dirs()) < 2 {
		t.Skip("NEEDS a hybrid host")
	}
	c := exec.Command("sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	if err := attachTo(g.Dir(), c.Process.Pid, true).Do(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := within(t, 20*time.Millisecond)
	defer cancel()
	if err := g.Remove(ctx); !errors.Is(err, fault.Conflict) {
		t.Errorf("Remove = %v, want a conflict", err)
	}
	if now, err := Open(g.layout, g.Path); err != nil || len(now.Dirs()) != len(g.Dirs()) {
		t.Errorf("of %v are left %v, %v", g.Dirs(), now.Dirs(), err)
	}
}

func TestRemoveTakesGroupsBelow(t *testing.T) {
	g := create(t, Limits{})
	for _, d := range g.Dirs() {
		if err := os.MkdirAll(d+"/a/b", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := within(t, time.Minute)
	defer cancel()
	if err := g.Remove(ctx); err != nil {
		t.Error(err)
	}
}

// A limit in a hierarchy where the group was not yet moves the processes.
func TestUpdateReachesRunningProcesses(t *testing.T) {
	l, p := ground(t)
	g, err := Create(l, p, Limits{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, g, "exec sleep 100")
	settle(t, "the process is in", func() bool { return entered(g) })
	if err := g.Update(Limits{Pids: 5}); err != nil {
		t.Fatal(err)
	}
	u, err := g.Usage()
	if err != nil || u.Pids == nil || u.Pids.Current != 1 || u.Pids.Limit != 5 {
		t.Errorf("pids %+v, %v; want process %d counted, limit 5", u.Pids, err, c.Process.Pid)
	}
	if err := g.Update(Limits{Pids: -1}); err != nil {
		t.Fatal(err)
	}
	if u, _ := g.Usage(); u.Pids.Limit != -1 {
		t.Errorf("limit %d after it was taken away", u.Pids.Limit)
	}
}

func TestUpdateRaisesAndLowersMemoryWithSwap(t *testing.T) {
	g := create(t, Limits{Memory: Memory{Limit: 32 << 20, Swap: 32 << 20}})
	for _, size := range []int64{64 << 20, 16 << 20, 128 << 20} {
		if err := g.Update(Limits{Memory: Memory{Limit: size, Swap: size}}); err != nil {
			t.Errorf("to %d: %v", size, err)
		}
	}
	if err := g.Update(Limits{Memory: Memory{Limit: -1, Swap: -1}}); err != nil {
		t.Error(err)
	}
}

func TestUpdateRefusesLimitBelowUsage(t *testing.T) {
	g := create(t, Limits{Memory: Memory{Limit: 64 << 20}})
	start(t, g, "head -c 20M /dev/zero | tail -c 20M | sleep 100")
	settle(t, "memory is used", func() bool {
		u, err := g.Usage()
		return err == nil && u.Memory != nil && u.Memory.Current > 12<<20
	})
	for _, m := range []Memory{{Limit: 4 << 20, CheckUsage: true}, {Limit: 64 << 20, Swap: 64 << 20, CheckUsage: true}} {
		err := g.Update(Limits{Memory: m})
		if fits := m.Limit > 32<<20; fits != (err == nil) || !fits && !errors.Is(err, fault.Conflict) {
			t.Errorf("Update to %d: %v", m.Limit, err)
		}
	}
}

func TestCreateOfExistingGroupIsRefused(t *testing.T) {
	g := create(t, Limits{})
	_, err := Create(g.layout, g.Path, Limits{}, Options{})
	if !errors.Is(err, fault.Exists) {
		t.Errorf("Create = %v, want exists", err)
	}
	if _, err := Open(g.layout, g.Path); err != nil {
		t.Errorf("the refused Create took the group away: %v", err)
	}
	if _, err := Create(g.layout, g.Path, Limits{}, Options{Exist: true}); err != nil {
		t.Errorf("Create with Exist: %v", err)
	}
}

// A runtime takes a group that somebody made for the container, but not one
// with processes, nor one in which they would never run.
func TestCreateAdoptsAnIdleGroup(t *testing.T) {
	g := create(t, Limits{Pids: 5})
	again := func() error {
		_, err := Create(g.layout, g.Path, Limits{Pids: 7}, Options{Adopt: true})
		return err
	}
	if err := again(); err != nil {
		t.Fatal(err)
	}
	if u, err := g.Usage(); err != nil || u.Pids == nil || u.Pids.Limit != 7 {
		t.Errorf("%+v, %v; want the new limit", u.Pids, err)
	}
	ctx, cancel := within(t, time.Minute)
	defer cancel()
	if err := g.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if err := again(); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "frozen") {
		t.Errorf("a frozen group: %v", err)
	}
	if err := g.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
	start(t, g, "sleep 100")
	settle(t, "the process is in", func() bool { return entered(g) })
	if err := again(); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a group with a process: %v", err)
	}
	if now, err := Open(g.layout, g.Path); err != nil || len(now.Dirs()) != len(g.Dirs()) {
		t.Errorf("of %v the refused Create left %v, %v", g.Dirs(), now.Dirs(), err)
	}
}

// Below a threaded group a process gets in by way of a threaded one, and what
// limits whole processes is refused with the reason.
func TestThreadedGroups(t *testing.T) {
	need.Power(t, host.Root)
	l, p := ground(t)
	if l.Unified.Mount == "" {
		t.Skip("NEEDS a unified hierarchy")
	}
	only := Layout{Unified: l.Unified}
	for _, name := range []string{"", "/a", "/b"} {
		if err := os.MkdirAll(l.Unified.Dir(p+name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := sys.WriteKnob(l.Unified.Dir(p+"/a")+"/cgroup.type", "threaded"); err != nil {
		t.Fatal(err)
	}
	b := l.Unified.Dir(p + "/b")
	if got := kindOf(b); got != "domain invalid" {
		t.Fatalf("the group is %q", got)
	}
	if err := Refused(b, syscall.EOPNOTSUPP); !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "domain invalid") {
		t.Errorf("the reason: %v", err)
	}
	if l.Unified.Has("memory") {
		_, err := Create(only, p+"/b", Limits{Memory: Memory{Limit: 1 << 20}}, Options{Exist: true})
		if !errors.Is(err, fault.Unsupported) && !errors.Is(err, syscall.EOPNOTSUPP) {
			t.Errorf("a limit of memory: %v", err)
		}
	}
	c := exec.Command("sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	if err := attachTo(b, c.Process.Pid, true).Do(); err != nil {
		t.Fatal(err)
	}
	if at, err := Of(l, c.Process.Pid); err != nil || at != p+"/b" {
		t.Errorf("the process is in %q, %v", at, err)
	}
	if got := kindOf(b); got != "threaded" {
		t.Errorf("the group is %q", got)
	}
}

// A group that may exist and does not: its memory limit goes before its swap
// limit, as in every new one.
func TestCreateOfGroupThatMayExist(t *testing.T) {
	l, p := ground(t)
	if _, ok := l.Find("memory"); !ok {
		t.Skip("NEEDS the memory controller")
	}
	lim := Limits{Memory: Memory{Limit: 16 << 20, Swap: 32 << 20}}
	if _, err := Create(l, p, lim, Options{Exist: true}); err != nil {
		t.Error(err)
	}
}

// Whatever step fails, nothing may stay behind.
func TestUndoAtEveryStep(t *testing.T) {
	l, p := ground(t)
	var lim Limits
	if _, ok := l.Find("pids"); ok {
		lim.Pids = 5
	}
	if _, ok := l.Find("memory"); ok {
		lim.Memory.Limit = 64 << 20
	}
	steps, err := Compile(l, p, lim, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range steps {
		broken := slices.Clone(steps)
		broken[i] = Step{Op: Write, Path: "/sys/fs/cgroup/there-is-no-such-file/x", For: "test", Controller: "test"}
		if err := Do(broken); err == nil {
			t.Errorf("step %d: no error", i)
		}
		if g, err := Open(l, p); err == nil {
			t.Errorf("step %d (%s): %v stayed", i, steps[i], g.Dirs())
		}
	}
}

func TestRefusedValueNamesTheLimit(t *testing.T) {
	l, p := ground(t)
	if _, ok := l.Find("cpuset"); !ok {
		t.Skip("NEEDS the cpuset controller")
	}
	_, err := Create(l, p, Limits{CPU: CPU{Cpus: "7000"}}, Options{})
	if err == nil || !strings.Contains(err.Error(), "cpu.cpus") {
		t.Errorf("Create = %v, want an error that names cpu.cpus", err)
	}
	if _, err := Open(l, p); err == nil {
		t.Error("the group stayed")
	}
}

func TestMissingKnobIsUnsupported(t *testing.T) {
	g := create(t, Limits{})
	s := Step{Op: Write, Path: g.Dirs()[0] + "/memory.nonsense", Value: "1", For: "linux.resources.memory.nonsense", Controller: "memory"}
	if err := s.Do(); !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "memory.nonsense") {
		t.Errorf("Do = %v, want unsupported", err)
	}
	s.Optional = true
	if err := s.Do(); err != nil {
		t.Errorf("optional: %v", err)
	}
}

// A thread that writes "0" to tasks, then forks, gives birth inside.
func TestTasksAndCloneGiveBirthInside(t *testing.T) {
	need.Power(t, host.Root)
	l, p := ground(t)
	steps, err := Compile(l, p, Limits{Pids: 10}, Options{})
	if err == nil {
		err = Do(steps)
	}
	if err != nil {
		t.Skipf("NEEDS %v", err)
	}
	c := exec.Command("sleep", "100")
	if d := UnifiedDir(steps); d != "" {
		fd, err := sys.OpenDir(d)
		if err != nil {
			t.Fatal(err)
		}
		defer sys.Close(fd)
		c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	leave, err := Enter(l, steps)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Start()
	if err := errors.Join(err, leave()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	g, err := Open(l, p)
	if err != nil {
		t.Fatal(err)
	}
	pids, err := g.Procs()
	if err != nil || !slices.Contains(pids, c.Process.Pid) {
		t.Errorf("Procs = %v, %v; want %d", pids, err, c.Process.Pid)
	}
	if u, err := g.Usage(); err != nil || u.Pids == nil || u.Pids.Current == 0 {
		t.Errorf("Usage = %+v, %v; want the process counted", u.Pids, err)
	}
}

func TestDeviceRules(t *testing.T) {
	need.Power(t, host.Root)
	all := DeviceRule{Major: -1, Minor: -1}
	char := func(minor int64, access string, allow bool) DeviceRule {
		return DeviceRule{Allow: allow, Type: 'c', Major: 1, Minor: minor, Access: access}
	}
	const null, zero = "/dev/null", "/dev/zero"
	for _, tt := range []struct {
		name  string
		rules []DeviceRule
		yes   []string
		no    []string
	}{
		{"an empty list denies all", []DeviceRule{}, nil, []string{"r " + null, "w " + null}},
		{"one device is allowed", []DeviceRule{all, char(3, "rw", true)}, []string{"r " + null, "w " + null, "rw " + null}, []string{"r " + zero}},
		{"two rules of one device add up", []DeviceRule{char(3, "r", true), char(3, "w", true)}, []string{"rw " + null}, []string{"r " + zero}},
		{"reading only", []DeviceRule{all, char(3, "r", true)}, []string{"r " + null}, []string{"w " + null, "rw " + null}},
		{"all are allowed but one", []DeviceRule{{Allow: true, Major: -1, Minor: -1}, char(5, "rwm", false)}, []string{"rw " + null}, []string{"r " + zero}},
		{"blocks are not characters", []DeviceRule{{Allow: true, Type: 'b', Major: -1, Minor: -1}}, nil, []string{"r " + null}},
		{"a major number is enough", []DeviceRule{{Allow: true, Type: 'c', Major: 1, Minor: -1}}, []string{"rw " + null, "r " + zero}, []string{"r /dev/tty0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, how := range []string{"as compiled", "by program"} {
				t.Run(how, func(t *testing.T) {
					g := deviceGroup(t, how, tt.rules)
					for _, want := range tt.yes {
						if err := openIn(t, g, want); err != nil {
							t.Errorf("%s: %v, want it allowed", want, err)
						}
					}
					for _, want := range tt.no {
						if err := openIn(t, g, want); !errors.Is(err, syscall.EPERM) {
							t.Errorf("%s: %v, want it denied", want, err)
						}
					}
				})
			}
		})
	}
}

// deviceGroup makes a group with rules, by the host's own way or by a program
// in the unified hierarchy, which hybrid hosts know too.
func deviceGroup(t *testing.T, how string, rules []DeviceRule) *Group {
	t.Helper()
	if how == "as compiled" {
		return create(t, Limits{Devices: rules})
	}
	g := create(t, Limits{})
	if g.Dir() == "" {
		t.Skip("NEEDS a unified hierarchy")
	}
	// Twice: the second must replace the first.
	for _, r := range [][]DeviceRule{{}, rules} {
		if err := (Step{Op: Guard, Path: g.Dir(), Rules: r, V2: true}).Do(); errors.Is(err, fault.Unsupported) {
			t.Skipf("NEEDS %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// openIn opens "rw /dev/x" on a thread that is in g and ends there. On version
// 2 a thread cannot leave its process, so a shell does it.
func openIn(t *testing.T, g *Group, want string) error {
	t.Helper()
	mode, file, _ := strings.Cut(want, " ")
	redirect := map[string]string{"r": "<", "w": ">", "rw": "<>"}[mode]
	script := fmt.Sprintf(`for d in "$@"; do echo $$ > "$d/cgroup.procs" || exit 99; done; exec 3%s%s`, redirect, file)
	c := exec.Command("sh", append([]string{"-c", script, "sh"}, g.Dirs()...)...)
	c.Stdin, c.Env = strings.NewReader(""), []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	out, err := c.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case strings.Contains(string(out), "not permitted"):
		return syscall.EPERM
	}
	return fmt.Errorf("%v: %s", err, out)
}

func TestProgramIsReplacedNotAdded(t *testing.T) {
	need.Power(t, host.Root)
	g := deviceGroup(t, "by program", []DeviceRule{{Allow: true, Major: -1, Minor: -1}})
	fd, err := sys.OpenDir(g.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(fd)
	ids, err := sys.BPFQuery(fd, unix.BPF_CGROUP_DEVICE)
	if err != nil || len(ids) != 1 {
		t.Errorf("programs %v, %v; want one", ids, err)
	}
}

func TestSweepTakesAbandonedGroupsOnly(t *testing.T) {
	l, p := ground(t)
	if _, err := Create(l, p, Limits{}, Options{}); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	deadPID := c.Process.Pid
	for name, stays := range map[string]bool{
		fmt.Sprintf("run-%d", deadPID): false, fmt.Sprintf("run.1-%d", deadPID): false,
		fmt.Sprintf("run-%d", os.Getpid()): true, fmt.Sprintf("web-%d", deadPID): true,
	} {
		if _, err := Create(l, path.Join(p, name), Limits{}, Options{}); err != nil {
			t.Fatal(err)
		}
		Sweep(l, p, "run")
		if _, err := Open(l, path.Join(p, name)); (err == nil) != stays {
			t.Errorf("%s: %v, want it to stay: %v", name, err, stays)
		}
	}
}

func TestDelegatedSaysWhyNot(t *testing.T) {
	need.Power(t, host.Root)
	l, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if p, err := Delegated(l); err != nil || p != Parent {
		t.Errorf("root gets %q, %v", p, err)
	}
	if _, err := Delegated(Layout{}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("without cgroups: %v", err)
	}
}

func BenchmarkDetect(b *testing.B) {
	for b.Loop() {
		if _, err := Detect(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	l := unified()
	lim := Limits{Memory: Memory{Limit: 64 << 20}, Pids: 100, CPU: CPU{CPUs: 1}}
	for b.Loop() {
		if _, err := Compile(l, "/kiste/web", lim, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	l, p := ground(b)
	for b.Loop() {
		g, err := Create(l, p, Limits{Pids: 100}, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := g.rmdir(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWayIn compares the ways in after a pause: an attach waits for an
// RCU grace period, the others must not.
func BenchmarkWayIn(b *testing.B) {
	need.Power(b, host.Root)
	l, p := ground(b)
	steps, err := Compile(l, p, Limits{Pids: 100, Memory: Memory{Limit: 1 << 30}}, Options{})
	if err == nil {
		err = Do(steps)
	}
	if err != nil {
		b.Skipf("NEEDS %v", err)
	}
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Process.Kill(); c.Wait() })
	root := AttachSteps(steps, c.Process.Pid)
	b.Run("attach", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			time.Sleep(60 * time.Millisecond)
			b.StartTimer()
			if err := Do(root); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("enter", func(b *testing.B) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for b.Loop() {
			b.StopTimer()
			time.Sleep(60 * time.Millisecond)
			b.StartTimer()
			leave, err := Enter(l, steps)
			if err == nil {
				err = leave()
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A host with version 1 alone freezes, kills and waits through the freezer.
func TestVersion1Alone(t *testing.T) {
	need.Power(t, host.Root, host.CgroupV1)
	l, p := ground(t)
	l.Unified = Hierarchy{}
	if _, ok := l.Find("freezer"); !ok {
		t.Skip("NEEDS the freezer")
	}
	g, err := Create(l, p, Limits{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, h := range l.V1 {
			sys.Rmdir(h.Dir(Parent))
		}
	})
	defer end(t, g)
	c := start(t, g, "sleep 100 & while :; do :; done")
	settle(t, "two processes", func() bool { return inside(g) == 2 })
	ctx, cancel := within(t, time.Minute)
	defer cancel()
	if err := g.Freeze(ctx); err != nil || !g.Frozen() {
		t.Fatalf("Freeze: %v, Frozen %v", err, g.Frozen())
	}
	first := ticks(t, c.Process.Pid)
	time.Sleep(50 * time.Millisecond)
	if now := ticks(t, c.Process.Pid); now != first {
		t.Errorf("a frozen process went from %q to %q", first, now)
	}
	if own, err := Of(l, c.Process.Pid); err != nil || own != p {
		t.Errorf("Of = %q, %v; want %q", own, err, p)
	}
	go c.Wait()
	if err := errors.Join(g.Kill(ctx), g.Wait(ctx)); err != nil || inside(g) != 0 {
		t.Errorf("Kill and Wait: %v, %d inside", err, inside(g))
	}
}

// Of many groups that start at once, each finds the parent that another one
// may just have tidied away.
func TestCreateWhileOthersTidy(t *testing.T) {
	l, p := ground(t)
	done := make(chan error, 4)
	for i := range 4 {
		go func() {
			for range 30 {
				g, err := Create(l, fmt.Sprintf("%s/at-%d", p, i), Limits{}, Options{})
				if err != nil {
					done <- err
					return
				}
				if err := g.Remove(context.Background()); err != nil {
					done <- err
					return
				}
				Tidy(l, p)
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// The verifier gives up with EAGAIN when a signal is pending, and Go's own
// scheduler sends signals: that is not an error.
func TestProgramLoadsUnderSignals(t *testing.T) {
	need.Power(t, host.Root)
	stop := make(chan bool)
	ended := make(chan bool)
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				sys.Kill(os.Getpid(), int(syscall.SIGURG))
			}
		}
	}()
	rules := make([]DeviceRule, 200)
	for range 300 {
		fd, err := sys.BPFLoad(unix.BPF_PROG_TYPE_CGROUP_DEVICE, unix.BPF_CGROUP_DEVICE, Program(rules), "Apache-2.0", "devices")
		if errors.Is(err, syscall.EINVAL) {
			t.Skipf("NEEDS device programs: %v", err)
		}
		if err != nil {
			t.Errorf("load: %v", err)
			break
		}
		sys.Close(fd)
	}
	close(stop)
	<-ended
}

// Discard takes what nobody uses, and leaves the rest to others whole.
func TestDiscard(t *testing.T) {
	g := create(t, Limits{Pids: 5})
	for _, d := range g.Dirs() {
		if err := os.Mkdir(d+"/below", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if Discard(g.layout, g.Path) {
		t.Error("it took a group with another below it")
	}
	for _, d := range g.Dirs() {
		if err := os.Remove(d + "/below"); err != nil {
			t.Fatal(err)
		}
	}
	start(t, g, "sleep 100")
	settle(t, "the process is in", func() bool { return entered(g) })
	if Discard(g.layout, g.Path) {
		t.Error("it took a group with a process")
	}
	if now, err := Open(g.layout, g.Path); err != nil || len(now.Dirs()) != len(g.Dirs()) {
		t.Errorf("of %v are left %v, %v", g.Dirs(), now.Dirs(), err)
	}
	empty := create(t, Limits{Pids: 5})
	for range 2 { // the second time there is none
		if !Discard(empty.layout, empty.Path) {
			t.Error("an empty group is left")
		}
	}
	if _, err := Open(empty.layout, empty.Path); !errors.Is(err, fault.NotFound) {
		t.Errorf("Open: %v", err)
	}
}
