package cgroup

import (
	"cmp"
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
	normal bool   // it asks for what is so where nobody limits: no error where it cannot be written
	bad1   string // what is wrong with it on version 1
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
	try      bool
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
	swap, err := swapWants(m, o)
	if err != nil {
		return nil, err
	}
	// Version 1 keeps memory <= memory+swap at every moment.
	if o.Exist && (m.Swap < 0 || m.Limit < 0 || o.Now.Memory > 0 && o.Now.Memory < m.Swap) {
		w = append(swap, w...)
	} else {
		w = append(w, swap...)
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

// swapWants is the limit of memory and swap together. On version 1 it stays
// when memory alone is changed; on version 2, which counts swap alone, what
// memory gets is taken from swap. Unlimited memory brings unlimited swap. A
// host without swap has no files for it, and needs none to forbid it. As in
// runc.
func swapWants(m Memory, o Options) ([]want, error) {
	const field = "linux.resources.memory.swap"
	w := want{field: field, c1: "memory", c2: "memory"}
	v1 := strconv.FormatInt(m.Swap, 10)
	switch {
	case m.Swap == 0 && m.Limit < 0:
		v1, m.Swap = "-1", -1
	case m.Swap == 0 && m.Limit > 0 && o.Exist && o.Now.Memory > 0 && o.Now.Swap >= 0:
		v1, m.Swap = "", o.Now.Memory+o.Now.Swap
	case m.Swap == 0:
		return nil, nil
	}
	if m.Limit == 0 && o.Exist {
		m.Limit = max(o.Now.Memory, 0)
	}
	swap, err := swapOnly(m)
	if err != nil {
		return nil, err
	}
	if v1 != "" {
		w.v1 = one("memory.memsw.limit_in_bytes", v1)
	}
	w.v2 = []file{{File: File{"memory.swap.max", swap}, optional: swap == "max" || swap == "0"}}
	w.normal = m.Swap < 0 || v1 == ""
	return []want{w}, nil
}

// swapOnly is version 2's swap limit, which does not count memory: as in
// runc's ConvertMemorySwapToCgroupV2Value.
func swapOnly(m Memory) (string, error) {
	const field = "linux.resources.memory.swap"
	switch {
	case m.Swap < 0:
		return "max", nil
	case m.Limit < 0:
		return strconv.FormatInt(m.Swap, 10), nil
	case m.Limit == 0:
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
	idle := func(v int64) { add("idle", one("cpu.idle", number(v)), one("cpu.idle", number(v))) }
	// An idle group has no shares, and refuses them.
	if c.Idle != nil && (*c.Idle == 0 || c.Shares != 0) && o.Exist {
		idle(0)
	}
	if c.Shares != 0 {
		add("shares", one("cpu.shares", number(c.Shares)), one("cpu.weight", number(cpuWeight(c.Shares))))
		w[len(w)-1].bad1 = badShares(c.Shares)
	}
	if c.Idle != nil && *c.Idle != 0 {
		idle(*c.Idle)
	}
	w = append(w, bandwidth(quota, period, c.Burst, o)...)
	both := c.RealtimePeriod != 0 && c.RealtimeRuntime != 0
	if c.RealtimePeriod != 0 {
		add("realtimePeriod", []file{{File: File{"cpu.rt_period_us", number(c.RealtimePeriod)}, try: both && o.Exist}}, nil)
	}
	if c.RealtimeRuntime != 0 {
		add("realtimeRuntime", one("cpu.rt_runtime_us", number(c.RealtimeRuntime)), nil)
	}
	if both && o.Exist {
		add("realtimePeriod", one("cpu.rt_period_us", number(c.RealtimePeriod)), nil)
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

// badShares says what is wrong with shares on version 1, which would take the
// nearest ones without a word; version 2 has a weight for all.
func badShares(shares uint64) string {
	switch {
	case shares < 2:
		return "the minimum allowed cpu-shares is 2"
	case shares > 262144:
		return "the maximum allowed cpu-shares is 262144"
	}
	return ""
}

// bandwidth is quota, period and burst, which the kernel takes only as far as
// they suit each other and the groups above: where others are in force, what
// is refused before the quota is said again behind it.
func bandwidth(quota int64, period uint64, burst *uint64, o Options) []want {
	const field = "linux.resources.cpu."
	var w []want
	add := func(name string, v1, v2 []file) {
		w = append(w, want{field: field + name, c1: "cpu", c2: "cpu", v1: v1, v2: v2})
	}
	again := quota != 0 && o.Exist
	bursts := func(try bool) {
		add("burst", []file{{File: File{"cpu.cfs_burst_us", number(*burst)}, try: try}}, []file{{File: File{"cpu.max.burst", number(*burst)}, try: try}})
		w[len(w)-1].normal = *burst == 0
	}
	if burst != nil && again {
		bursts(true)
	}
	w = append(w, quotaWants(quota, period, again, o.Now)...)
	if burst != nil && (*burst != 0 || o.Exist) {
		bursts(false)
	}
	return w
}

func quotaWants(quota int64, period uint64, again bool, now Now) []want {
	w := want{field: "linux.resources.cpu.quota", c1: "cpu", c2: "cpu", v2: one("cpu.max", cpuMax(quota, cmp.Or(period, now.Period)))}
	if period != 0 {
		w.v1 = []file{{File: File{"cpu.cfs_period_us", number(period)}, try: again}}
	}
	switch {
	case quota == 0 && period == 0:
		return nil
	case quota == 0:
		w.field, w.v2 = "linux.resources.cpu.period", one("cpu.max", cpuMax(now.Quota, period))
		return []want{w}
	}
	w.v1 = append(w.v1, file{File: File{"cpu.cfs_quota_us", number(max(quota, -1))}})
	if period != 0 && again {
		w.v1 = append(w.v1, file{File: File{"cpu.cfs_period_us", number(period)}})
	}
	return []want{w}
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
		w = append(w, want{field: field, c2: controller, v2: lines(name, lim.Unified[name])})
	}
	return w, nil
}

// lines writes a value of several lines, as of io.max, line by line, since the
// kernel takes one at a time.
func lines(name, value string) []file {
	var files []file
	for line := range strings.SplitSeq(strings.TrimRight(value, "\n"), "\n") {
		files = append(files, file{File: File{name, line}})
	}
	return files
}
