package cgroup

import (
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"kiste/internal/sys"
)

// Stats is what a group uses, in the shape of the data of runc's "events
// --stats", as version 1 counts: times in nanoseconds, sizes in bytes, and
// memory with swap together. What the host does not account for the group is
// zero. A limit of 2⁶⁴-1, or about 2⁶³ on version 1, is none. Source: runc's
// package types.
type Stats struct {
	CPU     CPUStats                `json:"cpu"`
	CPUSet  CPUSetStats             `json:"cpuset"` // version 1 only
	Memory  MemoryStats             `json:"memory"`
	Pids    PidsStats               `json:"pids"`
	Blkio   BlkioStats              `json:"blkio"`
	Hugetlb map[string]HugetlbStats `json:"hugetlb"`        // by page size
	RDMA    map[string]RDMAStats    `json:"rdma,omitempty"` // by device; runc leaves it out
}

// CPUStats is the time used, and how the quota held the group back.
type CPUStats struct {
	Usage      CPUTime    `json:"usage,omitzero"`
	Throttling Throttling `json:"throttling,omitzero"`
	PSI        *PSI       `json:"psi,omitempty"`
}

// CPUTime is in nanoseconds. Those of each CPU are version 1's.
type CPUTime struct {
	Total        uint64   `json:"total,omitempty"`
	Percpu       []uint64 `json:"percpu,omitempty"`
	PercpuKernel []uint64 `json:"percpu_kernel,omitempty"`
	PercpuUser   []uint64 `json:"percpu_user,omitempty"`
	Kernel       uint64   `json:"kernel"`
	User         uint64   `json:"user"`
}

// Throttling counts periods, and the time that the group could not run.
type Throttling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"`
}

// PSI is the kernel's pressure stall information: how long some, or all, of the
// group's tasks waited. Source: Documentation/accounting/psi.rst.
type PSI struct {
	Some Pressure `json:"some,omitzero"`
	Full Pressure `json:"full,omitzero"`
}

// Pressure is in percent of the last 10, 60 and 300 seconds, and the total in
// microseconds.
type Pressure struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// CPUSetStats are the files of version 1's cpuset.
type CPUSetStats struct {
	CPUs                  []uint16 `json:"cpus,omitempty"`
	CPUExclusive          uint64   `json:"cpu_exclusive"`
	Mems                  []uint16 `json:"mems,omitempty"`
	MemHardwall           uint64   `json:"mem_hardwall"`
	MemExclusive          uint64   `json:"mem_exclusive"`
	MemoryMigrate         uint64   `json:"memory_migrate"`
	MemorySpreadPage      uint64   `json:"memory_spread_page"`
	MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
	MemoryPressure        uint64   `json:"memory_pressure"`
	SchedLoadBalance      uint64   `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
}

// MemoryStats are in bytes. Swap is memory and swap together, Raw is
// memory.stat.
type MemoryStats struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     MemoryEntry       `json:"usage"`
	Swap      MemoryEntry       `json:"swap"`
	Kernel    MemoryEntry       `json:"kernel"`
	KernelTCP MemoryEntry       `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
	PSI       *PSI              `json:"psi,omitempty"`
}

// MemoryEntry is one kind of memory. Max is the most that was used, Failcnt
// how often the limit was met.
type MemoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// PidsStats counts processes and threads. A limit of 0 is none.
type PidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// BlkioStats counts by device. Only schedulers of version 1 fill more than the
// first two.
type BlkioStats struct {
	ServiceBytes []BlkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []BlkioEntry `json:"ioServicedRecursive,omitempty"`
	Queued       []BlkioEntry `json:"ioQueueRecursive,omitempty"`
	ServiceTime  []BlkioEntry `json:"ioServiceTimeRecursive,omitempty"`
	WaitTime     []BlkioEntry `json:"ioWaitTimeRecursive,omitempty"`
	Merged       []BlkioEntry `json:"ioMergedRecursive,omitempty"`
	Time         []BlkioEntry `json:"ioTimeRecursive,omitempty"`
	Sectors      []BlkioEntry `json:"sectorsRecursive,omitempty"`
	PSI          *PSI         `json:"psi,omitempty"`
}

// BlkioEntry is one number: Op is "Read", "Write" and so on.
type BlkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

// HugetlbStats is in bytes of one page size.
type HugetlbStats struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// RDMAStats is what is used of a device, and its limits; 2³²-1 is none.
type RDMAStats struct {
	Handles      uint32 `json:"hcaHandles"`
	Objects      uint32 `json:"hcaObjects"`
	HandlesLimit uint32 `json:"hcaHandlesLimit"`
	ObjectsLimit uint32 `json:"hcaObjectsLimit"`
}

