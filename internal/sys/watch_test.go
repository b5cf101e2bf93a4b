package sys

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAWatchTellsOfChanges(t *testing.T) {
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := w.Add(dir, unix.IN_CREATE|unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	if err := w.Wait(time.Now().Add(10 * time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing has happened, and Wait gives %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Wait(time.Now().Add(time.Minute)); err != nil {
		t.Errorf("a file was made, and Wait gives %v", err)
	}
	ended := make(chan error)
	go func() { ended <- w.Wait(time.Time{}) }()
	w.Close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Close, and Wait gives %v", err)
	}
	if err := w.Add("/nowhere", unix.IN_CREATE); err == nil {
		t.Error("a path that is not there is watched")
	}
}
