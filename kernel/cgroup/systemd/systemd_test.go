package systemd

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/internal/bus"
	"kiste/kernel/cgroup"
)

func ptr[T any](v T) *T { return &v }

func TestParseUnit(t *testing.T) {
	for _, tt := range []struct {
		name, path, id string
		user           bool
		want, group    string // unit; group, "": refused
	}{
		{"docker's", "system.slice:docker:abc", "abc", false, "docker-abc.scope", "/system.slice/docker-abc.scope"},
		{"no path", "", "web", false, "kiste-web.scope", "/system.slice/kiste-web.scope"},
		{"no path of a user", "", "web", true, "kiste-web.scope", "/user.slice/kiste-web.scope"},
		{"no slice", ":p:n", "x", false, "p-n.scope", "/system.slice/p-n.scope"},
		{"a slice in slices", "a-b-c.slice:crio:1", "x", false, "crio-1.scope", "/a.slice/a-b.slice/a-b-c.slice/crio-1.scope"},
		{"the root slice", "-.slice:p:n", "x", false, "p-n.scope", "/p-n.scope"},
		{"a path of cgroupfs", "/docker/abc", "x", false, "", ""},
		{"four parts", "a.slice:b:c:d", "x", false, "", ""},
		{"a slice that is none", "system:p:n", "x", false, "", ""},
		{"a slice with an empty part", "a--b.slice:p:n", "x", false, "", ""},
		{"a slice with a path", "a/b.slice:p:n", "x", false, "", ""},
		{"a name with a path", "system.slice:p:../../x", "x", false, "", ""},
		{"a name of a slice", "system.slice:p:x.slice", "x", false, "", ""},
		{"no name", "system.slice:p:", "x", false, "", ""},
		{"a name with a newline", "system.slice:p:a\nb", "x", false, "", ""},
		{"a long name", "system.slice:p:" + strings.Repeat("x", 250), "x", false, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := ParseUnit(tt.path, tt.id, tt.user)
			if tt.group == "" {
				if !errors.Is(err, fault.Invalid) {
					t.Errorf("got %+v, %v; want it refused", u, err)
				}
				return
			}
			group, bad := u.Group("/")
			if err := errors.Join(err, bad); err != nil || u.Name != tt.want || group != tt.group {
				t.Errorf("got %+v at %q, %v; want %q at %q", u, group, err, tt.want, tt.group)
			}
		})
	}
	u := Unit{Name: "a.scope", Slice: "user.slice", User: true}
	if got, err := u.Group("/user.slice/user-1000.slice/user@1000.service"); err != nil || got != "/user.slice/user-1000.slice/user@1000.service/user.slice/a.scope" {
		t.Errorf("below the user's instance: %q, %v", got, err)
	}
}

func TestAnnotations(t *testing.T) {
	got, err := Annotations(map[string]string{
		"org.systemd.property.TimeoutStopUSec": "uint64 123456789", "org.systemd.property.TimeoutStartSec": "1.5", "org.systemd.property.CollectMode": `"inactive-or-failed"`,
		"org.systemd.property.After": "['a.service', 'b.service']", "org.systemd.property.Sec": "5", "io.kubernetes.pod": "x",
	})
	want := []Property{
		{"After", bus.Array("s", bus.String("a.service"), bus.String("b.service"))}, {"CollectMode", bus.String("inactive-or-failed")},
		{"Sec", bus.Value{Type: "i", Number: 5}}, {"TimeoutStartUSec", bus.Uint64(1_500_000)}, {"TimeoutStopUSec", bus.Uint64(123456789)},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, tt := range []struct {
		name, value string
		kind        fault.Kind
	}{
		{"ab", "true", fault.Invalid}, {"Has-Hyphen", "true", fault.Invalid}, {"has.dot", "true", fault.Invalid}, {"Über", "true", fault.Invalid}, {"Has Space", "true", fault.Invalid},
		{"CollectMode", "inactive", fault.Invalid}, {"CollectMode", "", fault.Invalid}, {"TimeoutStopSec", "'soon'", fault.Invalid}, {"TimeoutStopSec", "-1", fault.Invalid},
		{"TimeoutStopSec", "uint64 18446744073709551615", fault.Invalid}, {"TimeoutStopSec", "double nan", fault.Invalid},
		{"SuccessAction", "'poweroff-force'", fault.Denied}, {"FailureAction", "'reboot'", fault.Denied}, {"Slice", "'-.slice'", fault.Denied}, {"PIDs", "[uint32 1]", fault.Denied},
	} {
		key := "org.systemd.property." + tt.name
		got, err := Annotations(map[string]string{key: tt.value})
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s=%s: %+v, %v; want %v", key, tt.value, got, err, tt.kind)
		}
	}
}

