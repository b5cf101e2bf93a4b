package cgroup

import (
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"kiste/fault"
	"kiste/internal/sys"
)

// Usage is what a group uses. What the host does not account for this group
// is nil.
type Usage struct {
	Memory *MemoryUsage
	CPU    *CPUUsage
	Pids   *PidsUsage
	IO     *IOUsage
}

// MemoryUsage is in bytes; -1 is unknown or no limit.
type MemoryUsage struct {
	Current, Peak, Limit int64
	Swap, SwapLimit      int64 // swap alone, not memory and swap
	Cache                int64 // of Current: file pages that could be dropped
	OOM, OOMKill, Max    int64 // how often: no memory was left, a process was killed, the limit was met
}

// Used is what the group cannot do without: Current but for Cache.
func (m *MemoryUsage) Used() int64 { return m.Current - min(m.Current, m.Cache) }

// CPUUsage is the time used so far, and how often and how long the quota
// held the group back.
type CPUUsage struct {
	Total, User, System time.Duration
	Periods, Throttled  int64
	ThrottledTime       time.Duration
	Quota               float64 // limit in CPUs; 0: none
}

// PidsUsage counts processes and threads. A Limit of -1 is none.
type PidsUsage struct{ Current, Limit, Refused int64 }

// IOUsage counts over all block devices.
type IOUsage struct{ ReadBytes, WriteBytes, Reads, Writes int64 }

// Usage reads what the group uses now.
func (g *Group) Usage() (Usage, error) {
	var u Usage
	for _, part := range []struct {
		controller string
		read       func(*Usage, dir)
	}{
		{"memory", memoryUsage}, {"cpu", cpuUsage}, {"cpuacct", cpuacctUsage}, {"pids", pidsUsage}, {"io", ioUsage}, {"blkio", blkioUsage},
	} {
		if d, ok := g.with(part.controller); ok {
			part.read(&u, d)
		}
	}
	// The unified cpu.stat has the time used without any controller.
	if d, ok := g.unified(); ok && (u.CPU == nil || u.CPU.Total == 0) {
		cpuTime(&u, d)
	}
	if _, err := Open(g.layout, g.Path); err != nil {
		return Usage{}, err
	}
	return u, nil
}

// maxFile bounds what is read of one file of cgroupfs.
const maxFile = 1 << 20

// table reads a file of lines "key value".
func table(dir, name string) (map[string]int64, error) {
	b, err := sys.ReadKnob(path.Join(dir, name), maxFile)
	return parseTable(b), err
}

func parseTable(text string) map[string]int64 {
	t := map[string]int64{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		if v, err := strconv.ParseInt(value, 10, 64); err == nil {
			t[key] = v
		}
	}
	return t
}

// fieldOf finds the value of key in a text of lines "key value".
func fieldOf(text, key string) (string, bool) {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			return v, true
		}
	}
	return "", false
}

// noLimitV1 is where version 1's "no limit", the most that a page counter
// holds, begins.
const noLimitV1 = 1 << 62

// readNumber reads a file with one number; "max", and version 1's highest
// number, is -1.
func readNumber(dir, name string) (int64, error) {
	b, err := sys.ReadKnob(path.Join(dir, name), 64)
	if err != nil {
		return -1, err
	}
	return parseNumberFile(b)
}

func parseNumberFile(text string) (int64, error) {
	text = strings.TrimSpace(text)
	if text == "max" {
		return -1, nil
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return -1, &fault.Error{Op: "read number", On: text, Kind: fault.Invalid}
	}
	if v >= noLimitV1 {
		return -1, nil
	}
	return v, nil
}

