package lifecycle_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/lifecycle"
	"kiste/internal/need"
)

// spyVariable makes this program one that looks into each new process of its
// pid namespace, until the file that it names is gone.
const spyVariable = "KISTE_LIFECYCLE_SPY"

// spy writes down each program and each file that a new process had, as long as
// it was no program of the container's.
func spy(end string) {
	seen := map[string]bool{}
	say := func(format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !seen[s] {
			seen[s] = true
			fmt.Println(s)
		}
	}
	fmt.Println("ready")
	for next, looks := os.Getpid()+1, 0; ; looks++ {
		if looks%1000 == 0 {
			if _, err := os.Stat(end); err != nil {
				fmt.Println("end", next-os.Getpid())
				return
			}
		}
		// Whoever came and went unseen left a gap.
		for ahead := range 20 {
			if lookAt("/proc/"+strconv.Itoa(next+ahead), say) {
				next += ahead + 1
				break
			}
		}
	}
}

// lookAt reports whether there was a process, and looks at it as long as it is
// not the container's.
func lookAt(proc string, say func(string, ...any)) bool {
	there := false
	for range 1000 {
		program, err := os.Readlink(proc + "/exe")
		if os.IsNotExist(err) || errors.Is(err, syscall.ESRCH) { // it ended before the look, or in it
			return there
		}
		there = true
		switch {
		case strings.HasPrefix(program, "/bin/"):
			return true
		case os.IsPermission(err):
			say("hidden")
			continue
		}
		say("program %s %v", program, err)
		fds, _ := os.ReadDir(proc + "/fd")
		for _, fd := range fds {
			if fd.Name() <= "2" && len(fd.Name()) == 1 {
				continue // its own streams
			}
			if to, err := os.Readlink(proc + "/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "/dev/") {
				say("descriptor of %s", to)
			}
		}
		if maps, err := os.ReadFile(proc + "/maps"); err == nil && strings.Contains(string(maps), "lifecycle.test") {
			say("memory of the runtime")
		}
	}
	return there
}

// Whoever joins the namespaces of a container shows neither the runtime's program
// nor its memory nor a descriptor of the host to who is in there: not even to one
// with CAP_SYS_PTRACE and no user namespace, who may look into all that he sees
// (CVE-2016-9962, CVE-2019-5736). Where a filter keeps a process from forking late,
// or a container is to be made with its own procfs in a pid namespace that is
// there, they are seen earlier, and not looked into without that capability.
func TestNobodySeesTheRuntimeJoin(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ptrace bool
		filter []string // calls that are refused
		join   func(t *testing.T, f *fixture, c *lifecycle.Container, pid int)
	}{
		{"exec", true, nil, execIn},
		{"exec that forks early", false, []string{"setsid"}, execIn},
		{"run in its pid namespace", false, nil, runBeside},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, end := spied(t)
			if tt.ptrace {
				for _, set := range []*[]string{&f.spec.Process.Capabilities.Bounding, &f.spec.Process.Capabilities.Permitted, &f.spec.Process.Capabilities.Effective} {
					*set = append(*set, "CAP_SYS_PTRACE")
				}
			}
			if tt.filter != nil {
				f.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: tt.filter, Action: specs.ActErrno}}}
			}
			f.joinedBy(t, end, tt.join)
			seen := strings.Split(f.output(t), "\n")
			for _, line := range seen {
				kind, what, _ := strings.Cut(line, " ")
				if kind == "descriptor" || kind == "memory" || kind == "program" && !strings.HasPrefix(what, "/memfd:kiste") {
					t.Error(line)
				}
			}
			if !tt.ptrace && !slices.Contains(seen, "hidden") {
				t.Error("it was looked at too late")
			}
			t.Log(seen)
		})
	}
}

// spied is a container whose program is this one, as spy until the file end of its
// root is gone.
func spied(t *testing.T) (f *fixture, end string) {
	t.Helper()
	f = newFixture(t, "/bin/spy")
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.bundle, "rootfs/bin/spy"), text, 0o755); err != nil {
		t.Fatal(err)
	}
	end = filepath.Join(f.bundle, "rootfs/end")
	if err := os.WriteFile(end, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	f.spec.Process.Env = append(f.spec.Process.Env, spyVariable+"=/end")
	return f, end
}

// joinedBy starts the spy and lets join do its work many times.
func (f *fixture) joinedBy(t *testing.T, end string, join func(*testing.T, *fixture, *lifecycle.Container, int)) {
	t.Helper()
	o := f.options(t)
	need.Clean(t, f.bundle)
	c, p, err := f.root.Run(name("spied"), o)
	if err != nil {
		t.Fatal(err)
	}
	f.await(t, func(lines []string) bool { return slices.Contains(lines, "ready") })
	tries := 300
	if testing.Short() {
		tries = 50
	}
	for range tries {
		join(t, f, c, p.PID)
	}
	os.Remove(end)
	if _, err := p.Wait(); err != nil {
		t.Error(err)
	}
	p.Release()
	if err := c.Delete(false); err != nil {
		t.Error(err)
	}
}

func execIn(t *testing.T, f *fixture, c *lifecycle.Container, _ int) { f.sh(t, c, "", nil) }

// runBeside runs another container in the pid namespace of the process pid.
func runBeside(t *testing.T, f *fixture, _ *lifecycle.Container, pid int) {
	t.Helper()
	beside := *f.spec
	process, linux := *f.spec.Process, *f.spec.Linux
	process.Args, process.Env = []string{"true"}, []string{"PATH=/bin"}
	linux.Namespaces = slices.Clone(linux.Namespaces)
	for i := range linux.Namespaces {
		if linux.Namespaces[i].Type == specs.PIDNamespace {
			linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/pid", pid)
		}
	}
	beside.Process, beside.Linux = &process, &linux
	other := *f
	other.spec = &beside
	c, p, err := f.root.Run(name("beside"), other.options(t))
	if err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); err != nil || status.ExitStatus() != 0 {
		t.Errorf("%v, %v", status, err)
	}
	p.Release()
	if err := c.Delete(false); err != nil {
		t.Error(err)
	}
}