func v2() cgroup.Layout {
	return cgroup.Layout{Unified: cgroup.Hierarchy{Mount: "/sys/fs/cgroup", Root: "/", V2: true, Controllers: strings.Fields("cpuset cpu io memory hugetlb pids rdma misc")}}
}

func v1() cgroup.Layout {
	var l cgroup.Layout
	for _, c := range strings.Fields("cpu cpuset memory devices freezer blkio pids name=systemd") {
		l.V1 = append(l.V1, cgroup.Hierarchy{Mount: "/sys/fs/cgroup/" + c, Root: "/", Controllers: []string{c}})
	}
	return l
}

func TestProperties(t *testing.T) {
	no := uint64(infinity)
	for _, tt := range []struct {
		name    string
		layout  cgroup.Layout
		lim     cgroup.Limits
		created bool
		want    []Property
	}{
		{"nothing", v2(), cgroup.Limits{}, true, nil},
		{"memory", v2(), cgroup.Limits{Memory: cgroup.Memory{Limit: 64 << 20, Swap: 96 << 20, Reservation: 1 << 20}}, true,
			[]Property{{"MemoryLow", bus.Uint64(1 << 20)}, {"MemoryMax", bus.Uint64(64 << 20)}, {"MemorySwapMax", bus.Uint64(32 << 20)}}},
		{"no limit of memory", v2(), cgroup.Limits{Memory: cgroup.Memory{Limit: -1}}, true, []Property{{"MemoryMax", bus.Uint64(no)}, {"MemorySwapMax", bus.Uint64(no)}}},
		{"cpu", v2(), cgroup.Limits{CPU: cgroup.CPU{Shares: 1024, Quota: 50000, Period: 100000, Cpus: "0,9", Mems: "1"}}, true,
			[]Property{{"AllowedCPUs", bus.Bytes([]byte{1, 2})}, {"AllowedMemoryNodes", bus.Bytes([]byte{2})}, {"CPUQuotaPerSecUSec", bus.Uint64(500_000)}, {"CPUQuotaPeriodUSec", bus.Uint64(100_000)}, {"CPUWeight", bus.Uint64(100)}}},
		{"no quota", v2(), cgroup.Limits{CPU: cgroup.CPU{Quota: -1}}, true, []Property{{"CPUQuotaPerSecUSec", bus.Uint64(no)}}},
		{"idle", v2(), cgroup.Limits{CPU: cgroup.CPU{Idle: ptr(int64(1)), Shares: 500}}, true, []Property{{"CPUWeight", bus.Uint64(0)}}},
		{"not idle", v2(), cgroup.Limits{CPU: cgroup.CPU{Idle: ptr(int64(0)), Shares: 2}}, true, []Property{{"CPUWeight", bus.Uint64(1)}}},
		{"processes", v2(), cgroup.Limits{Pids: 7}, true, []Property{{"TasksMax", bus.Uint64(7)}}},
		{"any number of processes", v2(), cgroup.Limits{Pids: -1}, true, []Property{{"TasksMax", bus.Uint64(no)}}},
		{"io", v2(), cgroup.Limits{IO: cgroup.IO{Weight: 1000, Weights: []cgroup.DeviceWeight{{Major: 8, Weight: 100}}, ReadBPS: []cgroup.Rate{{Major: 8, Rate: 5}}}}, true, []Property{{"IOWeight", bus.Uint64(10000)}}},
		{"files", v2(), cgroup.Limits{Unified: map[string]string{"memory.high": "8M", "pids.max": "0", "memory.min": "4096", "cpu.max": "max 50000", "memory.oom.group": "1", "hugetlb.2MB.max": "0"}}, true,
			[]Property{{"CPUQuotaPerSecUSec", bus.Uint64(no)}, {"CPUQuotaPeriodUSec", bus.Uint64(50_000)}, {"MemoryHigh", bus.Uint64(8 << 20)}, {"MemoryMin", bus.Uint64(4096)}, {"OOMPolicy", bus.String("kill")}, {"TasksMax", bus.Uint64(1)}}},
		{"files that cannot be changed", v2(), cgroup.Limits{Unified: map[string]string{"memory.oom.group": "1"}}, false, nil},
		{"all devices", v2(), cgroup.Limits{Devices: []cgroup.DeviceRule{{Allow: true, Major: -1, Minor: -1}}}, true, []Property{{"DevicePolicy", bus.String("auto")}, {"DeviceAllow", bus.Array("(ss)")}}},
		{"some devices", v2(), cgroup.Limits{Devices: []cgroup.DeviceRule{{Allow: true, Type: 'c', Major: 1, Minor: 3, Access: "rw"}, {Allow: true, Type: 'b', Major: 8, Minor: -1}, {Allow: true, Type: 'c', Major: -1, Minor: -1, Access: "m"}, {Allow: true, Type: 'c', Major: -1, Minor: 5}}}, true,
			[]Property{{"DevicePolicy", bus.String("strict")}, {"DeviceAllow", bus.Array("(ss)")}, {"DeviceAllow", bus.Array("(ss)",
				bus.Struct(bus.String("/dev/char/1:3"), bus.String("rw")), bus.Struct(bus.String("block-8"), bus.String("rwm")), bus.Struct(bus.String("char-*"), bus.String("m")))}}},
		{"all devices but one", v2(), cgroup.Limits{Devices: []cgroup.DeviceRule{{Allow: true, Major: -1, Minor: -1}, {Type: 'c', Major: 1, Minor: 3}}}, true, []Property{{"DevicePolicy", bus.String("strict")}, {"DeviceAllow", bus.Array("(ss)")}}},
		{"version 1", v1(), cgroup.Limits{Memory: cgroup.Memory{Limit: 64 << 20, Swap: 96 << 20}, CPU: cgroup.CPU{Shares: 512, Quota: 20000, Period: 50000}, Pids: 3, IO: cgroup.IO{Weight: 300}}, true,
			[]Property{{"BlockIOWeight", bus.Uint64(300)}, {"CPUQuotaPerSecUSec", bus.Uint64(400_000)}, {"CPUQuotaPeriodUSec", bus.Uint64(50_000)}, {"CPUShares", bus.Uint64(512)}, {"MemoryLimit", bus.Uint64(64 << 20)}, {"TasksMax", bus.Uint64(3)}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			steps, err := cgroup.Compile(tt.layout, "/system.slice/x.scope", tt.lim, cgroup.Options{Unit: true})
			if err != nil {
				t.Fatal(err)
			}
			got, same, err := Properties(steps, tt.created, func() (int, error) { return 255, nil })
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, tt.want)
			}
			if !reflect.DeepEqual(steps, same) {
				t.Errorf("steps %v became %v", steps, same)
			}
		})
	}
}

