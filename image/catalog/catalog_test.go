package catalog_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/image/catalog"
	"kiste/image/reference"
	"kiste/store"
)

func id(c string) string { return "sha256:" + strings.Repeat(c, 64/len(c)) }

func entry(name, c string) catalog.Entry {
	return catalog.Entry{Name: name, ID: id(c), Manifest: id("e"), Root: id("f"), DiffIDs: []string{id("d")}, Layers: []string{id("d")}}
}

func newStore(t *testing.T, entries ...catalog.Entry) store.Store {
	t.Helper()
	s := store.Store{Lib: t.TempDir()}
	for _, e := range entries {
		if err := catalog.Put(s, e); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestGet(t *testing.T) {
	s := newStore(t, entry("docker.io/library/debian:12", "ab"), entry("localhost:5000/a/b:latest", "ac"), entry("docker.io/library/cafe:latest", "1"))
	for _, tt := range []struct {
		query string
		want  string // its name
		kind  fault.Kind
	}{
		{"debian:12", "docker.io/library/debian:12", ""},
		{"docker.io/library/debian:12", "docker.io/library/debian:12", ""},
		{"debian", "", fault.NotFound},
		{"localhost:5000/a/b", "localhost:5000/a/b:latest", ""},
		{"abab", "docker.io/library/debian:12", ""},
		{id("ac"), "localhost:5000/a/b:latest", ""},
		{strings.TrimPrefix(id("ac"), "sha256:"), "localhost:5000/a/b:latest", ""},
		{"a", "", fault.Invalid},
		{"cafe", "docker.io/library/cafe:latest", ""},
		{"debian@" + id("f"), "docker.io/library/debian:12", ""},
		{"debian@" + id("9"), "", fault.NotFound},
		{"", "", fault.NotFound},
		{"../../etc/passwd", "", fault.NotFound},
	} {
		t.Run(tt.query, func(t *testing.T) {
			e, err := catalog.Get(s, tt.query)
			if e.Name != tt.want || fault.KindOf(err) != tt.kind {
				t.Errorf("got %q, %v; want %q, %v", e.Name, err, tt.want, tt.kind)
			}
		})
	}
}

func TestAnImageThatLosesItsNameIsKept(t *testing.T) {
	s := newStore(t, entry("docker.io/library/a:1", "1"), entry("docker.io/library/a:1", "2"))
	if e, err := catalog.Get(s, strings.Repeat("1", 12)); err != nil || e.Name != "" {
		t.Errorf("the old one: %+v, %v", e, err)
	}
	if err := catalog.Put(s, entry("docker.io/library/b:1", "1")); err != nil {
		t.Fatal(err)
	}
	all, err := catalog.List(s)
	if err != nil || len(all) != 2 {
		t.Errorf("there are %d images, %v; want the two with names", len(all), err)
	}
}

func TestDamagedDocumentsHurtOnlyThemselves(t *testing.T) {
	s := newStore(t, entry("docker.io/library/good:1", "1"))
	for name, text := range map[string]string{
		"docker.io+library+cut:1.json":   `{"schema":1,"id":"sha2`,
		"docker.io+library+empty:1.json": ``,
		"docker.io+library+wrong:1.json": `{"schema":1,"id":"../../x","layers":["y"],"diffIDs":["y"]}`,
		"docker.io+library+newer:1.json": `{"schema":99}`,
	} {
		if err := os.WriteFile(filepath.Join(s.Images(), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := catalog.List(s)
	if len(all) != 1 || err == nil {
		t.Errorf("got %d images, %v", len(all), err)
	}
	for _, name := range []string{"cut:1", "empty:1", "wrong:1"} {
		if _, err := catalog.Get(s, name); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "docker.io/library/"+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := catalog.Get(s, "newer:1"); !errors.Is(err, fault.Unsupported) {
		t.Errorf("newer: %v", err)
	}
	if _, err := catalog.Get(s, "good:1"); err != nil {
		t.Error(err)
	}
	if err := catalog.RemoveDamaged(s, "cut:1"); err != nil {
		t.Error(err)
	}
}

func TestNameOf(t *testing.T) {
	for src, want := range map[string]string{
		"debian":                    "docker.io/library/debian:latest",
		"oci:/tmp/My-Dir:v1":        "localhost/my-dir:v1",
		"oci:/tmp/d:ghcr.io/a/b:1":  "ghcr.io/a/b:1",
		"rootfs:/x/debian.tar.xz":   "localhost/debian:latest",
		"docker-archive:/x/a.tar":   "localhost/a:latest",
		"docker-archive:/x:alpine":  "docker.io/library/alpine:latest",
		"dir:/tmp/_odd__name!.oci1": "",
	} {
		s, err := reference.ParseSource(src)
		if err != nil {
			t.Fatal(err)
		}
		if got := catalog.NameOf(s); got != want {
			t.Errorf("%s is called %q; want %q", src, got, want)
		}
	}
}

// Whatever a document holds, Get does not panic, and what it gives is sound.
func FuzzDocument(f *testing.F) {
	good, _ := json.Marshal(entry("docker.io/library/a:1", "1"))
	f.Add(good)
	f.Add([]byte(`{"schema":2}`))
	s := store.Store{Lib: f.TempDir()}
	if err := os.MkdirAll(s.Images(), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(s.Images(), "docker.io+library+a:1.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := catalog.Get(s, "a:1")
		if err == nil && (reference.CheckDigest(e.ID) != nil || len(e.Layers) != len(e.DiffIDs)) {
			t.Errorf("%q gives %+v", b, e)
		}
	})
}
