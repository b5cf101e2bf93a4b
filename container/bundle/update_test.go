package bundle_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"kiste/container/bundle"
	"kiste/fault"
)

// What is zero stays; what contradicts what is set is refused in Docker's words.
func TestLimitsChanged(t *testing.T) {
	type limits = bundle.Limits
	for _, tt := range []struct {
		name     string
		has, by  limits
		noSwap   bool
		want     limits
		conflict string
	}{
		{"nothing", limits{Memory: 1, Pids: 3}, limits{}, false, limits{Memory: 1, Pids: 3}, ""},
		{"the first limit of memory", limits{}, limits{Memory: 8}, false, limits{Memory: 8}, ""},
		{"memory alone keeps swap", limits{Memory: 8}, limits{Memory: 12}, false, limits{Memory: 12, MemorySwap: 16}, ""},
		{"memory alone, swap without limit", limits{Memory: 8, MemorySwap: -1}, limits{Memory: 120}, false, limits{Memory: 120, MemorySwap: -1}, ""},
		{"memory above swap", limits{Memory: 8}, limits{Memory: 17}, false, limits{}, "update the memoryswap at the same time"},
		{"memory above what a host without swap would have", limits{Memory: 8}, limits{Memory: 17}, true, limits{Memory: 17}, ""},
		{"memory and swap", limits{Memory: 8}, limits{Memory: 17, MemorySwap: 20}, false, limits{Memory: 17, MemorySwap: 20}, ""},
		{"no limit of processes", limits{Pids: 5}, limits{Pids: -1}, false, limits{Pids: -1}, ""},
		{"cpus after a period", limits{CPUPeriod: 1000}, limits{NanoCPUs: 1}, false, limits{}, "Nano CPUs cannot be updated as CPU Period has already been set"},
		{"cpus after a quota", limits{CPUQuota: 1000}, limits{NanoCPUs: 1}, false, limits{}, "Nano CPUs cannot be updated as CPU Quota has already been set"},
		{"a period after cpus", limits{NanoCPUs: 1}, limits{CPUPeriod: 1000}, false, limits{}, "CPU Period cannot be updated as NanoCPUs has already been set"},
		{"a quota after cpus", limits{NanoCPUs: 1}, limits{CPUQuota: 1000}, false, limits{}, "CPU Quota cannot be updated as NanoCPUs has already been set"},
		{"the rest", limits{CpusetCPUs: "0", BlkioWeight: 10}, limits{CpusetCPUs: "1", CpusetMems: "0", BlkioWeight: 20, CPUShares: 3}, false,
			limits{CpusetCPUs: "1", CpusetMems: "0", BlkioWeight: 20, CPUShares: 3}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.has.Changed(tt.by, tt.noSwap)
			if tt.conflict != "" {
				if !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), tt.conflict) {
					t.Errorf("got %v; want a conflict: %s", err, tt.conflict)
				}
				return
			}
			a, b := must(bundle.Compile(bundle.ImageConfig{Cmd: []string{"x"}}, bundle.Wishes{Limits: got}, root())), must(bundle.Compile(bundle.ImageConfig{Cmd: []string{"x"}}, bundle.Wishes{Limits: tt.want}, root()))
			if err != nil || string(must(json.Marshal(a.Spec.Linux.Resources))) != string(must(json.Marshal(b.Spec.Linux.Resources))) || got.Pids != tt.want.Pids || got.MemorySwap != tt.want.MemorySwap {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

// A spec with other limits is that of a container that was made with them, but
// for what is not about limits; who has the old one keeps it.
func TestRelimit(t *testing.T) {
	plain := bundle.ImageConfig{Cmd: []string{"sh"}}
	w := bundle.Wishes{Limits: bundle.Limits{Memory: 64 << 20, Pids: 9}, Hostname: "box"}
	r := must(bundle.Compile(plain, w, root()))
	old := r.Spec
	before := string(must(json.Marshal(old)))
	w.Limits = bundle.Limits{Memory: 32 << 20, NanoCPUs: 5e8, ReadBps: []bundle.Throttle{{Path: "/dev/sda", Rate: 7}}}
	if _, err := r.Relimit(w, root()); err != nil {
		t.Fatal(err)
	}
	want := must(bundle.Compile(plain, w, root()))
	if got, want := string(must(json.Marshal(r.Spec))), string(must(json.Marshal(want.Spec))); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if r.Origin["linux.resources.pids"] != "" || r.Origin["linux.resources.cpu.quota"] != "--cpus" {
		t.Errorf("the origins are %v", r.Origin)
	}
	if after := string(must(json.Marshal(old))); after != before {
		t.Error("the old spec has changed")
	}
	w.Limits = bundle.Limits{NanoCPUs: 99e9}
	if _, err := r.Relimit(w, root()); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v; want more CPUs than there are refused", err)
	}
}
