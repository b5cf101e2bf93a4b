package process_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/cgroup"
	"kiste/kernel/chroot"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
	"kiste/kernel/privilege"
)

// A setting is a plan of this host with the directories that it needs.
type setting struct {
	dir  string // upper, work, and the files
	root string
	id   string

	network plan.Network // of what is on one
}

func prefix(t *testing.T, s string) network.Prefix {
	t.Helper()
	p, err := network.ParsePrefix(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func deleteTable(name string) error {
	r, err := rules.Open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.Delete()
}

// nothingPublished fails the test where the tables of a plan still have ports.
func nothingPublished(t *testing.T, p *plan.Plan) {
	t.Helper()
	for _, act := range ruleActs(p) {
		r, err := rules.Open(act.Name)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if ports, err := r.Ports(); err != nil && !errors.Is(err, fault.NotFound) || len(ports) > 0 {
			t.Errorf("ports stay published: %v, %v", ports, err)
		}
	}
}

func unpublish(p *plan.Plan) {
	for _, act := range ruleActs(p) {
		if r, err := rules.Open(act.Name); err == nil {
			_ = r.Remove(rules.State{Ports: act.Rules.Ports})
			r.Close()
		}
	}
}

// ruleActs are the acts of a plan that publish ports.
func ruleActs(p *plan.Plan) (acts []*plan.Act) {
	for _, step := range p.Steps {
		if step.Act != nil && step.Act.Kind == plan.ActRules {
			acts = append(acts, step.Act)
		}
	}
	return acts
}

func newSetting(t *testing.T) setting {
	t.Helper()
	s := setting{dir: newStorage(t).dir, root: busybox(t), id: fmt.Sprintf("%064x", os.Getpid())}
	for _, name := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func kindOnHost(path string) string {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return ""
	case info.IsDir():
		return "dir"
	}
	return "file"
}

// compile makes the plan of w. What joins other containers joins pid.
func (s setting) compile(t *testing.T, w bundle.Wishes, pid int) *plan.Plan {
	t.Helper()
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1<<30 + 1<<29, Size: 65536}}
	held, err := privilege.Held()
	if err != nil {
		t.Fatal(err)
	}
	r, err := bundle.Compile(bundle.ImageConfig{Cmd: []string{"/bin/sleep", "100"}}, w,
		bundle.Facts{ID: s.id, Root: true, UserNS: true, IDMapped: true, UIDs: maps, GIDs: maps, Capabilities: held.Names(), Device: nullDevice})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Files {
		m := &r.Spec.Mounts[f.Index]
		m.Type, m.Source = "bind", filepath.Join(s.dir, filepath.Base(f.Path))
		if err := os.WriteFile(m.Source, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range r.Volumes {
		m := &r.Spec.Mounts[v.Index]
		m.Type, m.Options = "bind", append(m.Options, "subpath="+v.Mount.Subpath)
	}
	for _, j := range r.Joins {
		ns := &r.Spec.Linux.Namespaces[j.Index]
		ns.Path = fmt.Sprintf("/proc/%d/ns/%s", pid, map[specs.LinuxNamespaceType]string{"network": "net", "pid": "pid", "user": "user", "ipc": "ipc"}[ns.Type])
	}
	layout, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	parent, err := cgroup.Place(layout)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := cgroup.Compile(layout, parent+"/"+s.id, cgroup.Limits{Pids: 20}, cgroup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	filter, err := privilege.DefaultFilter(0)
	if err != nil {
		t.Fatal(err)
	}
	var n plan.Network
	if w.Network.Kind == bundle.Bridge {
		n = s.network
	}
	p, err := plan.Compile(r.Spec, []chroot.Mount{{Type: "overlay", Source: "overlay", Target: "/", Lower: []string{s.root}, Upper: s.dir + "/upper", Work: s.dir + "/work", Options: []string{"idmap"}}},
		plan.Options{Search: r.SearchPath, Filter: filter, DieWithParent: true, UIDs: maps, GIDs: maps, Network: n},
		plan.Facts{Host: true, Cgroup: layout, Groups: groups, Landlock: privilege.LandlockABI, LastCap: privilege.LastCap(), Kind: kindOnHost})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// nullDevice is what the host says of /dev/null, whatever it is asked for.
func nullDevice(path string) ([]specs.LinuxDevice, error) {
	return []specs.LinuxDevice{{Path: path, Type: "c", Major: 1, Minor: 3}}, nil
}

// tryStart starts p and, should that go well, ends it.
func tryStart(p *plan.Plan, o process.Options) error {
	return startAndLook(p, o, func(int) {})
}

// startAndLook starts p, lets look see the process, and ends it.
func startAndLook(p *plan.Plan, o process.Options, look func(pid int)) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	o.Files = [3]*os.File{null, null, null}
	proc, err := process.Start(p, o)
	if err != nil {
		return err
	}
	defer proc.Remove()
	defer unpublish(p) // as the engine does at the end
	look(proc.PID)
	if err := proc.Signal(9); err != nil {
		return err
	}
	_, err = proc.Wait()
	return err
}

// Whatever step fails, on either side, nothing stays: no mount, cgroup,
// process, link or descriptor, and the host's directories are as before.
func TestNothingStaysWhateverStepFails(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t, "/run/netns")
	s := newSetting(t)
	other := bundle.Namespace{Kind: bundle.Container, Of: "base"}
	base, end := s.sleeper(t)
	defer end()
	bridge := network.Bridge{Name: fmt.Sprintf("kl%d", os.Getpid()), Addresses: []network.Prefix{prefix(t, "10.249.3.1/24")}}
	host, err := network.Here()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if _, err := host.MakeBridge(bridge); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(host.Delete(bridge.Name), deleteTable(bridge.Name)); err != nil {
			t.Error(err)
		}
	}()
	s.network = plan.Network{Bridges: []network.Bridge{bridge}, Table: bridge.Name,
		Rules:     rules.State{Bridges: []rules.Bridge{{Name: bridge.Name}}, Ports: []rules.Port{{Proto: rules.TCP, HostPort: 48123, To: prefix(t, "10.249.3.2/24").Addr(), ToPort: 80}}},
		Endpoints: []network.Endpoint{{Parent: bridge.Name, Outer: "kl" + s.id[len(s.id)-8:], Name: "eth0", Addresses: []network.Prefix{prefix(t, "10.249.3.2/24")}, Gateways: []network.Addr{prefix(t, "10.249.3.1/24").Addr()}}}}
	for _, tt := range []struct {
		name   string
		wishes bundle.Wishes
	}{
		{"on a network", bundle.Wishes{Network: bundle.Namespace{Kind: bundle.Bridge}}},
		{"on a network in the user namespace of another", bundle.Wishes{Network: bundle.Namespace{Kind: bundle.Bridge}, PID: other}},
		{"default", bundle.Wishes{TTY: true, Workdir: "/a/b", Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}}}},
		{"privileged", bundle.Wishes{Privileged: true}},
		{"in the namespaces of another", bundle.Wishes{Network: other}},
		{"in the pid namespace of another", bundle.Wishes{PID: other}},
		{"in a network by path", bundle.Wishes{Network: bundle.Namespace{Kind: bundle.Path, Of: "/proc/self/ns/net"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := s.compile(t, tt.wishes, base)
			if err := tryStart(p, process.Options{}); err != nil {
				t.Fatal(err)
			}
			everyStepFails(t, p, process.Options{}, s.root, s.dir+"/work")
		})
	}
}

