package plan

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/fault"
)

// The attributes of a process that are its scheduler's and its memory's. Each
// has a check, which refuses what the kernel would only call EINVAL, and a step.

// maxCPU is the highest CPU and memory node that a kernel can be built for.
const maxCPU = 8191

// parseSet reads a list as in cpuset(7), "0-3,7", into a mask; extra commas and
// blanks are allowed, as in runc. Nil: there is nothing in it.
func parseSet(list string) ([]byte, error) {
	var mask []byte
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		from, err := parseMember(first)
		to := from
		if err == nil && isRange {
			to, err = parseMember(last)
		}
		if err == nil && to < from {
			err = fmt.Errorf("invalid range: %s", part)
		}
		if err != nil {
			return nil, err
		}
		if mask == nil {
			mask = make([]byte, (maxCPU+1)/8)
		}
		for i := from; i <= to; i++ {
			mask[i/8] |= 1 << (i % 8)
		}
	}
	if mask == nil && list != "" {
		return nil, fmt.Errorf("no members found in set %q", list)
	}
	return mask, nil
}

func parseMember(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, err
	}
	if n > maxCPU {
		return 0, fmt.Errorf("values larger than %d are not supported", maxCPU)
	}
	return int(n), nil
}

func (c *compiler) checkAttributes() error {
	for _, part := range []func() error{c.checkScheduler, c.checkIOPriority, c.checkPersonality, c.checkMemoryPolicy, c.checkAffinity} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// attributes are set when only the identity is still the start's.
func (c *compiler) attributes() {
	c.scheduler()
	c.ioPriority()
	c.personality()
	c.memoryPolicy()
}

// The tables are made when a document asks for them, and not in each start.

func policies() map[specs.LinuxSchedulerPolicy]uint32 {
	return map[specs.LinuxSchedulerPolicy]uint32{specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6}
}

func schedulerFlags() map[specs.LinuxSchedulerFlag]uint64 {
	return map[specs.LinuxSchedulerFlag]uint64{specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4,
		specs.SchedFlagKeepPolicy: 8, specs.SchedFlagKeepParams: 16, specs.SchedFlagUtilClampMin: 32, specs.SchedFlagUtilClampMax: 64}
}

func (c *compiler) checkScheduler() error {
	s := c.spec.Process.Scheduler
	if s == nil {
		return nil
	}
	no := func(format string, args ...any) error {
		return refused("process.scheduler", fault.Invalid, format, args...)
	}
	_, known := policies()[s.Policy]
	switch {
	case s.Policy == "":
		return no("scheduler policy is required")
	case !known:
		return no("invalid scheduler policy: %s", s.Policy)
	case (s.Policy == specs.SchedOther || s.Policy == specs.SchedBatch) && (s.Nice < -20 || s.Nice > 19):
		return no("invalid scheduler.nice: %d when scheduler.policy is %s", s.Nice, s.Policy)
	case s.Priority != 0 && s.Policy != specs.SchedFIFO && s.Policy != specs.SchedRR:
		return no("scheduler.priority can only be specified for SchedFIFO or SchedRR policy")
	case s.Policy != specs.SchedDeadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0):
		return no("scheduler runtime/deadline/period can only be specified for SchedDeadline policy")
	}
	for _, f := range s.Flags {
		if schedulerFlags()[f] == 0 {
			return no("invalid scheduler flag: %s", f)
		}
	}
	return nil
}

