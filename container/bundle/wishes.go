package bundle

import (
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Wishes are everything that the options of "kiste run" say, parsed. The zero
// value is a container as Docker would make it with no options at all.
type Wishes struct {
	// The container as an object.
	Name        string
	Remove      bool              // --rm
	CIDFile     string            // its id is written here; must not exist
	Labels      map[string]string // --label, --label-file
	Annotations map[string]string
	Pull        string // "missing" (or empty), "always", "never"
	PullQuietly bool
	Platform    string // "os/arch[/variant]"; empty: the host's
	RootFS      bool   // --rootfs: the image argument is a directory
	Restart     Restart
	Log         Log

	// Whether it is well: what differs from the image. A Test of NONE is no
	// check.
	Health       Healthcheck
	HealthAction string // when it is not: "" or "none", "kill", "restart", "stop"

	// Its streams.
	Interactive bool   // -i: stdin is open
	StdinOnce   bool   // stdin ends with the first who is attached to it
	TTY         bool   // -t
	DetachKeys  []byte // as read from a terminal; nil: ctrl-p ctrl-q
	NoSigProxy  bool   // --sig-proxy=false

	// Its process.
	Args        []string // what follows the image
	Entrypoint  []string // nil: the image's; [""]: none
	Env         []string // "KEY=VALUE"; a bare "KEY" removes the image's
	Workdir     string
	User        string
	Groups      []string // --group-add
	Init        bool
	Systemd     string // whether it is a whole system: "" or "true", by its command; "false", "always"
	StopSignal  string
	StopTimeout *int // seconds; negative: wait for ever; nil: 10
	Umask       *uint32
	Rlimits     []specs.POSIXRlimit
	OOMScoreAdj *int

	// What it sees.
	Hostname    string
	Domainname  string
	ReadOnly    bool
	Mounts      []Mount  // -v, --mount, --tmpfs, in their order
	VolumesFrom []string // CONTAINER[:ro]; what they have is added to Mounts
	ShmSize     int64    // bytes; 0: 64 MiB
	Devices     []Device
	DeviceRule  []specs.LinuxDeviceCgroup // --device-cgroup-rule
	Hosts       []Host                    // --add-host
	DNS         []string
	DNSSearch   []string
	DNSOptions  []string

	// Its walls.
	Network  Namespace // bridge (its own, on Networks), none, host, container, path; the default is its maker's to choose
	PID      Namespace
	IPC      Namespace // also shareable, none
	UTS      Namespace
	UserNS   Namespace // also keep-id
	CgroupNS Namespace
	Sysctl   map[string]string

	// Whom it reaches.
	Networks     []NetworkWish `json:",omitempty"` // in their order: eth0, eth1 …
	Place        NetworkWish   // of --ip and its like: on the first of them
	Ports        []Port        `json:",omitempty"`
	PublishAll   bool          `json:",omitempty"`
	Expose       []string      `json:",omitempty"` // "80/tcp"
	NetworkRates []string      `json:",omitempty"` // --network-rate: "10mbit:egress"

	// What it may ask for.
	CapAdd, CapDrop []string
	Privileged      bool
	Security        Security

	// What it may use.
	CgroupParent string
	Limits       Limits
}

// A Restart is the policy by which a container is started anew when it has
// ended.
type Restart struct {
	Name string // "" or "no", "always", "unless-stopped", "on-failure"
	Max  int    // of on-failure: how often; 0: always
}

// A Log says where a container's output goes.
type Log struct {
	Driver  string            // "" is "local"; "json-file", "none"
	Options map[string]string // --log-opt
}

// Limits bound what a container uses. Zero: no limit.
type Limits struct {
	Memory            int64 // bytes
	MemoryReservation int64
	MemorySwap        int64  // memory and swap together; -1: no limit
	MemorySwappiness  *int64 // 0 to 100
	OOMKillDisable    bool
	NanoCPUs          int64 // billionths of a CPU
	CPUShares         int64
	CPUPeriod         int64 // microseconds
	CPUQuota          int64
	CPURTPeriod       int64
	CPURTRuntime      int64
	CpusetCPUs        string
	CpusetMems        string
	Pids              int64 // -1: no limit
	BlkioWeight       uint16
	WeightDevice      []Throttle
	ReadBps           []Throttle // bytes per second
	WriteBps          []Throttle
	ReadIOps          []Throttle // operations per second
	WriteIOps         []Throttle
}

// A Throttle is a rate or a weight of one block device of the host.
type Throttle struct {
	Path string
	Rate uint64
}

// Security is what --security-opt says.
type Security struct {
	Seccomp         string // "": default; "unconfined"; else a file
	NoNewPrivileges bool
	SystemPaths     bool // systempaths=unconfined: nothing masked or read-only
	NoLandlock      bool
	LogDenials      bool // denials=log: the kernel's log has the calls that the filter refuses
	AppArmor        string
	Label           []string // label=…, SELinux
}

// The kinds of a Namespace.
const (
	Default   = ""
	Private   = "private"
	HostNS    = "host"
	None      = "none"
	Container = "container"
	Path      = "path"
	KeepID    = "keep-id"
	Shareable = "shareable"
	Bridge    = "bridge"
	Pasta     = "pasta"       // of an ordinary user: a program is the network; Of has options
	Slirp     = "slirp4netns" // the same: the program is Kiste's own
)

// A Namespace is which one of a kind a container lives in.
type Namespace struct {
	Kind string
	Of   string // the container's name, or the namespace's path
}

// shared reports whether the namespace is one that is there already.
func (n Namespace) shared() bool {
	return n.Kind == HostNS || n.Kind == Container || n.Kind == Path
}

func (n Namespace) String() string {
	switch n.Kind {
	case Container:
		return "container:" + n.Of
	case Path:
		return "ns:" + n.Of
	}
	if n.Of != "" {
		return n.Kind + ":" + n.Of
	}
	return n.Kind
}

// UserFrom is the container whose user namespace the new one joins: the one
// that --userns names, else the one whose pid, network or IPC namespace is
// shared, since what belongs to a user namespace can be used from there only.
// A privileged container of root's needs none: root may use all. Empty: none.
// Facts.UIDs and GIDs are then that container's maps; where it has none, the
// caller sets UserNS to the host's.
func (w *Wishes) UserFrom(root bool) string {
	if w.UserNS.Kind == Container {
		return w.UserNS.Of
	}
	if w.UserNS.Kind != Default || w.Privileged && root {
		return ""
	}
	for _, n := range []Namespace{w.PID, w.Network, w.IPC} {
		if n.Kind == Container {
			return n.Of
		}
	}
	return ""
}

// A Mount is one that the user asks for.
type Mount struct {
	Type     string // "bind", "volume", "tmpfs", "image"
	Source   string // a path, a volume's name (empty: anonymous), an image
	Target   string // absolute, inside the container
	ReadOnly bool

	// Of a bind.
	Propagation   string // "rprivate" when empty
	NonRecursive  bool   // bind-recursive=disabled
	WritableBelow bool   // bind-recursive=writable: only the top is read-only
	ForceReadOnly bool   // bind-recursive=readonly: fail rather than not
	CreateSource  bool   // make a directory where there is nothing, as -v does
	Relabel       string // "z" or "Z", SELinux
	NoIDMap       bool   // noidmap: owners as the kernel shows them
	Own           bool   // U: give all that is in it to the container's user
	Subpath       string // of a volume or an image
	NoCopy        bool   // of a volume: do not fill it from the image
	Driver        string
	DriverOptions map[string]string
	Labels        map[string]string
	TmpfsSize     int64
	TmpfsMode     uint32
	TmpfsOptions  []string // as in mount(8), from --tmpfs
	Consistency   string   // taken and ignored, as Docker does on Linux

	// Option is "-v", "--mount" or "--tmpfs", and Text what followed it.
	Option, Text string
}

// A Device is a host's device to be in the container.
type Device struct {
	Source      string
	Target      string
	Permissions string // of "rwm"
}

// A Host is one line of /etc/hosts.
type Host struct {
	Name string
	IP   string // or "host-gateway"
}

// stopTimeout is how long a polite stop may take.
func (w *Wishes) stopTimeout() time.Duration {
	if w.StopTimeout == nil {
		return 10 * time.Second
	}
	return time.Duration(*w.StopTimeout) * time.Second
}

// short is a container's id as people see it.
func short(id string) string { return strings.ToLower(id[:min(12, len(id))]) }
