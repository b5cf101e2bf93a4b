package lifecycle_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/lifecycle"
	"kiste/fault"
	"kiste/internal/need"
)

// gone is the state of a container that is not there.
const gone specs.ContainerState = "gone"

// waiting is a paused container that has not been started.
const waiting specs.ContainerState = "paused before its start"

// into are the ways from a created container to each state.
var into = map[specs.ContainerState]func(*testing.T, *lifecycle.Container) error{
	specs.StateCreated: func(*testing.T, *lifecycle.Container) error { return nil },
	specs.StateRunning: func(t *testing.T, c *lifecycle.Container) error { return c.Start() },
	waiting:            func(t *testing.T, c *lifecycle.Container) error { return c.Pause() },
	lifecycle.Paused:   func(t *testing.T, c *lifecycle.Container) error { return errors.Join(c.Start(), c.Pause()) },
	specs.StateStopped: func(t *testing.T, c *lifecycle.Container) error {
		err := c.Kill(syscall.SIGKILL, false)
		reap(t, c)
		return err
	},
}

// Every arrow of the diagram, and every one that is not there.
func TestStates(t *testing.T) {
	f := newFixture(t, "sleep", "100")
	o := f.options(t)
	ops := []struct {
		name string
		do   func(*testing.T, *lifecycle.Container) error
		to   map[specs.ContainerState]specs.ContainerState // from where it leads where; from all others it is a conflict
	}{
		{"start", func(_ *testing.T, c *lifecycle.Container) error { return c.Start() }, map[specs.ContainerState]specs.ContainerState{
			specs.StateCreated: specs.StateRunning}},
		{"pause", func(_ *testing.T, c *lifecycle.Container) error { return c.Pause() }, map[specs.ContainerState]specs.ContainerState{
			specs.StateCreated: waiting, specs.StateRunning: lifecycle.Paused}},
		{"resume", func(_ *testing.T, c *lifecycle.Container) error { return c.Resume() }, map[specs.ContainerState]specs.ContainerState{
			waiting: specs.StateCreated, lifecycle.Paused: specs.StateRunning}},
		{"kill", func(t *testing.T, c *lifecycle.Container) error { return c.Kill(syscall.SIGKILL, false) }, map[specs.ContainerState]specs.ContainerState{
			specs.StateCreated: specs.StateStopped, specs.StateRunning: specs.StateStopped, waiting: specs.StateStopped, lifecycle.Paused: specs.StateStopped}},
		{"kill all", func(t *testing.T, c *lifecycle.Container) error { return c.Kill(syscall.SIGKILL, true) }, map[specs.ContainerState]specs.ContainerState{
			specs.StateCreated: specs.StateStopped, specs.StateRunning: specs.StateStopped, waiting: specs.StateStopped, lifecycle.Paused: specs.StateStopped, specs.StateStopped: specs.StateStopped}},
		{"signal that changes nothing", func(_ *testing.T, c *lifecycle.Container) error { return c.Kill(syscall.SIGWINCH, false) }, map[specs.ContainerState]specs.ContainerState{
			specs.StateCreated: specs.StateCreated, specs.StateRunning: specs.StateRunning, waiting: waiting, lifecycle.Paused: lifecycle.Paused}},
		{"exec", execTrue, map[specs.ContainerState]specs.ContainerState{specs.StateCreated: specs.StateCreated, specs.StateRunning: specs.StateRunning}},
		{"update", func(_ *testing.T, c *lifecycle.Container) error {
			return c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(50))}})
		}, map[specs.ContainerState]specs.ContainerState{
			specs.StateCreated: specs.StateCreated, specs.StateRunning: specs.StateRunning, waiting: waiting, lifecycle.Paused: lifecycle.Paused}},
		{"delete", func(t *testing.T, c *lifecycle.Container) error { return c.Delete(false) }, map[specs.ContainerState]specs.ContainerState{
			specs.StateCreated: gone, specs.StateStopped: gone}},
		{"delete by force", func(t *testing.T, c *lifecycle.Container) error { return c.Delete(true) }, map[specs.ContainerState]specs.ContainerState{
			specs.StateCreated: gone, specs.StateRunning: gone, waiting: gone, lifecycle.Paused: gone, specs.StateStopped: gone}},
		{"create again", func(_ *testing.T, c *lifecycle.Container) error {
			_, err := f.root.Create(c.ID(), o)
			if errors.Is(err, fault.Exists) {
				return &fault.Error{Kind: fault.Conflict}
			}
			return err
		}, nil},
	}
	need.Clean(t)
	for from, way := range into {
		for _, op := range ops {
			t.Run(op.name+" when "+string(from), func(t *testing.T) {
				c, err := f.root.Create(name("states"), o)
				if err != nil {
					t.Fatal(err)
				}
				if err := way(t, c); err != nil {
					t.Fatal(err)
				}
				is(t, c, from)
				err = op.do(t, c)
				to, arrow := op.to[from]
				switch {
				case arrow && err != nil:
					t.Error(err)
				case !arrow && !errors.Is(err, fault.Conflict):
					t.Errorf("%v, want a conflict", err)
				case !arrow:
					to = from
				}
				is(t, c, to)
				if err := f.root.Delete(name("states"), true); err != nil {
					t.Error(err)
				}
				syscall.Wait4(c.PID(), nil, syscall.WNOHANG, nil)
			})
		}
	}
}

// is waits for the state: a process that was killed takes its time.
func is(t *testing.T, c *lifecycle.Container, want specs.ContainerState) {
	t.Helper()
	if want == waiting {
		want = lifecycle.Paused
	}
	var got specs.ContainerState
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if got = c.Status(); got == want {
			return
		}
		if _, err := (lifecycle.Root{Dir: c.Dir() + "/.."}).Load(c.ID()); errors.Is(err, fault.NotFound) {
			got = gone
			break
		}
	}
	if got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
}

func execTrue(t *testing.T, c *lifecycle.Container) error {
	p, err := c.Process()
	if err != nil {
		t.Fatal(err)
	}
	p.Args = []string{"true"}
	proc, err := c.Exec(lifecycle.ExecOptions{Process: p})
	if err != nil {
		return err
	}
	proc.Wait()
	proc.Remove()
	return nil
}

func TestNoContainer(t *testing.T) {
	r := lifecycle.Root{Dir: t.TempDir()}
	if _, err := r.Load("nonesuch"); !errors.Is(err, fault.NotFound) {
		t.Errorf("Load: %v", err)
	}
	if err := r.Delete("nonesuch", false); !errors.Is(err, fault.NotFound) {
		t.Errorf("Delete: %v", err)
	}
	if err := r.Delete("nonesuch", true); err != nil {
		t.Errorf("Delete by force: %v", err)
	}
}

// Whose process's number was given to another one is stopped, and that one is
// left alone.
func TestAnothersProcess(t *testing.T) {
	f := newFixture(t, "sleep", "100")
	need.Clean(t)
	c := f.running(t, name("other"))
	link := filepath.Join(c.Dir(), "process")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(strconv.Itoa(c.PID())+" 1", link); err != nil {
		t.Fatal(err)
	}
	forged, err := f.root.Load(c.ID())
	if err != nil {
		t.Fatal(err)
	}
	if got := forged.Status(); got != specs.StateStopped {
		t.Errorf("it is %s, want stopped", got)
	}
	if err := forged.Kill(syscall.SIGKILL, false); !errors.Is(err, fault.Conflict) {
		t.Errorf("Kill: %v", err)
	}
	if got := c.Status(); got != specs.StateRunning {
		t.Errorf("the other one is %s, want running", got)
	}
}
