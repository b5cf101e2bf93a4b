package cgroup

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/internal/sys"
)

// A field is one limit of the specification: what is asked for, changed and
// taken away, and which file of which version says what after each.
type field struct {
	name   string
	spec   []string // resources at the creation, then of each update
	c1, f1 string   // controller and file of version 1; none: it has no such limit
	v1     []string
	c2, f2 string // of version 2
	v2     []string
}

// disk is replaced by the numbers of a block device of this host.
var fields = []field{
	{"memory.limit", []string{`{"memory":{"limit":67108864}}`, `{"memory":{"limit":33554432}}`, `{"memory":{"limit":-1}}`},
		"memory", "memory.limit_in_bytes", []string{"67108864", "33554432", "9223372036854771712"}, "memory", "memory.max", []string{"67108864", "33554432", "max"}},
	{"memory.reservation", []string{`{"memory":{"reservation":4194304}}`, `{"memory":{"reservation":8388608}}`},
		"memory", "memory.soft_limit_in_bytes", []string{"4194304", "8388608"}, "memory", "memory.low", []string{"4194304", "8388608"}},
	{"memory.swap", []string{`{"memory":{"limit":33554432,"swap":67108864}}`, `{"memory":{"limit":134217728,"swap":201326592}}`, `{"memory":{"limit":16777216,"swap":16777216}}`, `{"memory":{"swap":33554432}}`, `{"memory":{"limit":25165824}}`, `{"memory":{"limit":-1}}`},
		"memory", "memory.memsw.limit_in_bytes", []string{"67108864", "201326592", "16777216", "33554432", "33554432", "9223372036854771712"},
		"memory", "memory.swap.max", []string{"33554432", "67108864", "0", "16777216", "8388608", "max"}},
	{"memory.kernelTCP", []string{`{"memory":{"kernelTCP":8388608}}`, `{"memory":{"kernelTCP":-1}}`},
		"memory", "memory.kmem.tcp.limit_in_bytes", []string{"8388608", "9223372036854771712"}, "", "", nil},
	{"memory.swappiness", []string{`{"memory":{"swappiness":10}}`, `{"memory":{"swappiness":0}}`},
		"memory", "memory.swappiness", []string{"10", "0"}, "", "", nil},
	{"memory.disableOOMKiller", []string{`{"memory":{"disableOOMKiller":true}}`, `{"memory":{"disableOOMKiller":false}}`},
		"memory", "memory.oom_control", []string{"oom_kill_disable 1", "oom_kill_disable 0"}, "", "", nil},
	{"cpu.shares", []string{`{"cpu":{"shares":512}}`, `{"cpu":{"shares":2048}}`},
		"cpu", "cpu.shares", []string{"512", "2048"}, "cpu", "cpu.weight", []string{"59", "174"}},
	{"cpu.quota", []string{`{"cpu":{"quota":50000,"period":100000}}`, `{"cpu":{"quota":20000,"period":20000}}`, `{"cpu":{"quota":30000}}`, `{"cpu":{"period":50000}}`, `{"cpu":{"quota":-1}}`},
		"cpu", "cpu.cfs_quota_us", []string{"50000", "20000", "30000", "30000", "-1"},
		"cpu", "cpu.max", []string{"50000 100000", "20000 20000", "30000 20000", "30000 50000", "max 50000"}},
	{"cpu.burst", []string{`{"cpu":{"quota":50000,"period":100000,"burst":20000}}`, `{"cpu":{"quota":90000,"burst":80000}}`, `{"cpu":{"quota":10000,"burst":5000}}`, `{"cpu":{"burst":0}}`},
		"cpu", "cpu.cfs_burst_us", []string{"20000", "80000", "5000", "0"}, "cpu", "cpu.max.burst", []string{"20000", "80000", "5000", "0"}},
	{"cpu.idle", []string{`{"cpu":{"idle":1}}`, `{"cpu":{"idle":0,"shares":100}}`, `{"cpu":{"idle":1,"shares":200}}`, `{"cpu":{"idle":1,"shares":300}}`, `{"cpu":{"idle":0}}`},
		"cpu", "cpu.idle", []string{"1", "0", "1", "1", "0"}, "cpu", "cpu.idle", []string{"1", "0", "1", "1", "0"}},
	{"cpu.realtime", []string{`{"cpu":{"realtimePeriod":1000000,"realtimeRuntime":1000}}`, `{"cpu":{"realtimePeriod":500000,"realtimeRuntime":2000}}`},
		"cpu", "cpu.rt_runtime_us", []string{"1000", "2000"}, "", "", nil},
	{"cpu.cpus", []string{`{"cpu":{"cpus":"0"}}`, `{"cpu":{"cpus":"0-1"}}`},
		"cpuset", "cpuset.cpus", []string{"0", "0-1"}, "cpuset", "cpuset.cpus", []string{"0", "0-1"}},
	{"cpu.mems", []string{`{"cpu":{"mems":"0"}}`, `{"cpu":{"mems":"0"}}`},
		"cpuset", "cpuset.mems", []string{"0", "0"}, "cpuset", "cpuset.mems", []string{"0", "0"}},
	{"pids.limit", []string{`{"pids":{"limit":20}}`, `{"pids":{"limit":0}}`, `{"pids":{"limit":-1}}`},
		"pids", "pids.max", []string{"20", "1", "max"}, "pids", "pids.max", []string{"20", "1", "max"}},
	{"blockIO.weight", []string{`{"blockIO":{"weight":200}}`, `{"blockIO":{"weight":500}}`},
		"blkio", "blkio.bfq.weight", []string{"200", "500"}, "io", "io.bfq.weight", []string{"default 200", "default 500"}},
	{"blockIO.leafWeight", []string{`{"blockIO":{"leafWeight":200}}`, `{"blockIO":{"leafWeight":300}}`},
		"blkio", "blkio.leaf_weight", []string{"200", "300"}, "", "", nil},
	{"blockIO.throttleReadBpsDevice", []string{`{"blockIO":{"throttleReadBpsDevice":[{disk,"rate":1048576}]}}`, `{"blockIO":{"throttleReadBpsDevice":[{disk,"rate":2097152}]}}`, `{"blockIO":{"throttleReadBpsDevice":[{disk,"rate":0}]}}`},
		"blkio", "blkio.throttle.read_bps_device", []string{"DISK 1048576", "DISK 2097152", ""}, "io", "io.max", []string{"DISK rbps=1048576", "DISK rbps=2097152", ""}},
	{"blockIO.throttleWriteBpsDevice", []string{`{"blockIO":{"throttleWriteBpsDevice":[{disk,"rate":1048576}]}}`, `{"blockIO":{"throttleWriteBpsDevice":[{disk,"rate":0}]}}`},
		"blkio", "blkio.throttle.write_bps_device", []string{"DISK 1048576", ""}, "io", "io.max", []string{"DISK rbps=max wbps=1048576", ""}},
	{"blockIO.throttleReadIOPSDevice", []string{`{"blockIO":{"throttleReadIOPSDevice":[{disk,"rate":100}]}}`, `{"blockIO":{"throttleReadIOPSDevice":[{disk,"rate":0}]}}`},
		"blkio", "blkio.throttle.read_iops_device", []string{"DISK 100", ""}, "io", "io.max", []string{"DISK rbps=max wbps=max riops=100", ""}},
	{"blockIO.throttleWriteIOPSDevice", []string{`{"blockIO":{"throttleWriteIOPSDevice":[{disk,"rate":100}]}}`, `{"blockIO":{"throttleWriteIOPSDevice":[{disk,"rate":0}]}}`},
		"blkio", "blkio.throttle.write_iops_device", []string{"DISK 100", ""}, "io", "io.max", []string{"DISK rbps=max wbps=max riops=max wiops=100", ""}},
	{"hugepageLimits", []string{`{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}`, `{"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]}`},
		"hugetlb", "hugetlb.2MB.limit_in_bytes", []string{"4194304", "2097152"}, "hugetlb", "hugetlb.2MB.max", []string{"4194304", "2097152"}},
	{"hugepageLimits", []string{`{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}`},
		"hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", []string{"4194304"}, "hugetlb", "hugetlb.2MB.rsvd.max", []string{"4194304"}},
	{"network.classID", []string{`{"network":{"classID":1048577}}`, `{"network":{"classID":0}}`},
		"net_cls", "net_cls.classid", []string{"1048577", "0"}, "", "", nil},
	{"network.priorities", []string{`{"network":{"priorities":[{"name":"lo","priority":3}]}}`, `{"network":{"priorities":[{"name":"lo","priority":0}]}}`},
		"net_prio", "net_prio.ifpriomap", []string{"lo 3", "lo 0"}, "", "", nil},
	{"rdma", []string{`{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000}}}`},
		"rdma", "rdma.max", []string{"mlx5_1 hca_handle=3 hca_object=10000"}, "rdma", "rdma.max", []string{"mlx5_1 hca_handle=3 hca_object=10000"}},
	{"unified", []string{`{"unified":{"memory.high":"8388608"}}`, `{"unified":{"memory.high":"max"}}`},
		"", "", nil, "memory", "memory.high", []string{"8388608", "max"}},
	{"unified", []string{`{"unified":{"cgroup.max.depth":"3"}}`, `{"unified":{"cgroup.max.depth":"max"}}`},
		"", "", nil, "cgroup", "cgroup.max.depth", []string{"3", "max"}},
	{"unified", []string{`{"unified":{"io.max":"DISK rbps=1048576\nDISK wiops=10"}}`},
		"", "", nil, "io", "io.max", []string{"DISK rbps=1048576 wbps=max riops=max wiops=10"}},
}

