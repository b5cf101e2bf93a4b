package cgroup

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"kiste/fault"
)

// A want is one limit in the words of both versions.
type want struct {
	field  string // of OCI's spec
	c1, c2 string // controllers; empty: that version cannot do it
	v1, v2 []file
	normal bool // it asks for what is so where nobody limits: no error where it cannot be written
}

func (w want) controller(v2 bool) string {
	if v2 && w.c2 != "" || w.c1 == "" {
		return w.c2
	}
	return w.c1
}

// A file is what to write where.
type file struct {
	File
	or       []File
	optional bool
}

func one(name, value string) []file { return []file{{File: File{name, value}}} }

// wantsOf translates lim. The order within one controller matters: a period
// before its quota, a quota before its burst.
func wantsOf(lim Limits, o Options) ([]want, error) {
	var wants []want
	for _, part := range []func(Limits, Options) ([]want, error){memoryWants, cpuWants, pidsWants, ioWants, hugeWants, otherWants, unifiedWants} {
		w, err := part(lim, o)
		if err != nil {
			return nil, err
		}
		wants = append(wants, w...)
	}
	return wants, nil
}

// most is how version 2 writes a number that may be "no limit".
func most(v int64) string {
	if v < 0 {
		return "max"
	}
	return strconv.FormatInt(v, 10)
}

func number[T int64 | uint64 | uint32 | uint16](v T) string { return fmt.Sprint(v) }

func memoryWants(lim Limits, o Options) ([]want, error) {
	const field = "linux.resources.memory."
	m := lim.Memory
	var w []want
	add := func(name, v1, v2, v2value string, value int64) {
		x := want{field: field + name, c1: "memory", c2: "memory", normal: value < 0}
		if v1 != "" {
			x.v1 = one(v1, strconv.FormatInt(value, 10))
		}
		if v2 != "" {
			x.v2 = one(v2, v2value)
		}
		w = append(w, x)
	}
	if m.Limit != 0 {
		add("limit", "memory.limit_in_bytes", "memory.max", most(m.Limit), m.Limit)
	}
	if m.Swap != 0 {
		swap, err := swapOnly(m)
		if err != nil {
			return nil, err
		}
		add("swap", "memory.memsw.limit_in_bytes", "memory.swap.max", swap, m.Swap)
		// Version 1 keeps memory <= memory+swap at every moment.
		if m.Limit != 0 && o.Exist && (m.Swap < 0 || o.Memory > 0 && o.Memory < m.Swap) {
			w[0], w[1] = w[1], w[0]
		}
	}
	if m.Reservation != 0 {
		add("reservation", "memory.soft_limit_in_bytes", "memory.low", most(m.Reservation), m.Reservation)
	}
	if m.Kernel != 0 {
		add("kernel", "memory.kmem.limit_in_bytes", "", "", m.Kernel)
	}
	if m.KernelTCP != 0 {
		add("kernelTCP", "memory.kmem.tcp.limit_in_bytes", "", "", m.KernelTCP)
	}
	if m.Swappiness != nil {
		if *m.Swappiness > 100 {
			return nil, invalid(field+"swappiness", "it goes from 0 to 100")
		}
		add("swappiness", "memory.swappiness", "", "", int64(*m.Swappiness))
	}
	if m.NoOOMKill != nil && (*m.NoOOMKill || o.Exist) {
		add("disableOOMKiller", "memory.oom_control", "", "", int64(bit(*m.NoOOMKill)))
		w[len(w)-1].normal = !*m.NoOOMKill
	}
	return w, nil
}

// swapOnly is version 2's swap limit, which does not count memory: as in
// runc's ConvertMemorySwapToCgroupV2Value.
func swapOnly(m Memory) (string, error) {
	const field = "linux.resources.memory.swap"
	switch {
	case m.Swap < 0:
		return "max", nil
	case m.Limit <= 0:
		return "", invalid(field, "it counts memory and swap together, so it needs a memory limit")
	case m.Swap < m.Limit:
		return "", invalid(field, "it counts memory and swap together, so it cannot be less than the memory limit")
	}
	return strconv.FormatInt(m.Swap-m.Limit, 10), nil
}

func bit(on bool) int {
	if on {
		return 1
	}
	return 0
}

const defaultPeriod = 100_000 // microseconds: the kernel's

