package cgroup

// Limits are what a group may use: all that OCI's LinuxResources says of
// cgroups. The zero value limits nothing. In numbers 0 is "not set"; -1 is "no
// limit", which matters when a limit is to be taken away again.
type Limits struct {
	Memory   Memory
	CPU      CPU
	Pids     int64 // number of processes and threads
	IO       IO
	Huge     []Huge
	RDMA     []RDMA
	NetClass *uint32           // net_cls class id; version 1 only
	NetPrio  []NetPrio         // version 1 only
	Devices  []DeviceRule      // nil: all devices; else an allow list, see DeviceRule
	Unified  map[string]string // files of version 2 and what to write, as they are
}

// Memory limits, in bytes.
type Memory struct {
	Limit       int64   // the most; what is above is reclaimed, then killed
	Reservation int64   // kept when others ask for memory
	Swap        int64   // memory and swap together, as Docker counts
	Kernel      int64   // version 1 only, deprecated there too
	KernelTCP   int64   // version 1 only
	Swappiness  *uint64 // 0 to 100; version 1 only
	NoOOMKill   *bool   // processes wait instead of being killed; version 1 only

	// CheckUsage makes Update refuse a limit below what the group uses now,
	// in place of letting the kernel kill.
	CheckUsage bool
}

// CPU limits. CPUs is a short form of Quota: 1.5 is 150 ms in each 100 ms.
type CPU struct {
	CPUs            float64
	Quota           int64   // microseconds in each period
	Period          uint64  // microseconds; 0: 100000
	Burst           *uint64 // microseconds that may be saved up
	Shares          uint64  // 2 to 262144; 1024 is normal
	Idle            *int64  // 1: only when nobody else wants the CPU
	RealtimeRuntime int64   // microseconds; version 1 only
	RealtimePeriod  uint64  // microseconds; version 1 only
	Cpus            string  // "0-2,5"
	Mems            string  // memory nodes: "0"
}

// IO limits of block devices.
type IO struct {
	Weight     uint16 // 10 to 1000
	LeafWeight uint16 // version 1 with CFQ only
	Weights    []DeviceWeight
	ReadBPS    []Rate // bytes a second
	WriteBPS   []Rate
	ReadIOPS   []Rate // operations a second
	WriteIOPS  []Rate
}

// A DeviceWeight is the weight of one block device.
type DeviceWeight struct {
	Major, Minor       int64
	Weight, LeafWeight uint16
}

// A Rate is how much one block device may give a second.
type Rate struct {
	Major, Minor int64
	Rate         uint64
}

// Huge limits the huge pages of one size.
type Huge struct {
	Size  string // as the kernel writes it: "2MB"
	Limit uint64 // bytes
}

// RDMA limits one device.
type RDMA struct {
	Device           string
	Handles, Objects *uint32
}

// NetPrio is the priority of what the group sends through an interface.
type NetPrio struct {
	Interface string
	Priority  uint32
}

// A DeviceRule allows or denies access to devices. Rules are read in order,
// the last that speaks of a device and a kind of access counts, and what none
// speaks of is denied.
type DeviceRule struct {
	Allow        bool
	Type         byte   // 'c', 'b'; 'a' or 0: both
	Major, Minor int64  // -1: any
	Access       string // of "rwm"; empty: all
}
