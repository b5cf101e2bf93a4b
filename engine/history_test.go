package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiste/image/catalog"
	"kiste/store"
)

func TestHistory(t *testing.T) {
	dir := t.TempDir()
	e := &Engine{Store: store.Store{Lib: dir + "/lib", Run: dir + "/run"}}
	if err := e.Store.Open(); err != nil {
		t.Fatal(err)
	}
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	entry := catalog.Entry{Name: "docker.io/library/app:1", ID: digest("a"), Manifest: digest("b"), DiffIDs: []string{digest("c"), digest("d")}, Layers: []string{digest("c"), digest("d")}}
	if err := catalog.Put(e.Store, entry); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, config, want string }{
		{"no config", "", " | "},
		{"steps without a layer", `{"history":[{"created_by":"FROM","comment":"c"},{"created_by":"ENV","empty_layer":true},{"created_by":"COPY"}]}`, "COPY |ENV |FROM c"},
		{"fewer steps than layers", `{"history":[{"created_by":"FROM"}]}`, " |FROM "},
		{"more steps than layers", `{"history":[{"created_by":"1"},{"created_by":"2"},{"created_by":"3"}]}`, "3 |2 |1 "},
	} {
		blob := e.Store.Blob(entry.ID)
		if tt.config != "" {
			if err := os.MkdirAll(filepath.Dir(blob), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(blob, []byte(tt.config), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		id, steps, err := e.History("app:1")
		var got []string
		for _, s := range steps {
			got = append(got, s.By+" "+s.Comment)
		}
		if s := strings.Join(got, "|"); s != tt.want || err != nil || id != entry.ID {
			t.Errorf("%s: %q, %v", tt.name, s, err)
		}
	}
	if err := os.WriteFile(e.Store.Blob(entry.ID), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.History("app:1"); err == nil {
		t.Error("a damaged config is read")
	}
}
