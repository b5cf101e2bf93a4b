package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiste/store"
)

// volume makes one with a file, of an owner or nobody's.
func volume(t *testing.T, e *Engine, name, owner string) string {
	t.Helper()
	data := e.Store.Volume(name)
	if _, err := makeVolume(filepath.Dir(data), owner, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "file"), []byte(name), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(data)
}

func TestSweepTakesVolumesOfThoseWhoAreGone(t *testing.T) {
	e := open(t)
	here := put(t, e, "1", "here", "exited", false)
	unborn, gone := strings.Repeat("2", 64), strings.Repeat("3", 64)
	if err := os.Mkdir(e.Store.Container(unborn), 0o700); err != nil {
		t.Fatal(err)
	}
	stays := []string{volume(t, e, "named", ""), volume(t, e, "mine", here)}
	volume(t, e, "begun", unborn)
	volume(t, e, "left", gone)
	busy := volume(t, e, "busy", "")
	held, err := store.LockDir(busy, true)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Unlock()
	all := filepath.Dir(busy)
	for _, dir := range []string{all + "/.tmp-1/_data", all + "/.gone-x/_data", all + "/named/filling/f", all + "/mine/filled/f", busy + "/filling"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s, err := e.Sweep()
	if err != nil || len(s.Volumes) != 1 || s.Volumes[0] != "left" || len(s.Containers) != 1 {
		t.Errorf("Sweep: %+v, %v; want the volume left, and a container with its own", s, err)
	}
	names, _ := os.ReadDir(all)
	var left []string
	for _, d := range names {
		left = append(left, d.Name())
	}
	if got := strings.Join(left, " "); got != "busy mine named" {
		t.Errorf("left: %s", got)
	}
	for _, dir := range stays {
		if _, err := os.Stat(dir + "/_data/file"); err != nil {
			t.Error(err)
		}
	}
	for path, want := range map[string]bool{"named/filling": false, "mine/filled/f": true, "busy/filling": true} {
		if _, err := os.Stat(filepath.Join(all, path)); (err == nil) != want {
			t.Errorf("%s is there: %v; want %v", path, err == nil, want)
		}
	}
}

// Whose volume it is tells whether it is removed with a container.
func TestVolumesAreRemovedWithTheirContainerAlone(t *testing.T) {
	e := open(t)
	one, two := strings.Repeat("1", 64), strings.Repeat("2", 64)
	for _, tt := range []struct {
		name  string
		owner string
		do    func(name, id string) error
		there bool
		mark  string
	}{
		{"removed", one, e.removeVolume, false, ""},
		{"kept", one, e.keepVolume, true, ""},
		{"another's", two, e.removeVolume, true, two},
		{"another's, kept", two, e.keepVolume, true, two},
		{"nobody's", "", e.removeVolume, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := volume(t, e, strings.ReplaceAll(tt.name, "'", ""), tt.owner)
			if err := tt.do(filepath.Base(home), one); err != nil {
				t.Fatal(err)
			}
			_, err := os.Stat(home + "/_data/file")
			mark, _ := os.Readlink(filepath.Join(home, volumeOwner))
			if (err == nil) != tt.there || mark != tt.mark {
				t.Errorf("there: %v, mark %q; want %v, %q", err == nil, mark, tt.there, tt.mark)
			}
		})
	}
}

// A copy that is whole and was not moved to its end is moved by the next, over
// nothing that is there by now.
func TestAFilledVolumeIsFinished(t *testing.T) {
	e := open(t)
	home := volume(t, e, "v", "")
	filled := filepath.Join(home, volumeFilled)
	for _, step := range []error{os.MkdirAll(filled+"/dir", 0o700), os.WriteFile(filled+"/file", []byte("image"), 0o600), os.WriteFile(filled+"/dir/f", []byte("image"), 0o600)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	if err := (filling{home: home}).once(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"file": "v", "dir/f": "image"} {
		if b, err := os.ReadFile(filepath.Join(home, "_data", name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", name, b, err, want)
		}
	}
	if _, err := os.Stat(filled); err == nil {
		t.Error("it is still there")
	}
}
