package plan_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/plan"
	"kiste/fault"
	"kiste/kernel/chroot"
	"kiste/kernel/privilege"
)

// everything is a document with a little of all that the others do not have.
func everything(t *testing.T) *specs.Spec {
	t.Helper()
	s := document(t, "runc_spec")
	one := []specs.Hook{{Path: "/usr/bin/hook"}}
	//lint:ignore SA1019 Docker has its networks made by these
	s.Hooks = &specs.Hooks{Prestart: one, CreateRuntime: one, CreateContainer: one, StartContainer: one, Poststart: one, Poststop: one}
	own := []specs.LinuxIDMapping{{HostID: 7000, Size: 10}}
	s.Mounts = append(s.Mounts,
		specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/run", Options: []string{"tmpcopyup", "ro", "uid=5"}},
		specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/cache"},
		specs.Mount{Type: "bind", Source: "data", Destination: "data", Options: []string{"rbind", "rshared", "rro"}, UIDMappings: own, GIDMappings: own},
		specs.Mount{Type: "overlay", Source: "overlay", Destination: "/layers", Options: []string{`lowerdir=/a\:b:/c`, "upperdir=/u", "workdir=/w"}},
		specs.Mount{Type: "ext4", Source: "/dev/loop0", Destination: "/disk", Options: []string{"ro", "sync", "lazytime"}})
	mask, adj := uint32(0o27), -5
	p := s.Process
	p.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5}, Umask: &mask}
	p.Cwd, p.OOMScoreAdj, p.NoNewPrivileges, p.ConsoleSize = "/srv", &adj, false, &specs.Box{Height: 25, Width: 80}
	p.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 1, Deadline: 2, Period: 3, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagReclaim}}
	p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 3}
	p.ApparmorProfile, p.SelinuxLabel = "profile", "system_u:system_r:container_t:s0"
	l := s.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace}, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	l.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: -1, Nanosecs: 2}, "boottime": {Secs: 3}}
	l.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	l.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0-1", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	l.NetDevices = map[string]specs.LinuxNetDevice{"eth1": {Name: "eth0"}, "wlan0": {}}
	l.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/forwarding": "1"}
	l.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, UID: &mask}, {Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200}, {Path: "/dev/p", Type: "p"}}
	l.MaskedPaths = append(l.MaskedPaths, "/etc/secret")
	l.ReadonlyPaths = append(l.ReadonlyPaths, "/etc/fixed")
	l.RootfsPropagation, l.MountLabel = "shared", "system_u:object_r:container_file_t:s0"
	l.Seccomp = &specs.LinuxSeccomp{ListenerPath: "/run/listener"}
	return s
}

func TestPlanOfEverything(t *testing.T) {
	maps := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	for _, tt := range []struct {
		name   string
		change func(*specs.Spec, *plan.Options, *plan.Facts)
	}{
		{"everything", func(*specs.Spec, *plan.Options, *plan.Facts) {}},
		{"everything_mapped", func(s *specs.Spec, _ *plan.Options, _ *plan.Facts) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
		}},
		{"everything_joined", func(s *specs.Spec, o *plan.Options, _ *plan.Facts) {
			s.Linux.TimeOffsets = nil
			s.Linux.Namespaces = nil
			for _, kind := range []specs.LinuxNamespaceType{"pid", "network", "ipc", "uts", "mount", "cgroup", "time", "user"} {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: "/proc/7/ns/" + string(kind)})
			}
			o.UIDs, o.GIDs = maps, maps
		}},
		{"no_mount_namespace", func(s *specs.Spec, o *plan.Options, _ *plan.Facts) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		}},
		{"clocks_joined_mapped", func(s *specs.Spec, o *plan.Options, _ *plan.Facts) {
			*s, o.Filter = *document(t, "runc_spec"), privilege.Filter{}
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace}, specs.LinuxNamespace{Type: specs.TimeNamespace, Path: "/proc/7/ns/time"})
			s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, f := everything(t), ociFacts(t, "host")
			f.AppArmor, f.SELinux = yes, yes
			o := plan.Options{Bundle: "/srv/bundle", NoLandlock: true, Keyring: "_ses.box", Streams: [3]bool{true, true, false}, Home: "/home/box", Keep: 2,
				Filter: privilege.Filter{Instructions: make([]privilege.Instruction, 5), Flags: privilege.NewListener}}
			tt.change(s, &o, &f)
			p, err := plan.Compile(s, nil, o, f)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name+".plan", p.String())
			golden(t, tt.name+".calls", p.Calls())
			checkPlan(t, p)
		})
	}
}