// everyStepFails lets each act of the parent and each call of the child fail in
// turn; dirs must be as before, as all else.
func everyStepFails(t *testing.T, p *plan.Plan, o process.Options, dirs ...string) {
	t.Helper()
	calls := 0
	for i, step := range p.Steps {
		calls += len(step.Calls)
		if step.Side != plan.Parent || testing.Short() && i%5 != 0 {
			continue
		}
		t.Run(fmt.Sprintf("parent %d", i+1), func(t *testing.T) {
			need.Clean(t, dirs...)
			o := o
			o.FailAt = i + 1
			err := tryStart(p, o)
			if err == nil || !strings.Contains(err.Error(), step.Text) {
				t.Errorf("Start: %v; want %q to fail", err, step.Text)
			}
			nothingPublished(t, p)
		})
	}
	every := 1
	if testing.Short() {
		every = 61 // an emulated machine takes half a second for each
	}
	for n := 1; n <= calls; n += every {
		t.Run(fmt.Sprintf("call %d", n), func(t *testing.T) {
			need.Clean(t, dirs...)
			o := o
			o.FailCall = n
			// A call that may fail changes nothing.
			_ = tryStart(p, o)
			nothingPublished(t, p)
		})
	}
}

// The same of documents, with all that those do not have.
func TestNothingStaysOfDocumentsWhateverStepFails(t *testing.T) {
	need.Power(t, host.Root, host.Idmap)
	need.Clean(t)
	for _, mapped := range []bool{false, true} {
		t.Run(fmt.Sprintf("mapped %v", mapped), func(t *testing.T) {
			b := rich(t)
			if mapped {
				b.mapped()
			}
			p, err := plan.Compile(b.spec, nil, b.o, b.f)
			if err != nil {
				t.Fatal(err)
			}
			o := process.Options{Hooks: b.hooks, Listener: func(int, int) error { return nil }}
			if err := tryStart(p, o); err != nil {
				t.Fatal(err)
			}
			everyStepFails(t, p, o, b.dir)
		})
	}
}

