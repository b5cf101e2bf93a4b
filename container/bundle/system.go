package bundle

import (
	"errors"
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

// The values of Wishes.Systemd. The empty one is SystemdDetect.
const (
	SystemdDetect = "true"
	SystemdAlways = "always"
	SystemdNever  = "false"
)

// inits are commands that are the first process of a whole system, beside
// anything called systemd. They are Podman's.
var inits = []string{"/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init"}

// ParseSystemd reads the value of --systemd.
func ParseSystemd(s string) (string, error) {
	if s == SystemdDetect || s == SystemdAlways || s == SystemdNever {
		return s, nil
	}
	return "", errors.New("want true, false or always")
}

// System reports whether a container of image is a whole system: it is to be
// made as its init expects it. One that is not alone in its namespaces of
// processes and cgroups never is by itself.
func (w *Wishes) System(image ImageConfig) bool {
	switch w.Systemd {
	case SystemdAlways:
		return true
	case SystemdNever:
		return false
	}
	entrypoint, cmd := w.Command(image)
	args := slices.Concat(entrypoint, cmd)
	if len(args) > 2 && args[0] == "/bin/sh" && args[1] == "-c" {
		args = args[2:]
	}
	return len(args) > 0 && (slices.Contains(inits, args[0]) || path.Base(args[0]) == "systemd") && w.notSystem() == ""
}

// notSystem is the option that keeps the container from being a whole system.
func (w *Wishes) notSystem() string {
	switch {
	case w.Init:
		return "--init"
	case w.PID.shared():
		return "--pid"
	case w.CgroupNS.shared():
		return "--cgroupns"
	}
	return ""
}

// asSystem finds out whether the container is a whole system.
func (c *compiler) asSystem() error {
	c.System = c.w.System(*c.image)
	if option := c.w.notSystem(); c.System && option != "" {
		return badOption("--systemd", fault.Conflict, errors.New("the first process of a system is not what "+option+" makes of it"))
	}
	return nil
}

// systemEnv tells an init that it is in a container, and the id of its machine,
// by systemd's CONTAINER_INTERFACE.
func (c *compiler) systemEnv() []string {
	if !c.System {
		return nil
	}
	return []string{"container=kiste", "container_uuid=" + c.host.ID[:min(32, len(c.host.ID))]}
}

// systemMounts are what an init expects to be empty at each boot.
func (c *compiler) systemMounts() []specs.Mount {
	if !c.System {
		return nil
	}
	memory := func(at string, options ...string) specs.Mount {
		return specs.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs", Options: slices.Concat([]string{"nosuid", "nodev"}, options)}
	}
	return []specs.Mount{
		memory("/run", "mode=755"),
		memory("/run/lock", "noexec", "mode=1777", "size=5m"),
		memory("/tmp", "mode=1777"),
	}
}

// systemStop is the signal by which systemd ends the system; empty: it is none.
func (c *compiler) systemStop() string {
	if c.System {
		return "SIGRTMIN+3"
	}
	return ""
}