// Systemd knows whole percents of CPU time, and would write them again whenever
// it likes: so they are written at once.
func TestQuotaIsRoundedUp(t *testing.T) {
	for _, tt := range []struct {
		layout cgroup.Layout
		file   string
		want   string
	}{{v2(), "cpu.max", "24000 80000"}, {v1(), "cpu.cfs_quota_us", "24000"}} {
		steps, err := cgroup.Compile(tt.layout, "/a", cgroup.Limits{CPU: cgroup.CPU{Quota: 23456, Period: 80000}}, cgroup.Options{Unit: true})
		if err != nil {
			t.Fatal(err)
		}
		before := steps[len(steps)-1].String()
		props, steps2, err := Properties(steps, true, nil)
		if err != nil || !reflect.DeepEqual(props, []Property{{"CPUQuotaPerSecUSec", bus.Uint64(300_000)}, {"CPUQuotaPeriodUSec", bus.Uint64(80_000)}}) {
			t.Errorf("%+v, %v", props, err)
		}
		found := false
		for _, s := range steps2 {
			found = found || strings.HasSuffix(s.Path, tt.file) && s.Value == tt.want
		}
		if !found || steps[len(steps)-1].String() != before {
			t.Errorf("%v; of %v", steps2, steps)
		}
	}
}

