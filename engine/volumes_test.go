package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/chroot"
	"kiste/kernel/network"
	"kiste/store"
)

func TestVolumeOptions(t *testing.T) {
	for _, tt := range []struct {
		options string
		want    string // what the error says; empty: taken
	}{
		{"", ""},
		{"type=tmpfs device=tmpfs", ""},
		{"type=nfs device=:/x o=addr=1.2.3.4,rw", ""},
		{"size=10G", ""},
		{"bogus=1", `invalid option: "bogus"`},
		{"type=tmpfs", `missing required option: "device"`},
		{"device=/x", `missing required option: "type"`},
		{"o=bind", `missing required option: "device"`},
		{"size=ten", "invalid size: 'ten'"},
		{"size=-1", "invalid size"},
		{"size=9999999999P", "invalid size"},
	} {
		o := map[string]string{}
		for _, w := range strings.Fields(tt.options) {
			k, v, _ := strings.Cut(w, "=")
			o[k] = v
		}
		err := checkVolumeOptions(o)
		if (tt.want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), tt.want) || fault.KindOf(err) != fault.Invalid) {
			t.Errorf("%q: got %v; want %q", tt.options, err, tt.want)
		}
	}
	for in, want := range map[string]int64{"1": 1, "1b": 1, "2k": 2048, "3MB": 3 << 20, "4GiB": 4 << 30, "1t": 1 << 40} {
		if got, _, err := volumeSize(map[string]string{"size": in}); got != want || err != nil {
			t.Errorf("size %s: got %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestVolumeNames(t *testing.T) {
	for name, ok := range map[string]bool{"ab": true, "a.b_c-d": true, "": true, "a": false, ".ab": false, "a/b": false, "..": false, "a b": false, "ä1": false, strings.Repeat("a", 201): false} {
		if err := checkVolumeName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A tree deeper than descriptors are held open is removed, and links in it lead
// nowhere.
func TestAddressOfAServer(t *testing.T) {
	asked := ""
	addressOf := func(name string) (network.Addr, error) {
		asked = name
		if name == "gone" {
			return network.Addr{}, fault.NotFound
		}
		return network.ParseAddr("192.0.2.7")
	}
	for _, tt := range []struct{ kind, options, asked, want string }{
		{"nfs", "addr=files.example,rw,vers=4", "files.example", "addr=192.0.2.7,rw,vers=4"},
		{"nfs4", "ro,addr=files.example", "files.example", "ro,addr=192.0.2.7"},
		{"cifs", "addr=files,username=ann", "files", "addr=192.0.2.7,username=ann"},
		{"nfs", "addr=192.0.2.1,rw", "", "addr=192.0.2.1,rw"},
		{"nfs", "addr=2001:db8::1", "", "addr=2001:db8::1"},
		{"nfs", "clientaddr=here", "", "clientaddr=here"},
		{"tmpfs", "addr=files", "", "addr=files"},
		{"nfs", "addr=gone", "gone", ""},
	} {
		m := chroot.Mount{Type: tt.kind, Options: strings.Split(tt.options, ",")}
		asked = ""
		err := addressed(m, addressOf)
		if got := strings.Join(m.Options, ","); asked != tt.asked || (err == nil) != (tt.want != "") || err == nil && got != tt.want {
			t.Errorf("%s with %s asks for %q and is mounted with %s, %v", tt.kind, tt.options, asked, got, err)
		}
	}
}

func TestRemoveHere(t *testing.T) {
	top := t.TempDir()
	outside := filepath.Join(top, "outside")
	if err := os.MkdirAll(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(top, "tree")
	deep := tree
	for range 3*deepest + 10 {
		deep += "/d"
	}
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{tree + "/l", deep + "/l"} {
		if err := os.Symlink(outside, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeHere(tree); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(top + "/*"); len(names) != 1 || names[0] != outside {
		t.Errorf("%v is left", names)
	}
	if err := removeHere(tree); err != nil {
		t.Errorf("what is gone: %v", err)
	}
}

// A volume with a size takes no more, where the file system has project quotas.
func TestVolumeLimit(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "mkfs.ext4", "setpriv")
	top := t.TempDir()
	image, lib := filepath.Join(top, "image"), filepath.Join(top, "lib")
	out, err := exec.Command("sh", "-ec", "truncate -s 64M "+image+"; mkfs.ext4 -q -O quota,project -E quotatype=prjquota "+image+"; mkdir "+lib+"; mount -o loop,prjquota "+image+" "+lib).CombinedOutput()
	if err != nil {
		t.Skipf("NEEDS project quotas of ext4, and loop devices: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", lib).CombinedOutput(); err != nil {
			t.Errorf("left a mount behind: %v: %s", err, out)
		}
	})
	e := &Engine{Store: store.Store{Lib: lib, Run: filepath.Join(top, "run")}}
	if err := e.Store.Open(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if _, err := e.CreateVolume(VolumeOptions{Name: name, Options: map[string]string{"size": "4m"}}); err != nil {
			t.Fatal(err)
		}
	}
	// Root of a container has not the capability by which the host's passes over
	// limits.
	fill := func(file string) error {
		return exec.Command("setpriv", "--bounding-set=-sys_resource", "dd", "if=/dev/zero", "of="+file, "bs=1M", "count=3").Run()
	}
	if err := fill(e.Store.Volume("one") + "/f"); err != nil {
		t.Error(err)
	}
	if err := fill(e.Store.Volume("two") + "/f"); err != nil {
		t.Errorf("they share a limit: %v", err)
	}
	if err := fill(e.Store.Volume("one") + "/g"); err == nil {
		t.Error("6 MiB are in 4")
	}
	if err := e.RemoveVolume("one"); err != nil {
		t.Error(err)
	}
}
