package store_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"kiste/fault"
	"kiste/store"
)

func testStore(t *testing.T) store.Store {
	t.Helper()
	dir := t.TempDir()
	s := store.Store{Lib: filepath.Join(dir, "lib"), Run: filepath.Join(dir, "run")}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	return s
}

// CVE-2021-41091: users of the host reached images' set-user-ID programs.
func TestNobodyElseReachesTheStore(t *testing.T) {
	dir := t.TempDir()
	s := store.Store{Lib: filepath.Join(dir, "lib"), Run: filepath.Join(dir, "run")}
	if err := os.Mkdir(s.Lib, 0o755); err != nil { // whoever made it
		t.Fatal(err)
	}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(s.Lib); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("lib is %v, %v; want it closed", st.Mode(), err)
	}
}

func TestOpenRefusesLaterSchema(t *testing.T) {
	s := testStore(t)
	if err := os.WriteFile(filepath.Join(s.Lib, "version"), []byte("999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(); !errors.Is(err, fault.Unsupported) {
		t.Errorf("Open of a store with schema 999 = %v; want it unsupported", err)
	}
}

func TestWriteFileLeavesNothingBehind(t *testing.T) {
	s := testStore(t)
	path := filepath.Join(s.Lib, "doc.json")
	for range 2 {
		if err := store.WriteJSON(path, map[string]int{"schema": 1}); err != nil {
			t.Fatal(err)
		}
	}
	left, _ := filepath.Glob(filepath.Join(s.Lib, ".tmp-*"))
	if len(left) > 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

// A child that is forked while a lock is held, or waited for, has a copy of its file
// until it executes something. It is not to keep the lock.
func TestUnlockDespiteACopyInAChild(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for _, kase := range []struct {
		name string
		give func(*store.Lock) error
		want error // of who tries then
	}{
		{"given back", (*store.Lock).Unlock, nil},
		{"left to the child", (*store.Lock).Leave, fault.Conflict},
	} {
		t.Run(kase.name, func(t *testing.T) {
			l, err := store.LockFile(path, true)
			if err != nil {
				t.Fatal(err)
			}
			child := exec.Command("cat")
			child.ExtraFiles = []*os.File{l.File()}
			until, err := child.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			defer child.Wait()
			defer until.Close()
			if err := kase.give(l); err != nil {
				t.Fatal(err)
			}
			if l, err = store.TryLockFile(path, true); !errors.Is(err, kase.want) {
				t.Fatalf("while a child has a copy of the file: %v, wanted %v", err, kase.want)
			}
			if err == nil {
				l.Unlock()
			}
		})
	}
}

func TestLockExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, err := store.LockFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.TryLockFile(path, false); !errors.Is(err, fault.Conflict) {
		t.Errorf("second lock = %v; want a conflict", err)
	}
	if err := a.Unlock(); err != nil {
		t.Fatal(err)
	}
	b, err := store.TryLockFile(path, false)
	if err != nil {
		t.Fatalf("after Unlock: %v", err)
	}
	b.Unlock()
}

func TestReadJSONDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc")
	os.WriteFile(path, []byte(`{"a`), 0o600)
	var v any
	if err := store.ReadJSON(path, &v); !errors.Is(err, fault.Invalid) {
		t.Errorf("ReadJSON of half a document = %v; want invalid", err)
	}
}

// Who waits for a directory waits also while it is removed, and not for who has
// locked it anew when it is enough.
func TestAwaitDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	never := func() bool { return false }
	if err := store.AwaitDir(dir, never); err != nil {
		t.Error(err)
	}
	l, err := store.LockDir(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.AwaitDir(dir, func() bool { return true }); err != nil {
		t.Error(err)
	}
	done := make(chan error)
	go func() { done <- store.AwaitDir(dir, never) }()
	time.Sleep(20 * time.Millisecond)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
		t.Error("it has not waited for the end of the removal")
	case <-time.After(50 * time.Millisecond):
	}
	l.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := store.AwaitDir(dir, never); err != nil {
		t.Error(err)
	}
}
