package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiste/image/catalog"
	"kiste/image/snapshot"
	"kiste/store"
)

func TestUsageOfImages(t *testing.T) {
	dir := t.TempDir()
	e := &Engine{Store: store.Store{Lib: dir + "/lib", Run: dir + "/run"}}
	if err := e.Store.Open(); err != nil {
		t.Fatal(err)
	}
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	layers := snapshot.Open(e.Store)
	for c, size := range map[string]int64{"1": 100, "2": 20, "3": 3} {
		m := snapshot.Metadata{Key: digest(c), DiffID: digest(c), Size: size}
		if err := os.MkdirAll(layers.Path(m.Key), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := store.WriteJSON(filepath.Join(layers.Path(m.Key), "layer.json"), m); err != nil {
			t.Fatal(err)
		}
	}
	image := func(name, id string, keys ...string) catalog.Entry {
		e := catalog.Entry{Name: name, ID: digest(id)}
		for _, k := range keys {
			e.Layers = append(e.Layers, digest(k))
		}
		return e
	}
	var u Usage
	u.images([]catalog.Entry{image("a", "a", "1", "2"), image("b", "b", "1", "3"), image("a2", "a", "1", "2")}, map[string]int{digest("b"): 2}, layers)
	if len(u.Images) != 2 || u.Layers != 123 || u.Idle != 20 {
		t.Errorf("%d images, %d bytes, %d of them idle", len(u.Images), u.Layers, u.Idle)
	}
	for _, i := range u.Images {
		if want := map[string]int{"a": 0, "b": 2}[i.Name]; i.Shared != 100 || i.Containers != want {
			t.Errorf("%s: %d shared, %d containers", i.Name, i.Shared, i.Containers)
		}
	}
}
