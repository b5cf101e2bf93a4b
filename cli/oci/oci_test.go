package oci

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/cli/option"
	"kiste/fault"
)

// run carries out a command line with a root of its own, and returns what it
// said.
func run(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	dir := t.TempDir()
	var files [2]*os.File
	for i, name := range []string{"out", "err"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	code = Main(&Env{In: os.Stdin, Out: files[0], Err: files[1]}, append([]string{"--root", dir}, args...))
	text := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return code, text("out"), text("err")
}

var optionName = regexp.MustCompile(`^(-[a-z]|--[a-z0-9][a-z0-9-]+)$`)

func checkOptions(t *testing.T, rows []option.Row) {
	t.Helper()
	seen := map[string]bool{"--help": true, "-h": true}
	for _, o := range rows {
		if o.Help == "" || strings.HasSuffix(o.Help, ".") || strings.Contains(o.Help, "\n") || o.Var == nil {
			t.Errorf("%s: help %q: want one line, without a full stop, and a place", o.Names, o.Help)
		}
		for _, n := range option.Names(o) {
			if !optionName.MatchString(n) || seen[n] {
				t.Errorf("%q is no name, or has two meanings", n)
			}
			seen[n] = true
		}
	}
}

func TestEveryVerbTellsHowItIsUsed(t *testing.T) {
	checkOptions(t, globalOptions())
	seen := map[string]bool{}
	for _, r := range table() {
		if r.new == nil {
			continue
		}
		v := r.new()
		if v.name != r.name || seen[r.name] {
			t.Errorf("the row %q makes the verb %q, or stands twice", r.name, v.name)
		}
		seen[r.name] = true
		if v.short == "" || strings.HasSuffix(v.short, ".") || len(v.short) > 80 || v.run == nil {
			t.Errorf("%s: short %q: want one line of at most 80 letters, without a full stop", v.name, v.short)
		}
		if v.max >= 0 && v.max < v.min || (v.max == 0) != (v.args == "") {
			t.Errorf("%s: args %q do not go with %d to %d", v.name, v.args, v.min, v.max)
		}
		for _, e := range v.examples {
			if !strings.HasPrefix(e, v.name+" ") {
				t.Errorf("the example %q is of another verb than %s", e, v.name)
			}
		}
		checkOptions(t, v.options)
		if v.raw {
			continue
		}
		code, out, errs := run(t, v.name, "--help")
		if code != 0 || errs != "" || !strings.HasPrefix(out, "Usage: kiste-runtime "+v.name) {
			t.Errorf("%s --help: %d, %q, %q", v.name, code, out, errs)
		}
	}
}

// runc 1.5's verbs and options, which engines use.
func TestRuncsOptionsAreKnown(t *testing.T) {
	for verb, options := range map[string]string{
		"":           "debug log log-format root systemd-cgroup rootless version criu",
		"create":     "bundle b console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds",
		"run":        "bundle b console-socket pidfd-socket detach d keep pid-file no-subreaper no-pivot no-new-keyring preserve-fds",
		"start":      "",
		"exec":       "console-socket pidfd-socket cwd env e tty t user u additional-gids g process p detach d pid-file process-label apparmor no-new-privs cap c preserve-fds cgroup ignore-paused",
		"kill":       "all a",
		"delete":     "force f",
		"state":      "",
		"list":       "format f quiet q",
		"ps":         "format f",
		"pause":      "",
		"resume":     "",
		"events":     "interval stats",
		"spec":       "bundle b rootless",
		"features":   "",
		"update":     "resources r blkio-weight cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period cpu-rt-runtime cpuset-cpus cpuset-mems kernel-memory kernel-memory-tcp memory cpu-idle memory-reservation memory-swap pids-limit l3-cache-schema mem-bw-schema",
		"checkpoint": "image-path work-path parent-path leave-running tcp-established tcp-skip-in-flight link-remap ext-unix-sk shell-job lazy-pages status-fd page-server file-locks pre-dump manage-cgroups-mode empty-ns auto-dedup",
		"restore":    "console-socket image-path work-path tcp-established ext-unix-sk shell-job file-locks manage-cgroups-mode bundle b detach d pid-file no-subreaper no-pivot empty-ns auto-dedup lazy-pages lsm-profile lsm-mount-context",
	} {
		rows := globalOptions()
		if verb != "" {
			v := find(verb)
			if v == nil {
				t.Errorf("there is no %s", verb)
				continue
			}
			rows = v.options
		}
		for name := range strings.FieldsSeq(options) {
			dashed := "--" + name
			if len(name) == 1 {
				dashed = "-" + name
			}
			if option.Lookup(rows, dashed) == nil {
				t.Errorf("%s has no %s", verb, dashed)
			}
		}
	}
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]int{"KILL": 9, "SIGKILL": 9, "sigterm": 15, "0": 0, "9": 9, "64": 64, "65": 65, "-1": -1, "RTMIN+1": 35} {
		if got, err := parseSignal(in); err != nil || int(got) != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "NOSUCH", "9x", "99999999999"} {
		if got, err := parseSignal(in); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %d, %v; want it refused", in, got, err)
		}
	}
}

