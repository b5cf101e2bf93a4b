package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kiste/fault"
	"kiste/host"
)

func TestDevices(t *testing.T) {
	null, err := host.Devices("/dev/null")
	if err != nil || len(null) != 1 || null[0].Type != "c" || null[0].Major != 1 || null[0].Minor != 3 || null[0].Path != "/dev/null" {
		t.Errorf("/dev/null is %+v, %v", null, err)
	}
	all, err := host.Devices("/dev")
	if err != nil || !slices.Contains(all, null[0]) {
		t.Errorf("/dev has %d devices without null, %v", len(all), err)
	}
	for _, d := range all {
		if filepath.Base(filepath.Dir(d.Path)) == "pts" || filepath.Base(d.Path) == "console" {
			t.Errorf("%+v is in the list", d)
		}
	}
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/dev/zero", link); err != nil {
		t.Fatal(err)
	}
	if got, err := host.Devices(link); err != nil || got[0].Minor != 5 || got[0].Path != link {
		t.Errorf("a link to /dev/zero is %+v, %v", got, err)
	}
	if _, err := host.Devices(dir); !errors.Is(err, fault.NotFound) {
		t.Errorf("a directory with a link only: %v; want not found", err)
	}
	if _, err := host.Devices("/etc/passwd"); !errors.Is(err, fault.Invalid) {
		t.Errorf("a file: %v; want it refused", err)
	}
	if _, err := host.Devices("/dev/nonexistent"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("nothing: %v; want not found", err)
	}
}
