package plan_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/container/plan"
	"kiste/fault"
	"kiste/kernel/cgroup"
	"kiste/kernel/chroot"
	"kiste/kernel/privilege"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, []byte(got)) {
		t.Errorf("differs from %s (go test -update rewrites it):\n%s", file, got)
	}
}

var id = strings.Repeat("0123456789abcdef", 4)

// A sample is a command line on a host.
type sample struct {
	name   string
	wishes bundle.Wishes
	user   bool // an ordinary user
	v2     bool
	limits cgroup.Limits
	scope  string
}

func samples() []sample {
	host := bundle.Namespace{Kind: bundle.HostNS}
	other := bundle.Namespace{Kind: bundle.Container, Of: "web"}
	place := bundle.Namespace{Kind: bundle.Path, Of: "/run/netns/blue"}
	limits := cgroup.Limits{Memory: cgroup.Memory{Limit: 64 << 20}, Pids: 50, CPU: cgroup.CPU{Quota: 50000, Period: 100000}}
	umask := uint32(0o077)
	return []sample{
		{name: "default"},
		{name: "terminal", wishes: bundle.Wishes{TTY: true, Interactive: true, User: "1000:1000", Workdir: "/srv/app", Hostname: "box", Domainname: "example.org"}},
		{name: "privileged", wishes: bundle.Wishes{Privileged: true}},
		{name: "no_user_namespace", wishes: bundle.Wishes{UserNS: host, PID: host, Umask: &umask}},
		{name: "user", user: true, wishes: bundle.Wishes{ReadOnly: true, Mounts: []bundle.Mount{{Type: "bind", Source: "/etc/motd", Target: "/motd", ReadOnly: true, Option: "-v"}}}},
		{name: "join", wishes: bundle.Wishes{Network: other}},
		{name: "join_pid_without_user_namespace", wishes: bundle.Wishes{UserNS: host, PID: other}},
		{name: "network_by_path", wishes: bundle.Wishes{Network: place}},
		{name: "limits_hybrid", limits: limits, wishes: bundle.Wishes{Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}}},
		{name: "limits_v2", v2: true, limits: limits},
		{name: "scope", v2: true, limits: limits, scope: "docker-web.scope"},
		{name: "scope_hybrid", limits: limits, scope: "docker-web.scope"},
		{name: "hardened", wishes: bundle.Wishes{ReadOnly: true, CapDrop: []string{"ALL"}, CapAdd: []string{"NET_BIND_SERVICE"}, Security: bundle.Security{NoNewPrivileges: true},
			Mounts:  []bundle.Mount{{Type: "tmpfs", Target: "/tmp", Option: "--tmpfs"}, {Type: "bind", Source: "/srv/data", Target: "/data/in", Option: "-v"}},
			Devices: []bundle.Device{{Source: "/dev/fuse", Target: "/dev/fuse", Permissions: "rwm"}}, Sysctl: map[string]string{"net.ipv4.ip_forward": "1"}}},
	}
}

// landlock6 is a kernel's.
func landlock6() int { return 6 }

func layout(v2 bool) cgroup.Layout {
	if v2 {
		return cgroup.Layout{Unified: cgroup.Hierarchy{Mount: "/sys/fs/cgroup", Root: "/", V2: true, Controllers: []string{"cpuset", "cpu", "io", "memory", "pids"}}}
	}
	l := cgroup.Layout{Shelf: "/sys/fs/cgroup", Unified: cgroup.Hierarchy{Mount: "/sys/fs/cgroup/unified", Root: "/", V2: true}}
	for _, c := range []string{"cpu", "memory", "pids"} {
		l.V1 = append(l.V1, cgroup.Hierarchy{Mount: "/sys/fs/cgroup/" + c, Root: "/", Controllers: []string{c}})
	}
	return l
}

// kinds are the files of a host.
func kinds(path string) string {
	switch path {
	case "/proc/kcore", "/proc/keys", "/proc/sysrq-trigger", "/etc/motd":
		return "file"
	case "/proc/acpi", "/sys/firmware", "/proc/bus", "/proc/sys", "/srv/data":
		return "dir"
	}
	return ""
}

