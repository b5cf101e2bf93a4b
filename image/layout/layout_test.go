package layout_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"kiste/fault"
	"kiste/image/layout"
	"kiste/image/source"
	"kiste/image/source/sourcetest"
)

// Whatever lies in a blob's place, nothing outside of the layout is read and
// nothing is waited for.
func TestAHostileLayout(t *testing.T) {
	for _, tt := range []struct {
		name string
		put  func(path string, content []byte) error
		want fault.Kind
	}{
		{"an absolute link out of it", func(path string, content []byte) error {
			outside := filepath.Join(os.TempDir(), "kiste-layout-outside")
			t.Cleanup(func() { os.Remove(outside) })
			return errors.Join(os.WriteFile(outside, content, 0o600), os.Symlink(outside, path))
		}, fault.NotFound},
		{"a FIFO", func(path string, _ []byte) error { return syscall.Mkfifo(path, 0o600) }, fault.Invalid},
		{"a directory", func(path string, _ []byte) error { return os.Mkdir(path, 0o700) }, fault.Invalid},
		{"nothing", func(string, []byte) error { return nil }, fault.NotFound},
		{"too much", func(path string, content []byte) error { return os.WriteFile(path, append(content, 0), 0o600) }, fault.Invalid},
		{"another byte", func(path string, content []byte) error {
			content[0] ^= 1
			return os.WriteFile(path, content, 0o600)
		}, fault.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			sourcetest.Build(t, dir)
			s, err := layout.Open(dir, sourcetest.Tag)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			img, err := source.Resolve(context.Background(), s, source.Options{Platform: "linux/amd64"})
			if err != nil {
				t.Fatal(err)
			}
			d := img.Layers[1].Descriptor
			path := filepath.Join(dir, "blobs/sha256", d.Digest[len("sha256:"):])
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Remove(path), tt.put(path, content)); err != nil {
				t.Fatal(err)
			}
			if _, err := source.Read(context.Background(), s, d, 1<<30); fault.KindOf(err) != tt.want {
				t.Errorf("got %v (%s), want %s", err, fault.KindOf(err), tt.want)
			}
		})
	}
}

func TestOpenChooses(t *testing.T) {
	dir := t.TempDir()
	sourcetest.Build(t, dir)
	s, err := layout.Open(dir, sourcetest.Tag)
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := s.Root(context.Background())
	s.Close()
	if err != nil {
		t.Fatal(err)
	}
	for which, want := range map[string]fault.Kind{
		sourcetest.Index: "", "@0": "", "@1": "", "@" + root.Digest: "",
		"": fault.Invalid, "@2": fault.NotFound, "other": fault.NotFound, "@-1": fault.NotFound,
	} {
		s, err := layout.Open(dir, which)
		if fault.KindOf(err) != want {
			t.Errorf("%q: got %v, want %q", which, err, want)
		}
		if err == nil {
			s.Close()
		}
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	sourcetest.Build(t, dir)
	if _, err := layout.Create(dir); !errors.Is(err, fault.Exists) {
		t.Errorf("got %v, want that it exists", err)
	}
}