// yes is a fact.
func yes() bool { return true }

// One more process, with all that one can have.
func TestPlanOfExec(t *testing.T) {
	s := everything(t)
	s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "1-2"}
	p, err := plan.CompileExec(s.Process, plan.Target{Namespaces: []string{"mnt", "pid", "time", "net"}, Tasks: []string{"/sys/fs/cgroup/pids/box/tasks"}, Linux: s.Linux},
		plan.Options{Home: "/home/box", Filter: privilege.Filter{Instructions: make([]privilege.Instruction, 5), Flags: privilege.NewListener}},
		plan.Facts{Host: true, LastCap: 40, AppArmor: yes, SELinux: yes, Limit: func(int) (soft, hard uint64) { return 100, 200 }})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "exec.plan", p.String())
	golden(t, "exec.calls", p.Calls())
	checkPlan(t, p)
}

// What makes no sense among the newer fields is named.
func TestWhatIsWrongInEverythingIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*specs.Spec)
		field  string
	}{
		{"offsets of no namespace", func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:5] }, "linux.timeOffsets"},
		{"offsets of somebody's clocks", func(s *specs.Spec) { s.Linux.Namespaces[5].Path = "/proc/1/ns/time" }, "linux.timeOffsets"},
		{"offsets of the real clock", func(s *specs.Spec) { s.Linux.TimeOffsets["realtime"] = specs.LinuxTimeOffset{} }, "linux.timeOffsets"},
		{"a second of nanoseconds", func(s *specs.Spec) { s.Linux.TimeOffsets["boottime"] = specs.LinuxTimeOffset{Nanosecs: 1e9} }, "linux.timeOffsets"},
		{"no policy", func(s *specs.Spec) { s.Process.Scheduler.Policy = "" }, "process.scheduler"},
		{"an unknown policy", func(s *specs.Spec) { s.Process.Scheduler.Policy = "SCHED_NONE" }, "process.scheduler"},
		{"too nice", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} }, "process.scheduler"},
		{"a priority of a batch", func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Priority: 1}
		}, "process.scheduler"},
		{"a deadline of a batch", func(s *specs.Spec) { s.Process.Scheduler.Policy = specs.SchedBatch }, "process.scheduler"},
		{"an unknown flag of the scheduler", func(s *specs.Spec) { s.Process.Scheduler.Flags = []specs.LinuxSchedulerFlag{"X"} }, "process.scheduler"},
		{"an I/O priority of 8", func(s *specs.Spec) { s.Process.IOPriority.Priority = 8 }, "process.ioPriority"},
		{"an unknown I/O class", func(s *specs.Spec) { s.Process.IOPriority.Class = "X" }, "process.ioPriority"},
		{"an unknown personality", func(s *specs.Spec) { s.Linux.Personality.Domain = "BSD" }, "linux.personality"},
		{"an unknown flag of a personality", func(s *specs.Spec) { s.Linux.Personality.Flags = []specs.LinuxPersonalityFlag{"X"} }, "linux.personality.flags"},
		{"an unknown memory policy", func(s *specs.Spec) { s.Linux.MemoryPolicy.Mode = "X" }, "linux.memoryPolicy"},
		{"memory of no nodes", func(s *specs.Spec) { s.Linux.MemoryPolicy.Nodes = "" }, "linux.memoryPolicy"},
		{"local memory elsewhere", func(s *specs.Spec) { s.Linux.MemoryPolicy.Mode = specs.MpolLocal }, "linux.memoryPolicy"},
		{"nodes backwards", func(s *specs.Spec) { s.Linux.MemoryPolicy.Nodes = "3-1" }, "linux.memoryPolicy"},
		{"a node that no kernel has", func(s *specs.Spec) { s.Linux.MemoryPolicy.Nodes = "0-99999999" }, "linux.memoryPolicy"},
		{"an unknown flag of memory", func(s *specs.Spec) { s.Linux.MemoryPolicy.Flags = []specs.MemoryPolicyFlagType{"X"} }, "linux.memoryPolicy"},
		{"no CPUs", func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: " ,"} }, "process.execCPUAffinity.initial"},
		{"CPUs of letters", func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "a"} }, "process.execCPUAffinity.final"},
		{"links without a network", func(s *specs.Spec) {
			s.Linux.Sysctl, s.Linux.Namespaces[1] = nil, specs.LinuxNamespace{Type: "cgroup"}
			s.Linux.Namespaces = s.Linux.Namespaces[:6]
		}, "linux.netDevices"},
		{"a link of a path", func(s *specs.Spec) { s.Linux.NetDevices["a/b"] = specs.LinuxNetDevice{} }, "linux.netDevices"},
		{"a link with a long name", func(s *specs.Spec) { s.Linux.NetDevices["a"] = specs.LinuxNetDevice{Name: "abcdefghijklmnop"} }, "linux.netDevices"},
		{"nobody to ask", func(s *specs.Spec) { s.Linux.Seccomp.ListenerPath = "" }, "linux.seccomp.listenerPath"},
		{"a variable without a value", func(s *specs.Spec) { s.Process.Env = []string{"A"} }, "process.env"},
		{"a variable without a name", func(s *specs.Spec) { s.Process.Env = []string{"=A"} }, "process.env"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, f := everything(t), ociFacts(t, "host")
			f.AppArmor, f.SELinux = yes, yes
			tt.change(s)
			_, err := plan.Compile(s, nil, plan.Options{Filter: privilege.Filter{Instructions: make([]privilege.Instruction, 5), Flags: privilege.NewListener}}, f)
			var e *fault.Error
			if !errors.As(err, &e) || e.Kind != fault.Invalid || e.On != tt.field {
				t.Errorf("Compile: %v; want %q refused", err, tt.field)
			}
		})
	}
}