// bundled is what package plan gets.
func bundled(t *testing.T, s sample) (*specs.Spec, []chroot.Mount, plan.Options, plan.Facts) {
	t.Helper()
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1 << 30, Size: 65536}}
	f := bundle.Facts{ID: id, Root: !s.user, UserNS: true, IDMapped: !s.user, UIDs: maps, GIDs: maps, HostName: "here", UID: 1000, GID: 1000,
		Device: func(path string) ([]specs.LinuxDevice, error) {
			return []specs.LinuxDevice{{Path: path, Type: "c", Major: 10, Minor: 229}}, nil
		}}
	r, err := bundle.Compile(bundle.ImageConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/usr/bin:/bin"}}, s.wishes, f)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range r.Files {
		m := &r.Spec.Mounts[file.Index]
		m.Type, m.Source = "bind", "/run/kiste/containers/"+id+"/"+filepath.Base(file.Path)
	}
	for _, j := range r.Joins {
		r.Spec.Linux.Namespaces[j.Index].Path = "/proc/4711/ns/" + string(r.Spec.Linux.Namespaces[j.Index].Type)
	}
	root := chroot.Mount{Type: "overlay", Source: "overlay", Target: "/", Lower: []string{"/lib/kiste/l/2/d", "/lib/kiste/l/1/d"},
		Upper: "/lib/kiste/c/upper", Work: "/lib/kiste/c/work"}
	root.Options = []string{"idmap"}
	if s.user {
		root.Options = []string{"userxattr"}
	}
	groups, err := cgroup.Compile(layout(s.v2), "/kiste/"+id, s.limits, cgroup.Options{Unit: s.scope != ""})
	if err != nil {
		t.Fatal(err)
	}
	if s.user {
		groups = nil
	}
	return r.Spec, []chroot.Mount{root},
		plan.Options{Origin: r.Origin, Search: r.SearchPath, DieWithParent: true, Keyring: "_ses.kiste", UIDs: maps, GIDs: maps, Target: "/lib/kiste/c/root",
			Filter: privilege.Filter{Instructions: make([]privilege.Instruction, 3)}},
		plan.Facts{Host: !s.user, Cgroup: layout(s.v2), Groups: groups, Scope: s.scope, Landlock: landlock6, LastCap: 40, Kind: kinds}
}

func TestPlansAsStepsAndCalls(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			spec, root, o, f := bundled(t, s)
			p, err := plan.Compile(spec, root, o, f)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, s.name+".plan", p.String())
			golden(t, s.name+".calls", p.Calls())
		})
	}
}

// The same spec gives the same plan, and is as it was afterwards.
func TestCompileIsPure(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			spec, root, o, f := bundled(t, s)
			same, _, _, _ := bundled(t, s)
			first, err := plan.Compile(spec, root, o, f)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(spec, same) {
				t.Error("Compile changed the spec")
			}
			for range 5 {
				again, err := plan.Compile(spec, root, o, f)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(first, again) {
					t.Fatal("two plans of one spec differ")
				}
			}
		})
	}
}

// What stands for a file system on a bind mount is passed over, and said.
func TestDataOfABindIsDropped(t *testing.T) {
	spec := document(t, "runc_spec")
	spec.Mounts = append(spec.Mounts, specs.Mount{Type: "bind", Source: "/srv", Destination: "/a", Options: []string{"bind", "nosuid", "mode=755", "size=1k"}})
	p, err := plan.Compile(spec, nil, plan.Options{Bundle: "/srv/bundle", NoLandlock: true}, ociFacts(t, "runc_spec"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"bind mount /a: option mode=755 is a file system's and changes nothing", "bind mount /a: option size=1k is a file system's and changes nothing"}
	if !slices.Equal(p.Warnings, want) {
		t.Errorf("warnings: %q, want %q", p.Warnings, want)
	}
}

// The documents of engines, as they write them.
func TestPlansOfEngines(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			p, err := plan.Compile(document(t, name), nil, plan.Options{Bundle: "/srv/bundle", NoLandlock: true, Wait: true}, ociFacts(t, name))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".plan", p.String())
			golden(t, name+".calls", p.Calls())
			if len(p.Warnings) > 0 {
				t.Errorf("warnings: %q", p.Warnings)
			}
		})
	}
}

