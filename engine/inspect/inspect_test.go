package inspect_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/engine/inspect"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, v any) {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "    ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("differs from %s (go test -update rewrites it):\n%s", path, b.Bytes())
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func example() *inspect.Container {
	image := bundle.ImageConfig{
		Architecture: "amd64", OS: "linux", Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, Env: []string{"PATH=/bin", "LANG=C"},
		Volumes: map[string]struct{}{"/data": {}}, Labels: map[string]string{"maintainer": "ann"}, StopSignal: "SIGQUIT",
		ExposedPorts: map[string]struct{}{"80/tcp": {}},
	}
	wishes := bundle.Wishes{
		Name: "web", Interactive: true, TTY: true, Args: []string{"-v"}, Env: []string{"LANG=de"}, Init: true, User: "www",
		Mounts: []bundle.Mount{
			must(bundle.ParseVolume("./src:/src:ro,rslave", "/home/ann")), must(bundle.ParseVolume("db:/db", "/")),
			must(bundle.ParseMount("type=tmpfs,dst=/t", "/")), must(bundle.ParseTmpfs("/run:size=1m")),
		},
		CapAdd: []string{"NET_ADMIN"}, Security: bundle.Security{NoNewPrivileges: true},
		Rlimits: []specs.POSIXRlimit{must(bundle.ParseUlimit("core=0:-1"))},
		Limits:  bundle.Limits{Memory: 64 << 20, Pids: 32, NanoCPUs: 5e8},
		Devices: []bundle.Device{must(bundle.ParseDevice("/dev/fuse:rw"))}, DeviceRule: []specs.LinuxDeviceCgroup{must(bundle.ParseDeviceRule("c 13:* rwm"))},
	}
	host := bundle.Facts{
		ID: strings.Repeat("0123456789abcdef", 4), Root: true, UserNS: true, Init: "/usr/libexec/kiste-init",
		UIDs: []specs.LinuxIDMapping{{HostID: 1 << 20, Size: 65536}},
		GIDs: []specs.LinuxIDMapping{{HostID: 1 << 20, Size: 65536}},
		Device: func(p string) ([]specs.LinuxDevice, error) {
			return []specs.LinuxDevice{{Path: p, Type: "c", Major: 10, Minor: 229}}, nil
		},
	}
	return &inspect.Container{
		ID: host.ID, Name: "web", Created: time.Date(2026, 11, 24, 10, 0, 0, 123456789, time.UTC), ImageID: "sha256:" + host.ID, ImageName: "debian:12", Driver: "overlay",
		Image: image, Wishes: wishes, Result: must(bundle.Compile(image, wishes, host)),
		State:       inspect.State{Status: "running", PID: 4711, StartedAt: time.Date(2026, 11, 24, 10, 0, 1, 0, time.UTC)},
		Sources:     map[string]string{"/db": "/lib/volumes/db/data", "/data": "/lib/volumes/0f/data"},
		VolumeNames: map[string]string{"/db": "db", "/data": "0f"},
		NetworkPath: "/proc/4711/ns/net",
		FilePaths:   map[string]string{"/etc/hosts": "/run/c/hosts", "/etc/hostname": "/run/c/hostname", "/etc/resolv.conf": "/run/c/resolv.conf"},
	}
}

func TestContainerGolden(t *testing.T) { golden(t, "container.json", example().JSON()) }

func TestImageGolden(t *testing.T) {
	i := inspect.Image{ID: "sha256:00", Tags: []string{"debian:12"}, Layers: []string{"sha256:11"}, Created: time.Unix(0, 0), Driver: "overlay", Size: 5,
		Config: example().Image}
	golden(t, "image.json", i.JSON())
}

// The keys that clients of Docker's API 1.56 read are there, and are never null
// where Docker's are not.
func TestContainerHasDockersKeys(t *testing.T) {
	var got map[string]any
	if err := json.Unmarshal(must(json.Marshal(example().JSON())), &got); err != nil {
		t.Fatal(err)
	}
	for part, keys := range map[string]string{
		"":       "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig Mounts Config NetworkSettings",
		"State":  "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt",
		"Config": "Hostname Domainname User AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce Env Cmd Image Volumes WorkingDir Entrypoint Labels",
		"HostConfig": "Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver VolumesFrom ConsoleSize CapAdd CapDrop " +
			"CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt " +
			"UTSMode UsernsMode ShmSize Runtime Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps " +
			"BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices DeviceCgroupRules " +
			"DeviceRequests MemoryReservation MemorySwap MemorySwappiness OomKillDisable PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth MaskedPaths ReadonlyPaths",
		"NetworkSettings": "SandboxID SandboxKey Ports Networks",
	} {
		object := got
		if part != "" {
			object = got[part].(map[string]any)
		}
		for key := range strings.FieldsSeq(keys) {
			if _, ok := object[key]; !ok {
				t.Errorf("%s has no %s", part, key)
			}
		}
	}
	for _, key := range []string{"Args", "Mounts"} {
		if got[key] == nil {
			t.Errorf("%s is null", key)
		}
	}
}

// Wishes that were written to a file and read again say the same.
func TestWishesSurviveJSON(t *testing.T) {
	c := example()
	before := must(json.Marshal(c.JSON()))
	var again bundle.Wishes
	if err := json.Unmarshal(must(json.Marshal(c.Wishes)), &again); err != nil {
		t.Fatal(err)
	}
	c.Wishes = again
	if after := must(json.Marshal(c.JSON())); !slices.Equal(before, after) {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestHostname(t *testing.T) {
	host := bundle.Namespace{Kind: bundle.HostNS}
	id := strings.Repeat("0123456789abcdef", 4)
	for _, tt := range []struct {
		name   string
		wishes bundle.Wishes
		want   string
	}{
		{"its own", bundle.Wishes{}, "0123456789ab"},
		{"given", bundle.Wishes{Hostname: "box"}, "box"},
		{"the host's namespace", bundle.Wishes{UTS: host}, "0123456789ab"},
		{"the host's namespace and network", bundle.Wishes{UTS: host, Network: host}, "big"},
		{"the host's network", bundle.Wishes{Network: host}, "big"},
	} {
		r := must(bundle.Compile(bundle.ImageConfig{Cmd: []string{"sh"}}, tt.wishes, bundle.Facts{ID: id, Root: true, HostName: "big"}))
		c := &inspect.Container{ID: id, Wishes: tt.wishes, Result: r}
		if got := c.JSON().Config.Hostname; got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
