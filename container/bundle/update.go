package bundle

import (
	"errors"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

// Changed is l with what by names; what is zero there stays. By.Pids of -1 takes
// that limit away. What cannot be changed beside what l has is fault.Conflict, in
// Docker's words. NoSwap: see Facts.NoSwapLimit.
func (l Limits) Changed(by Limits, noSwap bool) (Limits, error) {
	for _, c := range []struct {
		clash bool
		says  string
	}{
		{by.NanoCPUs > 0 && l.CPUPeriod > 0, "Nano CPUs cannot be updated as CPU Period has already been set"},
		{by.NanoCPUs > 0 && l.CPUQuota > 0, "Nano CPUs cannot be updated as CPU Quota has already been set"},
		{by.CPUPeriod > 0 && l.NanoCPUs > 0, "CPU Period cannot be updated as NanoCPUs has already been set"},
		{by.CPUQuota > 0 && l.NanoCPUs > 0, "CPU Quota cannot be updated as NanoCPUs has already been set"},
	} {
		if c.clash {
			return l, &fault.Error{Op: "change limits", Kind: fault.Conflict, Err: errors.New("Conflicting options: " + c.says)}
		}
	}
	if err := l.keepSwap(by, noSwap); err != nil {
		return l, err
	}
	for _, n := range []struct{ to, from *int64 }{
		{&l.Memory, &by.Memory}, {&l.MemorySwap, &by.MemorySwap}, {&l.MemoryReservation, &by.MemoryReservation},
		{&l.NanoCPUs, &by.NanoCPUs}, {&l.CPUShares, &by.CPUShares}, {&l.CPUPeriod, &by.CPUPeriod}, {&l.CPUQuota, &by.CPUQuota},
		{&l.CPURTPeriod, &by.CPURTPeriod}, {&l.CPURTRuntime, &by.CPURTRuntime}, {&l.Pids, &by.Pids},
	} {
		if *n.from != 0 {
			*n.to = *n.from
		}
	}
	if by.BlkioWeight != 0 {
		l.BlkioWeight = by.BlkioWeight
	}
	for _, s := range []struct{ to, from *string }{{&l.CpusetCPUs, &by.CpusetCPUs}, {&l.CpusetMems, &by.CpusetMems}} {
		if *s.from != "" {
			*s.to = *s.from
		}
	}
	return l, nil
}

// keepSwap makes the limit of memory and swap together, if it was made of the
// limit of memory, one of its own when only memory is changed.
func (l *Limits) keepSwap(by Limits, noSwap bool) error {
	if by.Memory == 0 || by.MemorySwap != 0 || l.Memory == 0 || noSwap {
		return nil
	}
	if l.MemorySwap == 0 {
		l.MemorySwap = 2 * l.Memory
	}
	if l.MemorySwap > 0 && by.Memory > l.MemorySwap {
		return &fault.Error{Op: "change limits", Kind: fault.Conflict, Hint: "add --memory-swap",
			Err: errors.New("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")}
	}
	return nil
}

// Relimit puts w's limits into the spec of r in place of those that it has. It
// needs CPUs, Device and NoSwapLimit of the facts, and gives sentences for the
// user. Who shares r's spec keeps what it had.
func (r *Result) Relimit(w Wishes, host Facts) (warnings []string, err error) {
	spec, linux, origin := *r.Spec, *r.Spec.Linux, map[string]string{}
	for field, from := range r.Origin {
		if !strings.HasPrefix(field, "linux.resources.") || strings.HasPrefix(field, "linux.resources.devices") {
			origin[field] = from
		}
	}
	linux.Resources = &specs.LinuxResources{Devices: r.Spec.Linux.Resources.Devices}
	spec.Linux = &linux
	c := &compiler{w: &w, host: &host, Result: &Result{Spec: &spec, Origin: origin}}
	for _, step := range []func() error{c.memory, c.cpu, c.pids, c.blockIO} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	r.Spec, r.Origin = &spec, origin
	return c.Warnings, nil
}