func TestActivated(t *testing.T) {
	env := func(pid, n string) func(string) string {
		return func(name string) string { return map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": n}[name] }
	}
	for _, tt := range []struct{ pid, n string }{{"", ""}, {"7", "2"}, {"1", "x"}, {"1", "0"}, {"1", "-3"}, {"1", ""}} {
		if n, err := activated(env(tt.pid, tt.n), 1); n != 0 || err != nil {
			t.Errorf("%+v: %d, %v", tt, n, err)
		}
	}
	if _, err := activated(env("1", "500"), 1); !errors.Is(err, fault.Invalid) {
		t.Errorf("sockets that are not there: %v", err)
	}
}

// Descriptors of this program are not passed on, whatever is asked for.
func TestOwnDescriptorsAreNotPreserved(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := checkPreserved(0, int(f.Fd())-firstPreserved+1); !errors.Is(err, fault.Invalid) {
		t.Errorf("descriptor %d: %v", f.Fd(), err)
	}
}

func TestColumnsAreRuncs(t *testing.T) {
	got := columns([][]string{{"ID", "PID", "OWNER"}, {"a-very-long-name", "1", "root"}})
	if want := "ID                 PID         OWNER\na-very-long-name   1           root\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNameIn(t *testing.T) {
	const passwd = "root:x:0:0::/:/bin/sh\n\nbad\nann:x:1000:1000::/:/bin/sh\n"
	for uid, want := range map[uint32]string{0: "root", 1000: "ann", 5: ""} {
		if got := nameIn(passwd, uid); got != want {
			t.Errorf("%d: %q; want %q", uid, got, want)
		}
	}
}

func TestExecChangesTheContainersProcess(t *testing.T) {
	own := specs.Process{Cwd: "/own", Env: []string{"A=1"}, NoNewPrivileges: true, Terminal: true, ConsoleSize: &specs.Box{},
		User:         specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3}},
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}}}
	before, _ := json.Marshal(own)
	e := &execution{}
	left, err := option.Parse(e.options(), strings.Fields("--cwd /new -e B=2 --env C=3 -u 5 -g 6 --cap CAP_CHOWN --no-new-privs=false c true -t"), option.AnyDash|option.Rest)
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.changed(&own, left[1:])
	if err != nil {
		t.Fatal(err)
	}
	if p.Cwd != "/new" || !slices.Equal(p.Env, []string{"A=1", "B=2", "C=3"}) || p.NoNewPrivileges || p.Terminal || p.ConsoleSize != nil ||
		p.User.UID != 5 || p.User.GID != 2 || !slices.Equal(p.User.AdditionalGids, []uint32{3, 6}) || !slices.Equal(p.Args, []string{"true", "-t"}) {
		t.Errorf("got %+v", p)
	}
	if c := p.Capabilities; !slices.Equal(c.Bounding, []string{"CAP_KILL", "CAP_CHOWN"}) || !slices.Equal(c.Effective, []string{"CAP_CHOWN"}) || c.Ambient != nil {
		t.Errorf("capabilities %+v", c)
	}
	if after, _ := json.Marshal(own); string(after) != string(before) {
		t.Errorf("the container's own became %s", after)
	}
}

func TestSubGroups(t *testing.T) {
	for _, tt := range []struct {
		args string
		want map[string]string // nil: refused
	}{
		{"", map[string]string{}},
		{"a/b", map[string]string{"": "a/b"}},
		{"cpu,memory:x pids:y", map[string]string{"cpu": "x", "memory": "x", "pids": "y"}},
		{"a b", nil}, {"cpu:a b", nil}, {"cpu:a cpu:b", nil}, {":a", nil}, {"cpu,:a", nil},
	} {
		got, err := subGroups(strings.Fields(tt.args))
		if tt.want == nil {
			if !errors.Is(err, fault.Invalid) {
				t.Errorf("%q: %v, %v; want it refused", tt.args, got, err)
			}
			continue
		}
		if err != nil || len(got) != len(tt.want) {
			t.Errorf("%q: %v, %v; want %v", tt.args, got, err, tt.want)
		}
		for k, v := range tt.want {
			if got[k] != v {
				t.Errorf("%q: %v; want %v", tt.args, got, tt.want)
			}
		}
	}
}

