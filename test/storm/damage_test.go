package storm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// damages are what may be found in the place of a document.
var damages = []struct {
	name string
	do   func(was string) string
	says string
}{
	{"cut short", func(was string) string { return was[:len(was)/2] }, "damaged"},
	{"empty", func(string) string { return "" }, "damaged"},
	{"garbage", func(string) string { return "\x00\xff{]" + strings.Repeat("\x7f", 5000) }, "damaged"},
	{"another document", func(string) string { return `{"schema":1,"name":"other"}` }, "damaged"},
	{"of a newer kiste", func(was string) string { return strings.Replace(was, `"schema":1`, `"schema":1000`, 1) }, "schema 1000"},
	{"too large", func(was string) string { return was + strings.Repeat(" ", 17<<20) }, "damaged"},
}

// Whatever is wrong with a container's document, and whatever it does: each
// command says which container it is, all others are as before, and rm -f takes
// it away, with its process.
func TestDamagedDocument(t *testing.T) {
	f := newField(t)
	image := "rootfs:" + f.root
	f.must("run", "-d", "--name", "whole", image, "sleep", "600")
	for _, d := range damages {
		for _, state := range []string{"created", "running", "paused", "exited", "orphaned"} {
			t.Run(d.name+", "+state, func(t *testing.T) {
				f.t = t
				id := f.in(state, "bad")
				document := filepath.Join(f.dir, "lib/containers", id, "config.json")
				was, err := os.ReadFile(document)
				if err == nil {
					err = os.WriteFile(document, []byte(d.do(string(was))), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				f.tellsOf(id, d.says)
				f.must("rm", "-fv", "bad")
				f.nothingOf(id)
			})
		}
	}
	f.t = t
	if out := f.must("ps", "--format", "{{.Names}}"); strings.TrimSpace(out) != "whole" {
		t.Errorf("ps: %q", out)
	}
}

// in makes a container that is in a state, and gives its id.
func (f *field) in(state, name string) string {
	f.t.Helper()
	args := []string{"run", "-d", "--name", name, "-v", "/data", "rootfs:" + f.root, "sh", "-c", "echo said; exec sleep 600"}
	if state == "created" {
		args = append([]string{"create"}, args[2:]...)
	}
	id := strings.TrimSpace(f.must(args...))
	switch state {
	case "paused":
		f.must("pause", name)
	case "exited":
		f.must("kill", name)
	case "orphaned":
		f.killMonitor()
	}
	return id
}

// tellsOf wants every command to name the container whose document is damaged,
// and to do the rest.
func (f *field) tellsOf(id, why string) {
	f.t.Helper()
	named := regexp.MustCompile(`"(` + id + `|` + id[:12] + `|bad)"`)
	for _, args := range [][]string{{"start", "bad"}, {"stop", "bad"}, {"kill", "bad"}, {"pause", "bad"}, {"unpause", "bad"}, {"restart", "bad"},
		{"rename", "bad", "worse"}, {"inspect", "bad"}, {"logs", "bad"}, {"exec", "bad", "true"}, {"attach", "bad"}, {"wait", "bad"}, {"why", "bad"}, {"rm", "bad"}, {"port", "bad"}, {"top", "bad"}, {"diff", "bad"}} {
		_, err := f.kiste(args...)
		if err == nil || !named.MatchString(err.Error()) || !strings.Contains(err.Error(), why) || strings.Count(err.Error(), "kiste: cannot") != 1 {
			f.t.Errorf("%v; want one error that names it and says %q", err, why)
		}
	}
	out, err := f.kiste("ps", "-a", "--format", "{{.Names}}")
	if !strings.Contains(out, "whole") || err != nil && !named.MatchString(err.Error()) {
		f.t.Errorf("ps: %q, %v", out, err)
	}
	f.must("exec", "whole", "true")
	f.must("run", "--rm", "rootfs:"+f.root, "true")
	if _, err := f.kiste("gc"); err != nil && !named.MatchString(err.Error()) { // it cannot know what that one needs
		f.t.Error(err)
	}
}

// nothingOf wants nothing to be left of a container.
func (f *field) nothingOf(id string) {
	f.t.Helper()
	for _, name := range []string{"lib/containers/" + id, "run/containers/" + id} {
		if _, err := os.Lstat(filepath.Join(f.dir, name)); !errors.Is(err, os.ErrNotExist) {
			f.t.Errorf("left behind: %s (%v)", name, err)
		}
	}
	links, _ := filepath.Glob(filepath.Join(f.dir, "lib/names/*"))
	claims, _ := filepath.Glob(filepath.Join(f.dir, "run/ids/*"))
	for _, link := range append(links, claims...) {
		if to, _ := os.Readlink(link); to == id {
			f.t.Errorf("left behind: %s", link)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/kiste/" + id)
	more, _ := filepath.Glob("/sys/fs/cgroup/kiste/" + id)
	for _, g := range append(groups, more...) {
		f.t.Errorf("left behind: %s", g)
	}
	volumes, _ := filepath.Glob(filepath.Join(f.dir, "lib/volumes/*"))
	for _, v := range volumes {
		f.t.Errorf("left behind: %s", v)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), id) {
		f.t.Errorf("left behind: a mount of %s", id)
	}
}

// Whatever the other files of a store have in them: one command says which one is
// bad, and all that does not need it goes on.
func TestDamagedStore(t *testing.T) {
	f := newField(t)
	image := "rootfs:" + f.root
	f.must("run", "-d", "--name", "whole", image, "sleep", "600")
	f.must("volume", "create", "data")
	f.must("volume", "create", "good")
	for _, d := range []struct {
		file string
		tell []string // the command that needs the file; nil: none does
		name string   // what it must name
		cure []string
	}{
		{"lib/volumes/data/volume.json", []string{"volume", "inspect", "data"}, "data", []string{"volume", "rm", "-f", "data"}},
		{"lib/events/log", nil, "", nil},
		{"run/monitor.ends", nil, "", nil},
	} {
		for _, bad := range []string{"", "\x00\x01garbage", `{"schema":1000}`} {
			t.Run(fmt.Sprintf("%s is %q", d.file, bad), func(t *testing.T) {
				f.t = t
				path := filepath.Join(f.dir, d.file)
				if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
					if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if d.tell != nil {
					if _, err := f.kiste(d.tell...); err == nil || !strings.Contains(err.Error(), d.name) {
						t.Errorf("%v; want it to name %s", err, d.name)
					}
				}
				f.must("ps")
				if out, err := f.kiste("volume", "ls", "-q"); !strings.Contains(out, "good") || err != nil && !strings.Contains(err.Error(), d.name) {
					t.Errorf("volume ls: %q, %v", out, err)
				}
				f.must("run", "--rm", "-v", "good:/good", image, "true")
				f.must("events", "--since", "1h", "--until", "0s")
				f.must("gc")
				if d.cure != nil {
					f.must(d.cure...)
					f.must("volume", "create", "data")
				}
			})
		}
	}
	f.t = t
}
