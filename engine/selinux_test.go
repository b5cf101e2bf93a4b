package engine

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kiste/container/bundle"
	"kiste/engine/inspect"
	"kiste/host"
	"kiste/internal/need"
	"kiste/internal/sys"
	"kiste/kernel/privilege/selinux"
	"kiste/store"
)

// levelled is a container that is being made, with a directory and no document.
func levelled(t *testing.T, e *Engine, digit string, label ...string) *Prepared {
	t.Helper()
	p := &Prepared{e: e, Container: &Container{Container: inspect.Container{ID: strings.Repeat("5", 63) + digit, Wishes: bundle.Wishes{Security: bundle.Security{Label: label}}}}}
	if err := os.MkdirAll(e.Store.Container(p.ID), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// No two containers get one level by themselves, also where their ids begin alike, and one that somebody
// has chosen is nobody else's.
func TestLevelsAreUniqueUntilTheyAreFree(t *testing.T) {
	e := &Engine{Store: store.Store{Lib: t.TempDir(), Run: t.TempDir()}}
	level := func(p *Prepared) string {
		t.Helper()
		l, err := p.level()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a, b, c := levelled(t, e, "a"), levelled(t, e, "b"), levelled(t, e, "c")
	first, second := level(a), level(b)
	if first == second || level(a) != first {
		t.Errorf("got %s, and %s for another", first, second)
	}
	e.freeLevel(a.Container)
	if got := level(c); got != first {
		t.Errorf("%s was free, and another got %s", first, got)
	}
	e.freeLevel(c.Container)
	given := levelled(t, e, "d", "level:"+first)
	if level(given) != first || level(levelled(t, e, "e")) == first {
		t.Error("a level that was given is another container's, too")
	}
	same := levelled(t, e, "f", "level:"+first)
	if level(same) != first || same.Level != "" {
		t.Error("a level that was given twice has two owners")
	}
	for _, odd := range []string{"s0", "s0:c1/../../x", "..", strings.Repeat("s0:c1,", 100)} {
		p := levelled(t, e, "0", "level:"+odd)
		if level(p) != odd || p.Level != "" {
			t.Errorf("%q is claimed", odd)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(e.levels(), "*")); len(left) != 3 {
		t.Errorf("claims are %q", left)
	}
}

func labelAt(t *testing.T, path string) string {
	t.Helper()
	fd, err := sys.OpenFile(path, openPath|syscall.O_NOFOLLOW)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(fd)
	return selinux.Get(fd)
}

// Every file of a tree is labelled, links themselves, and nothing outside of it.
func TestLabelTree(t *testing.T) {
	need.Power(t, host.Root)
	if host.SELinux.Have() {
		t.Skip("this kernel has labels of its own: test/vm/selinux.sh")
	}
	top := t.TempDir()
	outside, dir := filepath.Join(top, "outside"), filepath.Join(top, "dir")
	const label = "system_u:object_r:container_file_t:s0"
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "a/b"), 0o755), os.Mkdir(outside, 0o755), os.WriteFile(filepath.Join(outside, "f"), nil, 0o644),
		os.WriteFile(filepath.Join(dir, "a/f"), nil, 0), os.Symlink(outside, filepath.Join(dir, "a/link")), sys.Mkfifo(filepath.Join(dir, "a/fifo"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := labelUnlessOf(dir, label); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"", "a", "a/b", "a/f", "a/link", "a/fifo"} {
		if got := labelAt(t, filepath.Join(dir, name)); got != label {
			t.Errorf("%s has %q", name, got)
		}
	}
	for _, name := range []string{"", "f"} {
		if got := labelAt(t, filepath.Join(outside, name)); got != "" {
			t.Errorf("outside, %s has %q", name, got)
		}
	}
}

// What a host needs is not labelled, whatever path leads to it.
func TestRelabelRefuses(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, dir := range []string{"/etc", "/usr/../etc", link, link + "/../usr", home} {
		if err := relabel(dir, "", "a:b:c:s0"); err == nil || !strings.Contains(err.Error(), "is not allowed") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
