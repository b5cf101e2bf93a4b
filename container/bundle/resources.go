package bundle

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

// resources are the limits, in the spec's words.
func (c *compiler) resources() error {
	for _, step := range []func() error{c.cgroupsPath, c.memory, c.cpu, c.pids, c.blockIO} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) memory() error {
	l := c.w.Limits
	switch {
	case l.Memory < 0 || l.MemoryReservation < 0:
		return badOption("--memory", fault.Invalid, errors.New("it cannot be negative"))
	case l.MemorySwap < -1:
		return badOption("--memory-swap", fault.Invalid, errors.New("it cannot be negative, but for -1"))
	case l.Memory == 0 && l.MemorySwap > 0:
		return badOption("--memory-swap", fault.Invalid, errors.New("You should always set the Memory limit when using Memoryswap limit, see usage"))
	case l.Memory > 0 && l.MemorySwap > 0 && l.MemorySwap < l.Memory:
		return badOption("--memory-swap", fault.Invalid, errors.New("Minimum memoryswap limit should be larger than memory limit, see usage"))
	case l.Memory > 0 && l.MemoryReservation > l.Memory:
		return badOption("--memory-reservation", fault.Invalid, errors.New("Minimum memory limit can not be less than memory reservation limit, see usage"))
	case l.MemorySwappiness != nil && (*l.MemorySwappiness < 0 || *l.MemorySwappiness > 100):
		return badOption("--memory-swappiness", fault.Invalid, fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", *l.MemorySwappiness))
	}
	if l.OOMKillDisable && l.Memory == 0 {
		c.Warnings = append(c.Warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	m := &specs.LinuxMemory{}
	set := func(field string, to **int64, value int64, from string) {
		if value != 0 {
			*to = &value
			c.Origin["linux.resources.memory."+field] = from
		}
	}
	set("limit", &m.Limit, l.Memory, "--memory")
	set("reservation", &m.Reservation, l.MemoryReservation, "--memory-reservation")
	switch {
	case c.host.NoSwapLimit && l.Memory > 0 && l.MemorySwap >= 0:
		c.Warnings = append(c.Warnings, "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
	case l.Memory > 0 && l.MemorySwap == 0 && l.Memory <= 1<<61:
		set("swap", &m.Swap, l.Memory*2, "default: twice --memory")
	default:
		set("swap", &m.Swap, l.MemorySwap, "--memory-swap")
	}
	if l.MemorySwappiness != nil {
		v := uint64(*l.MemorySwappiness)
		m.Swappiness = &v
		c.Origin["linux.resources.memory.swappiness"] = "--memory-swappiness"
	}
	if l.OOMKillDisable {
		m.DisableOOMKiller = &l.OOMKillDisable
		c.Origin["linux.resources.memory.disableOOMKiller"] = "--oom-kill-disable"
	}
	if *m != (specs.LinuxMemory{}) {
		c.Spec.Linux.Resources.Memory = m
	}
	return nil
}

func (c *compiler) checkCPU() error {
	l := c.w.Limits
	switch {
	case l.NanoCPUs > 0 && l.CPUPeriod > 0:
		return badOption("--cpus", fault.Conflict, errors.New("Conflicting options: Nano CPUs and CPU Period cannot both be set"))
	case l.NanoCPUs > 0 && l.CPUQuota > 0:
		return badOption("--cpus", fault.Conflict, errors.New("Conflicting options: Nano CPUs and CPU Quota cannot both be set"))
	case c.host.CPUs > 0 && l.NanoCPUs > int64(c.host.CPUs)*1e9:
		return badOption("--cpus", fault.Invalid, fmt.Errorf("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", c.host.CPUs, c.host.CPUs))
	case l.NanoCPUs < 0 || l.NanoCPUs > 0 && l.NanoCPUs < 1e7:
		return badOption("--cpus", fault.Invalid, errors.New("range of CPUs is from 0.01 on"))
	case l.CPUShares < 0:
		return badOption("--cpu-shares", fault.Invalid, fmt.Errorf("invalid CPU shares (%d): value must be a positive integer", l.CPUShares))
	case l.CPUPeriod != 0 && (l.CPUPeriod < 1000 || l.CPUPeriod > 1000000):
		return badOption("--cpu-period", fault.Invalid, errors.New("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"))
	case l.CPUQuota > 0 && l.CPUQuota < 1000:
		return badOption("--cpu-quota", fault.Invalid, errors.New("CPU cfs quota can not be less than 1ms (i.e. 1000)"))
	case l.CPURTPeriod < 0:
		return badOption("--cpu-rt-period", fault.Invalid, errors.New("it cannot be negative"))
	case l.CPURTPeriod > 0 && l.CPURTRuntime > l.CPURTPeriod:
		return badOption("--cpu-rt-runtime", fault.Invalid, errors.New("cpu real-time runtime cannot be higher than cpu real-time period"))
	}
	return nil
}

func (c *compiler) cpu() error {
	if err := c.checkCPU(); err != nil {
		return err
	}
	l := c.w.Limits
	cpu := &specs.LinuxCPU{Cpus: l.CpusetCPUs, Mems: l.CpusetMems}
	if l.NanoCPUs > 0 {
		l.CPUPeriod, l.CPUQuota = 100000, l.NanoCPUs/10000
		c.Origin["linux.resources.cpu.period"], c.Origin["linux.resources.cpu.quota"] = "--cpus", "--cpus"
	}
	unsigned := func(to **uint64, value int64) {
		if value != 0 {
			v := uint64(value)
			*to = &v
		}
	}
	unsigned(&cpu.Shares, l.CPUShares)
	unsigned(&cpu.Period, l.CPUPeriod)
	unsigned(&cpu.RealtimePeriod, l.CPURTPeriod)
	if l.CPUQuota != 0 {
		cpu.Quota = &l.CPUQuota
	}
	if l.CPURTRuntime != 0 {
		cpu.RealtimeRuntime = &l.CPURTRuntime
	}
	if *cpu != (specs.LinuxCPU{}) {
		c.Spec.Linux.Resources.CPU = cpu
	}
	for _, o := range []struct{ field, option string }{
		{"shares", "--cpu-shares"}, {"period", "--cpu-period"}, {"quota", "--cpu-quota"}, {"cpus", "--cpuset-cpus"}, {"mems", "--cpuset-mems"},
	} {
		if field := "linux.resources.cpu." + o.field; c.Origin[field] == "" {
			c.Origin[field] = o.option
		}
	}
	return nil
}

// pids: 0 and -1 are no limit, as in Docker.
func (c *compiler) pids() error {
	switch n := c.w.Limits.Pids; {
	case n < -1:
		return badOption("--pids-limit", fault.Invalid, errors.New("want a number from 1 on, or -1 for no limit"))
	case n > 0:
		c.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &n}
		c.Origin["linux.resources.pids"] = "--pids-limit"
	}
	return nil
}

func (c *compiler) blockIO() error {
	l := c.w.Limits
	if w := l.BlkioWeight; w != 0 && (w < 10 || w > 1000) {
		return badOption("--blkio-weight", fault.Invalid, errors.New("Range of blkio weight is from 10 to 1000"))
	}
	if l.BlkioWeight == 0 && len(l.WeightDevice)+len(l.ReadBps)+len(l.WriteBps)+len(l.ReadIOps)+len(l.WriteIOps) == 0 {
		return nil
	}
	b := &specs.LinuxBlockIO{}
	if l.BlkioWeight != 0 {
		b.Weight = &l.BlkioWeight
		c.Origin["linux.resources.blockIO.weight"] = "--blkio-weight"
	}
	for _, t := range l.WeightDevice {
		d, err := c.block("--blkio-weight-device", t.Path)
		if err != nil {
			return err
		}
		weight := uint16(t.Rate)
		w := specs.LinuxWeightDevice{Weight: &weight}
		w.Major, w.Minor = d.Major, d.Minor
		b.WeightDevice = append(b.WeightDevice, w)
	}
	for _, o := range []struct {
		option string
		from   []Throttle
		to     *[]specs.LinuxThrottleDevice
	}{
		{"--device-read-bps", l.ReadBps, &b.ThrottleReadBpsDevice},
		{"--device-write-bps", l.WriteBps, &b.ThrottleWriteBpsDevice},
		{"--device-read-iops", l.ReadIOps, &b.ThrottleReadIOPSDevice},
		{"--device-write-iops", l.WriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, t := range o.from {
			d, err := c.block(o.option, t.Path)
			if err != nil {
				return err
			}
			throttle := specs.LinuxThrottleDevice{Rate: t.Rate}
			throttle.Major, throttle.Minor = d.Major, d.Minor
			*o.to = append(*o.to, throttle)
		}
	}
	c.Spec.Linux.Resources.BlockIO = b
	return nil
}

// block looks a block device up.
func (c *compiler) block(option, file string) (specs.LinuxDevice, error) {
	found, err := c.lookDevice(option, file)
	if err == nil && (len(found) != 1 || found[0].Type != "b") {
		err = badOption(option, fault.Invalid, fmt.Errorf("%s is not a block device", file))
	}
	if err != nil {
		return specs.LinuxDevice{}, err
	}
	return found[0], nil
}

func (c *compiler) lookDevice(option, file string) ([]specs.LinuxDevice, error) {
	if c.host.Device == nil {
		return nil, badOption(option, fault.Unsupported, errors.New("devices cannot be looked up here"))
	}
	found, err := c.host.Device(file)
	if err != nil {
		return nil, badOption(option, "", fmt.Errorf("error gathering device information while adding custom device %q: %w", file, err))
	}
	return found, nil
}

// allowed is one rule of the device cgroup; -1 is any number.
func allowed(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
}

// defaultRules allow making any node and using the harmless devices: null,
// zero, full, random, urandom, tty, console, ptmx and the pseudo-terminals, as
// runc allows them.
func defaultRules() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		allowed("c", -1, -1, "m"), allowed("b", -1, -1, "m"),
		allowed("c", 1, 3, "rwm"), allowed("c", 1, 5, "rwm"), allowed("c", 1, 7, "rwm"),
		allowed("c", 1, 8, "rwm"), allowed("c", 1, 9, "rwm"),
		allowed("c", 5, 0, "rwm"), allowed("c", 5, 1, "rwm"), allowed("c", 5, 2, "rwm"),
		allowed("c", 136, -1, "rwm"),
	}
}

// devices are the nodes in /dev beyond the default ones, and who may use what.
func (c *compiler) devices() error {
	rules := defaultRules()
	if c.w.Privileged {
		rules = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		c.Spec.Linux.Devices = append(c.Spec.Linux.Devices, c.host.Devices...)
		c.Origin["linux.devices"] = "--privileged"
	}
	for _, d := range c.w.Devices {
		if c.w.Privileged && d.Source == d.Target {
			continue
		}
		found, err := c.lookDevice("--device", d.Source)
		if err != nil {
			return err
		}
		for _, f := range found {
			// A directory's devices keep their place below it.
			f.Path = path.Join(d.Target, strings.TrimPrefix(f.Path, d.Source))
			c.Spec.Linux.Devices = append(c.Spec.Linux.Devices, f)
			if !c.w.Privileged {
				rules = append(rules, allowed(f.Type, f.Major, f.Minor, d.Permissions))
			}
		}
		c.Origin["linux.devices"] = "--device"
	}
	if !c.w.Privileged {
		rules = append(rules, c.w.DeviceRule...)
	}
	c.Spec.Linux.Resources.Devices = rules
	c.Origin["linux.resources.devices"] = origin(len(c.w.DeviceRule) > 0, "--device-cgroup-rule")
	return nil
}