func TestUpdateTellsNoneFromZero(t *testing.T) {
	resources := func(args string) *specs.LinuxResources {
		t.Helper()
		u := &update{}
		if _, err := option.Parse(u.options(), strings.Fields(args), option.AnyDash); err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		r, err := u.resources(nil)
		if err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		return r
	}
	if r := resources(""); r.Memory.Limit != nil || r.CPU.Period != nil || r.Pids != nil || r.BlockIO != nil {
		t.Errorf("nothing asked for: %+v", r)
	}
	r := resources("--memory 1.5m --memory-swap -1 --cpu-burst 0 --cpu-idle 1 --cpu-quota -1 --pids-limit 0 --blkio-weight 500 --cpuset-cpus 0-1")
	if *r.Memory.Limit != 3<<19 || *r.Memory.Swap != -1 || *r.CPU.Burst != 0 || *r.CPU.Idle != 1 || *r.CPU.Quota != -1 || *r.Pids.Limit != 0 || *r.BlockIO.Weight != 500 || r.CPU.Cpus != "0-1" {
		t.Errorf("got %+v %+v", r.Memory, r.CPU)
	}
}

func TestExampleIsAContainerForAnOrdinaryUserToo(t *testing.T) {
	s := example(true)
	toRootless(s, 1000, 1001)
	kinds := map[specs.LinuxNamespaceType]bool{}
	for _, n := range s.Linux.Namespaces {
		kinds[n.Type] = true
	}
	if !kinds[specs.UserNamespace] || kinds[specs.NetworkNamespace] || !kinds[specs.CgroupNamespace] {
		t.Errorf("namespaces %v", kinds)
	}
	if s.Linux.Resources != nil || s.Linux.UIDMappings[0].HostID != 1000 || s.Linux.GIDMappings[0].HostID != 1001 {
		t.Errorf("got %+v", s.Linux)
	}
	for _, m := range s.Mounts {
		if slices.ContainsFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "gid=") }) {
			t.Errorf("%s has %v", m.Destination, m.Options)
		}
	}
}

func TestLogLinesAreReadAsRuncs(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	(&log{to: f, json: true}).failure(&fault.Error{Op: "start", On: "a\"\n", Kind: fault.NotFound, Hint: "look"})
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	var line struct {
		Level, Msg string
		Time       time.Time
	}
	if err := json.Unmarshal(text, &line); err != nil || line.Level != "error" || line.Msg != `cannot start "a\"\n": not found (hint: look)` || line.Time.IsZero() {
		t.Errorf("%s: %+v, %v", text, line, err)
	}
}

func FuzzResources(f *testing.F) {
	f.Add(`{"memory":{"limit":1},"cpu":{"quota":-1},"pids":{"limit":5}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := readResources(strings.NewReader(text)); err == nil && r == nil {
			t.Errorf("%q gave nothing", text)
		}
	})
}

func FuzzMounts(f *testing.F) {
	f.Add([]byte(`{"mounts":[{"destination":"/a","type":"tmpfs"}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		mounts, err := parseMounts(text)
		if err != nil && len(mounts) > 0 {
			t.Errorf("%q: %v, %v", text, mounts, err)
		}
	})
}

// Whatever is typed before the verb: no crash.
func FuzzGlobals(f *testing.F) {
	f.Add("--root\x00/x\x00--log-format=json\x00-v")
	f.Fuzz(func(t *testing.T, words string) {
		var g globals
		_, err := option.Parse(g.options(&session{}), strings.Split(words, "\x00"), option.Rest|option.AnyDash)
		if err != nil && err != option.ErrHelp && !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", words, err)
		}
	})
}

// What features lists of words that engines look for.
func TestFeatures(t *testing.T) {
	code, out, _ := run(t, "features")
	if code != 0 {
		t.Fatal(code)
	}
	var f struct {
		MountOptions []string
		Linux        struct {
			Namespaces, Capabilities []string
			Seccomp                  struct{ Actions, Operators, Archs, KnownFlags []string }
		}
	}
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what string
		list []string
		want string
	}{
		{"mount options", f.MountOptions, "ro rro bind rbind rprivate idmap ridmap tmpcopyup nosymfollow rnosuid"},
		{"namespaces", f.Linux.Namespaces, "cgroup ipc mount network pid time user uts"},
		{"capabilities", f.Linux.Capabilities, "CAP_CHOWN CAP_BPF CAP_CHECKPOINT_RESTORE"},
		{"actions", f.Linux.Seccomp.Actions, seccompActions},
		{"operators", f.Linux.Seccomp.Operators, seccompOperators},
		{"architectures", f.Linux.Seccomp.Archs, seccompArchs},
		{"flags", f.Linux.Seccomp.KnownFlags, seccompFlags},
	} {
		if !slices.IsSorted(tt.list) && tt.what != "capabilities" {
			t.Errorf("%s are not sorted", tt.what)
		}
		for word := range strings.FieldsSeq(tt.want) {
			if !slices.Contains(tt.list, word) {
				t.Errorf("%s lack %s", tt.what, word)
			}
		}
	}
}
