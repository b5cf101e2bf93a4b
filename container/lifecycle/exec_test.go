package lifecycle_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/lifecycle"
	"kiste/fault"
	"kiste/internal/need"
)

// running is a container whose program sleeps, and what ends it.
func (f *fixture) running(t *testing.T, id string) *lifecycle.Container {
	t.Helper()
	c, p, err := f.root.Run(id, f.options(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Signal(9)
		if _, err := p.Wait(); err != nil {
			t.Error(err)
		}
		p.Release()
		if err := c.Delete(true); err != nil {
			t.Error(err)
		}
	})
	return c
}

// sh runs a script in the container and gives its output and exit code.
func (f *fixture) sh(t *testing.T, c *lifecycle.Container, script string, change func(*lifecycle.ExecOptions)) (string, int) {
	t.Helper()
	p, err := c.Process()
	if err != nil {
		t.Fatal(err)
	}
	p.Args = []string{"sh", "-c", script}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	o := lifecycle.ExecOptions{Process: p, Files: [3]*os.File{null, out, out}}
	if change != nil {
		change(&o)
	}
	proc, err := c.Exec(o)
	if err != nil {
		t.Fatal(err)
	}
	status, err := proc.Wait()
	if err != nil {
		t.Fatal(err)
	}
	proc.Remove()
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text)), status.ExitStatus()
}

func TestExec(t *testing.T) {
	f := newFixture(t, "sleep", "100")
	need.Clean(t)
	c := f.running(t, name("exec"))
	for _, tt := range []struct {
		name, script, want string
		code               int
		change             func(*lifecycle.ExecOptions)
	}{
		{"output and code", "echo hello; exit 7", "hello", 7, nil},
		{"the container's processes", "ps -o pid,args | grep -c 'sleep 100$'", "1", 0, nil},
		{"the container's name", "hostname", "runc", 0, nil},
		{"its working directory", "pwd", "/bin", 0, func(o *lifecycle.ExecOptions) { o.Process.Cwd = "/bin" }},
		{"its user", "id -u; id -g; id -G", "1\n2\n2 7", 0, func(o *lifecycle.ExecOptions) {
			o.Process.User = specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{7}}
		}},
		{"its capabilities", "grep Cap /proc/self/status | tr '\\n\\t' '  '", "CapInh: 0000000000000000 CapPrm: 0000000020000420 CapEff: 0000000020000420 CapBnd: 0000000020000420 CapAmb: 0000000000000000", 0, nil},
		{"no descriptors of ours, but that of the directory", "exec ls /proc/self/fd", "0\n1\n2\n3", 0, nil},
		{"no new privileges", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1", 0, nil},
		{"its mask", "umask", "0027", 0, func(o *lifecycle.ExecOptions) { mask := uint32(0o27); o.Process.User.Umask = &mask }},
		{"its limits", "ulimit -n", "100", 0, func(o *lifecycle.ExecOptions) {
			o.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 100}}
		}},
		{"its score", "cat /proc/self/oom_score_adj", "77", 0, func(o *lifecycle.ExecOptions) { n := 77; o.Process.OOMScoreAdj = &n }},
		{"its cgroups", `test "$(cat /proc/1/cgroup)" = "$(cat /proc/self/cgroup)" && echo same`, "same", 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, code := f.sh(t, c, tt.script, tt.change)
			if out != tt.want || code != tt.code {
				t.Errorf("%q, code %d; want %q, %d", out, code, tt.want, tt.code)
			}
		})
	}
}

func TestExecRefuses(t *testing.T) {
	f := newFixture(t, "sleep", "100")
	need.Clean(t)
	c := f.running(t, name("exec"))
	f.running(t, name("exec2"))
	for _, tt := range []struct {
		name   string
		change func(*lifecycle.ExecOptions)
		want   string
	}{
		{"a program that is not there", func(o *lifecycle.ExecOptions) { o.Process.Args = []string{"nonesuch"} }, `exec: "nonesuch": executable file not found in $PATH`},
		{"a path that is not there", func(o *lifecycle.ExecOptions) { o.Process.Args = []string{"/nonesuch"} }, `exec: "/nonesuch": stat /nonesuch: no such file or directory`},
		{"a file that is no program", func(o *lifecycle.ExecOptions) { o.Process.Args = []string{"/etc"} }, `permission denied`},
		{"a directory that is not there", func(o *lifecycle.ExecOptions) { o.Process.Cwd = "/nonesuch" }, "no such file or directory"},
		{"a descriptor as a directory", func(o *lifecycle.ExecOptions) { o.Process.Cwd = "/proc/self/fd/3" }, "go to /proc/self/fd/3"},
		{"another container's cgroup", func(o *lifecycle.ExecOptions) { o.Cgroups = map[string]string{"": "../" + name("exec2")} }, "bad sub cgroup path"},
		{"a cgroup that is not there", func(o *lifecycle.ExecOptions) { o.Cgroups = map[string]string{"": "nonesuch"} }, "no such file or directory"},
		{"a terminal without a socket", func(o *lifecycle.ExecOptions) { o.Process.Terminal, o.Detach = true, true }, "without setting console socket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := c.Process()
			if err != nil {
				t.Fatal(err)
			}
			o := lifecycle.ExecOptions{Process: p}
			tt.change(&o)
			if _, err := c.Exec(o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Exec: %v; want %q", err, tt.want)
			}
		})
	}
}

func TestParseUser(t *testing.T) {
	for _, tt := range []struct {
		in       string
		uid, gid uint32
		ok       bool
	}{
		{"1", 1, 5, true}, {"1:1", 1, 1, true}, {"0:0", 0, 0, true}, {"01", 1, 5, true}, {"4294967294", 4294967294, 5, true},
		{":1", 0, 0, false}, {"1:", 0, 0, false}, {"+1", 0, 0, false}, {"-1", 0, 0, false}, {"name", 0, 0, false}, {"", 0, 0, false},
		{"1x", 0, 0, false}, {" 1", 0, 0, false}, {"1:2:3", 0, 0, false}, {"4294967295", 0, 0, false}, {"4294967296", 0, 0, false}, {"0x1", 0, 0, false},
	} {
		uid, gid, err := lifecycle.ParseUser(tt.in, 5)
		if tt.ok != (err == nil) || err == nil && (uid != tt.uid || gid != tt.gid) || err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("ParseUser(%q) = %d, %d, %v", tt.in, uid, gid, err)
		}
	}
}

// A process joins a container whose filter lets nobody fork, or begin a session.
func TestExecUnderAFilterThatForbidsToFork(t *testing.T) {
	for _, tt := range []struct {
		name   string
		action specs.LinuxSeccompAction
		calls  []string
	}{
		{"no fork", specs.ActErrno, []string{"clone", "clone3"}},
		{"no session", specs.ActErrno, []string{"setsid"}},
		{"death to who forks", specs.ActKillProcess, []string{"clone", "clone3"}},
	} {
		for _, nnp := range []bool{true, false} {
			t.Run(fmt.Sprint(tt.name, ", no new privileges ", nnp), func(t *testing.T) {
				f := newFixture(t, "sleep", "100")
				f.spec.Process.NoNewPrivileges = nnp
				f.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: tt.calls, Action: tt.action}}}
				need.Clean(t)
				c := f.running(t, name("filter"))
				if out, code := f.sh(t, c, "echo $((1+1))", nil); out != "2" || code != 0 {
					t.Errorf("%q, code %d", out, code)
				}
			})
		}
	}
}
