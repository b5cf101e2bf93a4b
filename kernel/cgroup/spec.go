package cgroup

import (
	"maps"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// FromSpec is OCI's LinuxResources as Limits; nil limits nothing. No field is
// left out: what means nothing to any kernel that we run on is refused as
// fault.Invalid or fault.Unsupported, and what this host cannot do is refused
// by Compile. A zero is "not set" as in runc, but for a limit of processes,
// where it is 1, and for the burst and the class of network packets, which it
// resets.
//
// The devices are those of the spec alone: a runtime appends DefaultDevices.
// Without rules Devices is nil and allows all.
//
// Source: runtime-spec 1.3, config-linux.md, "Control groups"; it is pure.
func FromSpec(r *specs.LinuxResources) (Limits, error) {
	if r == nil {
		return Limits{}, nil
	}
	l := Limits{CPU: cpuOf(r.CPU), Pids: pidsOf(r.Pids), IO: ioOf(r.BlockIO), RDMA: rdmaOf(r.Rdma), Unified: r.Unified}
	for _, h := range r.HugepageLimits {
		l.Huge = append(l.Huge, Huge{h.Pagesize, h.Limit})
	}
	if n := r.Network; n != nil {
		l.NetClass = n.ClassID
		for _, p := range n.Priorities {
			l.NetPrio = append(l.NetPrio, NetPrio{p.Name, p.Priority})
		}
	}
	var err error
	if l.Memory, err = memoryOf(r.Memory); err != nil {
		return Limits{}, err
	}
	for i, d := range r.Devices {
		rule, err := ruleOf(d)
		if err != nil {
			return Limits{}, invalid("linux.resources.devices["+strconv.Itoa(i)+"]", err.Error())
		}
		l.Devices = append(l.Devices, rule)
	}
	return l, nil
}

func memoryOf(m *specs.LinuxMemory) (Memory, error) {
	if m == nil {
		return Memory{}, nil
	}
	if m.UseHierarchy != nil && !*m.UseHierarchy {
		return Memory{}, unsupported("linux.resources.memory.useHierarchy", "memory", "no kernel from 5.11 on accounts without the groups below")
	}
	//lint:ignore SA1019 a deprecated limit is not left out either
	kernel := value(m.Kernel)
	return Memory{Limit: value(m.Limit), Reservation: value(m.Reservation), Swap: value(m.Swap), Kernel: kernel, KernelTCP: value(m.KernelTCP),
		Swappiness: m.Swappiness, NoOOMKill: m.DisableOOMKiller, CheckUsage: value(m.CheckBeforeUpdate)}, nil
}

func cpuOf(c *specs.LinuxCPU) CPU {
	if c == nil {
		return CPU{}
	}
	return CPU{Quota: value(c.Quota), Period: value(c.Period), Burst: c.Burst, Shares: value(c.Shares), Idle: c.Idle,
		RealtimeRuntime: value(c.RealtimeRuntime), RealtimePeriod: value(c.RealtimePeriod), Cpus: c.Cpus, Mems: c.Mems}
}

// pidsOf takes 0 as 1, as runc does: systemd refuses 0, and a group in which
// nothing can fork is what both of them make.
func pidsOf(p *specs.LinuxPids) int64 {
	switch {
	case p == nil || p.Limit == nil:
		return 0
	case *p.Limit == 0:
		return 1
	}
	return max(*p.Limit, -1)
}

func ioOf(b *specs.LinuxBlockIO) IO {
	if b == nil {
		return IO{}
	}
	io := IO{Weight: value(b.Weight), LeafWeight: value(b.LeafWeight), ReadBPS: ratesOf(b.ThrottleReadBpsDevice), WriteBPS: ratesOf(b.ThrottleWriteBpsDevice),
		ReadIOPS: ratesOf(b.ThrottleReadIOPSDevice), WriteIOPS: ratesOf(b.ThrottleWriteIOPSDevice)}
	for _, d := range b.WeightDevice {
		io.Weights = append(io.Weights, DeviceWeight{d.Major, d.Minor, value(d.Weight), value(d.LeafWeight)})
	}
	return io
}

func ratesOf(in []specs.LinuxThrottleDevice) []Rate {
	var out []Rate
	for _, d := range in {
		out = append(out, Rate{d.Major, d.Minor, d.Rate})
	}
	return out
}

func rdmaOf(in map[string]specs.LinuxRdma) []RDMA {
	var out []RDMA
	for _, name := range slices.Sorted(maps.Keys(in)) {
		out = append(out, RDMA{name, in[name].HcaHandles, in[name].HcaObjects})
	}
	return out
}

// ruleOf takes an absent type, or "a", as both types, and an absent number as
// any. As in runc the access must be said.
func ruleOf(d specs.LinuxDeviceCgroup) (DeviceRule, error) {
	r := DeviceRule{Allow: d.Allow, Type: 'a', Major: -1, Minor: -1, Access: d.Access}
	switch {
	case d.Access == "":
		return r, errText("the access must be given: r, w and m in any combination")
	case len(d.Type) > 1:
		return r, errText("a type is a, b or c")
	case d.Type != "":
		r.Type = d.Type[0]
	}
	if d.Major != nil {
		r.Major = *d.Major
	}
	if d.Minor != nil {
		r.Minor = *d.Minor
	}
	if why := r.wrong(); why != "" {
		return r, errText(why)
	}
	return r, nil
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// DefaultDevices are the rules that a runtime appends to those of a spec, as
// runc does: any node may be made, and null, zero, full, random, urandom, tty,
// ptmx, the pseudo-terminals and tun may be used. Source: runc's
// specconv.AllowedDevices.
func DefaultDevices() []DeviceRule {
	named := [...][2]int64{{1, 3}, {1, 8}, {1, 7}, {5, 0}, {1, 5}, {1, 9}, {136, -1}, {5, 2}, {10, 200}}
	rules := make([]DeviceRule, 2, usualRules)
	rules[0], rules[1] = DeviceRule{true, 'c', -1, -1, "m"}, DeviceRule{true, 'b', -1, -1, "m"}
	for _, n := range named {
		rules = append(rules, DeviceRule{true, 'c', n[0], n[1], "rwm"})
	}
	return rules
}
