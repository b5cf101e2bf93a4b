package process_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/container/hook"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/host"
	"kiste/internal/need"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/privilege"
)

// An ociBox is a container of a document alone, as engines write it.
type ociBox struct {
	spec *specs.Spec
	o    plan.Options
	f    plan.Facts
	dir  string // the bundle
	root string
}

// newBox is what "runc spec" writes, for a script and without a terminal.
func newBox(t *testing.T, script string) *ociBox {
	t.Helper()
	text, err := os.ReadFile("../plan/testdata/runc_spec.json")
	if err != nil {
		t.Fatal(err)
	}
	b := &ociBox{spec: new(specs.Spec), dir: newStorage(t).dir}
	if err := json.Unmarshal(text, b.spec); err != nil {
		t.Fatal(err)
	}
	b.root = b.dir + "/rootfs"
	if err := os.Rename(busybox(t), b.root); err != nil {
		t.Fatal(err)
	}
	b.spec.Process.Terminal = false
	b.spec.Process.Args = []string{"/bin/sh", "-c", script}
	b.spec.Root.Readonly = false
	b.o = plan.Options{Bundle: b.dir, NoLandlock: true}
	b.f = process.Facts(cgroup.Layout{})
	return b
}

// mapped gives the box a user namespace.
func (b *ociBox) mapped() *ociBox {
	filepath.WalkDir(b.root, func(path string, _ fs.DirEntry, _ error) error { return os.Lchown(path, 1<<30+1<<28, 1<<30+1<<28) })
	maps := []specs.LinuxIDMapping{{HostID: 1<<30 + 1<<28, Size: 65536}}
	b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = maps, maps
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	return b
}

func (b *ociBox) without(kind specs.LinuxNamespaceType) *ociBox {
	b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
	return b
}

func (b *ociBox) mount(m specs.Mount) *ociBox {
	b.spec.Mounts = append(b.spec.Mounts, m)
	return b
}

// hooks runs the hooks of b as a runtime does.
func (b *ociBox) hooks(kind string, pid int) error {
	launch := hook.Here(b.dir, os.Environ())
	if kind == hook.CreateContainer {
		launch = hook.In(pid, b.root, os.Environ(), false)
	}
	return hook.Run(kind, hook.Of(b.spec.Hooks, kind), specs.State{Version: specs.Version, ID: "box", Status: specs.StateCreating, Pid: pid, Bundle: b.dir}, launch)
}

func (b *ociBox) listener(pid, fd int) error {
	s := b.spec.Linux.Seccomp
	return process.SendListener(s.ListenerPath, specs.ContainerProcessState{Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: s.ListenerMetadata,
		State: specs.State{Version: specs.Version, ID: "box", Status: specs.StateCreating, Pid: pid, Bundle: b.dir}}, fd)
}

// run gives what the container writes, and why it could not be started.
func (b *ociBox) run(t *testing.T) (string, error) {
	t.Helper()
	b.spec.Hostname = map[bool]string{true: "runc"}[slices.ContainsFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UTSNamespace })]
	// A pipe takes what little there is to write.
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p, err := plan.Compile(b.spec, nil, b.o, b.f)
	if err != nil {
		return "", err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	proc, err := process.Start(p, process.Options{Files: [3]*os.File{null, out, out}, Hooks: b.hooks, Listener: b.listener})
	if err != nil {
		return "", err
	}
	defer proc.Remove()
	late := time.AfterFunc(time.Minute, func() { _ = proc.Signal(syscall.SIGKILL) })
	defer late.Stop()
	status, err := proc.Wait()
	out.Close()
	text, _ := io.ReadAll(in)
	if err == nil && status != 0 {
		err = fmt.Errorf("status %v\n%s", status, text)
	}
	return strings.TrimSpace(string(text)), err
}

