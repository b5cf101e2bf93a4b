package oci

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/cli/option"
	"kiste/fault"
	"kiste/kernel/cgroup"
)

// configName is the file of a bundle that says what the container is.
const configName = "config.json"

func specVerb() *verb {
	var bundle string
	var rootless bool
	return &verb{
		name: "spec", short: "write a config.json to begin with",
		long: `The container it describes runs "sh" on a terminal, in the root file system
"rootfs" beside it: the same as "runc spec" of 1.5 writes.

With --rootless it is one that an ordinary user can start.`,
		options: []option.Row{
			{"-b, --bundle", "DIR", "write it there and not here", option.String(&bundle)},
			{"--rootless", "", "for an ordinary user", option.Bool(&rootless)},
		},
		examples: []string{"spec --bundle web && kiste-runtime run --bundle web web"},
		run: func(_ *session, _ []string) error {
			l, err := cgroup.Detect()
			if err != nil {
				return err
			}
			spec := example(l.Kind() == "v2")
			if rootless {
				toRootless(spec, uint32(os.Geteuid()), uint32(os.Getegid()))
			}
			return writeSpec(filepath.Join(bundle, configName), spec)
		},
	}
}

func writeSpec(path string, spec *specs.Spec) error {
	data, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		hint := ""
		if errors.Is(err, fs.ErrExist) {
			hint = "it is never overwritten: move it away"
		}
		return &fault.Error{Op: "write", On: path, Err: err, Hint: hint}
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// example is a container with the usual file systems and few powers.
func example(cgroup2 bool) *specs.Spec {
	caps := func() []string { return []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"} }
	s := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{
			Terminal:        true,
			Args:            []string{"sh"},
			Env:             []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"},
			Cwd:             "/",
			NoNewPrivileges: true,
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps(), Permitted: caps(), Effective: caps()},
			Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
		},
		Hostname: "runc",
		Mounts:   exampleMounts(),
		Linux: &specs.Linux{
			MaskedPaths: []string{"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
				"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Resources:     &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.MountNamespace}},
		},
	}
	if cgroup2 {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return s
}

func exampleMounts() []specs.Mount {
	words := strings.Fields
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: words("nosuid strictatime mode=755 size=65536k")},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: words("nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5")},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: words("nosuid noexec nodev mode=1777 size=65536k")},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: words("nosuid noexec nodev")},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: words("nosuid noexec nodev ro")},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: words("nosuid noexec nodev relatime ro")},
	}
}

// toRootless makes of s a container that the user with these ids can start:
// root inside is that user, and what needs the host's root is left out.
func toRootless(s *specs.Spec, uid, gid uint32) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: uid, Size: 1}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: gid, Size: 1}}
	s.Linux.Resources = nil
	for i, m := range s.Mounts {
		if m.Destination == "/sys" {
			s.Mounts[i] = specs.Mount{Source: "/sys", Destination: "/sys", Type: "none", Options: strings.Fields("rbind nosuid noexec nodev ro")}
			continue
		}
		s.Mounts[i].Options = slices.DeleteFunc(m.Options, func(o string) bool {
			return strings.HasPrefix(o, "gid=") || strings.HasPrefix(o, "uid=")
		})
	}
}
