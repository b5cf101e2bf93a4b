package inspect

import (
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
)

// HostConfigJSON is Docker's HostConfig: the wishes that depend on the host.
type HostConfigJSON struct {
	Binds                []string
	ContainerIDFile      string
	LogConfig            LogConfigJSON
	NetworkMode          string
	PortBindings         map[string][]PortJSON
	RestartPolicy        RestartPolicyJSON
	AutoRemove           bool
	VolumeDriver         string
	VolumesFrom          []string
	ConsoleSize          [2]uint
	CapAdd               []string
	CapDrop              []string
	CgroupnsMode         string
	DNS                  []string `json:"Dns"`
	DNSOptions           []string `json:"DnsOptions"`
	DNSSearch            []string `json:"DnsSearch"`
	ExtraHosts           []string
	GroupAdd             []string
	IpcMode              string
	Cgroup               string
	Links                []string
	OomScoreAdj          int
	PidMode              string
	Privileged           bool
	PublishAllPorts      bool
	ReadonlyRootfs       bool
	SecurityOpt          []string
	Tmpfs                map[string]string `json:",omitempty"`
	UTSMode              string
	UsernsMode           string
	ShmSize              int64
	Sysctls              map[string]string `json:",omitempty"`
	Runtime              string
	Isolation            string
	CPUShares            int64 `json:"CpuShares"`
	Memory               int64
	NanoCPUs             int64 `json:"NanoCpus"`
	CgroupParent         string
	BlkioWeight          uint16
	BlkioWeightDevice    []WeightJSON
	BlkioDeviceReadBps   []RateJSON
	BlkioDeviceWriteBps  []RateJSON
	BlkioDeviceReadIOps  []RateJSON
	BlkioDeviceWriteIOps []RateJSON
	CPUPeriod            int64  `json:"CpuPeriod"`
	CPUQuota             int64  `json:"CpuQuota"`
	CPURealtimePeriod    int64  `json:"CpuRealtimePeriod"`
	CPURealtimeRuntime   int64  `json:"CpuRealtimeRuntime"`
	CpusetCPUs           string `json:"CpusetCpus"`
	CpusetMems           string
	Devices              []DeviceJSON
	DeviceCgroupRules    []string
	DeviceRequests       []any
	MemoryReservation    int64
	MemorySwap           int64
	MemorySwappiness     *int64
	OomKillDisable       bool
	PidsLimit            *int64
	Ulimits              []UlimitJSON
	CPUCount             int64 `json:"CpuCount"`
	CPUPercent           int64 `json:"CpuPercent"`
	IOMaximumIOps        uint64
	IOMaximumBandwidth   uint64
	Mounts               []MountWishJSON `json:",omitempty"`
	MaskedPaths          []string
	ReadonlyPaths        []string
	Init                 *bool             `json:",omitempty"`
	NetworkRates         []string          `json:",omitempty"` // Kiste's own: values of --network-rate
	Annotations          map[string]string `json:",omitempty"`
}

// LogConfigJSON is Docker's LogConfig.
type LogConfigJSON struct {
	Type   string
	Config map[string]string
}

// RestartPolicyJSON is Docker's RestartPolicy.
type RestartPolicyJSON struct {
	Name              string
	MaximumRetryCount int
}

// WeightJSON is one of Docker's BlkioWeightDevice.
type WeightJSON struct {
	Path   string
	Weight uint64
}

// RateJSON is one of Docker's BlkioDeviceReadBps and its kin.
type RateJSON struct {
	Path string
	Rate uint64
}

// DeviceJSON is one of Docker's Devices.
type DeviceJSON struct {
	PathOnHost        string
	PathInContainer   string
	CgroupPermissions string
}

// UlimitJSON is one of Docker's Ulimits.
type UlimitJSON struct {
	Name string
	Hard int64
	Soft int64
}

// MountWishJSON is one of HostConfig's Mounts: what --mount said.
type MountWishJSON struct {
	Type     string
	Source   string `json:",omitempty"`
	Target   string
	ReadOnly bool `json:",omitempty"`
}

// each is nil for nothing, which Docker prints as null.
func each[A, B any](in []A, to func(A) B) []B {
	if len(in) == 0 {
		return nil
	}
	out := make([]B, 0, len(in))
	for _, a := range in {
		out = append(out, to(a))
	}
	return out
}

