package cgroup

import "github.com/opencontainers/runtime-spec/specs-go"

// FromSpec is OCI's resources (runtime-spec, config-linux.md) in the words of
// this package.
func FromSpec(r *specs.LinuxResources) Limits {
	var l Limits
	if r == nil {
		return l
	}
	if m := r.Memory; m != nil {
		l.Memory = Memory{Limit: value(m.Limit), Reservation: value(m.Reservation), Swap: value(m.Swap), Swappiness: m.Swappiness, NoOOMKill: value(m.DisableOOMKiller)}
	}
	if c := r.CPU; c != nil {
		l.CPU = CPU{Quota: value(c.Quota), Period: value(c.Period), Burst: value(c.Burst), Shares: value(c.Shares), Idle: c.Idle,
			RealtimeRuntime: value(c.RealtimeRuntime), RealtimePeriod: value(c.RealtimePeriod), Cpus: c.Cpus, Mems: c.Mems}
	}
	if r.Pids != nil {
		l.Pids = value(r.Pids.Limit)
	}
	if b := r.BlockIO; b != nil {
		l.IO = IO{Weight: value(b.Weight), ReadBPS: rates(b.ThrottleReadBpsDevice), WriteBPS: rates(b.ThrottleWriteBpsDevice),
			ReadIOPS: rates(b.ThrottleReadIOPSDevice), WriteIOPS: rates(b.ThrottleWriteIOPSDevice)}
		for _, d := range b.WeightDevice {
			l.IO.Weights = append(l.IO.Weights, DeviceWeight{Major: d.Major, Minor: d.Minor, Weight: value(d.Weight)})
		}
	}
	for _, d := range r.Devices {
		rule := DeviceRule{Allow: d.Allow, Major: -1, Minor: -1, Access: d.Access}
		if d.Type != "" {
			rule.Type = d.Type[0]
		}
		if d.Major != nil {
			rule.Major = *d.Major
		}
		if d.Minor != nil {
			rule.Minor = *d.Minor
		}
		l.Devices = append(l.Devices, rule)
	}
	l.Unified = r.Unified
	return l
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func rates(in []specs.LinuxThrottleDevice) []Rate {
	var out []Rate
	for _, d := range in {
		out = append(out, Rate{Major: d.Major, Minor: d.Minor, Rate: d.Rate})
	}
	return out
}
