package storm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// atBoot are what containers did when the host went down, and for each policy
// whether a boot starts it.
var atBoot = []struct {
	did                                 string
	none, always, unlessStopped, failed bool
	before                              []string // verbs that bring one that runs there
	after                               string   // its state after the boot
}{
	{"ran", false, true, true, true, nil, "exited 255"},
	{"paused", false, true, true, true, []string{"pause"}, "exited 255"},
	{"stopped", false, true, false, false, []string{"stop -t 0"}, "exited 137"},
	{"killed", false, true, false, false, []string{"kill"}, "exited 137"},
	{"created", false, true, true, false, nil, "created 0"},
}

// After a boot of the host every container is seen as what it is, nothing is
// started, and then by start --boot what its policy says; nothing but documents is
// left of before.
func TestReboot(t *testing.T) {
	f := newField(t)
	policies := []string{"no", "always", "unless-stopped", "on-failure"}
	for _, b := range atBoot {
		for _, policy := range policies {
			name := b.did + "-" + policy
			verb := []string{"run", "-d"}
			if b.did == "created" {
				verb = []string{"create"}
			}
			f.must(append(verb, "--name", name, "--restart", policy, "-v", "/data", "rootfs:"+f.root, "sh", "-c", "echo said; exec sleep 600")...)
			f.until(name+" has said something", func() bool { return b.did == "created" || f.must("logs", name) != "" })
			for _, verb := range b.before {
				f.must(append(strings.Fields(verb), name)...)
			}
		}
	}
	f.must("run", "-d", "--rm", "--name", "removed", "rootfs:"+f.root, "sleep", "600")
	f.must("run", "-dit", "--name", "terminal", "rootfs:"+f.root, "sh")
	f.reboot()
	check := func(when string, booted bool) {
		t.Helper()
		for _, b := range atBoot {
			for i, starts := range []bool{b.none, b.always, b.unlessStopped, b.failed} {
				name, want := b.did+"-"+policies[i], b.after
				if booted && starts {
					want = "running 0"
				}
				got := strings.TrimSpace(f.must("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name))
				if got != want {
					t.Errorf("%s: %s is %s, want %s", when, name, got, want)
				}
				if booted && b.did != "created" && !strings.HasPrefix(f.must("logs", name), "said\n") {
					t.Errorf("%s: the log of %s is lost", when, name)
				}
			}
		}
	}
	check("after the boot", false)
	if out := f.must("ps", "-q"); out != "" {
		t.Errorf("there runs %q", out)
	}
	f.must("start", "--boot")
	check("after start --boot", true)
	f.must("start", "terminal")
	f.must("gc")
	if f.status("removed") != gone {
		t.Error("--rm has not removed")
	}
	for _, id := range strings.Fields(f.must("ps", "-aq")) {
		f.must("rm", "-fv", id)
	}
	f.nothing("after a boot")
}

// reboot ends all processes of the store, at once, and takes away what a host
// loses when it goes down.
func (f *field) reboot() {
	pids := append(f.monitors(), f.holders()...)
	for _, id := range strings.Fields(f.must("ps", "-q")) {
		pid, _ := strconv.Atoi(strings.TrimSpace(f.must("inspect", "--format", "{{.State.Pid}}", id)))
		pids = append(pids, pid)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/freezer/kiste/*/freezer.state")
	for _, state := range groups { // what is frozen does not die
		id := filepath.Base(filepath.Dir(state))
		if _, err := os.Stat(filepath.Join(f.dir, "lib/containers", id)); err == nil {
			_ = os.WriteFile(state, []byte("THAWED"), 0)
		}
	}
	f.until("all have ended", func() bool {
		for _, pid := range pids {
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !bytes.Contains(stat, []byte(") Z ")) {
				return false
			}
		}
		return true
	})
	entries, _ := os.ReadDir(filepath.Join(f.dir, "run"))
	for _, d := range entries {
		if err := os.RemoveAll(filepath.Join(f.dir, "run", d.Name())); err != nil {
			f.t.Error(err)
		}
	}
}