// Stats reads what the group uses now. It is fault.NotFound where the group is
// gone.
func (g *Group) Stats() (Stats, error) {
	s := Stats{Hugetlb: map[string]HugetlbStats{}}
	for _, part := range []struct {
		controller string
		v1, v2     func(*Stats, dir)
	}{
		{"cpu", throttleStats, throttleStats},
		{"cpuacct", cpuacctStats, nil},
		{"cpuset", cpusetStats, nil},
		{"memory", memoryStatsV1, memoryStatsV2},
		{"pids", pidsStats, pidsStats},
		{"io", nil, ioStats},
		{"blkio", blkioStats, nil},
		{"hugetlb", hugetlbStats, hugetlbStats},
		{"rdma", rdmaStats, rdmaStats},
	} {
		d, ok := g.with(part.controller)
		read := part.v1
		if d.h.V2 {
			read = part.v2
		}
		if ok && read != nil {
			read(&s, d)
		}
	}
	if d, ok := g.unified(); ok {
		unifiedStats(&s, d)
	}
	if _, err := Open(g.layout, g.Path); err != nil {
		return Stats{}, err
	}
	return s, nil
}

// unifiedStats are those that the unified hierarchy has without a controller.
func unifiedStats(s *Stats, d dir) {
	if t, err := counters(d, "cpu.stat"); err == nil && s.CPU.Usage.Total == 0 {
		s.CPU.Usage = CPUTime{Total: t["usage_usec"] * 1000, User: t["user_usec"] * 1000, Kernel: t["system_usec"] * 1000}
	}
	if _, ok := s.Memory.Raw["anon"]; ok || s.Memory.Usage.Limit != 0 {
		s.Memory.PSI = pressure(d, "memory.pressure")
	}
	s.CPU.PSI, s.Blkio.PSI = pressure(d, "cpu.pressure"), pressure(d, "io.pressure")
	if s.Pids.Current == 0 {
		procs, _ := sys.ReadKnob(d.path+"/cgroup.procs", maxFile)
		s.Pids.Current = uint64(len(numbers(procs)))
	}
}

// counters reads a file of lines "key number".
func counters(d dir, name string) (map[string]uint64, error) {
	text, err := sys.ReadKnob(path.Join(d.path, name), maxFile)
	return parseCounters(text), err
}

func parseCounters(text string) map[string]uint64 {
	t := map[string]uint64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseUint(value, 10, 64); err == nil {
			t[key] = v
		}
	}
	return t
}

// counter reads a file of one number. "max" is the highest.
func counter(d dir, name string) (uint64, error) {
	text, err := sys.ReadKnob(path.Join(d.path, name), 64)
	if err != nil {
		return 0, err
	}
	return parseCounter(strings.TrimSpace(text)), nil
}

func parseCounter(text string) uint64 {
	if text == "max" {
		return math.MaxUint64
	}
	v, _ := strconv.ParseUint(text, 10, 64)
	return v
}

func throttleStats(s *Stats, d dir) {
	t, _ := counters(d, "cpu.stat")
	s.CPU.Throttling = Throttling{Periods: t["nr_periods"], ThrottledPeriods: t["nr_throttled"], ThrottledTime: t["throttled_time"] + t["throttled_usec"]*1000}
}

func cpuacctStats(s *Stats, d dir) {
	u := &s.CPU.Usage
	u.Total, _ = counter(d, "cpuacct.usage")
	u.User, _ = counter(d, "cpuacct.usage_user")
	u.Kernel, _ = counter(d, "cpuacct.usage_sys")
	text, _ := sys.ReadKnob(d.path+"/cpuacct.usage_percpu", maxFile)
	for v := range strings.FieldsSeq(text) {
		u.Percpu = append(u.Percpu, parseCounter(v))
	}
	text, _ = sys.ReadKnob(d.path+"/cpuacct.usage_all", maxFile)
	u.PercpuUser, u.PercpuKernel = parseUsageAll(text)
}

// parseUsageAll reads lines "cpu user system" below such a line of words.
func parseUsageAll(text string) (user, kernel []uint64) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) >= 3 && f[0] != "cpu" {
			user, kernel = append(user, parseCounter(f[1])), append(kernel, parseCounter(f[2]))
		}
	}
	return user, kernel
}