// What the parent makes has the label of mounts, too, by the option that crun's annotation names.
func TestParentsMountsAreLabelled(t *testing.T) {
	s, f := everything(t), ociFacts(t, "host")
	f.AppArmor, f.SELinux = yes, yes
	s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/copied", Options: []string{"tmpcopyup"}})
	s.Linux.MountLabel, s.Annotations = "u:o:t:s0:c1,c2", map[string]string{"run.oci.mount_context_type": "rootcontext"}
	for _, root := range []chroot.Mount{
		{Type: "overlay", Source: "overlay", Target: "/", Lower: []string{"/lower"}, Options: []string{"nodev"}},
		{Type: "bind", Source: "/tree", Target: "/", Options: []string{"rbind"}},
	} {
		p, err := plan.Compile(s, []chroot.Mount{root}, plan.Options{Filter: privilege.Filter{Instructions: make([]privilege.Instruction, 5), Flags: privilege.NewListener}}, f)
		if err != nil {
			t.Fatal(err)
		}
		labelled := map[string]bool{}
		for _, step := range p.Steps {
			if step.Act != nil {
				labelled[step.Act.Mount.Target] = slices.Contains(step.Act.Mount.Options, "rootcontext=u:o:t:s0:c1,c2")
			}
		}
		if !labelled["/layers"] || !labelled["/copied"] || labelled["/data"] || labelled["/"] != (root.Type == "overlay") {
			t.Errorf("labelled are %v", labelled)
		}
	}
}
