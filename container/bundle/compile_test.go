package bundle_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/fault"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (go test -update rewrites it):\n%s", path, got)
	}
}

func image() bundle.ImageConfig {
	return bundle.ImageConfig{
		Architecture: "amd64", OS: "linux",
		Entrypoint: []string{"/entry"}, Cmd: []string{"serve"},
		Env:  []string{"PATH=/app:/bin", "LANG=C"},
		User: "www", WorkingDir: "/srv", StopSignal: "SIGQUIT",
		Volumes: map[string]struct{}{"/data": {}},
		Labels:  map[string]string{"maintainer": "ann"},
	}
}

func root() bundle.Facts {
	return bundle.Facts{
		ID: strings.Repeat("0123456789abcdef", 4), Root: true, UserNS: true, IDMapped: true, CPUs: 4,
		UIDs:       []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1 << 20, Size: 65536}},
		GIDs:       []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1 << 20, Size: 65536}},
		Thermal:    []string{"/sys/devices/system/cpu/cpu0/thermal_throttle"},
		ResolvConf: []byte("nameserver 10.0.0.53\nsearch example.org\n"),
		Hosts:      []byte("127.0.0.1 localhost here"),
		HostName:   "here",
		Init:       "/usr/libexec/kiste-init",
		Devices:    []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11}},
		Device: func(path string) ([]specs.LinuxDevice, error) {
			switch path {
			case "/dev/snd":
				return []specs.LinuxDevice{{Path: "/dev/snd/seq", Type: "c", Major: 116, Minor: 1}, {Path: "/dev/snd/timer", Type: "c", Major: 116, Minor: 33}}, nil
			case "/dev/sda":
				return []specs.LinuxDevice{{Path: path, Type: "b", Major: 8}}, nil
			}
			return nil, &fault.Error{Op: "look up", On: path, Kind: fault.NotFound}
		},
	}
}

func user() bundle.Facts {
	f := root()
	f.Root, f.IDMapped, f.UID, f.GID = false, false, 1000, 1000
	f.UIDs = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 65536}}
	f.GIDs = f.UIDs
	return f
}

// must is what a parser gives for a text that is right.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func ptr[T any](v T) *T { return &v }