func cpuWants(lim Limits, o Options) ([]want, error) {
	const field = "linux.resources.cpu."
	c := lim.CPU
	if c.CPUs < 0 || c.CPUs > 1<<20 || math.IsNaN(c.CPUs) {
		return nil, invalid(field+"quota", "the number of CPUs is out of range")
	}
	quota, period := c.Quota, c.Period
	if c.CPUs > 0 {
		if quota != 0 {
			return nil, invalid(field+"quota", "CPUs and a quota say the same: give one")
		}
		if period == 0 {
			period = defaultPeriod
		}
		quota = int64(c.CPUs * float64(period))
	}
	var w []want
	add := func(name string, v1, v2 []file) {
		w = append(w, want{field: field + name, c1: "cpu", c2: "cpu", v1: v1, v2: v2})
	}
	if c.Shares != 0 {
		add("shares", one("cpu.shares", number(c.Shares)), one("cpu.weight", number(cpuWeight(c.Shares))))
	}
	if quota != 0 || period != 0 {
		name := "quota"
		var v1 []file
		if period != 0 {
			v1 = one("cpu.cfs_period_us", number(period))
		}
		if quota != 0 {
			v1 = append(v1, one("cpu.cfs_quota_us", number(max(quota, -1)))...)
		} else {
			name = "period"
		}
		add(name, v1, one("cpu.max", cpuMax(quota, period)))
	}
	if b := c.Burst; b != nil && (*b != 0 || o.Exist) {
		add("burst", one("cpu.cfs_burst_us", number(*b)), one("cpu.max.burst", number(*b)))
		w[len(w)-1].normal = *b == 0
	}
	if c.Idle != nil {
		add("idle", one("cpu.idle", number(*c.Idle)), one("cpu.idle", number(*c.Idle)))
	}
	if c.RealtimePeriod != 0 {
		add("realtimePeriod", one("cpu.rt_period_us", number(c.RealtimePeriod)), nil)
	}
	if c.RealtimeRuntime != 0 {
		add("realtimeRuntime", one("cpu.rt_runtime_us", number(c.RealtimeRuntime)), nil)
	}
	for _, set := range []struct{ name, value string }{{"cpus", c.Cpus}, {"mems", c.Mems}} {
		if set.value == "" {
			continue
		}
		if !isList(set.value) {
			return nil, invalid(field+set.name, "want a list such as 0-2,5")
		}
		w = append(w, want{field: field + set.name, c1: "cpuset", c2: "cpuset", v1: one("cpuset."+set.name, set.value), v2: one("cpuset."+set.name, set.value)})
	}
	return w, nil
}

// isList checks the characters of a cpuset's list; the kernel checks the rest.
func isList(s string) bool {
	return strings.Trim(s, "0123456789-,:/") == "" && s[0] >= '0' && s[0] <= '9'
}

func cpuMax(quota int64, period uint64) string {
	q := "max"
	if quota > 0 {
		q = number(quota)
	}
	if period == 0 {
		return q // the kernel keeps the period
	}
	return q + " " + number(period)
}

// cpuWeight is the cpu.weight (1 to 10000) of shares (2 to 262144), such that
// 2 is 1, 1024 is 100 and 262144 is 10000. Source: runc and crun since 2025,
// opencontainers/cgroups ConvertCPUSharesToCgroupV2Value.
func cpuWeight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	exponent := (l*l+125*l)/612.0 - 7.0/34.0
	return uint64(math.Ceil(math.Pow(10, exponent)))
}

func pidsWants(lim Limits, _ Options) ([]want, error) {
	if lim.Pids == 0 {
		return nil, nil
	}
	v := one("pids.max", most(lim.Pids))
	return []want{{field: "linux.resources.pids.limit", c1: "pids", c2: "pids", v1: v, v2: v, normal: lim.Pids < 0}}, nil
}

// ioWeight is the io.weight (1 to 10000) of a blkio weight (10 to 1000).
// Source: runc's ConvertBlkIOToIOWeightValue.
func ioWeight(w uint16) uint64 {
	if w == 0 {
		return 0
	}
	return 1 + (uint64(w)-10)*9999/990
}

