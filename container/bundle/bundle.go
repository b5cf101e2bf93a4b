// Package bundle turns an image's config and a user's wishes into an OCI
// runtime spec.
//
//	takes    ImageConfig, Wishes, and Facts about the host
//	gives    a Result: the spec, and what a spec cannot say
//	touches  nothing, but for the devices that Facts.Device looks up
//	state    none
//
// The meaning is Docker's: its option names, its defaults, its error texts
// where programs or people know them by heart. What differs is said where it
// does: every container gets a user namespace unless its wishes or the host
// speak against it.
//
// What depends on the container's root file system is left to the caller,
// since this package is pure: the user's numbers (ResolveUser), the program's
// place in SearchPath, the directories behind volumes and images (Volumes),
// the namespaces of other containers (Joins).
//
// The parsers of single options (ParseVolume, ParseMount, ParseDevice …) are
// exported for the doors. All of the package is safe for concurrent use.
package bundle

import (
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// An ImageConfig is what an image says about the containers made of it: the
// fields of the OCI image config that a run needs, and Docker's additions.
type ImageConfig struct {
	Architecture string              `json:"architecture,omitempty"`
	OS           string              `json:"os,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	User         string              `json:"User,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	Shell        []string            `json:"Shell,omitempty"`
	Healthcheck  *Healthcheck        `json:"Healthcheck,omitempty"`
}

// A Healthcheck is how an image wants to be asked whether it is well.
type Healthcheck struct {
	Test          []string      `json:"Test,omitempty"`
	Interval      time.Duration `json:"Interval,omitempty"`
	Timeout       time.Duration `json:"Timeout,omitempty"`
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`
	StartInterval time.Duration `json:"StartInterval,omitempty"`
	Retries       int           `json:"Retries,omitempty"`
}

// Facts are what Compile must know of the host and of this container's place
// in it.
type Facts struct {
	// ID is the container's: 64 hexadecimal digits. Its first 12 are the
	// default host name.
	ID string

	// Root: the caller has all capabilities in the initial user namespace.
	// Otherwise a container always gets a user namespace.
	Root bool

	// UserNS: the host lets us make user namespaces.
	UserNS bool

	// UIDs and GIDs are the maps of the container's own user namespace, or
	// those of the container that it joins (see Wishes.UserFrom).
	UIDs, GIDs []specs.LinuxIDMapping

	// UID and GID are the caller's, for --userns keep-id.
	UID, GID uint32

	// IDMapped: bind mounts can be id-mapped.
	IDMapped bool

	// CgroupParent is the directory below which the container's cgroup is
	// made, "/kiste" for instance. Empty: "/kiste".
	CgroupParent string

	// CgroupV2: the host's hierarchy is the unified one.
	CgroupV2 bool

	// NoSwapLimit: the host does not count the swap of a cgroup, so that only
	// memory alone can be limited.
	NoSwapLimit bool

	// MessageQueue: the host has a /dev/mqueue, for --ipc host.
	MessageQueue bool

	// Capabilities are those of the caller's bounding set, which is all that
	// a container without a user namespace can get ("CAP_CHOWN"). Nil: all.
	Capabilities []string

	// Thermal are the paths of this host's thermal_throttle directories in
	// /sys/devices/system/cpu, which are masked; see host.Thermal.
	Thermal []string

	// CPUs is the number of CPUs that are online. Zero: not known.
	CPUs int

	// Device says what a path of the host is: itself if it is a device, or
	// all devices below it if it is a directory. Paths are as on the host;
	// see host.Devices.
	Device func(path string) ([]specs.LinuxDevice, error)

	// Devices are all of the host's, for --privileged.
	Devices []specs.LinuxDevice

	// Init is the path of the program that --init puts in front. It is
	// bound read-only at InitPath.
	Init string

	// ResolvConf is the content of the host's /etc/resolv.conf, or of the
	// container's whose network it shares.
	ResolvConf []byte

	// Hosts is the content of /etc/hosts of the host, for --network host, or of
	// the container whose network it shares. Nil: the container has its own.
	Hosts []byte

	// Addresses are the container's own, for its /etc/hosts.
	Addresses []string

	// Gateways are the host's addresses for host-gateway. None: 127.0.0.1.
	Gateways []string

	// Resolver: it asks for names at ResolverAddress, where somebody answers
	// who knows its peers and asks the host's servers for others.
	Resolver bool

	// HostName is the host's name, for --uts host and --network host.
	HostName string

	// SELinux is the container's part of the host's policy. Nil: no labels are set.
	SELinux *SELinux
}

// ResolverAddress is where names are asked for, as in Docker.
const ResolverAddress = "127.0.0.11"

// InitPath is where --init's program stands in the container, as in Docker.
const InitPath = "/sbin/docker-init"

// A Result is what a container will be.
type Result struct {
	// Spec is complete but for root.path, process.user (see User), and what
	// Volumes and Joins say.
	Spec *specs.Spec

	// Origin tells for a field of Spec, by its path as in JSON
	// ("process.env", "linux.resources.memory.limit"), where it comes from:
	// "--memory", "image: Env", "default". A field that is not listed comes
	// from its nearest listed parent.
	Origin map[string]string

	// HostName is the host's name, where the container has that by sharing the
	// host's namespace for names; else Spec has the name.
	HostName string `json:",omitempty"`

	// User is for ResolveUser, as are Groups: who the process is to be.
	User   string
	Groups []string

	// NeedHome: the environment has no HOME; the user's is to be added.
	NeedHome bool

	// SearchPath is the PATH in which process.args[0] is to be looked up
	// inside the container. Empty: args[0] has a slash.
	SearchPath string

	// Seccomp is the filter: "" the default profile, "unconfined" none, else
	// the path of a profile on the host.
	Seccomp string

	// NoLandlock: the user does not want the extra wall.
	NoLandlock bool

	// Volumes are the entries of Spec.Mounts whose source is to be found by
	// the caller: volumes (Type "volume"; an empty Source: a new anonymous
	// one) and images.
	Volumes []Volume

	// Joins are the namespaces of other containers, whose paths the caller
	// fills in.
	Joins []Join

	// Files are made by the caller and bound into the container; their
	// entries in Spec.Mounts have Type "file" and an empty Source.
	Files []File

	// System: it is a whole system, whose init has cgroups of its own to
	// arrange: the caller gives it its group.
	System bool `json:",omitempty"`

	// StopSignal ends the container politely: a name such as "SIGTERM".
	StopSignal string

	// StopTimeout is how long it may take. Negative: for ever.
	StopTimeout time.Duration

	// Labels are the image's and the user's.
	Labels map[string]string

	// Warnings are sentences for the user: wishes that have no effect here.
	Warnings []string
}

// A Volume is one entry of a Result's Spec.Mounts that is still to be given a
// source: the caller sets Source to a directory of the host and Type to "bind".
type Volume struct {
	Index int // in Spec.Mounts
	Mount Mount

	// Anonymous: made for this container, and removed with it by --rm.
	Anonymous bool
}

// A Join is one namespace that is another container's.
type Join struct {
	Index     int // in Spec.Linux.Namespaces
	Container string
}

// A File is one that the engine makes for a container.
type File struct {
	Path  string // inside the container: "/etc/hosts"
	Data  []byte
	Index int // in Spec.Mounts
}