func document(t *testing.T, name string) *specs.Spec {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	spec := new(specs.Spec)
	if err := json.Unmarshal(text, spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

// ociFacts are those of a hybrid host, or for a rootless document of one with
// version 2 and an ordinary user.
func ociFacts(t *testing.T, name string) plan.Facts {
	t.Helper()
	f := plan.Facts{Host: true, Cgroup: layout(false), LastCap: 40, Kind: kinds}
	if strings.Contains(name, "rootless") {
		f.Host, f.Cgroup = false, layout(true)
		return f
	}
	groups, err := cgroup.Compile(f.Cgroup, "/box", cgroup.Limits{Pids: 50}, cgroup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f.Groups = groups
	return f
}

// What a document asks for that makes no sense, or that this host cannot, is
// named.
func TestWhatCannotBeCarriedOutIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*specs.Spec)
		kind   fault.Kind
		field  string
	}{
		{"no process", func(s *specs.Spec) { s.Process = nil }, fault.Invalid, "process"},
		{"no program", func(s *specs.Spec) { s.Process.Args = nil }, fault.Invalid, "process.args"},
		{"a relative directory", func(s *specs.Spec) { s.Process.Cwd = "srv" }, fault.Invalid, "process.cwd"},
		{"a zero byte", func(s *specs.Spec) { s.Process.Env = []string{"A=\x00"} }, fault.Invalid, "process"},
		{"no root", func(s *specs.Spec) { s.Root = nil }, fault.Invalid, "root"},
		{"masks without a mount namespace", func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
		}, fault.Invalid, "linux.maskedPaths"},
		{"a user namespace alone", func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		}, fault.Invalid, "linux.namespaces"},
		{"two of a kind", func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) }, fault.Invalid, "linux.namespaces"},
		{"no such namespace", func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "space" }, fault.Invalid, "linux.namespaces"},
		{"a relative namespace", func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "ns/net" }, fault.Invalid, "linux.namespaces.pid"},
		{"no maps", func(s *specs.Spec) { s.Linux.UIDMappings = nil }, fault.Invalid, "linux.uidMappings"},
		{"maps of nobody", func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
		}, fault.Invalid, "linux.uidMappings"},
		{"a map of nothing", func(s *specs.Spec) { s.Linux.GIDMappings = []specs.LinuxIDMapping{{}} }, fault.Invalid, "linux.uidMappings"},
		{"a host name of the host's", func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UTSNamespace })
		}, fault.Invalid, "hostname"},
		{"something else as procfs", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: "/tmp", Destination: "/proc/."})
		}, fault.Invalid, "mounts[10] on /proc/."},
		{"a mount in procfs", func(s *specs.Spec) { s.Mounts[9] = specs.Mount{Type: "tmpfs", Destination: "/proc/sys"} }, fault.Invalid, "mounts[9] on /proc/sys"},
		{"a mount on the root", func(s *specs.Spec) { s.Mounts[0] = specs.Mount{Type: "tmpfs", Destination: "/../"} }, fault.Invalid, "mounts[0] on /../"},
		{"a mount of no type", func(s *specs.Spec) { s.Mounts[0].Type = "" }, fault.Invalid, "mounts[0] on /proc"},
		{"data of a bind", func(s *specs.Spec) {
			s.Mounts[0] = specs.Mount{Type: "bind", Source: "/srv", Destination: "/a", Options: []string{"roo"}}
		}, fault.Invalid, "mounts[0] on /a"},
		{"an id-mapped tmpfs", func(s *specs.Spec) {
			s.Mounts[0] = specs.Mount{Type: "tmpfs", Destination: "/a", Options: []string{"idmap"}}
		}, fault.Invalid, "mounts[0] on /a"},
		{"half a map of a mount", func(s *specs.Spec) {
			s.Mounts[0] = specs.Mount{Type: "bind", Source: "/srv", Destination: "/a", UIDMappings: s.Linux.UIDMappings}
		}, fault.Invalid, "mounts[0] on /a"},
		{"too many mounts", func(s *specs.Spec) { s.Mounts = make([]specs.Mount, 100_000) }, fault.Invalid, "mounts"},
		{"no such propagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "public" }, fault.Invalid, "linux.rootfsPropagation"},
		{"a SELinux label", func(s *specs.Spec) { s.Process.SelinuxLabel = "x" }, fault.Unsupported, "process.selinuxLabel"},
		{"a label of mounts", func(s *specs.Spec) { s.Linux.MountLabel = "x" }, fault.Unsupported, "linux.mountLabel"},
		{"an AppArmor profile", func(s *specs.Spec) { s.Process.ApparmorProfile = "x" }, fault.Unsupported, "process.apparmorProfile"},
		{"an unknown limit", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOSUCH"}} }, fault.Invalid, "process.rlimits"},
		{"a limit of Docker's", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "nofile"}} }, fault.Invalid, "process.rlimits"},
		{"a limit above the limit", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1}} }, fault.Invalid, "process.rlimits"},
		{"a dear process", func(s *specs.Spec) { n := -1001; s.Process.OOMScoreAdj = &n }, fault.Invalid, "process.oomScoreAdj"},
		{"a huge terminal", func(s *specs.Spec) { s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 1 << 16} }, fault.Invalid, "process.consoleSize"},
		{"a sysctl of the host", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} }, fault.Invalid, "linux.sysctl"},
		{"a sysctl beside", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4..x": "1"} }, fault.Invalid, "linux.sysctl"},
		{"a sysctl above", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../kernel/panic": "1"} }, fault.Invalid, "linux.sysctl"},
		{"the host name as a sysctl", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.hostname": "x"} }, fault.Invalid, "linux.sysctl"},
		{"a sysctl of the host's IPC", func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.IPCNamespace })
			s.Linux.Sysctl = map[string]string{"fs/mqueue/msg_max": "1"}
		}, fault.Invalid, "linux.sysctl"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec, root, o, f := bundled(t, samples()[0])
			tt.change(spec)
			_, err := plan.Compile(spec, root, o, f)
			var e *fault.Error
			if !errors.As(err, &e) || e.Kind != tt.kind || e.On != tt.field {
				t.Errorf("Compile: %v; want %q refused as %q", err, tt.field, tt.kind)
			}
		})
	}
}