// rich is a container that has a little of everything.
func rich(t *testing.T) *ociBox {
	t.Helper()
	b := newBox(t, "exec sleep 100")
	b.full(t)
	if err := errors.Join(os.Mkdir(b.dir+"/data", 0o755), os.MkdirAll(b.root+"/secret/in", 0o755), os.MkdirAll(b.root+"/srv/deep", 0o755)); err != nil {
		t.Fatal(err)
	}
	own := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 7000, Size: 10}}
	b.mount(specs.Mount{Type: "bind", Source: b.dir + "/data", Destination: "/data", Options: []string{"rbind", "ro", "rslave"}, UIDMappings: own, GIDMappings: own})
	b.mount(specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/srv", Options: []string{"ro"}})
	s := b.spec
	s.Process.Terminal, s.Process.ConsoleSize, s.Process.Cwd = true, &specs.Box{Height: 25, Width: 80}, "/srv"
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch}
	s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
	s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace}, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}}
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/a/fuse", Type: "c", Major: 10, Minor: 229}, {Path: "/dev/fifo", Type: "c", Major: 1, Minor: 3}}
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/secret")
	s.Linux.RootfsPropagation = "rshared"
	hooks := []specs.Hook{{Path: "/bin/true"}}
	//lint:ignore SA1019 Docker has its networks made by these
	s.Hooks = &specs.Hooks{Prestart: hooks, CreateRuntime: hooks, CreateContainer: hooks}
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/nobody", Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
	var err error
	if b.o.Filter, err = privilege.Compile(s.Linux.Seccomp, runtime.GOARCH); err != nil {
		t.Fatal(err)
	}
	b.o.Keyring = "_ses.box"
	return b
}

// sleeper is a running container to join.
func (s setting) sleeper(t *testing.T) (pid int, end func()) {
	t.Helper()
	other := setting{dir: newStorage(t).dir, root: s.root, id: fmt.Sprintf("%064x", os.Getpid()+1<<24)}
	for _, name := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(other.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := other.compile(t, bundle.Wishes{}, 0)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	proc, err := process.Start(p, process.Options{Files: [3]*os.File{null, null, null}})
	null.Close()
	if err != nil {
		t.Fatal(err)
	}
	return proc.PID, func() {
		_ = proc.Signal(9)
		if _, err := proc.Wait(); err != nil {
			t.Error(err)
		}
		proc.Remove()
	}
}
