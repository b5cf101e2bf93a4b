package engine

import (
	"os"
	"time"

	"kiste/engine/inspect"
	"kiste/host"
	"kiste/image/catalog"
	"kiste/kernel/cgroup"
)

// Info tells of the store and its host. The version is the program's. What
// cannot be read counts as not there.
func (e *Engine) Info(version string) (inspect.InfoJSON, error) {
	name, _ := os.Hostname()
	system, release := host.Distribution()
	i := inspect.InfoJSON{
		Driver: "overlay", DriverStatus: [][2]string{{"Backing Filesystem", host.FileSystem(e.Store.Lib)}, {"Supports d_type", "true"}, {"userxattr", yes(os.Geteuid() != 0)}},
		Plugins:        inspect.PluginsJSON{Volume: []string{"local"}, Network: []string{"host", "null"}, Log: driverNames()},
		IPv4Forwarding: host.Forwards(), SystemTime: inspect.Stamp(time.Now()), LoggingDriver: "local", KernelVersion: host.Release(), OperatingSystem: system,
		OSVersion: release, OSType: "linux", Architecture: host.Machine(), IndexServerAddress: "https://index.docker.io/v1/", NCPU: host.CPUs(), MemTotal: host.Memory(),
		DockerRootDir: e.Store.Lib, HTTPProxy: os.Getenv("HTTP_PROXY"), HTTPSProxy: os.Getenv("HTTPS_PROXY"), NoProxy: os.Getenv("NO_PROXY"), Name: name, Labels: []string{},
		ServerVersion: version, Runtimes: map[string]inspect.RuntimeJSON{"kiste": {Path: "kiste"}}, DefaultRuntime: "kiste", Swarm: inspect.SwarmJSON{LocalNodeState: "inactive"},
		LiveRestoreEnabled: true, InitBinary: "kiste", SecurityOptions: securityOptions(),
		ClientInfo: inspect.ClientJSON{Version: version, Context: "default"},
	}
	cgroupInfo(&i)
	i.Warnings = i.MissingLimits()
	return i, e.countAll(&i)
}

func yes(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

func securityOptions() []string {
	var all []string
	for _, o := range []struct {
		name string
		have func() bool
	}{
		{"seccomp,profile=builtin", host.Seccomp.Have}, {"landlock", host.Landlock.Have}, {"apparmor", host.AppArmor.Have}, {"selinux", host.SELinux.Have},
		{"rootless", func() bool { return os.Geteuid() != 0 }}, {"cgroupns", func() bool { return true }},
	} {
		if o.have() {
			all = append(all, "name="+o.name)
		}
	}
	return all
}

// cgroupInfo says which limits can be set here.
func cgroupInfo(i *inspect.InfoJSON) {
	l, err := cgroup.Detect()
	if err != nil {
		i.CgroupDriver = "none"
		return
	}
	i.CgroupVersion = "1"
	if l.Kind() == "v2" {
		i.CgroupVersion = "2"
	}
	parent, err := cgroup.Place(l)
	if err != nil {
		i.CgroupDriver = "none" // an ordinary user to whom none is delegated
		return
	}
	has := func(controller string) bool { _, ok := l.Find(controller); return ok }
	i.CgroupDriver = "cgroupfs"
	i.MemoryLimit, i.CPUShares, i.CPUSet, i.PidsLimit = has("memory"), has("cpu"), has("cpuset"), has("pids")
	i.CPUCfsPeriod, i.CPUCfsQuota = i.CPUShares, i.CPUShares
	i.SwapLimit, i.OomKillDisable = i.MemoryLimit && cgroup.LimitsSwap(l, parent), i.MemoryLimit && i.CgroupVersion == "1"
}

// countAll counts containers and images.
func (e *Engine) countAll(i *inspect.InfoJSON) error {
	all, _, err := e.Brief()
	if err != nil {
		return err
	}
	for _, c := range all {
		i.Containers++
		switch c.State.Status {
		case "running", "restarting":
			i.ContainersRunning++
		case "paused":
			i.ContainersPaused++
		default:
			i.ContainersStopped++
		}
	}
	entries, _ := catalog.List(e.Store)
	ids := map[string]bool{}
	for _, entry := range entries {
		ids[entry.ID] = true
	}
	i.Images = len(ids)
	return nil
}