// cases are command lines that people type.
func cases() []struct {
	name   string
	image  bundle.ImageConfig
	wishes bundle.Wishes
	host   bundle.Facts
} {
	mount := func(s string) bundle.Mount { return must(bundle.ParseMount(s, "/home/ann")) }
	volume := func(s string) bundle.Mount { return must(bundle.ParseVolume(s, "/home/ann")) }
	tmpfs := func(s string) bundle.Mount { return must(bundle.ParseTmpfs(s)) }
	plain := bundle.ImageConfig{Cmd: []string{"sh"}}
	host, container := bundle.Namespace{Kind: bundle.HostNS}, func(n string) bundle.Namespace { return bundle.Namespace{Kind: bundle.Container, Of: n} }
	noUsers, queues := root(), root()
	queues.MessageQueue = true
	noUsers.UserNS = false
	return []struct {
		name   string
		image  bundle.ImageConfig
		wishes bundle.Wishes
		host   bundle.Facts
	}{
		{"plain", plain, bundle.Wishes{}, root()},
		{"terminal", plain, bundle.Wishes{Interactive: true, TTY: true, Args: []string{"bash", "-l"}, Hostname: "box", Domainname: "example.org", Workdir: "/root", User: "0:0", Env: []string{"A=b"}}, root()},
		{"image", image(), bundle.Wishes{}, root()},
		{"system", bundle.ImageConfig{Cmd: []string{"/sbin/init"}}, bundle.Wishes{}, root()},
		{"image_overridden", image(), bundle.Wishes{Entrypoint: []string{"/other"}, Args: []string{"-x"}, Env: []string{"LANG", "PATH=/bin"}, Init: true,
			Mounts: []bundle.Mount{volume("/srv/data:/data:ro")}, StopSignal: "SIGINT", StopTimeout: ptr(-1), Labels: map[string]string{"maintainer": "ben", "x": "y"}}, root()},
		{"mounts", plain, bundle.Wishes{ReadOnly: true, ShmSize: 1 << 20, Mounts: []bundle.Mount{
			volume("/a/b:/deep/er/b:rshared"), volume("vol:/v"), volume("/anon"), mount("type=bind,src=/c,dst=/c,ro,bind-recursive=writable"),
			mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770"), tmpfs("/run:exec,size=64k"), mount("type=image,src=debian,dst=/i,image-subpath=usr"),
			volume("/hosts:/etc/hosts"), volume("/d:/d:noidmap"),
		}}, root()},
		{"limits", plain, bundle.Wishes{Limits: bundle.Limits{Memory: 64 << 20, MemoryReservation: 32 << 20, NanoCPUs: 1500000000, CPUShares: 512, CpusetCPUs: "0-1", Pids: 32,
			BlkioWeight: 100, ReadBps: []bundle.Throttle{{Path: "/dev/sda", Rate: 1 << 20}}}, Rlimits: []specs.POSIXRlimit{must(bundle.ParseUlimit("nofile=64:128"))},
			OOMScoreAdj: ptr(500), CgroupParent: "/mine"}, root()},
		{"privileged", plain, bundle.Wishes{Privileged: true}, root()},
		{"privileged_user", plain, bundle.Wishes{Privileged: true}, user()},
		{"host_everything", plain, bundle.Wishes{Network: host, PID: host, IPC: host, UTS: host, CgroupNS: host}, queues},
		{"host_userns_network", plain, bundle.Wishes{Network: host, UserNS: host}, root()},
		{"join", plain, bundle.Wishes{Network: container("web"), PID: container("web"), IPC: container("web")}, root()},
		{"ordinary_user", plain, bundle.Wishes{Mounts: []bundle.Mount{volume(".:/src")}, UserNS: bundle.Namespace{Kind: bundle.KeepID}}, user()},
		{"privileges", plain, bundle.Wishes{CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"MKNOD"},
			Security: bundle.Security{NoNewPrivileges: true, Seccomp: "/profile.json", SystemPaths: true, Label: []string{"type:x"}},
			Devices:  []bundle.Device{must(bundle.ParseDevice("/dev/snd:/dev/sound:rw"))}, DeviceRule: []specs.LinuxDeviceCgroup{must(bundle.ParseDeviceRule("c 13:* rwm"))},
			Sysctl: map[string]string{"net.ipv4.ip_forward": "1"}}, root()},
		{"names", plain, bundle.Wishes{DNS: []string{"1.1.1.1"}, DNSSearch: []string{"a.example", "b.example"}, DNSOptions: []string{"ndots:2"},
			Hosts: []bundle.Host{{Name: "db", IP: "10.0.0.1"}, {Name: "gw", IP: "host-gateway"}}}, root()},
		{"no_user_namespaces", plain, bundle.Wishes{}, noUsers},
	}
}

func TestCompileGolden(t *testing.T) {
	for _, tt := range cases() {
		t.Run(tt.name, func(t *testing.T) {
			r, err := bundle.Compile(tt.image, tt.wishes, tt.host)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetIndent("", "\t")
			e.SetEscapeHTML(false)
			if err := e.Encode(r); err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name+".json", b.Bytes())
		})
	}
}

