package cgroup

import (
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"kiste/internal/sys"
)

// A group of a relative path lies below the caller's own, in each hierarchy.
func TestForFindsTheCallersPlace(t *testing.T) {
	l, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := l.Base(); !ok {
		t.Skip("NEEDS a cgroup hierarchy")
	}
	if _, got, err := For(l, "/a/../b", "id"); err != nil || got != "/b" {
		t.Errorf("an absolute path: %q, %v", got, err)
	}
	table, err := sys.ReadKnob("/proc/self/cgroup", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, want string }{{"", "/id"}, {"a/b", "/a/b"}, {"../../c", "/c"}} {
		here, got, err := For(l, tt.path, "id")
		if err != nil {
			t.Errorf("%q: %v", tt.path, err)
			continue
		}
		for i, h := range here.All() {
			own, _ := parseMembership(table, h)
			if l.Kind() == "v2" {
				own = path.Dir(own)
			}
			if want := path.Join(l.All()[i].Dir(own), tt.want); h.Dir(got) != want {
				t.Errorf("%q: %s, want %s", tt.path, h.Dir(got), want)
			}
		}
	}
	if _, _, err := For(l, "cgroup.procs", "id"); err == nil {
		t.Error("a file of the kernel's was taken as a path")
	}
}

// What Detect finds the short way is what the table of mounts says.
func TestUsualLayoutIsTheMountTable(t *testing.T) {
	got, ok := usual()
	if !ok {
		t.Skip("NEEDS cgroups mounted as systemd does")
	}
	table, err := sys.ReadKnob("/proc/self/mountinfo", maxTable)
	if err != nil {
		t.Fatal(err)
	}
	want := parseMounts(table)
	for i := range got.V1 {
		got.V1[i].own = ""
	}
	got.Unified.own, got.Shelf = "", ""
	for _, l := range []*Layout{&got, &want} {
		slices.SortFunc(l.V1, func(a, b Hierarchy) int { return strings.Compare(a.Mount, b.Mount) })
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// A hierarchy of several controllers is on the shelf if each has its link.
func TestLinked(t *testing.T) {
	dir := t.TempDir()
	for name, to := range map[string]string{"cpu": "cpu,cpuacct", "cpuacct": "cpu,cpuacct", "net_cls": "net_cls,net_prio", "net_prio": dir + "/net_cls,net_prio"} {
		if err := os.Symlink(to, dir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	for controllers, want := range map[string]bool{"pids": true, "name=systemd": true, "cpu,cpuacct": true, "net_cls,net_prio": false, "cpu,cpuset": false} {
		h := Hierarchy{Mount: dir + "/" + controllers, Controllers: strings.Split(controllers, ",")}
		if got := h.linked(); got != want {
			t.Errorf("%s: %v, want %v", controllers, got, want)
		}
	}
}
