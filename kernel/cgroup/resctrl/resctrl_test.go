package resctrl

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

func full() Host {
	return Host{Root: "/r", L3: true, MB: true, Monitor: []string{"llc_occupancy", "mbm_total_bytes"}}
}

func nothing(string) bool { return false }

func TestCompile(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rdt   specs.LinuxIntelRdt
		there string // directories that exist
		want  string
		class Class
	}{
		{"a class of its own", specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=20"}, "",
			`mkdir /r/web, write /r/web/schemata "L3:0=f", write /r/web/schemata "MB:0=20"`, Class{Root: "/r", Dir: "/r/web", Owned: true}},
		{"nothing but a class", specs.LinuxIntelRdt{}, "", `mkdir /r/web`, Class{Root: "/r", Dir: "/r/web", Owned: true}},
		{"one of that name is not its own", specs.LinuxIntelRdt{}, "/r/web", ``, Class{Root: "/r", Dir: "/r/web"}},
		{"a class that is there", specs.LinuxIntelRdt{ClosID: "gold"}, "/r/gold", ``, Class{Root: "/r", Dir: "/r/gold"}},
		{"a class that is there and as it should be", specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f"}, "/r/gold", `match /r/gold/schemata "L3:0=f"`, Class{Root: "/r", Dir: "/r/gold"}},
		{"a class by name that is new", specs.LinuxIntelRdt{ClosID: "gold", MemBwSchema: "MB:0=20"}, "", `mkdir /r/gold, write /r/gold/schemata "MB:0=20"`, Class{Root: "/r", Dir: "/r/gold"}},
		{"the root's class", specs.LinuxIntelRdt{ClosID: "/"}, "/r", ``, Class{Root: "/r", Dir: "/r"}},
		{"lines come last", specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f", Schemata: []string{"L2:0=1", "MB:0=9"}}, "",
			`mkdir /r/gold, write /r/gold/schemata "L3:0=f", write /r/gold/schemata "L2:0=1\nMB:0=9"`, Class{Root: "/r", Dir: "/r/gold"}},
		{"counted", specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true}, "/r/gold", `mkdir /r/gold/mon_groups/web`, Class{Root: "/r", Dir: "/r/gold", Monitor: "/r/gold/mon_groups/web"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			class, steps, err := Compile(full(), &tt.rdt, "web", func(dir string) bool { return dir == tt.there })
			var got []string
			for _, s := range steps {
				got = append(got, strings.Join(strings.Fields(s.String()), " "))
			}
			if err != nil || strings.Join(got, ", ") != tt.want || class != tt.class {
				t.Errorf("got  %s, %+v, %v\nwant %s, %+v", strings.Join(got, ", "), class, err, tt.want, tt.class)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		host Host
		rdt  specs.LinuxIntelRdt
		kind fault.Kind
		says string
	}{
		{"a class upwards", full(), specs.LinuxIntelRdt{ClosID: ".."}, fault.Invalid, "closID"},
		{"a path", full(), specs.LinuxIntelRdt{ClosID: "a/../b"}, fault.Invalid, "closID"},
		{"the file system's own", full(), specs.LinuxIntelRdt{ClosID: "info"}, fault.Invalid, "closID"},
		{"a newline", full(), specs.LinuxIntelRdt{ClosID: "a\nb"}, fault.Invalid, "closID"},
		{"a class that is not there", full(), specs.LinuxIntelRdt{ClosID: "gold"}, fault.NotFound, "closID"},
		{"two lines", full(), specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f\nMB:0=1"}, fault.Invalid, "schemata"},
		{"lines in a line", full(), specs.LinuxIntelRdt{Schemata: []string{"L3:0=f\nMB:0=1"}}, fault.Invalid, "schemata"},
		{"another resource", full(), specs.LinuxIntelRdt{MemBwSchema: "L3:0=f"}, fault.Invalid, "memBwSchema"},
		{"a cache by the name of memory", full(), specs.LinuxIntelRdt{L3CacheSchema: "MB:0=f"}, fault.Invalid, "l3CacheSchema"},
		{"no cache to share", Host{Root: "/r", MB: true}, specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"}, fault.Unsupported, "l3CacheSchema"},
		{"no bandwidth to share", Host{Root: "/r", L3: true}, specs.LinuxIntelRdt{MemBwSchema: "MB:0=5"}, fault.Unsupported, "memBwSchema"},
		{"no counters", Host{Root: "/r"}, specs.LinuxIntelRdt{EnableMonitoring: true}, fault.Unsupported, "enableMonitoring"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := Compile(tt.host, &tt.rdt, "web", nothing)
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), "linux.intelRdt."+tt.says) {
				t.Errorf("got %v; want %v that names %s", err, tt.kind, tt.says)
			}
		})
	}
	if _, _, err := Compile(full(), &specs.LinuxIntelRdt{}, "mon_groups", nothing); !errors.Is(err, fault.Invalid) {
		t.Errorf("a container named mon_groups: %v", err)
	}
}

// This host may have it, or not: then the error names the field.
func TestDetect(t *testing.T) {
	h, err := Detect()
	switch {
	case err == nil:
		t.Logf("%+v", h)
	case !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "linux.intelRdt"):
		t.Error(err)
	}
}