// Every field of the specification, on this host's own hierarchies: made, read
// back, changed, read back, removed. What the host cannot do names the field.
func TestEveryFieldOfTheSpecification(t *testing.T) {
	need.Power(t, host.Root)
	number, ok := disk()
	for _, f := range fields {
		t.Run(f.name+"/"+f.f2+f.f1, func(t *testing.T) {
			if strings.Contains(strings.Join(f.spec, " "), "DISK") || strings.Contains(f.spec[0], "disk,") {
				if !ok {
					t.Skip("NEEDS a block device that is a disk")
				}
			}
			major, minor, _ := strings.Cut(number, ":")
			fill := strings.NewReplacer("DISK", number, "disk,", `"major":`+major+`,"minor":`+minor+",").Replace
			l, p := ground(t)
			if strings.HasPrefix(f.f1, "cpu.rt_") {
				lendRealtime(t, l, p)
			}
			for i, text := range f.spec {
				lim, err := FromSpec(decode(t, fill(text)))
				if err != nil {
					t.Fatal(err)
				}
				if err := apply(l, p, lim, i > 0); err != nil {
					f.refused(t, l, text, err)
					return
				}
				f.check(t, l, p, i, fill)
			}
		})
	}
}

// lendRealtime gives the group above p realtime to hand on, of which new groups
// have none.
func lendRealtime(t *testing.T, l Layout, p string) {
	t.Helper()
	h, ok := l.Find("cpu")
	file := h.Dir(path.Dir(p)) + "/cpu.rt_runtime_us"
	if !ok || h.V2 {
		return
	}
	if _, err := Create(l, p, Limits{CPU: CPU{Shares: 1024}}, Options{Exist: true}); err != nil {
		t.Fatal(err)
	}
	if err := sys.WriteKnob(file, "10000"); err != nil {
		t.Skipf("NEEDS groups with realtime: %v", err)
	}
	if g, err := Open(l, p); err == nil {
		g.rmdir()
	}
	t.Cleanup(func() { sys.WriteKnob(file, "0") })
}