func (c *compiler) scheduler() {
	s := c.spec.Process.Scheduler
	if s == nil {
		return
	}
	var flags uint64
	for _, f := range s.Flags {
		flags |= schedulerFlags()[f]
	}
	const size = 56 // struct sched_attr of sched_setattr(2)
	b := binary.NativeEndian.AppendUint32(nil, size)
	b = binary.NativeEndian.AppendUint32(b, policies()[s.Policy])
	b = binary.NativeEndian.AppendUint64(b, flags)
	b = binary.NativeEndian.AppendUint32(b, uint32(s.Nice))
	b = binary.NativeEndian.AppendUint32(b, uint32(s.Priority))
	b = append(b, words(s.Runtime, s.Deadline, s.Period, 0)...)
	c.child("schedule by "+string(s.Policy), "process.scheduler",
		c.call("sched_setattr", unix.SYS_SCHED_SETATTR, num(0), buf(b, fmt.Sprintf("{%s, nice %d, priority %d}", s.Policy, s.Nice, s.Priority)), num(0)))
}

func ioClasses() map[specs.IOPriorityClass]uint64 {
	return map[specs.IOPriorityClass]uint64{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}
}

func (c *compiler) checkIOPriority() error {
	p := c.spec.Process.IOPriority
	switch {
	case p == nil:
	case p.Priority < 0 || p.Priority > 7:
		return refused("process.ioPriority", fault.Invalid, "invalid ioPriority.Priority: %d", p.Priority)
	case ioClasses()[p.Class] == 0:
		return refused("process.ioPriority", fault.Invalid, "invalid ioPriority.Class: %q", p.Class)
	}
	return nil
}

func (c *compiler) ioPriority() {
	p := c.spec.Process.IOPriority
	if p == nil {
		return
	}
	const who, shift = 1, 13 // IOPRIO_WHO_PROCESS and IOPRIO_CLASS_SHIFT of ioprio_set(2)
	c.child(fmt.Sprintf("do I/O with priority %d of %s", p.Priority, p.Class), "process.ioPriority",
		c.call("ioprio_set", unix.SYS_IOPRIO_SET, named(who, "IOPRIO_WHO_PROCESS"), num(0), named(ioClasses()[p.Class]<<shift|uint64(p.Priority), fmt.Sprintf("%s|%d", p.Class, p.Priority))))
}

// personalityFlags are those of personality(2).
func personalityFlags() map[specs.LinuxPersonalityFlag]uint64 {
	return map[specs.LinuxPersonalityFlag]uint64{"UNAME26": 0x20000, "ADDR_NO_RANDOMIZE": 0x40000, "FDPIC_FUNCPTRS": 0x80000, "MMAP_PAGE_ZERO": 0x100000,
		"ADDR_COMPAT_LAYOUT": 0x200000, "READ_IMPLIES_EXEC": 0x400000, "ADDR_LIMIT_32BIT": 0x800000, "SHORT_INODE": 0x1000000, "WHOLE_SECONDS": 0x2000000,
		"STICKY_TIMEOUTS": 0x4000000, "ADDR_LIMIT_3GB": 0x8000000}
}

func (c *compiler) checkPersonality() error {
	p := c.linux.Personality
	if p == nil {
		return nil
	}
	if p.Domain != specs.PerLinux && p.Domain != specs.PerLinux32 {
		return refused("linux.personality", fault.Invalid, "invalid personality domain %s", p.Domain)
	}
	for _, f := range p.Flags {
		if personalityFlags()[f] == 0 {
			return refused("linux.personality.flags", fault.Invalid, "invalid personality flag %s", f)
		}
	}
	return nil
}

func (c *compiler) personality() {
	p := c.linux.Personality
	if p == nil {
		return
	}
	value, text := uint64(0), "PER_"+string(p.Domain)
	if p.Domain == specs.PerLinux32 {
		value = 8
	}
	for _, f := range p.Flags {
		value, text = value|personalityFlags()[f], text+"|"+string(f)
	}
	c.child("be a process of "+string(p.Domain), "linux.personality", c.call("personality", unix.SYS_PERSONALITY, named(value, text)))
}

