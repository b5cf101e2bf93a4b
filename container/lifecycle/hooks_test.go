package lifecycle_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/lifecycle"
	"kiste/internal/need"
)

// hooks are one of each kind, which append to the file at log: their kind, the
// state, whether they see the container's files and those of the host.
func hooks(log string) *specs.Hooks {
	one := func(kind string) []specs.Hook {
		script := fmt.Sprintf(`read -r state; echo "%s $state" >>%s; exit $CODE`, kind, log)
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"CODE=0"}}}
	}
	//lint:ignore SA1019 Docker has its networks made by prestart
	return &specs.Hooks{Prestart: one("prestart"), CreateRuntime: one("createRuntime"), CreateContainer: one("createContainer"),
		StartContainer: one("startContainer"), Poststart: one("poststart"), Poststop: one("poststop")}
}

// lines are the hooks that ran and the states that they got.
func lines(t *testing.T, log string) (kinds []string) {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		kind, text, _ := strings.Cut(line, " ")
		var s specs.State
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if (s.Pid == 0) != (s.Status == specs.StateStopped) || s.ID == "" || s.Bundle == "" {
			t.Errorf("%s got %+v", kind, s)
		}
		kinds = append(kinds, kind+" "+string(s.Status))
	}
	return kinds
}

func TestHooks(t *testing.T) {
	all := []string{"prestart created", "createRuntime creating", "createContainer creating", "startContainer created", "poststart running", "poststop stopped"}
	for _, tt := range []struct {
		name string
		fail string // the kind that fails
		run  bool   // create and start in one
		want []string
		at   string // what fails then
	}{
		{"in their order", "", false, all, ""},
		{"in their order, of run", "", true, all, ""},
		{"prestart fails", "prestart", false, []string{all[0], all[5]}, "create"},
		{"createRuntime fails", "createRuntime", false, []string{all[0], all[1], all[5]}, "create"},
		{"createContainer fails", "createContainer", false, []string{all[0], all[1], all[2], all[5]}, "create"},
		{"startContainer fails", "startContainer", false, []string{all[0], all[1], all[2], all[3], all[5]}, "start"},
		{"startContainer fails, of run", "startContainer", true, []string{all[0], all[1], all[2], all[3], all[5]}, "create"},
		{"poststart fails", "poststart", false, all, "start"},
		{"poststart fails, of run", "poststart", true, all, "create"},
		{"poststop fails", "poststop", false, all, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, "sh", "-c", "exit 3")
			// The one in the container writes there by a bind.
			log := filepath.Join(f.bundle, "log")
			f.spec.Hooks = hooks(log)
			f.spec.Mounts = append(f.spec.Mounts, specs.Mount{Destination: f.bundle, Type: "bind", Source: f.bundle, Options: []string{"rbind"}})
			//lint:ignore SA1019 Docker has its networks made by prestart
			for _, k := range []*[]specs.Hook{&f.spec.Hooks.Prestart, &f.spec.Hooks.CreateRuntime, &f.spec.Hooks.CreateContainer, &f.spec.Hooks.StartContainer, &f.spec.Hooks.Poststart, &f.spec.Hooks.Poststop} {
				if h := &(*k)[0]; tt.fail != "" && strings.Contains(h.Args[2], `"`+tt.fail+" ") {
					h.Env[0] = "CODE=1"
				}
			}
			o := f.options(t)
			if err := os.WriteFile(log, nil, 0o666); err != nil {
				t.Fatal(err)
			}
			need.Clean(t)
			warned := ""
			f.root.Warn = func(s string) { warned = s }
			f.lifeWithHooks(t, o, tt.run, tt.at)
			if got := lines(t, log); strings.Join(got, ", ") != strings.Join(tt.want, ", ") {
				t.Errorf("hooks were\n%q, want\n%q", got, tt.want)
			}
			if late := tt.fail == "poststop"; late != (warned != "") {
				t.Errorf("warned of %q", warned)
			}
		})
	}
}

// lifeWithHooks creates, starts and removes a container of which the step at
// fails.
func (f *fixture) lifeWithHooks(t *testing.T, o lifecycle.CreateOptions, run bool, at string) {
	t.Helper()
	failed := func(step string, err error) bool {
		t.Helper()
		if (err != nil) != (step == at) {
			t.Errorf("%s: %v", step, err)
		}
		return err != nil
	}
	if run {
		c, p, err := f.root.Run(name("hooks"), o)
		if failed("create", err) {
			return
		}
		if status, err := p.Wait(); err != nil || status.ExitStatus() != 3 {
			t.Errorf("status %v, %v", status, err)
		}
		p.Release()
		failed("delete", c.Delete(false))
		return
	}
	c, err := f.root.Create(name("hooks"), o)
	if failed("create", err) {
		return
	}
	failed("start", c.Start())
	reap(t, c)
	want(t, c, specs.StateStopped)
	failed("delete", c.Delete(false))
}

// When poststart hooks are called the process has become the user's program,
// however late that one is given the processor: here it leaves all of it to
// others.
func TestPoststartSeesTheProgram(t *testing.T) {
	f := newFixture(t, "sleep", "100")
	f.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle}
	log := filepath.Join(f.bundle, "log")
	script := `read -r state; pid=${state#*'"pid":'}; readlink /proc/${pid%%[!0-9]*}/exe >>` + log
	f.spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}}}}
	o := f.options(t)
	need.Clean(t)
	busy(t)
	const times = 20
	for range times {
		c, err := f.root.Create(name("poststart"), o)
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		end(t, c)
		c, p, err := f.root.Run(name("poststart"), o)
		if err != nil {
			t.Fatal(err)
		}
		p.Release()
		end(t, c)
	}
	got, err := os.ReadFile(log)
	if want := strings.Repeat("/bin/busybox\n", 2*times); err != nil || string(got) != want {
		t.Errorf("the hooks saw %q, %v", got, err)
	}
}

// busy keeps every processor busy until the test ends.
func busy(t *testing.T) {
	t.Helper()
	for range 2 * runtime.NumCPU() {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
}
