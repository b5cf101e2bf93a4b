package quadlet

import "strings"

// A key is one of a section of Podman's.
type key struct {
	name   string
	form   form
	option string // of kiste
	why    string // of one that is missing
}

// A form is how a key becomes options.
type form int

const (
	single  form = iota // the last value
	each                // each value
	words               // each word of each value
	boolean             // a switch, as it says
	whenOn              // the option, if it says yes
	special             // see container.go, volume.go, network.go
	missing             // Kiste has no such thing
	nothing             // taken and ignored: see why
)

// containerKeys are those of [Container], by podman-systemd.unit(5) of Podman 5.
var containerKeys = []key{
	{"AddCapability", words, "--cap-add", ""},
	{"AddDevice", each, "--device", ""},
	{"AddHost", each, "--add-host", ""},
	{"Annotation", words, "--annotation", ""},
	{"AutoUpdate", nothing, "", "images are updated by nobody unasked"},
	{"CgroupsMode", single, "--cgroups", ""},
	{"ContainerName", special, "", ""},
	{"ContainersConfModule", missing, "", "there is no containers.conf"},
	{"DNS", each, "--dns", ""},
	{"DNSOption", each, "--dns-option", ""},
	{"DNSSearch", each, "--dns-search", ""},
	{"DropCapability", words, "--cap-drop", ""},
	{"Entrypoint", single, "--entrypoint", ""},
	{"Environment", words, "--env", ""},
	{"EnvironmentFile", special, "", ""},
	{"EnvironmentHost", missing, "", "name the variables by Environment="},
	{"Exec", special, "", ""},
	{"ExposeHostPort", each, "--expose", ""},
	{"GIDMap", missing, "", "each container has a range of ids of its own"},
	{"GlobalArgs", special, "", ""},
	{"Group", special, "", ""},
	{"GroupAdd", each, "--group-add", ""},
	{"HealthCmd", single, "--health-cmd", ""},
	{"HealthInterval", single, "--health-interval", ""},
	{"HealthLogDestination", missing, "", "the last five checks are in kiste inspect"},
	{"HealthMaxLogCount", missing, "", "the last five checks are in kiste inspect"},
	{"HealthMaxLogSize", missing, "", "the last five checks are in kiste inspect"},
	{"HealthOnFailure", single, "--health-on-failure", ""},
	{"HealthRetries", single, "--health-retries", ""},
	{"HealthStartPeriod", single, "--health-start-period", ""},
	{"HealthStartupCmd", missing, "", "use HealthStartPeriod="},
	{"HealthStartupInterval", single, "--health-start-interval", ""},
	{"HealthStartupRetries", missing, "", "use HealthStartPeriod="},
	{"HealthStartupSuccess", missing, "", "use HealthStartPeriod="},
	{"HealthStartupTimeout", missing, "", "use HealthStartPeriod="},
	{"HealthTimeout", single, "--health-timeout", ""},
	{"HostName", single, "--hostname", ""},
	{"HttpProxy", nothing, "", "no variables of the host's are passed on"},
	{"Image", special, "", ""},
	{"IP", single, "--ip", ""},
	{"IP6", single, "--ip6", ""},
	{"Label", words, "--label", ""},
	{"LogDriver", special, "", ""},
	{"LogOpt", each, "--log-opt", ""},
	{"Mask", missing, "", "mount an empty file there"},
	{"Memory", single, "--memory", ""},
	{"Mount", special, "", ""},
	{"Network", special, "", ""},
	{"NetworkAlias", each, "--network-alias", ""},
	{"NoNewPrivileges", whenOn, "--security-opt=no-new-privileges", ""},
	{"Notify", special, "", ""},
	{"PidsLimit", single, "--pids-limit", ""},
	{"Pod", missing, "", "there are no pods"},
	{"PodmanArgs", special, "", ""},
	{"PublishPort", each, "--publish", ""},
	{"Pull", single, "--pull", ""},
	{"ReadOnly", boolean, "--read-only", ""},
	{"ReadOnlyTmpfs", special, "", ""},
	{"ReloadCmd", special, "", ""},
	{"ReloadSignal", special, "", ""},
	{"Retry", nothing, "", "a pull tries again by itself"},
	{"RetryDelay", nothing, "", "a pull tries again by itself"},
	{"Rootfs", special, "", ""},
	{"RunInit", boolean, "--init", ""},
	{"SeccompProfile", special, "", ""},
	{"Secret", missing, "", "there are no secrets: use Volume= with a file"},
	{"SecurityLabelDisable", whenOn, "--security-opt=label=disable", ""},
	{"SecurityLabelFileType", special, "", ""},
	{"SecurityLabelLevel", special, "", ""},
	{"SecurityLabelNested", whenOn, "--security-opt=label=nested", ""},
	{"SecurityLabelType", special, "", ""},
	{"ShmSize", single, "--shm-size", ""},
	{"StartWithPod", missing, "", "there are no pods"},
	{"StopSignal", single, "--stop-signal", ""},
	{"StopTimeout", single, "--stop-timeout", ""},
	{"SubGIDMap", missing, "", "each container has a range of ids of its own"},
	{"SubUIDMap", missing, "", "each container has a range of ids of its own"},
	{"Sysctl", words, "--sysctl", ""},
	{"Timezone", missing, "", "use Environment=TZ=…"},
	{"Tmpfs", each, "--tmpfs", ""},
	{"UIDMap", missing, "", "each container has a range of ids of its own"},
	{"Ulimit", each, "--ulimit", ""},
	{"Unmask", special, "", ""},
	{"User", special, "", ""},
	{"UserNS", single, "--userns", ""},
	{"Volume", special, "", ""},
	{"WorkingDir", single, "--workdir", ""},
}