func (c *Container) hostConfig() HostConfigJSON {
	w, l, linux := &c.Wishes, &c.Wishes.Limits, c.Result.Spec.Linux
	h := HostConfigJSON{
		ContainerIDFile: w.CIDFile, LogConfig: LogConfigJSON{Type: orElse(w.Log.Driver, "local"), Config: table(w.Log.Options)}, NetworkMode: networkMode(w),
		PortBindings: portBindings(w.Ports), PublishAllPorts: w.PublishAll, RestartPolicy: RestartPolicyJSON{orElse(w.Restart.Name, "no"), w.Restart.Max}, AutoRemove: w.Remove,
		CapAdd: each(w.CapAdd, capability), CapDrop: each(w.CapDrop, capability), CgroupnsMode: orElse(w.CgroupNS.String(), "private"),
		DNS: list(w.DNS), DNSOptions: list(w.DNSOptions), DNSSearch: list(w.DNSSearch), ExtraHosts: each(w.Hosts, func(h bundle.Host) string { return h.Name + ":" + h.IP }),
		VolumesFrom: w.VolumesFrom, GroupAdd: w.Groups, IpcMode: orElse(w.IPC.String(), "private"), PidMode: w.PID.String(), Privileged: w.Privileged, ReadonlyRootfs: w.ReadOnly,
		SecurityOpt: securityOpt(&w.Security), UTSMode: w.UTS.String(), UsernsMode: w.UserNS.String(), ShmSize: w.ShmSize, Sysctls: w.Sysctl, Runtime: "kiste",
		CPUShares: l.CPUShares, Memory: l.Memory, NanoCPUs: l.NanoCPUs, CgroupParent: w.CgroupParent, BlkioWeight: l.BlkioWeight,
		BlkioWeightDevice:  list(each(l.WeightDevice, func(t bundle.Throttle) WeightJSON { return WeightJSON{t.Path, t.Rate} })),
		BlkioDeviceReadBps: list(each(l.ReadBps, rate)), BlkioDeviceWriteBps: list(each(l.WriteBps, rate)),
		BlkioDeviceReadIOps: list(each(l.ReadIOps, rate)), BlkioDeviceWriteIOps: list(each(l.WriteIOps, rate)),
		CPUPeriod: l.CPUPeriod, CPUQuota: l.CPUQuota, CPURealtimePeriod: l.CPURTPeriod, CPURealtimeRuntime: l.CPURTRuntime,
		CpusetCPUs: l.CpusetCPUs, CpusetMems: l.CpusetMems,
		Devices:           list(each(w.Devices, func(d bundle.Device) DeviceJSON { return DeviceJSON{d.Source, d.Target, d.Permissions} })),
		DeviceCgroupRules: each(w.DeviceRule, rule), MemoryReservation: l.MemoryReservation, MemorySwap: swap(linux.Resources), MemorySwappiness: l.MemorySwappiness,
		OomKillDisable: l.OOMKillDisable, Ulimits: list(each(c.Result.Spec.Process.Rlimits, ulimit)),
		MaskedPaths: list(linux.MaskedPaths), ReadonlyPaths: list(linux.ReadonlyPaths), Annotations: w.Annotations, NetworkRates: w.NetworkRates,
	}
	if w.OOMScoreAdj != nil {
		h.OomScoreAdj = *w.OOMScoreAdj
	}
	if l.Pids != 0 {
		h.PidsLimit = &l.Pids
	}
	if w.Init {
		h.Init = &w.Init
	}
	if h.ShmSize == 0 {
		h.ShmSize = 64 << 20
	}
	for _, m := range w.Mounts {
		h.addMount(m)
	}
	return h
}

// addMount puts a mount where Docker has those of its option.
func (h *HostConfigJSON) addMount(m bundle.Mount) {
	switch {
	case m.Option == "--tmpfs":
		h.Tmpfs = table(h.Tmpfs)
		h.Tmpfs[m.Target] = strings.Join(m.TmpfsOptions, ",")
	case m.Option == "-v" && m.Source != "":
		// Binds have the source as it was resolved, and the rest as written.
		bind := m.Source + ":" + m.Target
		if part := strings.SplitN(m.Text, ":", 3); len(part) == 3 {
			bind += ":" + part[2]
		}
		h.Binds = append(h.Binds, bind)
	case m.Option == "--mount":
		h.Mounts = append(h.Mounts, MountWishJSON{m.Type, m.Source, m.Target, m.ReadOnly})
	}
}

// capability is Docker's form of a capability's name, whatever was written.
func capability(name string) string {
	name = strings.ToUpper(name)
	if name == "ALL" || strings.HasPrefix(name, "CAP_") {
		return name
	}
	return "CAP_" + name
}

func rate(t bundle.Throttle) RateJSON { return RateJSON{t.Path, t.Rate} }

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func networkMode(w *bundle.Wishes) string {
	switch {
	case w.Network.Kind == bundle.Private:
		return "none"
	case w.Network.Kind == bundle.Bridge && len(w.Networks) > 0:
		return w.Networks[0].Name
	}
	return orElse(w.Network.String(), "none")
}

// swap is what is in force, also where Docker's default made it.
func swap(r *specs.LinuxResources) int64 {
	if r.Memory == nil || r.Memory.Swap == nil {
		return 0
	}
	return *r.Memory.Swap
}

func securityOpt(s *bundle.Security) []string {
	var out []string
	if s.NoNewPrivileges {
		out = append(out, "no-new-privileges")
	}
	for _, o := range []struct{ key, value string }{{"seccomp", s.Seccomp}, {"apparmor", s.AppArmor}} {
		if o.value != "" {
			out = append(out, o.key+"="+o.value)
		}
	}
	if s.LogDenials {
		out = append(out, "denials=log")
	}
	for _, l := range s.Label {
		out = append(out, "label="+l)
	}
	return out
}

// rule is a device cgroup rule as --device-cgroup-rule takes it.
func rule(d specs.LinuxDeviceCgroup) string {
	number := func(n *int64) string {
		if n == nil || *n < 0 {
			return "*"
		}
		return strconv.FormatInt(*n, 10)
	}
	return d.Type + " " + number(d.Major) + ":" + number(d.Minor) + " " + d.Access
}