func ioWants(lim Limits, _ Options) ([]want, error) {
	const field = "linux.resources.blockIO."
	var w []want
	add := func(name string, v1, v2 []file) {
		w = append(w, want{field: field + name, c1: "blkio", c2: "io", v1: v1, v2: v2})
	}
	if v := lim.IO.Weight; v != 0 {
		if err := checkWeight(field+"weight", v); err != nil {
			return nil, err
		}
		add("weight", []file{{File: File{"blkio.bfq.weight", number(v)}, or: []File{{"blkio.weight", number(v)}}}},
			[]file{{File: File{"io.bfq.weight", number(v)}, or: []File{{"io.weight", number(ioWeight(v))}}}})
	}
	if v := lim.IO.LeafWeight; v != 0 {
		add("leafWeight", one("blkio.leaf_weight", number(v)), nil)
	}
	for _, d := range lim.IO.Weights {
		dev := fmt.Sprintf("%d:%d ", d.Major, d.Minor)
		if d.Weight != 0 {
			if err := checkWeight(field+"weightDevice", d.Weight); err != nil {
				return nil, err
			}
			add("weightDevice", []file{{File: File{"blkio.bfq.weight_device", dev + number(d.Weight)}, or: []File{{"blkio.weight_device", dev + number(d.Weight)}}}},
				[]file{{File: File{"io.bfq.weight", dev + number(d.Weight)}, or: []File{{"io.weight", dev + number(ioWeight(d.Weight))}}}})
		}
		if d.LeafWeight != 0 {
			add("weightDevice", one("blkio.leaf_weight_device", dev+number(d.LeafWeight)), nil)
		}
	}
	for _, r := range []struct {
		name, v1, v2 string
		rates        []Rate
	}{
		{"throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", lim.IO.ReadBPS},
		{"throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", lim.IO.WriteBPS},
		{"throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", lim.IO.ReadIOPS},
		{"throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", lim.IO.WriteIOPS},
	} {
		for _, d := range r.rates {
			dev := fmt.Sprintf("%d:%d ", d.Major, d.Minor)
			v2 := number(d.Rate)
			if d.Rate == 0 {
				v2 = "max" // 0 lifts the limit, as version 1 has it
			}
			add(r.name, one(r.v1, dev+number(d.Rate)), one("io.max", dev+r.v2+"="+v2))
		}
	}
	return w, nil
}

func checkWeight(field string, w uint16) error {
	if w < 10 || w > 1000 {
		return invalid(field, "a weight goes from 10 to 1000")
	}
	return nil
}

func hugeWants(lim Limits, _ Options) ([]want, error) {
	const field = "linux.resources.hugepageLimits"
	var w []want
	for _, h := range lim.Huge {
		if h.Size == "" || strings.Trim(h.Size, "0123456789KMGTB") != "" {
			return nil, invalid(field, "want a page size such as 2MB")
		}
		v, p := number(h.Limit), "hugetlb."+h.Size
		// Reservations are limited too where the kernel can (5.7), so that a
		// process learns it from mmap(2) and not from SIGBUS.
		w = append(w, want{field: field, c1: "hugetlb", c2: "hugetlb",
			v1: []file{{File: File{p + ".limit_in_bytes", v}}, {File: File{p + ".rsvd.limit_in_bytes", v}, optional: true}},
			v2: []file{{File: File{p + ".max", v}}, {File: File{p + ".rsvd.max", v}, optional: true}}})
	}
	return w, nil
}

func otherWants(lim Limits, o Options) ([]want, error) {
	var w []want
	for _, r := range lim.RDMA {
		if r.Device == "" || strings.ContainsAny(r.Device, " \n") {
			return nil, invalid("linux.resources.rdma", "want the name of a device")
		}
		v := r.Device
		if r.Handles != nil {
			v += " hca_handle=" + number(*r.Handles)
		}
		if r.Objects != nil {
			v += " hca_object=" + number(*r.Objects)
		}
		w = append(w, want{field: "linux.resources.rdma", c1: "rdma", c2: "rdma", v1: one("rdma.max", v), v2: one("rdma.max", v)})
	}
	if c := lim.NetClass; c != nil && (*c != 0 || o.Exist) {
		w = append(w, want{field: "linux.resources.network.classID", c1: "net_cls", v1: one("net_cls.classid", number(*c)), normal: *c == 0})
	}
	for _, p := range lim.NetPrio {
		if p.Interface == "" || strings.ContainsAny(p.Interface, " \n") {
			return nil, invalid("linux.resources.network.priorities", "want the name of an interface")
		}
		w = append(w, want{field: "linux.resources.network.priorities", c1: "net_prio", v1: one("net_prio.ifpriomap", p.Interface+" "+number(p.Priority))})
	}
	return w, nil
}

// notLimits are files of version 2 that are not for a list of limits.
var notLimits = []string{"cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "cgroup.kill", "cgroup.freeze", "cgroup.type"}

func unifiedWants(lim Limits, _ Options) ([]want, error) {
	const field = "linux.resources.unified"
	var w []want
	for _, name := range slices.Sorted(maps.Keys(lim.Unified)) {
		controller, _, ok := strings.Cut(name, ".")
		if !ok || controller == "" || strings.ContainsAny(name, "/\x00\n") || slices.Contains(notLimits, name) {
			return nil, &fault.Error{Op: "limit", On: "unified " + name, Kind: fault.Invalid, Err: errText("it is not a file with a limit, such as memory.high")}
		}
		// A v1 controller's file of the same name would mean something else.
		w = append(w, want{field: field, c2: controller, v2: one(name, lim.Unified[name])})
	}
	return w, nil
}