// tree is a directory with the files of a resctrl file system, in the form in
// which the kernel writes them. What the kernel does with them it cannot show.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"schemata": "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n", "tasks": "1\n", "info/last_cmd_status": "ok\n",
		"info/L3/cbm_mask": "fffff\n", "info/L3/min_cbm_bits": "1\n", "info/L3/num_closids": "16\n",
		"info/MB/bandwidth_gran": "10\n", "info/MB/delay_linear": "1\n", "info/MB/min_bandwidth": "10\n", "info/MB/num_closids": "8\n",
		"info/L3_MON/mon_features": "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\nsomething_new\n",
		"gold/schemata":            "    MB:0= 20;1=100\n    L3:0=000ff;1=fffff\n", "gold/tasks": "",
		"gold/mon_data/mon_L3_00/llc_occupancy": "4096\n", "gold/mon_data/mon_L3_00/mbm_total_bytes": "100\n", "gold/mon_data/mon_L3_00/mbm_local_bytes": "60\n",
		"gold/mon_data/mon_L3_01/llc_occupancy": "0\n", "gold/mon_data/mon_L3_01/mbm_total_bytes": "Unavailable\n", "gold/mon_data/mon_L3_01/mbm_local_bytes": "7\n",
		"gold/mon_groups/other/tasks": "",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func exists(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

func do(steps []Step) error {
	for i, s := range steps {
		if err := s.Do(); err != nil {
			for _, done := range steps[:i] {
				done.Undo()
			}
			return err
		}
	}
	return nil
}

func TestStepsOnATree(t *testing.T) {
	root := tree(t)
	h := look(root)
	if want := (Host{root, true, true, []string{"llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"}}); !reflect.DeepEqual(h, want) {
		t.Fatalf("the host has %+v, want %+v", h, want)
	}
	compile := func(r specs.LinuxIntelRdt) (Class, []Step) {
		t.Helper()
		c, steps, err := Compile(h, &r, "web", exists)
		if err != nil {
			t.Fatal(err)
		}
		return c, steps
	}
	c, steps := compile(specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:1=fffff;0=FF", MemBwSchema: "MB:0=20", EnableMonitoring: true})
	if err := do(steps); err != nil {
		t.Errorf("a class that is as it should be: %v", err)
	}
	if want := []string{root + "/gold/tasks", root + "/gold/mon_groups/web/tasks"}; !reflect.DeepEqual(c.Tasks(), want) {
		t.Errorf("enter by %v, want %v", c.Tasks(), want)
	}
	if err := c.Update("L3:0=f", ""); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(root + "/gold/schemata"); !strings.HasPrefix(string(b), "L3:0=f\n") {
		t.Errorf("after the update: %q", b)
	}
	if err := c.Update("", "L3:0=1"); !errors.Is(err, fault.Invalid) {
		t.Errorf("an update with nonsense: %v", err)
	}
	if err := errors.Join(c.Remove(), c.Remove()); err != nil || exists(root+"/gold/mon_groups/web") || !exists(root+"/gold") {
		t.Errorf("Remove: %v", err)
	}

	_, steps = compile(specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true, MemBwSchema: "MB:0=30"})
	if err := do(steps); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "memBwSchema") {
		t.Errorf("a class with another schema: %v", err)
	}
	if err := os.WriteFile(root+"/info/last_cmd_status", []byte("No such domain\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, steps = compile(specs.LinuxIntelRdt{L3CacheSchema: "L3:9=f"}) // there is no file to write, as of a kernel that refuses
	if err := do(steps); err == nil || !strings.Contains(err.Error(), "l3CacheSchema") || !strings.Contains(err.Error(), "No such domain") {
		t.Errorf("a schema that is refused: %v", err)
	}
	if exists(c.Dir) {
		t.Error("the class stayed")
	}
}

func TestStatsOnATree(t *testing.T) {
	root := tree(t)
	s, err := Class{Root: root, Dir: root + "/gold"}.Stats()
	want := Stats{
		L3CacheInfo: &L3CacheInfo{"fffff", 1, 16}, L3CacheSchemaRoot: "L3:0=fffff;1=fffff", L3CacheSchema: "L3:0=000ff;1=fffff",
		MemBwInfo: &MemBwInfo{10, 1, 10, 8}, MemBwSchemaRoot: "MB:0=100;1=100", MemBwSchema: "MB:0= 20;1=100",
		Schemata: []string{"MB:0= 20;1=100", "L3:0=000ff;1=fffff"},
		MBMStats: &[]Bandwidth{{100, 60}, {0, 7}}, CMTStats: &[]CacheFilled{{4096}, {0}},
	}
	if err != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v, %v\nwant %+v", s, err, want)
	}
	if _, err := (Class{Root: root, Dir: root + "/none"}).Stats(); err == nil {
		t.Error("a class that is not there has statistics")
	}
}

// Every field of runc's intel_rdt, filled, comes back as it was.
func TestStatsHaveRuncsShape(t *testing.T) {
	text, err := os.ReadFile("testdata/runc-stats.json")
	if err != nil {
		t.Fatal(err)
	}
	var event struct {
		Data struct {
			RDT json.RawMessage `json:"intel_rdt"`
		}
	}
	if err := json.Unmarshal(text, &event); err != nil {
		t.Fatal(err)
	}
	var ours Stats
	d := json.NewDecoder(strings.NewReader(string(event.Data.RDT)))
	d.DisallowUnknownFields()
	if err := d.Decode(&ours); err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(ours)
	var a, b any
	if err := errors.Join(json.Unmarshal(event.Data.RDT, &a), json.Unmarshal(again, &b)); err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("runc: %s\nours: %s, %v", event.Data.RDT, again, err)
	}
}

func FuzzSchema(f *testing.F) {
	f.Add("L3:0=0ff;1=c0")
	f.Fuzz(func(t *testing.T, line string) {
		s, ok := parseSchema(line)
		if ok && !s.has(s) {
			t.Errorf("%q is not itself", line)
		}
	})
}
