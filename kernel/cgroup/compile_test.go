package cgroup

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiste/fault"
)

var update = flag.Bool("update", false, "rewrite testdata")

// unified is a host as systemd makes it today.
func unified() Layout {
	return Layout{Unified: Hierarchy{Mount: "/sys/fs/cgroup", Root: "/", V2: true,
		Controllers: strings.Fields("cpuset cpu io memory hugetlb pids rdma misc")}}
}

// hybrid is a host with version 1 and an almost empty version 2 beside it.
func hybrid() Layout {
	l := legacy()
	l.Unified = Hierarchy{Mount: "/sys/fs/cgroup/unified", Root: "/", V2: true, Controllers: []string{"hugetlb"}}
	return l
}

// legacy is a host with version 1 alone, cpu and cpuacct mounted together.
func legacy() Layout {
	var l Layout
	for _, c := range []string{"cpu,cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "net_cls,net_prio"} {
		l.V1 = append(l.V1, Hierarchy{Mount: "/sys/fs/cgroup/" + c, Root: "/", Controllers: strings.Split(c, ",")})
	}
	return l
}

func ptr[T any](v T) *T { return &v }

// everything is each limit that all layouts know.
func everything() Limits {
	return Limits{
		Memory: Memory{Limit: 64 << 20, Reservation: 32 << 20, Swap: 96 << 20},
		CPU:    CPU{CPUs: 1.5, Burst: ptr(uint64(20_000)), Shares: 512, Idle: ptr(int64(1)), Cpus: "0-1", Mems: "0"},
		Pids:   32,
		IO: IO{Weight: 500, Weights: []DeviceWeight{{Major: 8, Weight: 100}},
			ReadBPS: []Rate{{8, 0, 1 << 20}}, WriteBPS: []Rate{{8, 0, 2 << 20}}, ReadIOPS: []Rate{{8, 0, 100}}, WriteIOPS: []Rate{{8, 0, 200}}},
		Devices: []DeviceRule{{Allow: false, Major: -1, Minor: -1}, {Allow: true, Type: 'c', Major: 1, Minor: 3, Access: "rw"}, {Allow: true, Major: -1, Minor: -1, Access: "m"}},
	}
}

