package cgroup_test

import (
	"os"
	"path/filepath"
	"testing"

	"kiste/kernel/cgroup"
)

func TestLimitsSwap(t *testing.T) {
	for _, tt := range []struct {
		name  string
		v2    bool
		files []string
		want  bool
	}{
		{"version 1 that counts swap", false, []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}, true},
		{"version 1 with swapaccount=0", false, []string{"memory.limit_in_bytes"}, false},
		{"version 2 that counts swap", true, []string{"a/memory.max", "a/memory.swap.max"}, true},
		{"version 2 of a kernel without swap", true, []string{"a/memory.max"}, false},
		{"version 2, the parent is there", true, []string{"a/b/memory.max", "a/b/memory.swap.max", "a/memory.max"}, true},
		{"version 2, nothing to see", true, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := cgroup.Hierarchy{Mount: t.TempDir(), Root: "/", Controllers: []string{"memory"}, V2: tt.v2}
			l := cgroup.Layout{V1: []cgroup.Hierarchy{h}}
			if tt.v2 {
				l = cgroup.Layout{Unified: h}
			}
			for _, f := range tt.files {
				path := filepath.Join(h.Mount, f)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := cgroup.LimitsSwap(l, "/a/b"); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if !cgroup.LimitsSwap(cgroup.Layout{}, "/a") {
		t.Error("a host without cgroups is told of elsewhere")
	}
}