func memoryUsage(u *Usage, d dir) {
	files := []string{"memory.current", "memory.peak", "memory.max", "memory.swap.current", "memory.swap.max"}
	if !d.h.V2 {
		files = []string{"memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes", "memory.memsw.usage_in_bytes", "memory.memsw.limit_in_bytes"}
	}
	var v [5]int64
	for i, f := range files {
		n, err := readNumber(d.path, f)
		if i == 0 && err != nil {
			return // not enabled for this group
		}
		v[i] = n
	}
	m := &MemoryUsage{Current: v[0], Peak: v[1], Limit: v[2], Swap: v[3], SwapLimit: v[4]}
	u.Memory = m
	stat, _ := table(d.path, "memory.stat")
	m.Cache = stat["inactive_file"]
	if d.h.V2 {
		e, _ := table(d.path, "memory.events")
		m.OOM, m.OOMKill, m.Max = e["oom"], e["oom_kill"], e["max"]
		return
	}
	m.Cache = stat["total_inactive_file"]
	if m.Swap >= 0 {
		m.Swap = max(0, m.Swap-m.Current)
	}
	if m.SwapLimit >= 0 && m.Limit >= 0 {
		m.SwapLimit = max(0, m.SwapLimit-m.Limit)
	}
	e, _ := table(d.path, "memory.oom_control")
	m.OOMKill = e["oom_kill"]
	m.OOM = m.OOMKill
	m.Max, _ = readNumber(d.path, "memory.failcnt")
}

func cpuUsage(u *Usage, d dir) {
	t, err := table(d.path, "cpu.stat")
	if err != nil {
		return
	}
	if u.CPU == nil {
		u.CPU = &CPUUsage{}
	}
	c := u.CPU
	c.Periods, c.Throttled = t["nr_periods"], t["nr_throttled"]
	if !d.h.V2 {
		c.ThrottledTime = time.Duration(t["throttled_time"])
		quota, err1 := readNumber(d.path, "cpu.cfs_quota_us")
		period, err2 := readNumber(d.path, "cpu.cfs_period_us")
		if err1 == nil && err2 == nil && quota > 0 && period > 0 {
			c.Quota = float64(quota) / float64(period)
		}
		return
	}
	cpuTime(u, d)
	c.ThrottledTime = micros(t["throttled_usec"])
	text, err := sys.ReadKnob(d.path+"/cpu.max", 64)
	if err == nil {
		c.Quota = parseCPUMax(text)
	}
}

func cpuTime(u *Usage, d dir) {
	t, err := table(d.path, "cpu.stat")
	if err != nil {
		return
	}
	if u.CPU == nil {
		u.CPU = &CPUUsage{}
	}
	u.CPU.Total, u.CPU.User, u.CPU.System = micros(t["usage_usec"]), micros(t["user_usec"]), micros(t["system_usec"])
}

// parseCPUMax is the number of CPUs that cpu.max allows, 0 for "max".
func parseCPUMax(text string) float64 {
	q, p, _ := strings.Cut(strings.TrimSpace(text), " ")
	quota, err1 := strconv.ParseUint(q, 10, 63)
	period, err2 := strconv.ParseUint(p, 10, 63)
	if err1 != nil || err2 != nil || period == 0 {
		return 0
	}
	return float64(quota) / float64(period)
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// cpuacctUsage reads the time of version 1, which is in nanoseconds.
func cpuacctUsage(u *Usage, d dir) {
	total, err := readNumber(d.path, "cpuacct.usage")
	if err != nil {
		return
	}
	if u.CPU == nil {
		u.CPU = &CPUUsage{}
	}
	user, _ := readNumber(d.path, "cpuacct.usage_user")
	system, _ := readNumber(d.path, "cpuacct.usage_sys")
	u.CPU.Total, u.CPU.User, u.CPU.System = time.Duration(total), time.Duration(max(user, 0)), time.Duration(max(system, 0))
}

func pidsUsage(u *Usage, d dir) {
	now, err := readNumber(d.path, "pids.current")
	if err != nil {
		return
	}
	limit, _ := readNumber(d.path, "pids.max")
	e, _ := table(d.path, "pids.events")
	u.Pids = &PidsUsage{Current: now, Limit: limit, Refused: e["max"]}
}

func ioUsage(u *Usage, d dir) {
	text, err := sys.ReadKnob(d.path+"/io.stat", maxFile)
	if err == nil {
		u.IO = parseIOStat(text)
	}
}

// parseIOStat adds up io.stat: lines "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …".
func parseIOStat(text string) *IOUsage {
	var u IOUsage
	to := map[string]*int64{"rbytes": &u.ReadBytes, "wbytes": &u.WriteBytes, "rios": &u.Reads, "wios": &u.Writes}
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		if p := to[key]; p != nil {
			n, _ := strconv.ParseInt(value, 10, 64)
			*p += n
		}
	}
	return &u
}

