package peer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A Bundle is a directory with a root file system and a config.json.
type Bundle struct {
	Dir  string
	Spec *specs.Spec
}

// applets are the names of busybox in a bundle's root.
var applets = []string{"sh", "true", "false", "cat", "echo", "sleep", "ls", "id", "env", "touch", "mkdir", "mknod", "mount", "umount",
	"grep", "sed", "head", "tail", "wc", "pwd", "readlink", "stat", "kill", "ps", "test", "tty", "stty", "hostname", "unshare", "dd", "ip",
	"sort", "tr", "cut", "chmod", "ln", "rm", "cp", "mv", "nproc", "nice", "dmesg", "printf", "basename", "dirname", "find", "seq", "usleep", "kill", "od", "timeout", "ulimit"}

// NewBundle makes a bundle in dir: a static busybox as root, and the
// configuration that "runc spec" writes, running args.
func NewBundle(dir string, args ...string) (*Bundle, error) {
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return nil, err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	err = os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755)
	for _, a := range applets {
		if bad := os.Symlink("busybox", filepath.Join(root, "bin", a)); !errors.Is(bad, fs.ErrExist) {
			err = errors.Join(err, bad)
		}
	}
	err = errors.Join(err, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n"), 0o644),
		os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\nann:x:1000:\n"), 0o644))
	b := &Bundle{Dir: dir, Spec: Spec(args...)}
	return b, errors.Join(err, b.Save())
}

// Root is the path of name in the bundle's root.
func (b *Bundle) Root(name string) string { return filepath.Join(b.Dir, "rootfs", name) }

// Save writes config.json.
func (b *Bundle) Save() error {
	text, err := json.MarshalIndent(b.Spec, "", "\t")
	if err != nil {
		return fmt.Errorf("write config.json: %w", err)
	}
	return os.WriteFile(filepath.Join(b.Dir, "config.json"), text, 0o644)
}

// Spec is what "runc spec" writes, without a terminal and without rlimits,
// which not every host permits, running args. The version is the one that
// every peer knows.
func Spec(args ...string) *specs.Spec {
	caps := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	still := []string{"nosuid", "noexec", "nodev"}
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args:            args,
			Env:             []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"},
			Cwd:             "/",
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			NoNewPrivileges: true,
		},
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Hostname: "bundle",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append(still[:3:3], "mode=1777", "size=65536k")},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: still},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append(still[:3:3], "ro")},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append(still[:3:3], "relatime", "ro")},
		},
		Linux: &specs.Linux{
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.MountNamespace}},
			MaskedPaths: []string{"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}