// The caller's values stay as they were, and the same again gives the same.
func TestCompileIsPure(t *testing.T) {
	for _, tt := range cases() {
		first, err := bundle.Compile(tt.image, tt.wishes, tt.host)
		if err != nil {
			t.Fatal(err)
		}
		second, err := bundle.Compile(tt.image, tt.wishes, tt.host)
		if err != nil {
			t.Fatal(err)
		}
		a, b := must(json.Marshal(first)), must(json.Marshal(second))
		if !bytes.Equal(a, b) {
			t.Errorf("%s: two runs differ", tt.name)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	plain := bundle.ImageConfig{Cmd: []string{"sh"}}
	host := bundle.Namespace{Kind: bundle.HostNS}
	volume := func(s string) bundle.Mount { return must(bundle.ParseVolume(s, "/")) }
	few := root()
	few.Capabilities = []string{"CAP_CHOWN"}
	for _, tt := range []struct {
		name   string
		image  bundle.ImageConfig
		wishes bundle.Wishes
		host   bundle.Facts
		kind   fault.Kind
		want   string
	}{
		{"a system whose pid is not 1", plain, bundle.Wishes{Systemd: "always", PID: host}, root(), fault.Conflict, "not what --pid makes of it"},
		{"no command", bundle.ImageConfig{}, bundle.Wishes{}, root(), fault.Invalid, "no command specified"},
		{"an emptied entrypoint and no command", image(), bundle.Wishes{Entrypoint: []string{""}}, root(), fault.Invalid, "no command specified"},
		{"a relative workdir", plain, bundle.Wishes{Workdir: "a"}, root(), fault.Invalid, "the working directory 'a' is invalid, it needs to be an absolute path"},
		{"an image's bad workdir", bundle.ImageConfig{Cmd: []string{"sh"}, WorkingDir: "a"}, bundle.Wishes{}, root(), fault.Invalid, "it needs to be an absolute path"},
		{"an image's volume on /proc (CVE-2019-16884)", bundle.ImageConfig{Cmd: []string{"sh"}, Volumes: map[string]struct{}{"/proc": {}}}, bundle.Wishes{}, root(), fault.Invalid, "/proc"},
		{"an image's volume on /sys", bundle.ImageConfig{Cmd: []string{"sh"}, Volumes: map[string]struct{}{"/sys/fs": {}}}, bundle.Wishes{}, root(), fault.Invalid, "would hide the kernel's own"},
		{"an image's volume on /", bundle.ImageConfig{Cmd: []string{"sh"}, Volumes: map[string]struct{}{"../..": {}}}, bundle.Wishes{}, root(), fault.Invalid, "destination can't be '/'"},
		{"an image's bad variable", bundle.ImageConfig{Cmd: []string{"sh"}, Env: []string{"=x"}}, bundle.Wishes{}, root(), fault.Invalid, "invalid environment variable"},
		{"an image's bad stop signal", bundle.ImageConfig{Cmd: []string{"sh"}, StopSignal: "BOGUS"}, bundle.Wishes{}, root(), fault.Invalid, "invalid signal: BOGUS"},
		{"the same target twice", plain, bundle.Wishes{Mounts: []bundle.Mount{volume("/a:/x"), volume("/b:/x/")}}, root(), fault.Conflict, "Duplicate mount point: /x"},
		{"a host name with the host's", plain, bundle.Wishes{UTS: host, Hostname: "x"}, root(), fault.Conflict, "conflicting options: hostname and the UTS mode"},
		{"a host name in another's network", plain, bundle.Wishes{Network: bundle.Namespace{Kind: bundle.Container, Of: "web"}, Hostname: "x"}, root(), fault.Conflict, "conflicting options: hostname and the network mode"},
		{"a long host name", plain, bundle.Wishes{Hostname: strings.Repeat("x", 65)}, root(), fault.Invalid, "invalid hostname format"},
		{"a host name of two lines", plain, bundle.Wishes{Hostname: "x\n1.1.1.1 y"}, root(), fault.Invalid, "invalid hostname format"},
		{"the host's users for an ordinary one", plain, bundle.Wishes{UserNS: host}, user(), fault.Denied, "only root"},
		{"keep-id for root", plain, bundle.Wishes{UserNS: bundle.Namespace{Kind: bundle.KeepID}}, root(), fault.Conflict, "keep-id is for ordinary users"},
		{"swap below memory", plain, bundle.Wishes{Limits: bundle.Limits{Memory: 2, MemorySwap: 1}}, root(), fault.Invalid, "Minimum memoryswap limit should be larger than memory limit, see usage"},
		{"swap without memory", plain, bundle.Wishes{Limits: bundle.Limits{MemorySwap: 1}}, root(), fault.Invalid, "You should always set the Memory limit when using Memoryswap limit, see usage"},
		{"reservation above memory", plain, bundle.Wishes{Limits: bundle.Limits{Memory: 1, MemoryReservation: 2}}, root(), fault.Invalid, "memory reservation limit"},
		{"swappiness", plain, bundle.Wishes{Limits: bundle.Limits{MemorySwappiness: ptr(int64(101))}}, root(), fault.Invalid, "Valid memory swappiness range is 0-100"},
		{"more CPUs than there are", plain, bundle.Wishes{Limits: bundle.Limits{NanoCPUs: 5e9}}, root(), fault.Invalid, "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"},
		{"cpus and quota", plain, bundle.Wishes{Limits: bundle.Limits{NanoCPUs: 1e9, CPUQuota: 1000}}, root(), fault.Conflict, "Nano CPUs and CPU Quota cannot both be set"},
		{"a short period", plain, bundle.Wishes{Limits: bundle.Limits{CPUPeriod: 1}}, root(), fault.Invalid, "CPU cfs period can not be less than 1ms"},
		{"a weight", plain, bundle.Wishes{Limits: bundle.Limits{BlkioWeight: 1}}, root(), fault.Invalid, "Range of blkio weight is from 10 to 1000"},
		{"pids", plain, bundle.Wishes{Limits: bundle.Limits{Pids: -2}}, root(), fault.Invalid, "-1 for no limit"},
		{"a score", plain, bundle.Wishes{OOMScoreAdj: ptr(1001)}, root(), fault.Invalid, "range for oom score adj is [-1000, 1000]"},
		{"no such device", plain, bundle.Wishes{Devices: []bundle.Device{{Source: "/dev/none", Target: "/dev/none", Permissions: "r"}}}, root(), fault.NotFound, "error gathering device information"},
		{"a rate of what is no disk", plain, bundle.Wishes{Limits: bundle.Limits{ReadIOps: []bundle.Throttle{{Path: "/dev/snd", Rate: 1}}}}, root(), fault.Invalid, "not a block device"},
		{"a sysctl of the host's network", plain, bundle.Wishes{Network: host, Sysctl: map[string]string{"net.ipv4.ip_forward": "1"}}, root(), fault.Conflict, "not allowed in the host's network namespace"},
		{"a sysctl of nobody's", plain, bundle.Wishes{Sysctl: map[string]string{"vm.swappiness": "1"}}, root(), fault.Conflict, "not in a separate kernel namespace"},
		{"a capability that the caller lacks", plain, bundle.Wishes{CapAdd: []string{"SYS_RESOURCE"}, UserNS: host}, few, fault.Unsupported, "not available in the current environment"},
		{"an unknown capability", plain, bundle.Wishes{CapAdd: []string{"BOGUS"}}, root(), fault.Invalid, `unknown capability: "CAP_BOGUS"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := bundle.Compile(tt.image, tt.wishes, tt.host)
			if err == nil || !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v (%v); want %q of kind %v", err, fault.KindOf(err), tt.want, tt.kind)
			}
		})
	}
}

// Docker's rules for entrypoint and command.
func TestArgs(t *testing.T) {
	for _, tt := range []struct {
		name                                 string
		entry, cmd, userEntry, userCmd, want string
	}{
		{"both of the image", "e", "c", "", "", "e c"},
		{"the user's command", "e", "c", "", "u", "e u"},
		{"the user's entrypoint makes the image's command void", "e", "c", "x", "", "x"},
		{"both of the user", "e", "c", "x", "u", "x u"},
		{"no entrypoint", "e", "c", "-", "u", "u"},
		{"only the image's entrypoint", "e", "", "", "", "e"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := bundle.Wishes{Args: strings.Fields(tt.userCmd), Entrypoint: strings.Fields(tt.userEntry)}
			if tt.userEntry == "-" {
				w.Entrypoint = []string{""}
			}
			r, err := bundle.Compile(bundle.ImageConfig{Entrypoint: strings.Fields(tt.entry), Cmd: strings.Fields(tt.cmd)}, w, root())
			if err != nil || strings.Join(r.Spec.Process.Args, " ") != tt.want {
				t.Errorf("got %v; want %s", err, tt.want)
			}
		})
	}
}

// What stands in the spec says what it does: every volume, join and file is
// where its index says, and every id that the container's files need is there.
func TestIndexes(t *testing.T) {
	for _, tt := range cases() {
		r, err := bundle.Compile(tt.image, tt.wishes, tt.host)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range r.Volumes {
			if got := r.Spec.Mounts[v.Index]; got.Destination != v.Mount.Target || got.Type != v.Mount.Type {
				t.Errorf("%s: volume %+v is %+v", tt.name, v, got)
			}
		}
		for _, f := range r.Files {
			if got := r.Spec.Mounts[f.Index]; got.Destination != f.Path || got.Type != "file" {
				t.Errorf("%s: file %s is %+v", tt.name, f.Path, got)
			}
		}
		for _, j := range r.Joins {
			if got := r.Spec.Linux.Namespaces[j.Index]; got.Path != "" || j.Container == "" {
				t.Errorf("%s: join %+v is %+v", tt.name, j, got)
			}
		}
		open := slices.IndexFunc(r.Spec.Mounts, func(m specs.Mount) bool { return m.Source == "" && m.Type == "bind" })
		if open >= 0 {
			t.Errorf("%s: %+v has no source", tt.name, r.Spec.Mounts[open])
		}
	}
}

// Privileged without a user namespace is all that the caller has, and with one
// it is everything.
func TestPrivilegedHasWhatThereIs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		userNS string
		want   int
	}{{"the host's users", bundle.HostNS, 1}, {"its own users", bundle.Private, 41}} {
		t.Run(tt.name, func(t *testing.T) {
			few := root()
			few.Capabilities = []string{"CAP_CHOWN"}
			r, err := bundle.Compile(bundle.ImageConfig{Cmd: []string{"sh"}}, bundle.Wishes{Privileged: true, UserNS: bundle.Namespace{Kind: tt.userNS}}, few)
			if err != nil || len(r.Spec.Process.Capabilities.Bounding) != tt.want {
				t.Errorf("got %v; want %d capabilities", err, tt.want)
			}
		})
	}
}

// A host without /dev/mqueue has none to share.
func TestNoMessageQueueToShare(t *testing.T) {
	r, err := bundle.Compile(bundle.ImageConfig{Cmd: []string{"sh"}}, bundle.Wishes{IPC: bundle.Namespace{Kind: bundle.HostNS}}, root())
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(r.Spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/mqueue" }) {
		t.Error("/dev/mqueue is to be bound, and is not there")
	}
}

func BenchmarkCompile(b *testing.B) {
	img, host, w := image(), root(), bundle.Wishes{Remove: true, Args: []string{"true"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bundle.Compile(img, w, host); err != nil {
			b.Fatal(err)
		}
	}
}

// Docker's rules for memory and swap together.
func TestSwap(t *testing.T) {
	const mb = 1 << 20
	without := root()
	without.NoSwapLimit = true
	for _, tt := range []struct {
		name         string
		memory, swap int64
		host         bundle.Facts
		want         int64 // 0: none
		warned       bool
	}{
		{"memory alone", 64 * mb, 0, root(), 128 * mb, false},
		{"both", 64 * mb, 80 * mb, root(), 80 * mb, false},
		{"no limit of swap", 64 * mb, -1, root(), -1, false},
		{"neither", 0, 0, root(), 0, false},
		{"twice as much is too much", 1 << 62, 0, root(), 0, false},
		{"a host that does not count swap", 64 * mb, 0, without, 0, true},
		{"the same, and both", 64 * mb, 80 * mb, without, 0, true},
		{"the same, and no limit", 64 * mb, -1, without, -1, false},
		{"the same, and neither", 0, 0, without, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := bundle.Compile(bundle.ImageConfig{Cmd: []string{"x"}}, bundle.Wishes{Limits: bundle.Limits{Memory: tt.memory, MemorySwap: tt.swap}}, tt.host)
			if err != nil {
				t.Fatal(err)
			}
			var got int64
			if m := r.Spec.Linux.Resources.Memory; m != nil && m.Swap != nil {
				got = *m.Swap
			}
			warned := slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "Memory limited without swap") })
			if got != tt.want || warned != tt.warned {
				t.Errorf("got %d, warned %v; want %d, %v", got, warned, tt.want, tt.warned)
			}
		})
	}
}
