package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"kiste/cli/option"
	"kiste/engine/inspect"
)

func infoCommand() *Command {
	var format string
	return &Command{
		Name:     "info",
		Short:    "show what there is, and what this host can do",
		Long:     "Shows numbers of containers and images, and facts about the host, in Docker's words. \"kiste doctor\" tells more of the host.",
		Examples: []string{"kiste info", "kiste info --format '{{.CgroupVersion}}'"},
		Options:  []option.Row{{"-f, --format", "TEXT", `show it as TEXT says, or "json"`, option.String(&format)}},
		Run: func(_ context.Context, env *Env, _ []string) error {
			e, err := lookIntoStore()
			if err != nil {
				return err
			}
			i, err := e.Info(Version)
			if err != nil {
				return err
			}
			if format != "" {
				return env.show(format, i)
			}
			_, err = io.WriteString(env.Out, infoText(&i))
			return err
		},
	}
}

// infoText is what docker info prints, line for line, of what there is here.
func infoText(i *inspect.InfoJSON) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("Client:\n Version:    %s\n Context:    %s\n Debug Mode: %v\n\nServer:", i.ClientInfo.Version, i.ClientInfo.Context, i.ClientInfo.Debug)
	line(" Containers: %d\n  Running: %d\n  Paused: %d\n  Stopped: %d\n Images: %d", i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped, i.Images)
	line(" Server Version: %s\n Storage Driver: %s", i.ServerVersion, i.Driver)
	for _, s := range i.DriverStatus {
		line("  %s: %s", s[0], s[1])
	}
	line(" Logging Driver: %s\n Cgroup Driver: %s\n Cgroup Version: %s", i.LoggingDriver, i.CgroupDriver, i.CgroupVersion)
	line(" Plugins:\n  Volume: %s\n  Network: %s\n  Log: %s", strings.Join(i.Plugins.Volume, " "), strings.Join(i.Plugins.Network, " "), strings.Join(i.Plugins.Log, " "))
	line(" Swarm: %s\n Runtimes: %s\n Default Runtime: %s\n Init Binary: %s", i.Swarm.LocalNodeState, strings.Join(slices.Sorted(maps.Keys(i.Runtimes)), " "), i.DefaultRuntime, i.InitBinary)
	line(" Security Options:")
	for _, o := range i.SecurityOptions {
		name, profile, ok := strings.Cut(strings.TrimPrefix(o, "name="), ",profile=")
		if line("  %s", name); ok {
			line("   Profile: %s", profile)
		}
	}
	line(" Kernel Version: %s\n Operating System: %s\n OSType: %s\n Architecture: %s", i.KernelVersion, i.OperatingSystem, i.OSType, i.Architecture)
	line(" CPUs: %d\n Total Memory: %s\n Name: %s\n Docker Root Dir: %s\n Debug Mode: %v", i.NCPU, binarySize(i.MemTotal), i.Name, i.DockerRootDir, i.Debug)
	for _, p := range []struct{ name, value string }{{"HTTP Proxy", i.HTTPProxy}, {"HTTPS Proxy", i.HTTPSProxy}, {"No Proxy", i.NoProxy}} {
		if p.value != "" {
			line(" %s: %s", p.name, p.value)
		}
	}
	line(" Experimental: %v\n Live Restore Enabled: %v\n", i.ExperimentalBuild, i.LiveRestoreEnabled)
	for _, w := range i.Warnings {
		line("%s", w)
	}
	return b.String()
}

// binarySize shows bytes as docker info does: four digits, powers of 1024.
func binarySize(n int64) string {
	v, unit := float64(n), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for v >= 1024 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	return strconv.FormatFloat(v, 'g', 4, 64) + units[unit]
}