func TestCompileGolden(t *testing.T) {
	with := func(l Limits, change func(*Limits)) Limits { change(&l); return l }
	for _, tt := range []struct {
		name   string
		layout Layout
		lim    Limits
		o      Options
	}{
		{"v2", unified(), with(everything(), func(l *Limits) {
			l.Huge = []Huge{{"2MB", 4 << 20}}
			l.RDMA = []RDMA{{"mlx5_1", ptr(uint32(3)), nil}}
			l.Unified = map[string]string{"memory.high": "50M", "cgroup.max.depth": "2"}
		}), Options{}},
		{"v2-nothing", unified(), Limits{}, Options{}},
		{"v2-account", unified(), Limits{}, Options{Account: true}},
		{"hybrid", hybrid(), with(everything(), func(l *Limits) { l.Huge = []Huge{{"2MB", 4 << 20}} }), Options{}},
		{"hybrid-nothing", hybrid(), Limits{}, Options{}},
		{"hybrid-one", hybrid(), Limits{Pids: -1}, Options{Exist: true}},
		{"v1", legacy(), with(everything(), func(l *Limits) {
			l.Memory.Kernel, l.Memory.KernelTCP, l.Memory.Swappiness, l.Memory.NoOOMKill = 1<<20, 2<<20, ptr(uint64(10)), ptr(true)
			l.NetClass, l.NetPrio = ptr(uint32(0x100001)), []NetPrio{{"eth0", 5}}
			l.CPU.RealtimePeriod, l.CPU.RealtimeRuntime = 1_000_000, 950_000
		}), Options{}},
		{"v1-nothing", legacy(), Limits{}, Options{}},
		{"v1-raise", legacy(), Limits{Memory: Memory{Limit: 64 << 20, Swap: 96 << 20}}, Options{Exist: true, Now: Now{Memory: 32 << 20}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			steps, err := Compile(tt.layout, "kiste/web", tt.lim, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for _, s := range steps {
				b.WriteString(s.String())
				if s.For != "" {
					b.WriteString("    # " + s.For)
				}
				b.WriteByte('\n')
			}
			golden(t, filepath.Join("testdata", tt.name+".steps"), b.String())
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (go test -update rewrites it):\ngot\n%s\nwant\n%s", path, got, want)
	}
}

func TestCompileRefuses(t *testing.T) {
	none := Layout{}
	for _, tt := range []struct {
		name   string
		layout Layout
		path   string
		lim    Limits
		kind   fault.Kind
		says   string // must be in the error
	}{
		{"no cgroups at all", none, "a", Limits{}, fault.Unsupported, "no cgroup hierarchy"},
		{"a path upwards", unified(), "kiste/../x", Limits{}, fault.Invalid, ".."},
		{"an empty path", unified(), "/", Limits{}, fault.Invalid, "path"},
		{"a path that is a kernel file", unified(), "kiste/cgroup.procs", Limits{}, fault.Invalid, "kernel"},
		{"a path with a newline", unified(), "a\nb", Limits{}, fault.Invalid, "control"},
		{"swappiness on version 2", unified(), "a", Limits{Memory: Memory{Swappiness: ptr(uint64(0))}}, fault.Unsupported, "swappiness"},
		{"swappiness of 200", legacy(), "a", Limits{Memory: Memory{Swappiness: ptr(uint64(200))}}, fault.Invalid, "100"},
		{"no OOM killer on version 2", unified(), "a", Limits{Memory: Memory{NoOOMKill: ptr(true)}}, fault.Unsupported, "memory"},
		{"kernel memory on version 2", unified(), "a", Limits{Memory: Memory{Kernel: 1}}, fault.Unsupported, "memory.kernel"},
		{"realtime on version 2", unified(), "a", Limits{CPU: CPU{RealtimeRuntime: 1}}, fault.Unsupported, "realtimeRuntime"},
		{"a net class on version 2", unified(), "a", Limits{NetClass: ptr(uint32(1))}, fault.Unsupported, "net_cls"},
		{"a file of version 2 on version 1", legacy(), "a", Limits{Unified: map[string]string{"memory.high": "1"}}, fault.Unsupported, "memory"},
		{"a file of version 2 whose controller is in version 1", hybrid(), "a", Limits{Unified: map[string]string{"memory.high": "1"}}, fault.Unsupported, "memory"},
		{"huge pages where nobody mounts them", legacy(), "a", Limits{Huge: []Huge{{"2MB", 1}}}, fault.Unsupported, "hugetlb"},
		{"a file that moves processes", unified(), "a", Limits{Unified: map[string]string{"cgroup.procs": "1"}}, fault.Invalid, "cgroup.procs"},
		{"a file with a path", unified(), "a", Limits{Unified: map[string]string{"../memory.max": "1"}}, fault.Invalid, "memory.max"},
		{"swap without memory on version 2", unified(), "a", Limits{Memory: Memory{Swap: 1}}, fault.Invalid, "memory limit"},
		{"swap below memory", unified(), "a", Limits{Memory: Memory{Limit: 2, Swap: 1}}, fault.Invalid, "less"},
		{"CPUs and a quota", unified(), "a", Limits{CPU: CPU{CPUs: 1, Quota: 5}}, fault.Invalid, "one"},
		{"a cpuset that is a word", unified(), "a", Limits{CPU: CPU{Cpus: "all"}}, fault.Invalid, "cpu.cpus"},
		{"a weight of 5", unified(), "a", Limits{IO: IO{Weight: 5}}, fault.Invalid, "blockIO.weight"},
		{"a device of a strange type", unified(), "a", Limits{Devices: []DeviceRule{{Type: 'x'}}}, fault.Invalid, "devices"},
		{"no memory controller", Layout{Unified: Hierarchy{Mount: "/x", Root: "/", V2: true}}, "a", Limits{Memory: Memory{Limit: 1}}, fault.Unsupported, "memory.limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			steps, err := Compile(tt.layout, tt.path, tt.lim, Options{})
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Compile = %v, %v; want %v that says %q", steps, err, tt.kind, tt.says)
			}
		})
	}
}

func TestConversions(t *testing.T) {
	for _, tt := range []struct{ shares, want uint64 }{{0, 1}, {2, 1}, {512, 59}, {1024, 100}, {2048, 174}, {262144, 10000}, {1 << 40, 10000}} {
		if got := cpuWeight(tt.shares); got != tt.want {
			t.Errorf("cpuWeight(%d) = %d, want %d", tt.shares, got, tt.want)
		}
	}
	for _, tt := range []struct {
		weight uint16
		want   uint64
	}{{0, 0}, {10, 1}, {500, 4950}, {1000, 10000}} {
		if got := ioWeight(tt.weight); got != tt.want {
			t.Errorf("ioWeight(%d) = %d, want %d", tt.weight, got, tt.want)
		}
	}
	for _, tt := range []struct {
		m    Memory
		want string
	}{
		{Memory{Limit: 64, Swap: 96}, "32"},
		{Memory{Limit: 64, Swap: 64}, "0"},
		{Memory{Swap: -1}, "max"},
		{Memory{Limit: 64, Swap: -1}, "max"},
	} {
		if got, err := swapOnly(tt.m); got != tt.want || err != nil {
			t.Errorf("swapOnly(%+v) = %q, %v; want %q", tt.m, got, err, tt.want)
		}
	}
}

func TestWhereProcessesGo(t *testing.T) {
	steps, err := Compile(hybrid(), "kiste/web", Limits{Pids: 1}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := UnifiedDir(steps); got != "/sys/fs/cgroup/unified/kiste/web" {
		t.Errorf("UnifiedDir = %q", got)
	}
	if got := strings.Join(Tasks(steps), " "); got != "/sys/fs/cgroup/pids/kiste/web/tasks" {
		t.Errorf("Tasks = %q", got)
	}
	if got := AttachSteps(steps, 7); len(got) != 2 || got[1].String() != `attach    /sys/fs/cgroup/pids/kiste/web/cgroup.procs "7"` {
		t.Errorf("AttachSteps = %v", got)
	}
	if got := strings.Join(Dirs(steps), " "); got != "/sys/fs/cgroup/unified/kiste/web /sys/fs/cgroup/pids/kiste/web" {
		t.Errorf("Dirs = %q", got)
	}
}
