package engine

import (
	"os"
	"time"

	"kiste/container/process"
	"kiste/host"
	"kiste/kernel/cgroup"
	"kiste/kernel/network"
)

// A Sample is what a container has used up to a moment, and uses then.
type Sample struct {
	At time.Time
	cgroup.Usage
	Received, Sent uint64 // bytes, by its own network; 0 where that is the host's
}

// Sample looks at a container that runs. What its cgroup does not account for,
// since nobody limits it, is added up of its processes. It is nil where the
// container does not run, or nobody can tell which processes it has.
func (e *Engine) Sample(c *Container) *Sample {
	if !c.runs() {
		return nil
	}
	s := &Sample{}
	if c.Cgroup != "" {
		if u := usageOf(c.Cgroup); u != nil {
			s.Usage = *u
		}
	}
	if s.Memory == nil || s.Usage.CPU == nil || s.Pids == nil || s.IO == nil {
		pids, err := e.processes(c)
		if err != nil {
			return nil
		}
		s.count(pids)
	}
	s.At = time.Now()
	s.addNetwork(c)
	return s
}

// count adds up what the processes use, for what the cgroup does not tell.
func (s *Sample) count(pids []int) {
	memory, cpu, threads, io := cgroup.MemoryUsage{Limit: -1}, cgroup.CPUUsage{}, cgroup.PidsUsage{Limit: -1}, cgroup.IOUsage{}
	for _, pid := range pids {
		u, _ := process.UsageOf(pid) // what cannot be read counts as nothing
		memory.Current, cpu.Total, threads.Current = memory.Current+u.Memory, cpu.Total+u.CPU, threads.Current+u.Threads
		io.ReadBytes, io.WriteBytes = io.ReadBytes+u.Read, io.WriteBytes+u.Written
	}
	if s.Memory == nil {
		s.Memory = &memory
	}
	if s.Usage.CPU == nil {
		s.Usage.CPU = &cpu
	}
	if s.Pids == nil {
		s.Pids = &threads
	}
	if s.IO == nil {
		s.IO = &io
	}
}

func (s *Sample) addNetwork(c *Container) {
	own, _ := os.Readlink("/proc/self/ns/net")
	its, err := os.Readlink(c.Proc("ns/net"))
	if err != nil || its == own {
		return
	}
	counters, _ := network.CountersOf(c.State.PID)
	for _, n := range counters {
		if n.Name != "lo" {
			s.Received, s.Sent = s.Received+n.RxBytes, s.Sent+n.TxBytes
		}
	}
}

// CPU is how many CPUs were busy with the container since before, which is nil
// where it is looked at for the first time: since it was started.
func (s *Sample) CPU(c *Container, before *Sample) float64 {
	if s.Usage.CPU == nil {
		return 0
	}
	used, since := s.Usage.CPU.Total, c.State.StartedAt
	if before != nil && before.Usage.CPU != nil {
		used, since = used-before.Usage.CPU.Total, before.At
	}
	passed := s.At.Sub(since)
	if passed <= 0 || used < 0 {
		return 0
	}
	return float64(used) / float64(passed)
}

// MemoryLimit is how much memory, in bytes, a container may use: the host's,
// where nobody limits it.
func (s *Sample) MemoryLimit() int64 {
	most := host.Memory()
	if m := s.Memory; m != nil && m.Limit > 0 && m.Limit < most {
		return m.Limit
	}
	return most
}