// says runs b, which must write a text that the pattern matches as a whole.
func (b *ociBox) says(t *testing.T, pattern string) {
	t.Helper()
	out, err := b.run(t)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^(?s:` + pattern + `)$`).MatchString(out) {
		t.Errorf("it wrote %q; want %q", out, pattern)
	}
}

// refuses runs b, which must not start, for a reason that has text.
func (b *ociBox) refuses(t *testing.T, text string) {
	t.Helper()
	if out, err := b.run(t); err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("it started: %q, %v; want %q", out, err, text)
	}
}

// What a plain document asks for is so in the container.
func TestDocuments(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	uid, one := uint32(1000), uint32(1)
	mode, wide := fs.FileMode(0o640), fs.FileMode(0o2666)
	for _, tt := range []struct {
		name, script, want string
		change             func(t *testing.T, b *ociBox)
	}{
		{"host name, namespaces and init", "hostname; echo $$; ls /sys/class/net", "runc\n1\nlo", nil},
		{"loopback is on", "cat /sys/class/net/lo/flags", "0x9", nil},
		{"only the streams are open", "ls /proc/self/fd", "0\n1\n2\n3", nil}, // ls itself reads the directory
		{"root is private and writable", "echo x > /new; cat /new; grep -c ' / / .*shared' /proc/self/mountinfo; true", "x\n0", nil},
		{"read-only root", "touch /new 2>&1 || true", ".*Read-only file system", func(_ *testing.T, b *ociBox) { b.spec.Root.Readonly = true }},
		{"limits", "ulimit -n; ulimit -Hn; ulimit -c", "7\n64\n0", func(_ *testing.T, b *ociBox) {
			b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 64}, {Type: "RLIMIT_NOFILE", Soft: 7, Hard: 64}, {Type: "RLIMIT_CORE"}, {Type: "RLIMIT_FSIZE"}}
		}},
		{"more mounts than files may be open", "ulimit -Sn; ulimit -Hn; grep -c ' /many/' /proc/self/mountinfo", "100\n4000\n200", func(t *testing.T, b *ociBox) {
			var before syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
			b.f.Limit = func(int) (soft, hard uint64) { return 100, 4000 }
			b.spec.Process.Rlimits = nil
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 100, Max: before.Max}); err != nil {
				t.Fatal(err)
			}
			for i := range 200 {
				b.mount(specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: fmt.Sprint("/many/", i)})
			}
		}},
		{"limits of a mapped container", "ulimit -n", "6", func(_ *testing.T, b *ociBox) {
			b.mapped().spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 6, Hard: 64}, {Type: "RLIMIT_FSIZE"}}
		}},
		{"user, groups, mask, capabilities", "id -u; id -g; id -G; umask; grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | tr '\\t\\n' '  '", "1000\n5\n5 7 8\n0077\nCapInh: 0+ CapPrm: 0+ CapEff: 0+ CapBnd: 0+420 CapAmb: 0+",
			func(_ *testing.T, b *ociBox) {
				mask := uint32(0o77)
				b.spec.Process.User = specs.User{UID: 1000, GID: 5, AdditionalGids: []uint32{7, 8}, Umask: &mask}
				b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_FROM_THE_FUTURE"}, Permitted: []string{"CAP_NET_BIND_SERVICE"}}
				b.spec.Process.NoNewPrivileges = false
				b.spec.Process.Args = []string{"/bin/sh", "-c", b.spec.Process.Args[2] + "; true"}
			}},
		{"a directory that only root may enter", "pwd", "/root/deep", func(t *testing.T, b *ociBox) {
			if err := os.Mkdir(b.root+"/root", 0o700); err != nil {
				t.Fatal(err)
			}
			b.spec.Process.Cwd, b.spec.Process.User = "/root/deep", specs.User{UID: 1000, GID: 1000}
		}},
		{"streams can be opened by their user", "echo x > /dev/stdout", "x", func(_ *testing.T, b *ociBox) {
			b.spec.Process.User = specs.User{UID: 1000, GID: 1000}
			b.o.Streams = [3]bool{false, true, true}
		}},
		{"a relative search path and no path", "echo $0", "/bin/sh", func(_ *testing.T, b *ociBox) {
			b.spec.Process.Args[0], b.spec.Process.Env = "sh", nil
			b.spec.Process.Args = []string{"sh", "-c", "echo /bin/$0", "sh"}
		}},
		{"devices", "stat -c '%n %a %u %g %t:%T %F' /dev/null /dev/zero /dev/mine/a /dev/fifo; ls -l /dev/fd /dev/ptmx /dev/core | sed 's/.* \\(.dev\\)/\\1/'", `/dev/null 640 1000 0 1:3 character special file
/dev/zero 666 0 0 1:5 character special file
/dev/mine/a 2666 1000 1 a:e5 character special file
/dev/fifo 640 0 0 0:0 fifo
/dev/core -> /proc/kcore
/dev/fd -> /proc/self/fd
/dev/ptmx -> pts/ptmx`, func(_ *testing.T, b *ociBox) {
			b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &uid},
				{Path: "/dev/mine/a", Type: "u", Major: 10, Minor: 229, FileMode: &wide, UID: &uid, GID: &one}, {Path: "/dev/fifo", Type: "p", FileMode: &mode}}
		}},
		{"devices of a mapped container", "stat -c '%n %a %u %t:%T %F' /dev/zero /dev/mine/a; echo x > /dev/null; cat /dev/null", `/dev/zero 666 65534 1:5 character special file
/dev/mine/a 640 1000 a:e5 character special file`, func(_ *testing.T, b *ociBox) {
			b.mapped().spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mine/a", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &uid}}
		}},
		{"devices without a mount on /dev", "stat -c '%n %t:%T' /dev/null /dev/tty; cat /proc/keys | wc -c; test -c /dev/null", "/dev/null 1:3\n/dev/tty 5:0\n0", func(t *testing.T, b *ociBox) {
			b.spec.Mounts = slices.DeleteFunc(b.spec.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/dev") })
			if err := errors.Join(os.Mkdir(b.root+"/dev", 0o755), os.WriteFile(b.root+"/dev/ptmx", nil, 0o600), unix.Mknod(b.root+"/dev/null", unix.S_IFCHR|0o666, 1<<8|3)); err != nil {
				t.Fatal(err)
			}
		}},
		{"the host's /dev", "test -c /dev/null && test ! -e /dev/kiste && echo so", "so", func(_ *testing.T, b *ociBox) {
			b.spec.Mounts = slices.DeleteFunc(b.spec.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/dev") })
			b.mount(specs.Mount{Type: "bind", Source: "/dev", Destination: "/dev", Options: []string{"rbind", "rslave"}})
		}},
		{"a mount without its slash, and one of the bundle", "cat /in/a; touch /in/b 2>&1 || true", "A.*Read-only file system", func(t *testing.T, b *ociBox) {
			if err := errors.Join(os.Mkdir(b.dir+"/data", 0o755), os.WriteFile(b.dir+"/data/a", []byte("A\n"), 0o644)); err != nil {
				t.Fatal(err)
			}
			b.mount(specs.Mount{Source: "data", Destination: "in", Options: []string{"rbind", "ro"}})
		}},
		{"a file on a file that is missing", "cat /new/dir/file", "A", func(t *testing.T, b *ociBox) {
			if err := os.WriteFile(b.dir+"/a", []byte("A\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			b.mount(specs.Mount{Type: "bind", Source: b.dir + "/a", Destination: "/new/dir/file", Options: []string{"bind"}})
		}},
		{"attributes of file systems", "grep -E ' /(a|b|c) ' /proc/self/mounts | cut -d' ' -f2,4", "/a ro,nosuid,nodev,noexec,noatime.*/b rw,nodiratime,relatime.*/c rw,sync,dirsync,lazytime.*", func(_ *testing.T, b *ociBox) {
			b.mount(specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/a", Options: []string{"ro", "nosuid", "nodev", "noexec", "noatime", "size=4k"}})
			b.mount(specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/b", Options: []string{"ro", "rw", "nodiratime", "strictatime", "nostrictatime", "silent", "async", "defaults", "size=4k"}})
			b.mount(specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/c", Options: []string{"sync", "dirsync", "lazytime", "size=4k"}})
		}},
		{"a tree that is read-only", "touch /t/x /t/sub/x 2>&1 || true; touch /u/sub/x && echo fine", "(touch: [^\n]*Read-only file system\n){2}fine", func(t *testing.T, b *ociBox) {
			b.tree(t)
			b.mount(specs.Mount{Type: "bind", Source: b.dir + "/tree", Destination: "/t", Options: []string{"rbind", "rro"}})
			b.mount(specs.Mount{Type: "bind", Source: b.dir + "/tree", Destination: "/u", Options: []string{"rbind", "ro"}})
		}},
		{"propagation", "grep -oE ' /(t|s|p|u) .*(shared|master|unbindable)' /proc/self/mountinfo | sed 's/ \\/.* / /;s/:.*//' ; grep -cE ' /p .*(shared|master)' /proc/self/mountinfo || true", ".*master.*shared.*unbindable\n0", func(t *testing.T, b *ociBox) {
			b.tree(t)
			for at, how := range map[string]string{"/s": "rslave", "/t": "rshared", "/p": "private", "/u": "runbindable"} {
				b.mount(specs.Mount{Type: "bind", Source: b.dir + "/tree", Destination: at, Options: []string{"rbind", how}})
			}
			slices.SortStableFunc(b.spec.Mounts, func(x, y specs.Mount) int {
				if len(x.Destination) == 2 && len(y.Destination) == 2 {
					return strings.Compare(x.Destination, y.Destination)
				}
				return 0
			})
		}},
		{"mountinfo lists mounts in the document's order", "grep -oE ' /m[0-9] ' /proc/self/mountinfo | tr -d ' '", "/m0\n/m1\n/m2\n/m3\n/m4\n/m5\n/m6\n/m7", func(t *testing.T, b *ociBox) {
			b.tree(t)
			for i, how := range []string{"", "tmpfs", "rprivate", "tmpfs", "rslave", "tmpfs", "shared", "tmpfs"} {
				m := specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: fmt.Sprint("/m", i)}
				if how != "tmpfs" {
					m.Type, m.Source, m.Options = "bind", b.dir+"/tree/sub", slices.DeleteFunc([]string{"bind", how}, func(o string) bool { return o == "" })
				}
				b.mount(m)
			}
		}},
		{"a tmpfs takes the mode of what it covers", "stat -c %a /locked /fresh /given", "2750\n1777\n700", func(t *testing.T, b *ociBox) {
			if err := errors.Join(os.Mkdir(b.root+"/locked", 0o750), os.Chmod(b.root+"/locked", 0o750|fs.ModeSetgid)); err != nil {
				t.Fatal(err)
			}
			b.mount(specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/locked"})
			b.mount(specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/fresh"})
			b.mount(specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/given", Options: []string{"mode=700"}})
		}},
		{"tmpcopyup", copyUpScript, copyUpWant, func(t *testing.T, b *ociBox) { b.full(t) }},
		{"tmpcopyup of a mapped container", copyUpScript, strings.NewReplacer("link 777 0 0", "link 777 65534 65534", "fifo 600 0 0", "fifo 600 65534 65534").Replace(copyUpWant), func(t *testing.T, b *ociBox) { b.mapped().full(t) }},
		{"masked and read-only paths of an image", "cat /secret/file | wc -c; ls /secret/dir | wc -l; touch /fixed/x 2>&1 || true; cat /proc/keys | wc -c; ls /sys/firmware | wc -l", "0\n0\n[^\n]*Read-only file system\n0\n0", func(t *testing.T, b *ociBox) {
			if err := errors.Join(os.MkdirAll(b.root+"/secret/dir/in", 0o755), os.WriteFile(b.root+"/secret/file", []byte("secret"), 0o644), os.Mkdir(b.root+"/fixed", 0o755)); err != nil {
				t.Fatal(err)
			}
			b.spec.Linux.MaskedPaths = append([]string{"/secret/file", "/secret/dir", "/no/such", "/secret/dir"}, b.spec.Linux.MaskedPaths...)
			b.spec.Linux.ReadonlyPaths = append(b.spec.Linux.ReadonlyPaths, "/fixed", "/no/such")
		}},
		{"the mask cannot be changed", "chmod 0 /proc/keys 2>&1 || true; stat -c %a /dev/null", ".*666", func(_ *testing.T, b *ociBox) {
			all := []string{"CAP_FOWNER", "CAP_DAC_OVERRIDE"}
			b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
			b.mount(specs.Mount{Type: "bind", Source: "/dev", Destination: "/dev", Options: []string{"rbind", "rprivate"}})
		}},
		{"sysctls in both spellings", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/lo/forwarding /proc/sys/kernel/msgmax /proc/sys/kernel/domainname", "1\n1\n4096\nx.org", func(_ *testing.T, b *ociBox) {
			b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "net/ipv4/conf/lo/forwarding": "1", "kernel.msgmax": "4096", "kernel.domainname": "x.org"}
		}},
		{"sysctls without a procfs that shows them", "ls /proc/sys 2>&1 || true; cat /sys/class/net/lo/flags", ".*No such file.*", func(_ *testing.T, b *ociBox) {
			b.spec.Mounts[0].Options = []string{"subset=pid"}
			b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		}},
		{"the host's network, processes, IPC and names", "test $$ -gt 1; cat /proc/sys/kernel/hostname", ".+", func(_ *testing.T, b *ociBox) {
			b.without(specs.NetworkNamespace).without(specs.PIDNamespace).without(specs.IPCNamespace).without(specs.UTSNamespace)
		}},
		{"the root is shared", "grep -E '^[0-9]+ [0-9]+ [0-9:]+ [^ ]+ / ' /proc/self/mountinfo | grep -o shared", "shared", func(_ *testing.T, b *ociBox) { b.spec.Linux.RootfsPropagation = "shared" }},
		{"the root is unbindable", "grep -E '^[0-9]+ [0-9]+ [0-9:]+ [^ ]+ / ' /proc/self/mountinfo | grep -o unbindable", "unbindable", func(_ *testing.T, b *ociBox) { b.spec.Linux.RootfsPropagation = "runbindable" }},
		{"lxcfs's files", "cat /proc/uptime", "A", func(t *testing.T, b *ociBox) {
			if err := os.WriteFile(b.dir+"/a", []byte("A\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			b.mount(specs.Mount{Type: "bind", Source: b.dir + "/a", Destination: "/proc/uptime", Options: []string{"bind"}})
		}},
		{"the host's sysfs in a mapped container", "ls -d /sys/class/net /sys/fs; touch /sys/x 2>&1 || true; touch /sys/fs/cgroup/x 2>&1 || true", `/sys/class/net\n/sys/fs\n[^\n]*\n[^\n]*`, func(_ *testing.T, b *ociBox) {
			b.mapped().without(specs.NetworkNamespace)
			b.spec.Mounts = slices.DeleteFunc(b.spec.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
		}},
		{"clocks of its own", "cut -d. -f1 /proc/uptime | sed 's/^70[0-9]*$/offset/'; readlink /proc/self/ns/time; echo $$", `offset\ntime:\[\d+\]\n1`, func(_ *testing.T, b *ociBox) {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 700_000_000, Nanosecs: 5}, "monotonic": {Secs: 3}}
		}},
		{"clocks of a mapped container", "cut -d. -f1 /proc/uptime | sed 's/^70[0-9]*$/offset/'; echo $$; id -u", `offset\n1\n0`, func(_ *testing.T, b *ociBox) {
			b.mapped().spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 700_000_000}}
		}},
		{"somebody's clocks", "readlink /proc/self/ns/time; echo $$", `time:\[4026531834\]\n1`, func(_ *testing.T, b *ociBox) {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace, Path: "/proc/self/ns/time"})
		}},
		{"somebody's clocks in a mapped container", "readlink /proc/self/ns/time; echo $$; id -u; ls /sys/class/net", `time:\[4026531834\]\n1\n0\nlo`, func(_ *testing.T, b *ociBox) {
			b.mapped().spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace, Path: "/proc/self/ns/time"})
		}},
		{"a batch process", "cat /proc/self/stat | cut -d' ' -f19,41", "9 3", func(_ *testing.T, b *ociBox) {
			b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 9, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagKeepParams}}
			b.spec.Process.Scheduler.Flags = nil
			b.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE, Priority: 7}
		}},
		{"a real-time process that goes back on fork", "cat /proc/1/stat | cut -d' ' -f40,41", "7 1", func(_ *testing.T, b *ociBox) {
			b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 7, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
		}},
		{"a machine of 32 bits without random addresses", "cat /proc/self/personality", "00040008", func(_ *testing.T, b *ociBox) {
			b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32, Flags: []specs.LinuxPersonalityFlag{"ADDR_NO_RANDOMIZE"}}
		}},
		{"all CPUs, whatever the parent has", "grep Cpus_allowed_list /proc/self/status | cut -f2", "0-\\d+", nil},
		{"an overlay of many layers", "ls /o | head -3; ls /o | wc -l", "a0\na1\na10\n60", func(t *testing.T, b *ociBox) {
			var layers []string
			for i := range 60 {
				layer := fmt.Sprintf("%s/a layer: number %d", b.dir, i)
				if err := errors.Join(os.Mkdir(layer, 0o755), os.WriteFile(fmt.Sprintf("%s/a%d", layer, i), nil, 0o644)); err != nil {
					t.Fatal(err)
				}
				layers = append(layers, strings.ReplaceAll(layer, ":", `\:`))
			}
			b.mount(specs.Mount{Type: "overlay", Source: "overlay", Destination: "/o", Options: []string{"lowerdir=" + strings.Join(layers, ":"), "private"}})
		}},
		{"300 binds", "ls / | grep -c ^bind; cat /bind299/etc/hello", "300\nhello", func(t *testing.T, b *ociBox) {
			if err := os.WriteFile(b.root+"/etc/hello", []byte("hello\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			for i := range 300 {
				b.mount(specs.Mount{Type: "bind", Source: b.root, Destination: fmt.Sprintf("/bind%d", i), Options: []string{"bind"}})
			}
		}},
		{"more than 64 KiB of sources", "readlink /proc/1/ns/net > /n; ls /bind19", "", func(t *testing.T, b *ociBox) { // CVE-2021-43784
			deep := b.dir + strings.Repeat("/"+strings.Repeat("d", 250), 14)
			if err := os.MkdirAll(deep, 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				b.mount(specs.Mount{Type: "bind", Source: deep + strings.Repeat("/.", 100), Destination: fmt.Sprintf("/bind%d", i), Options: []string{"bind"}})
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, tt.script)
			if tt.change != nil {
				tt.change(t, b)
			}
			b.says(t, tt.want)
		})
	}
}

// holder keeps the namespaces that unshare(1) makes with args: it is its process.
func holder(t *testing.T, args ...string) (pid int) {
	t.Helper()
	cmd := exec.Command("unshare", append(args, "sh", "-c", "echo; exec sleep 100")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// What is masked is empty also where the container's sysfs is the host's, since
// who owns its network is another: what the host has mounted on that is no
// directory to mask with.
func TestMaskedBesideTheNetworkOfAnother(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "unshare")
	need.Clean(t)
	b := newBox(t, "for dir in /proc/acpi /proc/scsi /sys/firmware; do test ! -e $dir || ls -A $dir; done; echo masked").without(specs.NetworkNamespace).mapped()
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: fmt.Sprintf("/proc/%d/ns/net", holder(t, "--net"))})
	b.says(t, "masked")
}

// A user namespace is joined together with others that do not belong to it.
func TestJoinsOfDifferentOwners(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "unshare")
	need.Clean(t)
	user, network := fmt.Sprintf("/proc/%d/ns/user", holder(t, "--user", "--map-root-user")), fmt.Sprintf("/proc/%d/ns/net", holder(t, "--net"))
	b := newBox(t, "readlink /proc/self/ns/user; readlink /proc/self/ns/net; id -u; echo $$").without(specs.NetworkNamespace)
	b.spec.Mounts = slices.DeleteFunc(b.spec.Mounts, func(m specs.Mount) bool { return m.Type == "sysfs" || m.Type == "cgroup" || m.Type == "devpts" })
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: user}, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: network})
	var err error
	if b.o.UIDs, b.o.GIDs, err = process.JoinedMaps(user); err != nil {
		t.Fatal(err)
	}
	if len(b.o.UIDs) != 1 || b.o.UIDs[0] != (specs.LinuxIDMapping{Size: 1}) {
		t.Errorf("the maps are %v", b.o.UIDs)
	}
	want := ""
	for _, path := range []string{user, network} {
		link, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		want += regexp.QuoteMeta(link) + `\n`
	}
	b.says(t, want+`0\n1`)
	b.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 7, Size: 1}}
	b.refuses(t, "both namespace path and non-matching mapping specified")
}

// Without a mount namespace the mounts are the host's, as long as the container
// is there, and are gone with it however it ends.
func TestNoMountNamespace(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	b := newBox(t, "pwd; ls /; hostname; cat /srv/seen; test -d /proc/1 && echo procfs; ls -d /usr 2>&1 || true").without(specs.MountNamespace)
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths, b.spec.Process.Cwd = nil, nil, "/srv"
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-ec", "test -e " + b.root + "/proc/version; mkdir -p " + b.root + "/srv; echo seen > " + b.root + "/srv/seen"}}}}
	b.says(t, `/srv\nbin\ndev\netc\nproc\nsrv\nsys\ntmp\nrunc\nseen\nprocfs\nls: /usr: No such file or directory`)
	need.Clean(t)
	b.spec.Process.Args = []string{"nosuch"}
	b.refuses(t, "no such file or directory")
}

// Links of the host become the container's, with their addresses.
func TestNetworkDevices(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	for _, tt := range []struct {
		name   string
		change func(b *ociBox)
	}{
		{"born in the network", func(*ociBox) {}},
		{"mapped", func(b *ociBox) { b.mapped() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ip := func(args ...string) {
				if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
					t.Fatalf("ip %v: %v %s", args, err, out)
				}
			}
			ip("link", "add", "kt0", "type", "veth", "peer", "name", "kt1")
			t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "kt1").Run() })
			ip("addr", "add", "10.77.0.2/24", "dev", "kt0")
			ip("addr", "add", "fd77::2/64", "dev", "kt0", "nodad")
			ip("link", "set", "kt0", "up")
			b := newBox(t, "ls /sys/class/net; cat /sys/class/net/in0/flags; cat /proc/net/fib_trie | grep -c 10.77.0.2; grep -c ^fd77 /proc/net/if_inet6")
			tt.change(b)
			b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"kt0": {Name: "in0"}}
			b.says(t, `in0\nlo\n0x1[0-9a-f]*3\n[1-9]\n1`)
		})
	}
	b := newBox(t, "true")
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"nosuch": {}}
	b.refuses(t, `give the link nosuch to the container: find link "nosuch": no such device`)
}

// A call that the document wants to have answered is answered by who listens.
func TestSystemCallsAreAnswered(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("no new privileges %v", keep), func(t *testing.T) {
			b := newBox(t, "mkdir /made 2>&1 || true; ls -d /made 2>&1 || true")
			b.spec.Process.NoNewPrivileges = keep
			path := b.dir + "/listener"
			b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: path, ListenerMetadata: "data",
				Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}}}
			var err error
			if b.o.Filter, err = privilege.Compile(b.spec.Linux.Seccomp, runtime.GOARCH); err != nil {
				t.Fatal(err)
			}
			states := answer(t, path)
			b.says(t, "mkdir: .*No medium found\nls: .*No such file or directory")
			var s specs.ContainerProcessState
			if err := json.Unmarshal(<-states, &s); err != nil || s.Metadata != "data" || s.Fds[0] != specs.SeccompFdName || s.State.ID != "box" || s.Pid == 0 {
				t.Errorf("the state is %+v, %v", s, err)
			}
		})
	}
	b := newBox(t, "true")
	b.o.Filter = privilege.Filter{Instructions: make([]privilege.Instruction, 1), Flags: privilege.NewListener}
	b.refuses(t, "seccomp listenerPath is not set")
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{ListenerPath: "/no/such"}
	b.o.Filter.Instructions[0] = privilege.Instruction{Op: 6, K: 0x7fff0000} // return: allow
	b.refuses(t, "give the listener of system calls to")
}

// Profiles of documents, with what Docker's does not have.
func TestFiltersOfDocuments(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	errno := uint(unix.ENOTNAM)
	refuse := []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat", "nosuchcall"}, Action: specs.ActErrno, ErrnoRet: &errno}}
	for _, tt := range []struct {
		name    string
		profile specs.LinuxSeccomp
		want    string
	}{
		{"an errno of its own", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: refuse}, "2 1 mkdir: .*Not a XENIX named type file"},
		{"architectures and flags", specs.LinuxSeccomp{DefaultAction: specs.ActLog, Syscalls: refuse, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM},
			Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, "SECCOMP_FILTER_FLAG_TSYNC"}}, "2 1 mkdir: .*Not a XENIX named type file"},
		{"arguments", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{}, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"mkdir"}, Action: specs.ActErrno, ErrnoRet: &errno, Args: []specs.LinuxSeccompArg{{Index: 1, Value: 0o777, Op: specs.OpEqualTo}}}}}, "2 1 mkdir: .*Not a XENIX named type file"},
		{"death", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActKillProcess}}}, "(Bad system call\n)?2 1"},
	} {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, no new privileges %v", tt.name, keep), func(t *testing.T) {
				b := newBox(t, "echo $(grep -E '^Seccomp(_filters)?:' /proc/self/status | cut -f2) $(mkdir /made 2>&1)")
				b.spec.Process.NoNewPrivileges, b.spec.Linux.Seccomp = keep, &tt.profile
				var err error
				if b.o.Filter, err = privilege.Compile(b.spec.Linux.Seccomp, runtime.GOARCH); err != nil {
					t.Fatal(err)
				}
				b.says(t, tt.want)
			})
		}
	}
}

// answer listens at path for one listener of system calls, and answers all of
// them with ENOMEDIUM. It gives the state that came with it.
func answer(t *testing.T, path string) <-chan []byte {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	states := make(chan []byte, 1)
	go func() {
		defer close(states)
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		data, oob := make([]byte, 4096), make([]byte, 64)
		n, m, _, _, err := c.ReadMsgUnix(data, oob)
		if err != nil {
			return
		}
		states <- data[:n]
		messages, err := unix.ParseSocketControlMessage(oob[:m])
		if err != nil || len(messages) == 0 {
			return
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return
		}
		defer unix.Close(fds[0])
		for {
			// Kernels before 6.11 wait for a request of those who are gone.
			ready := []unix.PollFd{{Fd: int32(fds[0]), Events: unix.POLLIN}}
			if _, err := unix.Poll(ready, -1); errors.Is(err, unix.EINTR) {
				continue
			}
			if ready[0].Revents&unix.POLLIN == 0 {
				return
			}
			var request [80]byte // struct seccomp_notif: the id comes first
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fds[0]), 0xc0502100, uintptr(unsafe.Pointer(&request))); errno != 0 {
				return
			}
			var response [24]byte // struct seccomp_notif_resp: id, value, error, flags
			copy(response[:8], request[:8])
			binary.NativeEndian.PutUint32(response[16:], uint32(0xffffffff-uint32(unix.ENOMEDIUM)+1))
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fds[0]), 0xc0182101, uintptr(unsafe.Pointer(&response))); errno != 0 {
				return
			}
		}
	}()
	return states
}

// tree is a shared mount with another one below it.
func (b *ociBox) tree(t *testing.T) {
	t.Helper()
	for _, dir := range []string{b.dir + "/tree", b.dir + "/tree/sub"} {
		if err := errors.Join(os.Mkdir(dir, 0o777), unix.Mount("tmpfs", dir, "tmpfs", 0, ""), unix.Mount("", dir, "", unix.MS_SHARED, "")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
}

const copyUpScript = "cd /up; stat -c '%n %a %u %g %F' . sub/file link fifo; cat sub/file; readlink link; echo more > new; stat -f -c %T .; stat -c %a /fresh"

const copyUpWant = `. 750 0 0 directory
sub/file 4755 7 8 regular file
link 777 0 0 symbolic link
fifo 600 0 0 fifo
content
/etc/../etc/x
tmpfs
1777`

// full is a directory of the image that is copied into a tmpfs.
func (b *ociBox) full(t *testing.T) {
	t.Helper()
	up := b.root + "/up"
	if err := errors.Join(os.MkdirAll(up+"/sub", 0o755), os.WriteFile(up+"/sub/file", []byte("content\n"), 0o644), os.Chown(up+"/sub/file", 7, 8),
		os.Chmod(up+"/sub/file", 0o755|fs.ModeSetuid), os.Symlink("/etc/../etc/x", up+"/link"), unix.Mkfifo(up+"/fifo", 0o600), os.Chmod(up, 0o750)); err != nil {
		t.Fatal(err)
	}
	if len(b.spec.Linux.UIDMappings) > 0 {
		base := int(b.spec.Linux.UIDMappings[0].HostID)
		if err := errors.Join(os.Chown(up, base, base), os.Chown(up+"/sub", base, base), os.Chown(up+"/sub/file", base+7, base+8), os.Chmod(up+"/sub/file", 0o755|fs.ModeSetuid)); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []string{"/up", "/fresh"} {
		b.mount(specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: at, Options: []string{"tmpcopyup", "size=1m", "ro", "rw"}})
	}
}

// A mount shows its owners by maps of its own, whatever the container's are.
func TestMountsWithMapsOfTheirOwn(t *testing.T) {
	need.Power(t, host.Root, host.Idmap)
	need.Clean(t)
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5000, Size: 100}}
	for _, tt := range []struct {
		name   string
		mapped bool
		mount  specs.Mount
		want   string
	}{
		{"in the host's user namespace", false, specs.Mount{UIDMappings: maps, GIDMappings: maps, Options: []string{"bind"}}, "5003 5004"},
		{"by the container's maps", true, specs.Mount{Options: []string{"bind", "idmap"}}, "3 4"},
		{"by the container's maps and all below", true, specs.Mount{Options: []string{"rbind", "ridmap"}}, "3 4"},
		{"not at all", true, specs.Mount{Options: []string{"bind"}}, "65534 65534"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, "stat -c '%u %g' /m/file")
			if tt.mapped {
				b.mapped()
			}
			if err := errors.Join(os.Mkdir(b.dir+"/data", 0o755), os.WriteFile(b.dir+"/data/file", nil, 0o644), os.Chown(b.dir+"/data/file", 3, 4)); err != nil {
				t.Fatal(err)
			}
			tt.mount.Type, tt.mount.Source, tt.mount.Destination = "bind", b.dir+"/data", "/m"
			b.mount(tt.mount)
			b.says(t, tt.want)
		})
	}
}

// What the kernel refuses is told with the field, and nothing is left behind.
func TestDocumentsThatCannotStart(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	for _, tt := range []struct {
		name, want string
		change     func(t *testing.T, b *ociBox)
	}{
		{"no such program", "no such file or directory", func(_ *testing.T, b *ociBox) { b.spec.Process.Args = []string{"nosuch"} }},
		{"no such source", "no such file or directory", func(_ *testing.T, b *ociBox) {
			b.mount(specs.Mount{Type: "bind", Source: "/no/such", Destination: "/m", Options: []string{"bind"}})
		}},
		{"no such file system", "no such device", func(_ *testing.T, b *ociBox) { b.mount(specs.Mount{Type: "nosuchfs", Destination: "/m"}) }},
		{"an option that tmpfs does not know", "invalid argument", func(_ *testing.T, b *ociBox) {
			b.mount(specs.Mount{Type: "tmpfs", Destination: "/m", Options: []string{"nosuch=1"}})
		}},
		{"/proc is a link", "too many levels of symbolic links", func(t *testing.T, b *ociBox) { // CVE-2019-19921
			if err := os.Symlink("/tmp", b.root+"/proc"); err != nil {
				t.Fatal(err)
			}
		}},
		{"/dev is a link", "too many levels of symbolic links", func(t *testing.T, b *ociBox) { // CVE-2026-41579
			if err := os.Symlink(b.dir, b.root+"/dev"); err != nil {
				t.Fatal(err)
			}
		}},
		{"a node that is not there", "set_mempolicy", func(_ *testing.T, b *ociBox) {
			b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "900"}
		}},
		{"a namespace of another kind", "join the network namespace: setns: invalid argument", func(_ *testing.T, b *ociBox) {
			b.without(specs.NetworkNamespace).spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/self/ns/uts"})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, "true")
			tt.change(t, b)
			b.refuses(t, tt.want)
		})
	}
}

// Hooks find the host, the container's mounts below the root's path, and the
// namespaces that are theirs; what they mount there the container has.
func TestHooksBeforeThePivot(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	for _, mapped := range []bool{false, true} {
		t.Run(fmt.Sprintf("mapped %v", mapped), func(t *testing.T) {
			b := newBox(t, "cat /seen /mnt/file; hostname; readlink /proc/1/ns/mnt; grep -c "+"/usr"+" /proc/self/mounts || true")
			if mapped {
				b.mapped()
			}
			if err := errors.Join(os.Mkdir(b.root+"/mnt", 0o755), os.Chmod(b.root, 0o777)); err != nil {
				t.Fatal(err)
			}
			sh := func(script string) specs.Hook {
				return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-ec", script}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "ROOT=" + b.root}}
			}
			b.spec.Hooks = &specs.Hooks{
				//lint:ignore SA1019 Docker has its networks made by these
				Prestart:        []specs.Hook{sh(`test "$(pwd)" = "${ROOT%/rootfs}"; echo prestart > $ROOT/seen; chmod 666 $ROOT/seen; hostname >> $ROOT/seen`)},
				CreateRuntime:   []specs.Hook{sh(`pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); test -e /proc/$pid/root$ROOT/proc/version; test ! -e $ROOT/proc/version; echo createRuntime >> $ROOT/seen`)},
				CreateContainer: []specs.Hook{sh(`test "$(pwd)" = "$ROOT"; test -e $ROOT/proc/self; echo createContainer $(hostname) >> $ROOT/seen; mount -t tmpfs hook $ROOT/mnt; echo mounted > $ROOT/mnt/file`)},
			}
			name, _ := os.Hostname()
			b.says(t, `prestart\n`+name+`\ncreateRuntime\ncreateContainer `+name+`\nmounted\nrunc\nmnt:\[\d+\]\n0`)
			if _, err := os.Stat(b.root + "/mnt/file"); err == nil {
				t.Error("the host has what the hook mounted for the container")
			}
		})
	}
}

// A hook that fails ends the start, and later ones are not run.
func TestHookThatFailsEndsTheStart(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	for _, kind := range []string{hook.Prestart, hook.CreateRuntime, hook.CreateContainer} {
		t.Run(kind, func(t *testing.T) {
			b := newBox(t, "true")
			fail := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo no >&2; exit 3"}}}
			b.spec.Hooks = map[string]*specs.Hooks{hook.Prestart: {Prestart: fail}, hook.CreateRuntime: {CreateRuntime: fail}, hook.CreateContainer: {CreateContainer: fail}}[kind]
			b.refuses(t, "error running "+kind+" hook #0: exit status 3, stdout: , stderr: no\n")
		})
	}
}

// An ordinary user's document, as "runc spec --rootless" writes it.
func TestRootlessDocument(t *testing.T) {
	if os.Getenv("KISTE_ROOTLESS") != "" {
		rootless(t)
		return
	}
	need.Power(t, host.Root, host.Userns)
	need.Program(t, "setpriv")
	need.Clean(t)
	s := newStorage(t)
	if err := errors.Join(os.Rename(busybox(t), s.dir+"/rootfs"), os.Chmod(s.dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(s.dir, "process.test")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("cp", exe, self).Run(); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("cp", "-r", "../plan/testdata", s.dir+"/testdata").Run(); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("chown", "-R", "1000:1000", s.dir+"/rootfs").Run(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", self, "-test.run", "^TestRootlessDocument$", "-test.v")
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "KISTE_ROOTLESS="+s.dir, "KISTE_BUILT="+kiste, "KISTE_REQUIRE=")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func rootless(t *testing.T) {
	t.Helper()
	dir := os.Getenv("KISTE_ROOTLESS")
	text, err := os.ReadFile(dir + "/testdata/runc_spec_rootless.json")
	if err != nil {
		t.Fatal(err)
	}
	b := &ociBox{spec: new(specs.Spec), dir: dir, root: dir + "/rootfs"}
	if err := json.Unmarshal(text, b.spec); err != nil {
		t.Fatal(err)
	}
	b.spec.Process.Terminal = false
	b.spec.Root.Readonly = false
	b.spec.Process.Args = []string{"/bin/sh", "-c", "id -u; hostname; touch /new && ls -ln /new | tr -s ' ' | cut -d' ' -f3; ls /sys/fs/cgroup | head -1; touch /sys/fs/cgroup/x 2>/dev/null || echo fixed; cat /bind/f; cat /proc/keys | wc -c; cat /tmp/hooked"}
	if err := errors.Join(os.Mkdir(dir+"/data", 0o755), os.WriteFile(dir+"/data/f", []byte("F\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	b.mount(specs.Mount{Type: "bind", Source: dir + "/data", Destination: "/bind", Options: []string{"rbind", "ro", "rprivate"}})
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-ec", `readlink /proc/$(sed 's/.*"pid":\([0-9]*\).*/\1/')/ns/mnt`}}},
		CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-ec", "test -e proc/self; test $(id -u) = 0; echo hooked > tmp/hooked"}}}}
	layout, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	b.o, b.f = plan.Options{Bundle: dir, NoLandlock: true, Keyring: "_ses.box"}, process.Facts(layout)
	if b.f.Host {
		t.Fatal("an ordinary user has the host's powers")
	}
	b.says(t, `0\nrunc\n0\n([^\n]*\n)?fixed\nF\n0\nhooked`)
}

// The hierarchies of version 1 lie on the host's own directory where the container
// cannot write to it, and has nothing else there.
func TestShelf(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	l, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	if l.Shelf == "" {
		t.Skip("NEEDS cgroups of version 1, mounted as systemd does")
	}
	steps, err := cgroup.Compile(l, "/kiste-shelf", cgroup.Limits{}, cgroup.Options{Account: true})
	if err != nil {
		t.Fatal(err)
	}
	const script = "; stat -c %d .; cat pids/pids.current; mkdir x 2>&1 || true; cat in/f 2>/dev/null; true"
	device, _, err := sys.InodeOf(l.Shelf)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		hosts  bool
		want   string
		change func(t *testing.T, b *ociBox, m *specs.Mount)
	}{
		{"usual", true, "\n2\n.*Read-only file system", nil},
		{"of slaves", true, "\n2\n.*Read-only file system", func(_ *testing.T, b *ociBox, _ *specs.Mount) { b.spec.Linux.RootfsPropagation = "rslave" }},
		{"elsewhere", true, "\n2\n.*Read-only file system", func(_ *testing.T, _ *ociBox, m *specs.Mount) { m.Destination = "/groups" }},
		{"in a cgroup namespace", true, "\n2\n.*Read-only file system", func(_ *testing.T, b *ociBox, _ *specs.Mount) {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		}},
		{"shared", false, "\n2\n.*Read-only file system", func(_ *testing.T, _ *ociBox, m *specs.Mount) { m.Options = append(m.Options, "rshared") }},
		{"writable", false, "\n2", func(_ *testing.T, _ *ociBox, m *specs.Mount) { m.Options = []string{"nosuid"} }},
		{"with something else", false, "\n2\n.*Read-only file system\nA", func(t *testing.T, b *ociBox, _ *specs.Mount) {
			if err := os.WriteFile(b.dir+"/f", []byte("A\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			b.mount(specs.Mount{Type: "bind", Source: b.dir, Destination: "/sys/fs/cgroup/in", Options: []string{"bind"}})
		}},
		{"with a device", false, "\n2\n.*Read-only file system", func(_ *testing.T, b *ociBox, _ *specs.Mount) {
			b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/sys/fs/cgroup/null", Type: "c", Major: 1, Minor: 3}}
		}},
		{"mapped", false, "\n2\n.*Read-only file system", func(_ *testing.T, b *ociBox, _ *specs.Mount) { b.mapped() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, "")
			b.f.Cgroup, b.f.Groups = l, steps
			m := &b.spec.Mounts[slices.IndexFunc(b.spec.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })]
			if tt.change != nil {
				tt.change(t, b, m)
			}
			b.spec.Process.Args[2] = "cd " + m.Destination + script
			out, err := b.run(t)
			if err != nil {
				t.Fatal(err)
			}
			first, rest, _ := strings.Cut(out, "\n")
			if hosts := first == strconv.FormatUint(device, 10); hosts != tt.hosts {
				t.Errorf("%q: the host's: %v", out, hosts)
			}
			if !regexp.MustCompile("^(?s:" + tt.want + ")$").MatchString("\n" + rest) {
				t.Errorf("it wrote %q; want %q", rest, tt.want)
			}
			if os.Remove(l.Shelf+"/x") == nil {
				t.Error("the host has what the container made")
			}
		})
	}
}