func TestPropertiesOldSystemd(t *testing.T) {
	steps, err := cgroup.Compile(v2(), "/a", cgroup.Limits{CPU: cgroup.CPU{Idle: ptr(int64(1))}, Unified: map[string]string{"memory.oom.group": "0"}}, cgroup.Options{Unit: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := Properties(steps, true, func() (int, error) { return 251, nil }); err != nil || len(got) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestBadValuesNameTheField(t *testing.T) {
	for file, value := range map[string]string{"memory.max": "lots", "cpu.max": "fast", "cpuset.cpus": "", "pids.max": "-5", "memory.high": "99999999999E"} {
		steps, err := cgroup.Compile(v2(), "/a", cgroup.Limits{Unified: map[string]string{file: value}}, cgroup.Options{Unit: true})
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := Properties(steps, true, nil); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s=%s: %+v, %v", file, value, got, err)
		}
	}
}

func TestDoors(t *testing.T) {
	env := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	for _, tt := range []struct {
		user bool
		env  map[string]string
		want []door
	}{
		{false, nil, []door{{"/run/systemd/private", false}, {"/run/dbus/system_bus_socket", true}}},
		{false, map[string]string{"DBUS_SYSTEM_BUS_ADDRESS": "tcp:host=x;unix:path=/a%20b,guid=1;unix:abstract=/tmp/x"}, []door{{"/run/systemd/private", false}, {"/a b", true}, {"@/tmp/x", true}}},
		{true, map[string]string{"XDG_RUNTIME_DIR": "/run/user/5"}, []door{{"/run/user/5/systemd/private", false}, {"/run/user/5/bus", true}}},
		{true, map[string]string{"XDG_RUNTIME_DIR": "/run/user/5", "DBUS_SESSION_BUS_ADDRESS": "unix:path=relative"}, []door{{"/run/user/5/systemd/private", false}, {"/run/user/5/bus", true}}},
		{true, nil, nil},
	} {
		if got := doors(tt.user, env(tt.env)); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%v %v: %v, want %v", tt.user, tt.env, got, tt.want)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]int{"252": 252, "v245.4-1.fc32": 245, `"v255-1"`: 255, "255 (255.4-1ubuntu8)": 255, "252.39-1~deb12u1": 252, "": 0, "x": 0} {
		if got, err := parseVersion(text); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

// Whatever a config.json says: no panic, and what is taken can be sent.
func FuzzAnnotations(f *testing.F) {
	f.Add("org.systemd.property.TimeoutStopSec", "5")
	f.Add("org.systemd.property.DeviceAllow", "[('/dev/null', 'rw')]")
	f.Fuzz(func(t *testing.T, key, value string) {
		props, err := Annotations(map[string]string{key: value})
		if err != nil {
			return
		}
		for _, p := range props {
			if strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || notYours(p.Name) != "" {
				t.Errorf("%q: %+v", key, p)
			}
		}
	})
}

func FuzzParseUnit(f *testing.F) {
	f.Add("system.slice:docker:abc")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseUnit(text, "id", false)
		if err != nil {
			return
		}
		group, err := u.Group("/")
		if err != nil || strings.Contains(group, "..") && strings.Contains("/"+group+"/", "/../") || strings.Count(group, "/") > 200 {
			t.Errorf("%q: %+v at %q, %v", text, u, group, err)
		}
	})
}