func memoryModes() map[specs.MemoryPolicyModeType]uint64 {
	return map[specs.MemoryPolicyModeType]uint64{specs.MpolDefault: unix.MPOL_DEFAULT, specs.MpolPreferred: unix.MPOL_PREFERRED, specs.MpolBind: unix.MPOL_BIND,
		specs.MpolInterleave: unix.MPOL_INTERLEAVE, specs.MpolLocal: unix.MPOL_LOCAL, specs.MpolPreferredMany: unix.MPOL_PREFERRED_MANY, specs.MpolWeightedInterleave: unix.MPOL_WEIGHTED_INTERLEAVE}
}

func memoryFlags() map[specs.MemoryPolicyFlagType]uint64 {
	return map[specs.MemoryPolicyFlagType]uint64{specs.MpolFNumaBalancing: unix.MPOL_F_NUMA_BALANCING, specs.MpolFRelativeNodes: unix.MPOL_F_RELATIVE_NODES, specs.MpolFStaticNodes: unix.MPOL_F_STATIC_NODES}
}

func (c *compiler) checkMemoryPolicy() error {
	m := c.linux.MemoryPolicy
	if m == nil {
		return nil
	}
	no := func(format string, args ...any) error {
		return refused("linux.memoryPolicy", fault.Invalid, format, args...)
	}
	nodes, err := parseSet(m.Nodes)
	_, known := memoryModes()[m.Mode]
	none := slices.Contains([]specs.MemoryPolicyModeType{specs.MpolDefault, specs.MpolLocal}, m.Mode)
	switch {
	case !known:
		return no("invalid memory policy mode %q", m.Mode)
	case err != nil:
		return no("invalid memory policy nodes %q: %w", m.Nodes, err)
	case none && nodes != nil:
		return no("memory policy mode requires 0 nodes")
	case !none && m.Mode != specs.MpolPreferred && nodes == nil:
		return no("memory policy mode requires at least one node but got 0")
	}
	for _, f := range m.Flags {
		if memoryFlags()[f] == 0 {
			return no("invalid memory policy flag %q", f)
		}
	}
	return nil
}

func (c *compiler) memoryPolicy() {
	m := c.linux.MemoryPolicy
	if m == nil {
		return
	}
	mode, text := memoryModes()[m.Mode], string(m.Mode)
	for _, f := range m.Flags {
		mode, text = mode|memoryFlags()[f], text+"|"+string(f)
	}
	nodes, count := named(0, "NULL"), uint64(0)
	if mask, _ := parseSet(m.Nodes); mask != nil {
		// The kernel takes a number of bits that is one more than it reads,
		// and nodes that it was not built for only where they are zero.
		mask = mask[:128]
		nodes, count = buf(mask, "{"+m.Nodes+"}"), uint64(len(mask)*8+1)
	}
	c.child("take memory by "+text, "linux.memoryPolicy", c.call("set_mempolicy", unix.SYS_SET_MEMPOLICY, named(mode, text), nodes, num(count)))
}

func (c *compiler) checkAffinity() error {
	a := c.spec.Process.ExecCPUAffinity
	if a == nil {
		return nil
	}
	for name, list := range map[string]string{"initial": a.Initial, "final": a.Final} {
		if _, err := parseSet(list); err != nil {
			return refused("process.execCPUAffinity."+name, fault.Invalid, "%w", err)
		}
	}
	return nil
}

// affinity runs the child on the CPUs of a list, or where there is none on all
// that its cgroup has: what limits the engine is not for its containers.
func (c *compiler) affinity(list, field string) {
	mask, _ := parseSet(list)
	text := "{" + list + "}"
	if mask == nil {
		mask, text, field = slices.Repeat([]byte{0xff}, (maxCPU+1)/8), "{all}", ""
	}
	set := c.call("sched_setaffinity", unix.SYS_SCHED_SETAFFINITY, num(0), num(uint64(len(mask))), buf(mask, text))
	if list == "" {
		c.child("run on all CPUs of the cgroup", field, set.mayFail())
		return
	}
	c.child("run on the CPUs "+list, field, set)
}
