package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiste/fault"
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