func cpusetStats(s *Stats, d dir) {
	c := &s.CPUSet
	for name, list := range map[string]*[]uint16{"cpus": &c.CPUs, "mems": &c.Mems} {
		text, _ := sys.ReadKnob(d.path+"/cpuset."+name, 4096)
		*list = parseList(text)
	}
	for name, to := range map[string]*uint64{
		"cpu_exclusive": &c.CPUExclusive, "mem_hardwall": &c.MemHardwall, "mem_exclusive": &c.MemExclusive, "memory_migrate": &c.MemoryMigrate,
		"memory_spread_page": &c.MemorySpreadPage, "memory_spread_slab": &c.MemorySpreadSlab, "memory_pressure": &c.MemoryPressure, "sched_load_balance": &c.SchedLoadBalance,
	} {
		*to, _ = counter(d, "cpuset."+name)
	}
	text, _ := sys.ReadKnob(d.path+"/cpuset.sched_relax_domain_level", 64)
	c.SchedRelaxDomainLevel, _ = strconv.ParseInt(strings.TrimSpace(text), 10, 64)
}

// parseList reads a list such as "0-2,5". Other things than such are left out.
func parseList(text string) []uint16 {
	var list []uint16
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil {
			continue
		}
		for n := a; n <= b; n++ {
			list = append(list, uint16(n))
		}
	}
	return list
}

func memoryStatsV1(s *Stats, d dir) {
	m := &s.Memory
	m.Raw, _ = counters(d, "memory.stat")
	m.Cache = m.Raw["cache"]
	for name, e := range map[string]*MemoryEntry{"memory": &m.Usage, "memory.memsw": &m.Swap, "memory.kmem": &m.Kernel, "memory.kmem.tcp": &m.KernelTCP} {
		e.Usage, _ = counter(d, name+".usage_in_bytes")
		e.Max, _ = counter(d, name+".max_usage_in_bytes")
		e.Failcnt, _ = counter(d, name+".failcnt")
		e.Limit, _ = counter(d, name+".limit_in_bytes")
	}
}

func memoryStatsV2(s *Stats, d dir) {
	m := &s.Memory
	m.Raw, _ = counters(d, "memory.stat")
	m.Cache = m.Raw["file"]
	m.Usage.Usage, _ = counter(d, "memory.current")
	m.Usage.Max, _ = counter(d, "memory.peak")
	m.Usage.Limit, _ = counter(d, "memory.max")
	used, _ := counter(d, "memory.swap.current")
	limit, _ := counter(d, "memory.swap.max")
	m.Swap.Usage = used + m.Usage.Usage
	if m.Swap.Limit = limit; limit != math.MaxUint64 {
		m.Swap.Limit = sum(limit, m.Usage.Limit)
	}
}

// sum stays at the highest number, which is no limit.
func sum(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func pidsStats(s *Stats, d dir) {
	s.Pids.Current, _ = counter(d, "pids.current")
	if s.Pids.Limit, _ = counter(d, "pids.max"); s.Pids.Limit == math.MaxUint64 {
		s.Pids.Limit = 0
	}
}

func ioStats(s *Stats, d dir) {
	text, _ := sys.ReadKnob(d.path+"/io.stat", maxFile)
	s.Blkio.ServiceBytes, s.Blkio.Serviced = parseIOEntries(text)
}

// parseIOEntries reads lines "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …" of version
// 2's io.stat into the words of version 1.
func parseIOEntries(text string) (bytes, operations []BlkioEntry) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		major, minor, ok := parseDevice(f[0])
		if !ok {
			continue
		}
		for _, word := range f[1:] {
			key, value, _ := strings.Cut(word, "=")
			e := BlkioEntry{Major: major, Minor: minor, Value: parseCounter(value)}
			switch key {
			case "rbytes", "rios":
				e.Op = "Read"
			case "wbytes", "wios":
				e.Op = "Write"
			}
			switch key {
			case "rbytes", "wbytes":
				bytes = append(bytes, e)
			case "rios", "wios":
				operations = append(operations, e)
			}
		}
	}
	return bytes, operations
}

func parseDevice(text string) (major, minor uint64, ok bool) {
	a, b, _ := strings.Cut(text, ":")
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	return major, minor, err1 == nil && err2 == nil
}

// blkioFamilies are the families of version 1's files, the richest first: a
// host has those of the scheduler that it uses, and those of throttling.
var blkioFamilies = []struct{ prefix, suffix string }{
	{"blkio.bfq.", "_recursive"}, {"blkio.", "_recursive"}, {"blkio.throttle.", "_recursive"}, {"blkio.throttle.", ""},
}

func blkioStats(s *Stats, d dir) {
	b := &s.Blkio
	for _, family := range blkioFamilies {
		for name, to := range map[string]*[]BlkioEntry{
			"io_service_bytes": &b.ServiceBytes, "io_serviced": &b.Serviced, "io_queued": &b.Queued, "io_service_time": &b.ServiceTime,
			"io_wait_time": &b.WaitTime, "io_merged": &b.Merged, "time": &b.Time, "sectors": &b.Sectors,
		} {
			text, err := sys.ReadKnob(d.path+"/"+family.prefix+name+family.suffix, maxFile)
			if err == nil {
				*to = parseBlkioEntries(text)
			}
		}
		if len(b.Serviced) > 0 {
			return
		}
	}
}