// volumeKeys are those of [Volume].
var volumeKeys = []key{
	{"ContainersConfModule", missing, "", "there is no containers.conf"},
	{"Copy", special, "", ""},
	{"Device", special, "", ""},
	{"Driver", single, "--driver", ""},
	{"GlobalArgs", special, "", ""},
	{"Group", special, "", ""},
	{"Image", missing, "", "a volume is of no image"},
	{"Label", words, "--label", ""},
	{"Options", special, "", ""},
	{"PodmanArgs", special, "", ""},
	{"Type", special, "", ""},
	{"User", special, "", ""},
	{"VolumeName", special, "", ""},
}

// networkKeys are those of [Network].
var networkKeys = []key{
	{"ContainersConfModule", missing, "", "there is no containers.conf"},
	{"DisableDNS", missing, "", "networks have names"},
	{"DNS", missing, "", "containers have servers: use DNS= of a container"},
	{"Driver", single, "--driver", ""},
	{"Gateway", each, "--gateway", ""},
	{"GlobalArgs", special, "", ""},
	{"InterfaceName", special, "", ""},
	{"Internal", boolean, "--internal", ""},
	{"IPAMDriver", missing, "", "addresses are given by Kiste alone"},
	{"IPRange", each, "--ip-range", ""},
	{"IPv6", boolean, "--ipv6", ""},
	{"Label", words, "--label", ""},
	{"NetworkDeleteOnStop", special, "", ""},
	{"NetworkName", special, "", ""},
	{"Options", each, "--opt", ""},
	{"PodmanArgs", special, "", ""},
	{"Subnet", each, "--subnet", ""},
}

// A kind is a sort of quadlet files, by how their names end.
type kind struct {
	ending  string
	section string
	keys    []key
	suffix  string // of the unit's name
	compile func(c *compiler) error
	why     string // of one that Kiste has not
}

func kinds() []kind {
	return []kind{
		{".container", "Container", containerKeys, "", (*compiler).container, ""},
		{".volume", "Volume", volumeKeys, "-volume", (*compiler).volume, ""},
		{".network", "Network", networkKeys, "-network", (*compiler).network, ""},
		{".pod", "", nil, "", nil, "pods are not supported: write a .container with Network=container:NAME for each of its containers"},
		{".kube", "", nil, "", nil, "Kubernetes' documents are not supported: write a .container for each of their containers"},
		{".image", "", nil, "", nil, "files of images are not supported: a container pulls its image when it starts"},
		{".build", "", nil, "", nil, "builds are not supported"},
	}
}

// kindOf is the kind of the file called name.
func kindOf(name string) (kind, bool) {
	for _, k := range kinds() {
		if strings.HasSuffix(name, k.ending) && len(name) > len(k.ending) {
			return k, true
		}
	}
	return kind{}, false
}

// RunOptions are the options of "kiste run" that keys become.
func RunOptions() []string {
	var out []string
	for _, k := range containerKeys {
		if name, _, _ := strings.Cut(k.option, "="); name != "" {
			out = append(out, name)
		}
	}
	return out
}
