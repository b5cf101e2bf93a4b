package plan_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/plan"
	"kiste/kernel/cgroup"
)

// Whatever a document says, its plan is made or refused, and what is made can
// be printed, has slots and skips that exist, and is not much larger than what
// asked for it.
func FuzzCompile(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.json")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"root":{"path":"r"},"process":{"cwd":"/","args":["a"]},"linux":{"namespaces":[{"type":"mount"},{"type":"time","path":"/t"},{"type":"user"}],"uidMappings":[{"size":1}],"gidMappings":[{"size":1}]}}`))
	f.Add([]byte(`{"root":{"path":""},"process":{"cwd":"/a/../..","args":[""]},"mounts":[{"destination":"//","type":"overlay","options":["lowerdir=\\","ro"]},{"destination":"dev","source":"a","options":["bind","rslave"]}],"linux":{"namespaces":[{"type":"mount"}]}}`))
	f.Add([]byte(`{"mounts":[{"destination":"/a","type":"tmpfs","options":["tmpcopyup","ro","uid=1"]}]}`))
	f.Add([]byte(`{"process":{"terminal":true,"scheduler":{"policy":"SCHED_FIFO"}},"linux":{"maskedPaths":["/a/b"],"sysctl":{"net/a.b":"1"},"devices":[{"path":"c","type":"p"}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		// Over a document that is good, so that half of one is enough.
		spec := document(t, "runc_spec")
		if json.NewDecoder(bytes.NewReader(text)).Decode(spec) != nil {
			return
		}
		for _, facts := range []plan.Facts{
			{Host: true, Cgroup: layout(false), LastCap: 40, Kind: kinds, AppArmor: yes, SELinux: yes, Landlock: landlock6},
			{Cgroup: layout(true), LastCap: 40, Kind: kinds},
			{Host: true, Inner: true, Cgroup: cgroup.Layout{}},
		} {
			p, err := plan.Compile(spec, nil, plan.Options{Bundle: "/b", Wait: facts.Inner, Keep: 1}, facts)
			if err != nil {
				continue
			}
			checkPlan(t, p)
			_, _ = p.String(), p.Calls()
			made := 0
			for _, s := range p.Steps {
				made += len(s.Calls)
			}
			if made > 1<<13+4*len(text) {
				t.Errorf("%d bytes became %d calls", len(text), made)
			}
		}
	})
}

// checkPlan looks at what package process relies on.
func checkPlan(t *testing.T, p *plan.Plan) {
	t.Helper()
	valid := func(s plan.Slot) bool { return int(s) < len(p.Slots) && s >= plan.Container }
	for _, s := range p.Inbox {
		if s <= 0 || !valid(s) {
			t.Errorf("descriptor in slot %d of %d", s, len(p.Slots))
		}
	}
	var all []plan.Call
	for _, s := range p.Steps {
		if (s.Act == nil) == (len(s.Calls) == 0) {
			t.Errorf("step %q is neither an act nor calls, or both", s.Text)
		}
		all = append(all, s.Calls...)
	}
	for i, c := range all {
		if c.Skip < 0 || i+1+c.Skip >= len(all) && c.OnErr != plan.FailNoted && c.Skip > 0 {
			t.Errorf("call %d, %s, skips %d of %d", i, c.Name, c.Skip, len(all))
		}
		if !valid(c.Out) || len(c.Args) > 6 {
			t.Errorf("call %d, %s, has %d arguments and its result in slot %d", i, c.Name, len(c.Args), c.Out)
		}
		for _, a := range c.Args {
			if a.Kind == plan.FromSlot && (a.Slot == 0 || !valid(a.Slot)) {
				t.Errorf("call %d, %s, takes slot %d", i, c.Name, a.Slot)
			}
			if a.Kind == plan.Str && strings.IndexByte(a.Text, 0) >= 0 {
				t.Errorf("call %d, %s, has a zero byte in %q", i, c.Name, a.Text)
			}
		}
	}
}

// A large document is refused, or its plan is made in a time and a size that go
// with it.
func TestLargeDocuments(t *testing.T) {
	box := func(change func(*specs.Spec)) *specs.Spec {
		spec := document(t, "runc_spec")
		change(spec)
		return spec
	}
	long := strings.Repeat("/"+strings.Repeat("d", 250), 16)
	for _, tt := range []struct {
		name   string
		spec   *specs.Spec
		refuse bool
	}{
		{"mounts without end", box(func(s *specs.Spec) { s.Mounts = make([]specs.Mount, 100_000) }), true},
		{"many mounts", box(func(s *specs.Spec) {
			for i := range 5000 {
				s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: long, Destination: fmt.Sprintf("/m%d", i), Options: []string{"rbind"}})
			}
		}), false},
		{"masks without end", box(func(s *specs.Spec) { s.Linux.MaskedPaths = make([]string, 100_000) }), true},
		{"many masks", box(func(s *specs.Spec) {
			for i := range 5000 {
				s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, fmt.Sprintf("/m%d", i))
			}
		}), false},
		{"options without end", box(func(s *specs.Spec) { s.Mounts[1].Options = make([]string, 100_000) }), true},
		{"a large environment", box(func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "A="+strings.Repeat("x", 10<<20)) }), false},
		{"many groups", box(func(s *specs.Spec) { s.Process.User.AdditionalGids = make([]uint32, 70_000) }), true},
		{"deep directories", box(func(s *specs.Spec) { s.Process.Cwd = strings.Repeat("/a", 1<<20) }), true},
		{"a deep mount", box(func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Destination: strings.Repeat("/a", 1<<20)})
		}), true},
		{"many deep mounts", box(func(s *specs.Spec) {
			for i := range 2000 {
				s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: "/", Destination: fmt.Sprint(strings.Repeat("/a", 2000), i)})
			}
		}), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := plan.Compile(tt.spec, nil, plan.Options{Bundle: "/b"}, plan.Facts{Host: true, LastCap: 40})
			if (err != nil) != tt.refuse {
				t.Fatalf("Compile: %v", err)
			}
			if err == nil {
				checkPlan(t, p)
			}
		})
	}
}