func apply(l Layout, p string, lim Limits, again bool) error {
	if !again {
		_, err := Create(l, p, lim, Options{})
		return err
	}
	g, err := Open(l, p)
	if err != nil {
		return err
	}
	return g.Update(lim)
}

// refused judges an error: it names the field, and the kernel has no such file.
func (f field) refused(t *testing.T, l Layout, text string, err error) {
	t.Helper()
	if !strings.Contains(err.Error(), f.name) {
		t.Errorf("%s: the error names no field %s: %v", text, f.name, err)
	}
	if f.name == "rdma" && (errors.Is(err, fault.Invalid) || strings.Contains(err.Error(), "argument") || strings.Contains(err.Error(), "device")) {
		t.Skipf("NEEDS the device: %v", err)
	}
	if !errors.Is(err, fault.Unsupported) {
		t.Errorf("%s: %v", text, err)
	}
	t.Skipf("NEEDS %v", err)
}

func (f field) check(t *testing.T, l Layout, p string, step int, fill func(string) string) {
	t.Helper()
	h, ok := Hierarchy{}, false
	file, want := f.f1, f.v1
	if f.c1 != "" {
		h, ok = l.Find(f.c1)
		ok = ok && !h.V2
	}
	if !ok {
		h, file, want = l.Unified, f.f2, f.v2
	}
	if len(want) == 0 {
		t.Fatalf("%s: was taken and has no file", f.name)
	}
	b, err := os.ReadFile(path.Join(h.Dir(p), file))
	if file == "io.bfq.weight" && err != nil {
		return // io.weight, of another scale
	}
	if err != nil {
		t.Fatal(err)
	}
	if w := fill(want[step]); !strings.Contains("\n"+string(b), "\n"+w) || w == "" && strings.TrimSpace(string(b)) != "" {
		t.Errorf("%s: %s says %q, want %q", f.spec[step], file, b, w)
	}
}

