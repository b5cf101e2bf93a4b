package cgroup

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

func TestFromSpec(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec string
		want Limits
	}{
		{"nothing", `{}`, Limits{}},
		{"memory", `{"memory":{"limit":1,"reservation":2,"swap":-1,"kernel":4,"kernelTCP":5,"swappiness":0,"disableOOMKiller":false,"useHierarchy":true,"checkBeforeUpdate":true}}`,
			Limits{Memory: Memory{Limit: 1, Reservation: 2, Swap: -1, Kernel: 4, KernelTCP: 5, Swappiness: ptr(uint64(0)), NoOOMKill: ptr(false), CheckUsage: true}}},
		{"cpu", `{"cpu":{"shares":1,"quota":-1,"burst":0,"period":3,"realtimeRuntime":4,"realtimePeriod":5,"cpus":"0-3","mems":"0","idle":0}}`,
			Limits{CPU: CPU{Shares: 1, Quota: -1, Burst: ptr(uint64(0)), Period: 3, RealtimeRuntime: 4, RealtimePeriod: 5, Cpus: "0-3", Mems: "0", Idle: ptr(int64(0))}}},
		{"processes", `{"pids":{"limit":7}}`, Limits{Pids: 7}},
		{"no processes: 0 is 1", `{"pids":{"limit":0}}`, Limits{Pids: 1}},
		{"any number of processes", `{"pids":{"limit":-2}}`, Limits{Pids: -1}},
		{"a limit of processes that is not there", `{"pids":{}}`, Limits{}},
		{"block devices", `{"blockIO":{"weight":10,"leafWeight":11,"weightDevice":[{"major":8,"minor":1,"weight":12},{"major":8,"minor":2,"leafWeight":13}],
			"throttleReadBpsDevice":[{"major":1,"minor":2,"rate":3}],"throttleWriteBpsDevice":[{"major":4,"minor":5,"rate":6}],
			"throttleReadIOPSDevice":[{"major":7,"minor":8,"rate":9}],"throttleWriteIOPSDevice":[{"major":10,"minor":11,"rate":0}]}}`,
			Limits{IO: IO{Weight: 10, LeafWeight: 11, Weights: []DeviceWeight{{8, 1, 12, 0}, {8, 2, 0, 13}},
				ReadBPS: []Rate{{1, 2, 3}}, WriteBPS: []Rate{{4, 5, 6}}, ReadIOPS: []Rate{{7, 8, 9}}, WriteIOPS: []Rate{{10, 11, 0}}}}},
		{"huge pages", `{"hugepageLimits":[{"pageSize":"2MB","limit":0},{"pageSize":"1GB","limit":9223372036854771712}]}`,
			Limits{Huge: []Huge{{"2MB", 0}, {"1GB", 9223372036854771712}}}},
		{"network", `{"network":{"classID":0,"priorities":[{"name":"eth0","priority":0}]}}`,
			Limits{NetClass: ptr(uint32(0)), NetPrio: []NetPrio{{"eth0", 0}}}},
		{"rdma, sorted", `{"rdma":{"b":{"hcaHandles":0},"a":{"hcaObjects":2}}}`,
			Limits{RDMA: []RDMA{{"a", nil, ptr(uint32(2))}, {"b", ptr(uint32(0)), nil}}}},
		{"unified", `{"unified":{"memory.high":"1"}}`, Limits{Unified: map[string]string{"memory.high": "1"}}},
		{"devices", `{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"a","access":"r"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},
			{"allow":true,"type":"b","major":8,"access":"m"},{"allow":true,"type":"c","minor":-1,"major":-1,"access":"m"}]}`,
			Limits{Devices: []DeviceRule{{false, 'a', -1, -1, "rwm"}, {true, 'a', -1, -1, "r"}, {true, 'c', 1, 3, "rw"}, {true, 'b', 8, -1, "m"}, {true, 'c', -1, -1, "m"}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := FromSpec(decode(t, tt.spec))
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func decode(t testing.TB, text string) *specs.LinuxResources {
	t.Helper()
	var r specs.LinuxResources
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

func TestFromSpecRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, spec string
		kind       fault.Kind
		says       string
	}{
		{"accounting without what is below", `{"memory":{"useHierarchy":false}}`, fault.Unsupported, "memory.useHierarchy"},
		{"a device without access", `{"devices":[{"allow":true,"access":"m"},{"allow":true,"type":"c"}]}`, fault.Invalid, "devices[1]"},
		{"a device of two types", `{"devices":[{"type":"bc","access":"m"}]}`, fault.Invalid, "devices[0]"},
		{"a device of no type", `{"devices":[{"type":"p","access":"m"}]}`, fault.Invalid, "type"},
		{"a device of strange access", `{"devices":[{"access":"x"}]}`, fault.Invalid, "access"},
		{"a device out of range", `{"devices":[{"access":"r","minor":4294967296}]}`, fault.Invalid, "range"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := FromSpec(decode(t, tt.spec))
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v; want %v that says %q", err, tt.kind, tt.says)
			}
		})
	}
}

// Whatever single field of the specification is set, Limits tell it. So a field
// that a newer specification brings fails here until somebody takes care of it.
func TestFromSpecLeavesNothingOut(t *testing.T) {
	fields := 0
	each(reflect.TypeFor[specs.LinuxResources](), nil, func(path []int, name string) {
		fields++
		without, _ := fromSpecWith(t, path[:len(path)-1])
		with, err := fromSpecWith(t, path)
		if err == nil && reflect.DeepEqual(with, without) && !means0(name) {
			t.Errorf("%s is left out", name)
		}
	})
	if fields < 40 {
		t.Errorf("the specification has only %d fields", fields)
	}
}

// fromSpecWith is the Limits of a specification that has one field.
func fromSpecWith(t *testing.T, path []int) (Limits, error) {
	var r specs.LinuxResources
	set(t, reflect.ValueOf(&r).Elem(), path)
	if len(r.Devices) > 0 && r.Devices[0].Access == "" { // a rule is refused without it
		r.Devices[0].Access = "rwm"
	}
	return FromSpec(&r)
}

// means0 names the fields whose set value is what a kernel does anyway.
func means0(name string) bool { return name == "UseHierarchy" }

// each calls f for every field of typ that holds a plain value.
func each(typ reflect.Type, path []int, f func(path []int, name string)) {
	for i := range typ.NumField() {
		field := typ.Field(i)
		at := append(append([]int{}, path...), i)
		inner := field.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice || inner.Kind() == reflect.Map {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			each(inner, at, f)
			continue
		}
		f(at, field.Name)
	}
}

// set gives the field at path, and what it lies in, a value that is not zero.
func set(t *testing.T, v reflect.Value, path []int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		set(t, v.Elem(), path)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		set(t, v.Index(0), path)
	case reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		set(t, e, path)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k.v"), e)
	case reflect.Struct:
		if len(path) > 0 {
			set(t, v.Field(path[0]), path[1:])
		}
	case reflect.String:
		v.SetString("c")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64, reflect.Uint32, reflect.Uint16:
		v.SetUint(7)
	default:
		t.Fatalf("a field of kind %v", v.Kind())
	}
}

// FromSpec and Compile take whatever a config.json says: no panic, and what
// they take they can also print.
func FuzzFromSpec(f *testing.F) {
	f.Add(`{"memory":{"limit":1,"swap":-1},"cpu":{"quota":5,"cpus":"0"},"devices":[{"allow":true,"access":"rwm"}]}`)
	f.Add(`{"unified":{"cpu.weight":"5"},"hugepageLimits":[{"pageSize":"2MB","limit":1}],"rdma":{"x":{"hcaHandles":1}}}`)
	f.Add(`{"blockIO":{"weight":100,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]},"pids":{"limit":0}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var r specs.LinuxResources
		if json.Unmarshal([]byte(text), &r) != nil {
			return
		}
		l, err := FromSpec(&r)
		if err != nil {
			return
		}
		for _, layout := range []Layout{unified(), hybrid(), legacy()} {
			steps, err := Compile(layout, "a/b", l, Options{})
			if err == nil && len(steps) == 0 {
				t.Errorf("no steps for %s", text)
			}
			for _, s := range steps {
				if strings.Contains(s.String(), "\n") {
					t.Errorf("a step of two lines: %q", s)
				}
			}
		}
	})
}