// parseBlkioEntries reads lines "8:0 Read 4096" and "8:0 4096"; lines of sums
// are left out.
func parseBlkioEntries(text string) []BlkioEntry {
	var entries []BlkioEntry
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || len(f) > 3 {
			continue
		}
		major, minor, ok := parseDevice(f[0])
		if !ok {
			continue
		}
		e := BlkioEntry{Major: major, Minor: minor, Value: parseCounter(f[len(f)-1])}
		if len(f) == 3 {
			e.Op = f[1]
		}
		entries = append(entries, e)
	}
	return entries
}

func hugetlbStats(s *Stats, d dir) {
	for _, size := range hugePageSizes() {
		var h HugetlbStats
		var err error
		for _, kind := range []string{".rsvd", ""} { // reservations, as limits are of them
			prefix := "hugetlb." + size + kind
			if d.h.V2 {
				h.Usage, err = counter(d, prefix+".current")
				e, _ := counters(d, "hugetlb."+size+".events")
				h.Failcnt = e["max"]
			} else {
				h.Usage, err = counter(d, prefix+".usage_in_bytes")
				h.Max, _ = counter(d, prefix+".max_usage_in_bytes")
				h.Failcnt, _ = counter(d, prefix+".failcnt")
			}
			if err == nil {
				s.Hugetlb[size] = h
				break
			}
		}
	}
}

// hugePageSizes are those of the machine, as cgroups write them: "2MB".
func hugePageSizes() []string {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	var sizes []string
	for _, e := range entries {
		if s, ok := pageSize(e.Name()); ok {
			sizes = append(sizes, s)
		}
	}
	return sizes
}

// pageSize reads "hugepages-2048kB" as "2MB".
func pageSize(name string) (string, bool) {
	text, ok := strings.CutPrefix(name, "hugepages-")
	text, ok2 := strings.CutSuffix(text, "kB")
	n, err := strconv.ParseUint(text, 10, 32)
	if !ok || !ok2 || err != nil {
		return "", false
	}
	for _, unit := range []string{"KB", "MB", "GB"} {
		if n < 1024 || unit == "GB" {
			return strconv.FormatUint(n, 10) + unit, true
		}
		n /= 1024
	}
	return "", false
}

func rdmaStats(s *Stats, d dir) {
	current, err := sys.ReadKnob(d.path+"/rdma.current", maxFile)
	if err != nil {
		return
	}
	limit, _ := sys.ReadKnob(d.path+"/rdma.max", maxFile)
	s.RDMA = map[string]RDMAStats{}
	for name, v := range parseRDMA(current) {
		e := s.RDMA[name]
		e.Handles, e.Objects = v[0], v[1]
		s.RDMA[name] = e
	}
	for name, v := range parseRDMA(limit) {
		e := s.RDMA[name]
		e.HandlesLimit, e.ObjectsLimit = v[0], v[1]
		s.RDMA[name] = e
	}
}

// parseRDMA reads lines "mlx4_0 hca_handle=2 hca_object=max".
func parseRDMA(text string) map[string][2]uint32 {
	devices := map[string][2]uint32{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var v [2]uint32
		for _, word := range f[1:] {
			key, value, _ := strings.Cut(word, "=")
			n := uint32(min(parseCounter(value), math.MaxUint32))
			switch key {
			case "hca_handle":
				v[0] = n
			case "hca_object":
				v[1] = n
			}
		}
		devices[f[0]] = v
	}
	return devices
}

// pressure reads a file of pressure stall information. It is nil where the
// kernel does not keep it.
func pressure(d dir, name string) *PSI {
	text, err := sys.ReadKnob(d.path+"/"+name, 4096)
	if err != nil {
		return nil
	}
	return parsePSI(text)
}

// parsePSI reads lines "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
func parsePSI(text string) *PSI {
	var p PSI
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		to := map[string]*Pressure{"some": &p.Some, "full": &p.Full}[f[0]]
		if to == nil {
			continue
		}
		for _, word := range f[1:] {
			key, value, _ := strings.Cut(word, "=")
			if key == "total" {
				to.Total = parseCounter(value)
			} else if at := map[string]*float64{"avg10": &to.Avg10, "avg60": &to.Avg60, "avg300": &to.Avg300}[key]; at != nil {
				if v, err := strconv.ParseFloat(value, 64); err == nil && v >= 0 && v <= math.MaxFloat64 { // JSON knows no NaN and no infinity
					*at = v
				}
			}
		}
	}
	return &p
}