// disk is the number of a block device that takes limits.
func disk() (string, bool) {
	entries, _ := os.ReadDir("/sys/block")
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "loop") || strings.HasPrefix(e.Name(), "ram") {
			continue
		}
		if b, err := os.ReadFile("/sys/block/" + e.Name() + "/dev"); err == nil {
			return strings.TrimSpace(string(b)), true
		}
	}
	return "0:0", false
}

// The network's controllers are version 1's, and nobody mounts them any more:
// here they are, for one thread.
func TestNetworkFieldsInAHierarchyOfTheirOwn(t *testing.T) {
	need.Power(t, host.Root)
	if b, err := os.ReadFile("/proc/self/cgroup"); err != nil || strings.Contains(string(b), "net_cls") {
		t.Skipf("NEEDS the network's controllers for itself: %v", err)
	}
	dir := t.TempDir()
	_, err := sys.OnOwnThread(func() (int, error) {
		if err := errors.Join(sys.Unshare(syscall.CLONE_FS|syscall.CLONE_NEWNS), sys.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")); err != nil {
			return 0, err
		}
		if err := sys.Mount("cgroup", dir, "cgroup", 0, "net_cls,net_prio"); err != nil {
			return 0, &fault.Error{Op: "mount the network's controllers", Kind: fault.Unsupported, Err: err}
		}
		defer sys.Unmount(dir, 0)
		l := Layout{V1: []Hierarchy{{Mount: dir, Root: "/", Controllers: []string{"net_cls", "net_prio"}}}}
		for i, f := range []string{`{"network":{"classID":1048577,"priorities":[{"name":"lo","priority":3}]}}`, `{"network":{"classID":0,"priorities":[{"name":"lo","priority":0}]}}`} {
			lim, err := FromSpec(decode(t, f))
			if err != nil {
				return 0, err
			}
			if err := apply(l, "/kiste-test/net", lim, i > 0); err != nil {
				return 0, err
			}
			for file, want := range map[string]string{"net_cls.classid": []string{"1048577", "0"}[i], "net_prio.ifpriomap": []string{"lo 3", "lo 0"}[i]} {
				if b, err := os.ReadFile(dir + "/kiste-test/net/" + file); err != nil || !strings.Contains(string(b), want) {
					t.Errorf("%s: %q, %v; want %q", file, b, err, want)
				}
			}
		}
		g, err := Open(l, "/kiste-test/net")
		if err != nil {
			return 0, err
		}
		err = g.Remove(t.Context())
		Tidy(l, "/kiste-test")
		// Groups die some time after their directories, and a hierarchy with
		// one outlives its last mount.
		settle(t, "the hierarchy is empty", func() bool { return groupsOf(t, "net_cls") == 1 })
		return 0, err
	})
	if errors.Is(err, fault.Unsupported) {
		t.Skipf("NEEDS %v", err)
	}
	if err != nil {
		t.Error(err)
	}
	settle(t, "the hierarchy is gone", func() bool {
		b, err := os.ReadFile("/proc/self/cgroup")
		return err == nil && !strings.Contains(string(b), "net_cls")
	})
}

// groupsOf is how many groups the kernel counts for a controller.
func groupsOf(t *testing.T, controller string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == controller {
			n, _ := strconv.Atoi(f[2])
			return n
		}
	}
	return 0
}
