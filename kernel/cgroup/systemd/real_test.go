package systemd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/bus"
	"kiste/internal/need"
	"kiste/kernel/cgroup"
)

// real connects with the instance that is this user's to command, and gives a
// unit of the test's own, which is gone afterwards.
func real(t *testing.T) (*Manager, Unit, cgroup.Layout, string) {
	t.Helper()
	need.Power(t, host.Systemd)
	user := os.Geteuid() != 0
	m, err := Connect(user)
	if err != nil {
		t.Fatal(err)
	}
	u, err := ParseUnit("", fmt.Sprintf("test-%d", os.Getpid()), user)
	if err != nil {
		t.Fatal(err)
	}
	root, err := m.Root()
	if err != nil {
		t.Fatal(err)
	}
	if !user {
		root = "/"
	}
	group, err := u.Group(root)
	if err != nil {
		t.Fatal(err)
	}
	l, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(u.Name); err != nil {
			t.Error(err)
		}
		m.Close()
		if g, err := cgroup.Open(l, group); err == nil {
			t.Errorf("%v stayed", g.Dirs())
		}
		if got := shown(t, u, "LoadState"); got != "not-found" {
			t.Errorf("the unit stayed: %s", got)
		}
	})
	return m, u, l, group
}

// shown is a property as systemctl shows it.
func shown(t *testing.T, u Unit, property string) string {
	t.Helper()
	args := []string{"show", "--property=" + property, "--value", u.Name}
	if u.User {
		args = append([]string{"--user"}, args...)
	}
	out, err := exec.Command("systemctl", args...).Output()
	if err != nil {
		t.Errorf("systemctl %v: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c
}

func knob(t *testing.T, l cgroup.Layout, group, file string) string {
	t.Helper()
	b, err := os.ReadFile(l.Unified.Dir(group) + "/" + file)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(b))
}

// A scope is made with a process in it, its limits are known to systemd and in
// force, they are changed, survive a reload, and all is taken away.
func TestAScopeForReal(t *testing.T) {
	m, u, l, group := real(t)
	if l.Kind() != "v2" {
		t.Skip("NEEDS cgroup version 2 alone")
	}
	c := sleeper(t)
	lim := cgroup.Limits{Memory: cgroup.Memory{Limit: 64 << 20}, CPU: cgroup.CPU{Quota: 12345, Period: 50000, Shares: 512}, Pids: 20}
	if os.Geteuid() == 0 {
		lim.CPU.Cpus = "0"
		lim.Devices = append([]cgroup.DeviceRule{{Major: -1, Minor: -1}}, cgroup.DefaultDevices()...)
	}
	steps, err := cgroup.Compile(l, group, lim, cgroup.Options{Unit: true, Rootless: u.User})
	if err != nil {
		t.Fatal(err)
	}
	known, steps, err := Properties(steps, true, m.Version)
	if err != nil {
		t.Fatal(err)
	}
	more, err := Annotations(map[string]string{"org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.CollectMode": "'inactive-or-failed'"})
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(Scope(u, "test", true), more, known)
	if err := m.Start(u.Name, all, c.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := cgroup.Do(steps); err != nil {
		t.Fatal(err)
	}
	if at, err := cgroup.Of(l, c.Process.Pid); err != nil || at != group {
		t.Errorf("the process is in %q, %v; want %q", at, err, group)
	}
	for _, want := range []struct{ property, value string }{
		{"MemoryMax", "67108864"}, {"TasksMax", "20"}, {"CPUQuotaPerSecUSec", "250ms"}, {"TimeoutStopUSec", "7s"}, {"CollectMode", "inactive-or-failed"}, {"Delegate", "yes"}, {"Slice", u.Slice},
	} {
		if got := shown(t, u, want.property); got != want.value {
			t.Errorf("%s is %q, want %q", want.property, got, want.value)
		}
	}
	knobs := func(when string, want map[string]string) {
		t.Helper()
		for file, value := range want {
			if got := knob(t, l, group, file); got != value {
				t.Errorf("%s: %s is %q, want %q", when, file, got, value)
			}
		}
	}
	knobs("at first", map[string]string{"memory.max": "67108864", "memory.swap.max": "max", "cpu.max": "12500 50000", "cpu.weight": "59", "pids.max": "20"})

	g, err := cgroup.Open(l, group)
	if err != nil {
		t.Fatal(err)
	}
	err = g.UpdateBy(cgroup.Limits{Memory: cgroup.Memory{Limit: 128 << 20, Swap: 192 << 20}, CPU: cgroup.CPU{Quota: -1}, Pids: -1}, func(steps []cgroup.Step) ([]cgroup.Step, error) {
		known, steps, err := Properties(steps, false, m.Version)
		if err != nil {
			return nil, err
		}
		return steps, m.Set(u.Name, known)
	})
	if err != nil {
		t.Fatal(err)
	}
	reload := []string{"daemon-reload"}
	if u.User {
		reload = []string{"--user", "daemon-reload"}
	}
	if out, err := exec.Command("systemctl", reload...).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	knobs("changed", map[string]string{"memory.max": "134217728", "memory.swap.max": "67108864", "cpu.weight": "59", "pids.max": "max"})

	if got := knob(t, l, group, "cpu.max"); !strings.HasPrefix(got, "max ") { // systemd takes its own period then
		t.Errorf("cpu.max is %q", got)
	}

	if err := m.Start(u.Name, Scope(u, "test", true), sleeper(t).Process.Pid); !errors.Is(err, fault.Exists) {
		t.Errorf("a second start: %v", err)
	}
	other := sleeper(t)
	if err := m.Attach(u.Name, "/", other.Process.Pid); err != nil {
		t.Error(err)
	}
	if at, err := cgroup.Of(l, other.Process.Pid); err != nil || at != group {
		t.Errorf("the attached process is in %q, %v", at, err)
	}
	if err := m.Stop(u.Name); err != nil {
		t.Error(err)
	}
	if err := m.Stop(u.Name); err != nil {
		t.Errorf("a second stop: %v", err)
	}
}

func TestSystemdRefuses(t *testing.T) {
	m, u, _, _ := real(t)
	c := sleeper(t)
	for _, p := range []Property{{"NoSuchProperty", bus.Bool(true)}, {"MemoryMax", bus.String("lots")}, {"TasksMax", bus.Uint64(0)}} {
		err := m.Start(u.Name, append(Scope(u, "test", true), p), c.Process.Pid)
		if err == nil || !strings.Contains(err.Error(), u.Name) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if err := m.Set(u.Name, []Property{{"MemoryMax", bus.Uint64(1 << 30)}}); err == nil {
		t.Error("a unit that is not there was changed")
	}
	if v, err := m.Version(); err != nil || v < 200 {
		t.Errorf("version %d, %v", v, err)
	}
}

// By the message bus it is as by systemd's own socket.
func TestByTheMessageBus(t *testing.T) {
	m, u, l, group := real(t)
	for _, d := range doors(u.User, os.Getenv) {
		if !d.bus {
			continue
		}
		conn, err := bus.DialBus(d.path)
		if err != nil {
			t.Skipf("NEEDS a message bus: %v", err)
		}
		byBus := &Manager{conn: conn, bus: true}
		defer byBus.Close()
		if err := byBus.listen(); err != nil {
			t.Fatal(err)
		}
		c := sleeper(t)
		if err := byBus.Start(u.Name, Scope(u, "test", l.Kind() == "v2"), c.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if at, err := cgroup.Of(l, c.Process.Pid); err != nil || at != group {
			t.Errorf("the process is in %q, %v", at, err)
		}
		if err := byBus.Stop(u.Name); err != nil {
			t.Error(err)
		}
	}
	_ = m
}

func BenchmarkScope(b *testing.B) {
	need.Power(b, host.Systemd, host.Root)
	m, err := Connect(false)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	u, err := ParseUnit("", "bench", false)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c := exec.Command("sleep", "1000")
		if err := c.Start(); err != nil {
			b.Fatal(err)
		}
		if err := m.Start(u.Name, Scope(u, "bench", true), c.Process.Pid); err != nil {
			b.Fatal(err)
		}
		c.Process.Kill()
		c.Wait()
		if err := m.Stop(u.Name); err != nil {
			b.Fatal(err)
		}
	}
}
