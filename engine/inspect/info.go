package inspect

// InfoJSON is the engine and its host as GET /info answers, but for what is of
// Swarm, of a daemon or of Windows alone.
type InfoJSON struct {
	ID                 string
	Containers         int
	ContainersRunning  int
	ContainersPaused   int
	ContainersStopped  int
	Images             int
	Driver             string
	DriverStatus       [][2]string
	Plugins            PluginsJSON
	MemoryLimit        bool
	SwapLimit          bool
	CPUCfsPeriod       bool `json:"CpuCfsPeriod"`
	CPUCfsQuota        bool `json:"CpuCfsQuota"`
	CPUShares          bool
	CPUSet             bool
	PidsLimit          bool
	IPv4Forwarding     bool
	Debug              bool
	OomKillDisable     bool
	SystemTime         string
	LoggingDriver      string
	CgroupDriver       string
	CgroupVersion      string
	KernelVersion      string
	OperatingSystem    string
	OSVersion          string
	OSType             string
	Architecture       string
	IndexServerAddress string
	NCPU               int
	MemTotal           int64 // bytes
	DockerRootDir      string
	HTTPProxy          string `json:"HttpProxy"`
	HTTPSProxy         string `json:"HttpsProxy"`
	NoProxy            string
	Name               string
	Labels             []string
	ExperimentalBuild  bool
	ServerVersion      string
	Runtimes           map[string]RuntimeJSON
	DefaultRuntime     string
	Swarm              SwarmJSON
	LiveRestoreEnabled bool
	Isolation          string
	InitBinary         string
	SecurityOptions    []string
	Warnings           []string
	ClientInfo         ClientJSON
}

// PluginsJSON are the drivers that there are.
type PluginsJSON struct {
	Volume        []string
	Network       []string
	Authorization []string
	Log           []string
}

// RuntimeJSON is one of Docker's Runtimes.
type RuntimeJSON struct {
	Path string `json:"path"`
}

// SwarmJSON says that there is no Swarm.
type SwarmJSON struct{ LocalNodeState string }

// ClientJSON is what "docker info" says of itself.
type ClientJSON struct {
	Debug   bool
	Version string
	Context string
}

// MissingLimits are Docker's warnings of what cannot be limited on this host.
func (i *InfoJSON) MissingLimits() []string {
	var all []string
	for _, w := range []struct {
		have bool
		text string
	}{
		{i.MemoryLimit, "No memory limit support"}, {i.SwapLimit, "No swap limit support"}, {i.CPUCfsQuota, "No cpu cfs quota support"},
		{i.CPUShares, "No cpu shares support"}, {i.CPUSet, "No cpuset support"}, {i.PidsLimit, "No pids limit support"}, {i.IPv4Forwarding, "IPv4 forwarding is disabled"},
	} {
		if !w.have {
			all = append(all, "WARNING: "+w.text)
		}
	}
	return all
}