func blkioUsage(u *Usage, d dir) {
	bytes, err := sys.ReadKnob(d.path+"/blkio.throttle.io_service_bytes_recursive", maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		bytes, err = sys.ReadKnob(d.path+"/blkio.throttle.io_service_bytes", maxFile)
	}
	if err != nil {
		return
	}
	ops, _ := sys.ReadKnob(d.path+"/blkio.throttle.io_serviced_recursive", maxFile)
	u.IO = &IOUsage{}
	u.IO.ReadBytes, u.IO.WriteBytes = parseBlkio(bytes)
	u.IO.Reads, u.IO.Writes = parseBlkio(ops)
}

// parseBlkio adds up lines "8:0 Read 4096" and "8:0 Write 0".
func parseBlkio(text string) (read, write int64) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		n, _ := strconv.ParseInt(f[2], 10, 64)
		switch f[1] {
		case "Read":
			read += n
		case "Write":
			write += n
		}
	}
	return read, write
}

// Setting is one knob of a group that is not at its default.
type Setting struct{ Name, Value string }

// knobs are the files that Settings reads, with what they say when nothing
// is limited.
var knobs = []struct{ controller, v1, v2, normal string }{
	{"memory", "memory.limit_in_bytes", "memory.max", "max"},
	{"memory", "memory.memsw.limit_in_bytes", "memory.swap.max", "max"},
	{"memory", "memory.soft_limit_in_bytes", "memory.low", "0"},
	{"memory", "", "memory.high", "max"},
	{"cpu", "cpu.shares", "", "1024"},
	{"cpu", "", "cpu.weight", "100"},
	{"cpu", "", "cpu.max", "max 100000"},
	{"cpu", "cpu.cfs_quota_us", "", "-1"},
	{"cpu", "cpu.idle", "cpu.idle", "0"},
	{"pids", "pids.max", "pids.max", "max"},
	{"cpuset", "", "cpuset.cpus", ""},
	{"cpuset", "", "cpuset.mems", ""},
	{"cpuset", "cpuset.cpus", "", ""},
	{"blkio", "blkio.throttle.read_bps_device", "", ""},
	{"blkio", "blkio.throttle.write_bps_device", "", ""},
	{"blkio", "blkio.throttle.read_iops_device", "", ""},
	{"blkio", "blkio.throttle.write_iops_device", "", ""},
	{"io", "", "io.max", ""},
	{"io", "", "io.weight", "default 100"},
}

// Settings are the knobs that limit the group, in the words of its files.
func (g *Group) Settings() []Setting {
	var out []Setting
	for _, k := range knobs {
		d, ok := g.with(k.controller)
		name := k.v1
		if d.h.V2 {
			name = k.v2
		}
		if !ok || name == "" {
			continue
		}
		v, err := sys.ReadKnob(path.Join(d.path, name), 4096)
		v = strings.Join(strings.Fields(v), " ")
		if n, bad := strconv.ParseInt(v, 10, 64); bad == nil && n >= noLimitV1 {
			v = k.normal
		}
		if err == nil && v != k.normal && !(k.normal == "0" && v == "max") {
			out = append(out, Setting{name, v})
		}
	}
	return out
}
