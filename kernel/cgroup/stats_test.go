package cgroup

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every field of runc's Stats, filled, comes back as it was: the file was
// written by runc 1.5.2's own types. What no cgroup accounts for is not of
// this package.
func TestStatsHaveRuncsShape(t *testing.T) {
	text, err := os.ReadFile("testdata/runc-stats.json")
	if err != nil {
		t.Fatal(err)
	}
	var event struct {
		Data map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &event); err != nil {
		t.Fatal(err)
	}
	delete(event.Data, "intel_rdt")
	delete(event.Data, "network_interfaces")
	runc, err := json.Marshal(event.Data)
	if err != nil {
		t.Fatal(err)
	}
	var ours Stats
	d := json.NewDecoder(strings.NewReader(string(runc)))
	d.DisallowUnknownFields()
	if err := d.Decode(&ours); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := errors.Join(json.Unmarshal(runc, &a), json.Unmarshal(again, &b)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("runc: %s\nours: %s", runc, again)
	}
}

func TestParseStats(t *testing.T) {
	bytes, operations := parseIOEntries("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5\n\n8:16 rbytes=9\nx:y rbytes=1\n")
	if !reflect.DeepEqual(bytes, []BlkioEntry{{8, 0, "Read", 1}, {8, 0, "Write", 2}, {8, 16, "Read", 9}}) ||
		!reflect.DeepEqual(operations, []BlkioEntry{{8, 0, "Read", 3}, {8, 0, "Write", 4}}) {
		t.Errorf("io.stat: %v, %v", bytes, operations)
	}
	if got := parseBlkioEntries("8:0 Read 10\n8:0 Total 10\nTotal 10\n8:16 7\n"); !reflect.DeepEqual(got, []BlkioEntry{{8, 0, "Read", 10}, {8, 0, "Total", 10}, {8, 16, "", 7}}) {
		t.Errorf("blkio: %v", got)
	}
	for in, want := range map[string][]uint16{"0-2,5\n": {0, 1, 2, 5}, "": nil, "7": {7}, "3-1": nil, "x,2": {2}} {
		if got := parseList(in); !slices.Equal(got, want) {
			t.Errorf("parseList(%q) = %v, want %v", in, got, want)
		}
	}
	for in, want := range map[string]string{"hugepages-2048kB": "2MB", "hugepages-64kB": "64KB", "hugepages-1048576kB": "1GB", "hugepages-16777216kB": "16GB", "x": ""} {
		if got, ok := pageSize(in); got != want || ok != (want != "") {
			t.Errorf("pageSize(%q) = %q, %v", in, got, ok)
		}
	}
	if got := parseRDMA("mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=max\n"); !reflect.DeepEqual(got, map[string][2]uint32{"mlx4_0": {2, 2000}, "ocrdma1": {3, math.MaxUint32}}) {
		t.Errorf("rdma: %v", got)
	}
	if got := parsePSI("some avg10=1.50 avg60=2.00 avg300=0.25 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n"); *got != (PSI{Pressure{1.5, 2, .25, 7}, Pressure{Total: 3}}) {
		t.Errorf("pressure: %+v", *got)
	}
	if user, kernel := parseUsageAll("cpu user system\n0 1 2\n1 3 4\n"); !slices.Equal(user, []uint64{1, 3}) || !slices.Equal(kernel, []uint64{2, 4}) {
		t.Errorf("usage_all: %v, %v", user, kernel)
	}
}

// Whatever the kernel's files say, Stats can be written as JSON.
func FuzzStats(f *testing.F) {
	f.Add("8:0 rbytes=1\nsome avg10=1e400 total=9\n0-4\nmlx hca_handle=1\ncpu user\n0 1 2")
	f.Fuzz(func(t *testing.T, text string) {
		var s Stats
		s.Blkio.ServiceBytes, s.Blkio.Serviced = parseIOEntries(text)
		s.Blkio.Queued = parseBlkioEntries(text)
		s.CPU.PSI = parsePSI(text)
		s.CPU.Usage.PercpuUser, s.CPU.Usage.PercpuKernel = parseUsageAll(text)
		s.CPUSet.CPUs = parseList(text)
		s.Memory.Raw = parseCounters(text)
		parseRDMA(text)
		if _, err := json.Marshal(s); err != nil {
			t.Error(err)
		}
	})
}

func TestStatsOfAGroupAtWork(t *testing.T) {
	g := create(t, Limits{Memory: Memory{Limit: 64 << 20}, Pids: 9, CPU: CPU{CPUs: 0.5}})
	start(t, g, "head -c 2M /dev/zero | tail -c 2M | sleep 100 & while :; do :; done")
	settle(t, "it has worked", func() bool {
		s, err := g.Stats()
		return err == nil && s.CPU.Usage.Total > 0 && s.CPU.Throttling.ThrottledPeriods > 0 && s.Pids.Current >= 3 && s.Memory.Usage.Usage > 1<<20
	})
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	m := s.Memory
	if m.Usage.Limit != 64<<20 || m.Usage.Max < m.Usage.Usage/2 || m.Swap.Usage < m.Usage.Usage/2 || len(m.Raw) < 10 {
		t.Errorf("memory %+v", m)
	}
	if s.Pids.Limit != 9 || s.CPU.Throttling.Periods == 0 || s.CPU.Throttling.ThrottledTime == 0 {
		t.Errorf("pids %+v, throttling %+v", s.Pids, s.CPU.Throttling)
	}
	if u := s.CPU.Usage; u.User+u.Kernel > u.Total*2 || u.User+u.Kernel < u.Total/2 {
		t.Errorf("cpu %+v", u)
	}
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
}

// The watch hears of each kill, and ends with the last process.
func TestOOMIsTold(t *testing.T) {
	g := create(t, Limits{Memory: Memory{Limit: 16 << 20, Swap: 16 << 20}})
	feed := startFed(t, g, "while read x; do head -c 200M /dev/zero | tail -c 100M | wc -c; done")
	settle(t, "the process is in", func() bool { return entered(g) })
	ctx, cancel := within(t, 100*time.Second)
	defer cancel()
	told, ended := make(chan bool, 100), make(chan error, 1)
	go func() { ended <- g.OnOOM(ctx, func() { told <- true }) }()
	for range 2 {
		for heard := false; !heard; { // the first may come before the watch
			if _, err := feed.Write([]byte("\n")); err != nil {
				t.Fatal(err)
			}
			select {
			case heard = <-told:
			case <-time.After(20 * time.Second):
			case err := <-ended:
				t.Fatalf("the watch ended: %v", err)
			}
		}
	}
	feed.Close()
	if err := <-ended; err != nil || g.OOMKills() < 2 {
		t.Errorf("%d kills, %v", g.OOMKills(), err)
	}
	if err := g.OnOOM(ctx, func() {}); err != nil {
		t.Errorf("of a group with nobody: %v", err)
	}
}

func TestOOMWatchEndsWithItsContext(t *testing.T) {
	g := create(t, Limits{Memory: Memory{Limit: 16 << 20}})
	startFed(t, g, "read x")
	settle(t, "the process is in", func() bool { return entered(g) })
	ctx, cancel := within(t, 50*time.Millisecond)
	defer cancel()
	if err := g.OnOOM(ctx, func() {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
