package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/store"
)

func open(t *testing.T) *Engine {
	t.Helper()
	dir := t.TempDir()
	e := &Engine{Store: store.Store{Lib: dir + "/lib", Run: dir + "/run"}}
	err := e.Store.Open()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{e.Store.Containers(), filepath.Dir(e.nameFile("x")), e.claims(), filepath.Dir(e.Store.Running("x"))} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// put stores a container as its keeper would have left it.
func put(t *testing.T, e *Engine, digit, name, status string, remove bool) string {
	t.Helper()
	id := strings.Repeat(digit, 64)
	c := &Container{Schema: Schema, Container: inspect.Container{
		ID: id, Name: name, Created: time.Unix(1e9, 0), State: inspect.State{Status: status}, Wishes: bundle.Wishes{Remove: remove},
		Result: &bundle.Result{Spec: &specs.Spec{Process: &specs.Process{Args: []string{"sh"}}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}},
	}}
	for _, d := range []string{e.Store.Container(id), e.Store.Running(id)} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.write(c); err != nil {
		t.Fatal(err)
	}
	if err := e.claimName(name, id); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSweepTakesWhatNobodyKeeps(t *testing.T) {
	e := open(t)
	ended := put(t, e, "1", "ended", "exited", false)
	unseen := put(t, e, "2", "unseen", "running", false) // its keeper was killed
	put(t, e, "3", "removed", "running", true)           // likewise, with --rm
	held := put(t, e, "4", "held", "running", true)
	keeper, err := e.keeperLock(held)
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Unlock()
	broken := put(t, e, "5", "broken", "running", true)
	if err := os.WriteFile(e.document(broken), []byte(`{"ID":`), 0o600); err != nil {
		t.Fatal(err)
	}
	unborn := strings.Repeat("6", 64)
	for _, err := range []error{os.Mkdir(e.Store.Container(unborn), 0o700), os.Mkdir(e.Store.Running(strings.Repeat("7", 64)), 0o700),
		os.Symlink(strings.Repeat("7", 64), e.nameFile("nobody")), os.Symlink(strings.Repeat("7", 64), filepath.Join(e.claims(), "9")),
		os.Symlink(held, filepath.Join(e.claims(), "8")),
		os.Mkdir(filepath.Join(e.claims(), "5"+sharers), 0o700), os.Symlink(unborn+"0", filepath.Join(e.claims(), "5"+sharers, unborn)),
		os.Mkdir(filepath.Join(e.claims(), "6"+sharers), 0o700), os.Symlink(held, filepath.Join(e.claims(), "6"+sharers, held))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := e.Sweep()
	if err != nil || len(s.Containers) != 2 || s.Settled != 1 || s.Strays < 3 { // others may have left cgroups
		t.Errorf("Sweep: %+v, %v; want 2 containers, 1 settled, 3 strays", s, err)
	}
	left, _ := e.ids()
	if want := []string{ended, unseen, held, broken}; strings.Join(left, " ") != strings.Join(want, " ") {
		t.Errorf("left: %v, want %v", left, want)
	}
	if c, err := e.Find("unseen"); err != nil || c.State.Status != "exited" || c.State.ExitCode != killed {
		t.Errorf("unseen: %+v, %v", c, err)
	}
	if _, err := os.Lstat(filepath.Join(e.claims(), "8")); err != nil {
		t.Errorf("the claim of one that runs: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(e.claims(), "5"+sharers)); err == nil {
		t.Error("claims of those who are gone are still there")
	}
	for name, want := range map[string]bool{"4": true, "5": true, "6": false, "8": false, "9": true} {
		if free, err := e.claimIDs(filepath.Join(e.claims(), name), ended); free != want || err != nil {
			t.Errorf("the range %s is free: %v, %v; want %v", name, free, err, want)
		}
	}
	if again, err := e.Sweep(); err != nil || len(again.Containers)+again.Settled != 0 {
		t.Errorf("a second sweep: %+v, %v", again, err)
	}
}

func TestSweepLeavesWhatSomebodyRestarts(t *testing.T) {
	e := open(t)
	between := put(t, e, "1", "between", "exited", true)
	unseen := put(t, e, "2", "unseen", "running", true) // its keeper was killed
	plain := put(t, e, "3", "plain", "exited", false)
	for _, id := range []string{between, unseen, plain} {
		if err := e.stopAndAwait(id, StopOptions{}, true); err != nil {
			t.Fatal(err)
		}
	}
	all := func(*Container) bool { return true }
	if s, err := e.Sweep(); err != nil || len(s.Containers) != 0 {
		t.Errorf("Sweep: %+v, %v; want no container removed", s, err)
	}
	if ids, _, err := e.Prune(all); err != nil || len(ids) != 0 {
		t.Errorf("Prune: %v, %v; want none removed", ids, err)
	}
	if c, err := e.read(unseen); err != nil || c.State.Status != "exited" || !c.State.Again {
		t.Errorf("unseen: %+v, %v", c, err)
	}
	for _, id := range []string{between, unseen, plain} { // whoever restarts them is killed
		if err := e.change(id, func(c *Container) error { c.State.RestarterStart++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := e.Sweep(); err != nil || len(s.Containers) != 2 {
		t.Errorf("Sweep: %+v, %v; want those of --rm removed", s, err)
	}
	if ids, _, err := e.Prune(all); err != nil || len(ids) != 1 {
		t.Errorf("Prune: %v, %v; want the plain one removed", ids, err)
	}
}

func TestSweepWaitsForThoseWhoAddAndThenSaysSo(t *testing.T) {
	e := open(t)
	l, err := store.LockFile(e.lockOfStore(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	if _, err := e.Sweep(); !errors.Is(err, fault.Conflict) {
		t.Errorf("Sweep while somebody adds: %v", err)
	}
}

func TestFindAndRemove(t *testing.T) {
	e := open(t)
	put(t, e, "1", "one", "exited", false)
	put(t, e, "2", "two", "running", false)
	put(t, e, "3", "bad", "exited", false)
	id := strings.Repeat("3", 64)
	later := strings.Replace(read(t, e.document(id)), `"schema":1`, `"schema":99`, 1)
	if err := os.WriteFile(e.document(id), []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]error{
		"one": nil, "/one": nil, "1": nil, strings.Repeat("1", 64): nil, "": fault.NotFound, "on": fault.NotFound, "..": fault.NotFound,
		"../names/one": fault.NotFound, "one\x00": fault.NotFound, "bad": fault.Unsupported,
	} {
		if _, err := e.Find(query); want == nil && err != nil || want != nil && !errors.Is(err, want) {
			t.Errorf("Find(%q): %v, want %v", query, err, want)
		}
	}
	if err := os.Mkdir(e.Store.Container(strings.Repeat("4", 64)), 0o700); err != nil { // one that is being made
		t.Fatal(err)
	}
	all, bad, err := e.List()
	if err != nil || len(all) != 2 || len(bad) != 1 {
		t.Errorf("List: %d, %v, %v", len(all), bad, err)
	}
	keeper, err := e.keeperLock(strings.Repeat("2", 64))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Remove("two", false, false); !errors.Is(err, fault.Conflict) {
		t.Errorf("Remove of one that runs: %v", err)
	}
	keeper.Unlock()
	if _, err := e.Remove("bad", false, false); !errors.Is(err, fault.Unsupported) {
		t.Errorf("Remove of a later schema's: %v", err)
	}
	for query, force := range map[string]bool{"one": false, "two": false, "bad": true, "4444": false} {
		if _, err := e.Remove(query, force, false); err != nil {
			t.Errorf("Remove(%q): %v", query, err)
		}
	}
	if left, _ := e.ids(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// Who looks at a container that is removed meanwhile makes nothing anew.
func TestLookingAtAContainerThatIsGoneMakesNothing(t *testing.T) {
	e := open(t)
	id := strings.Repeat("a", 64)
	if e.isKept(id) {
		t.Error("it runs")
	}
	if _, err := os.Lstat(e.Store.Container(id)); err == nil {
		t.Error("something was made")
	}
}

func TestAClaimedNameIsFreeWhenItsContainerIsGone(t *testing.T) {
	e := open(t)
	put(t, e, "1", "web", "exited", false)
	if err := e.claimName("web", strings.Repeat("2", 64)); !errors.Is(err, fault.Conflict) || fault.HintOf(err) == "" {
		t.Errorf("a name in use: %v", err)
	}
	if err := os.RemoveAll(e.Store.Container(strings.Repeat("1", 64))); err != nil {
		t.Fatal(err)
	}
	if err := e.claimName("web", strings.Repeat("2", 64)); err != nil {
		t.Errorf("a name of nobody: %v", err)
	}
}

// Documents lie in the store, and whatever they hold is an error at most.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"schema":1,"ID":"x"}`))
	f.Add([]byte(`{"schema":99}`))
	f.Add([]byte(`[`))
	id := strings.Repeat("1", 64)
	f.Add([]byte(`{"schema":1,"ID":"` + id + `","Name":"../x","Result":{"Spec":{"process":{"args":["sh"]},"linux":{"resources":{}}}},"State":{"Status":"running"}}`))
	dir := f.TempDir()
	e := &Engine{Store: store.Store{Lib: dir + "/lib", Run: dir + "/run"}}
	if err := os.MkdirAll(e.Store.Container(id), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(e.document(id), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := e.Find(id); err == nil {
			c.JSON()
		}
	})
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
