package source_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/image/source"
)

const (
	zeros = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	entry = `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + zeros + `","size":1}`
)

func TestParseDocument(t *testing.T) {
	for _, tt := range []struct {
		name, in, place string
		want            fault.Kind // empty: it is taken
	}{
		{"an index", `{"schemaVersion":2,"manifests":[` + entry + `]}`, "", ""},
		{"a manifest", `{"schemaVersion":2,"config":{},"layers":[]}`, "", ""},
		{"a manifest that its place knows", `{"schemaVersion":2,"config":{},"layers":[]}`, source.MediaDockerManifest, ""},
		{"a place that knows nothing", `{"schemaVersion":2,"config":{},"layers":[]}`, "application/json", ""},
		{"both (CVE-2021-41190)", `{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`, "", fault.Invalid},
		{"an index with a config", `{"schemaVersion":2,"config":{},"manifests":[]}`, "", fault.Invalid},
		{"both, in other letters", `{"schemaVersion":2,"Layers":[],"manifests":[]}`, "", fault.Invalid},
		{"neither", `{"schemaVersion":2}`, "", fault.Invalid},
		{"a key twice", `{"schemaVersion":2,"layers":[],"config":{},"layers":[]}`, "", fault.Invalid},
		{"a place that says otherwise", `{"schemaVersion":2,"mediaType":"` + source.MediaManifest + `","config":{},"layers":[]}`, source.MediaDockerManifest, fault.Invalid},
		{"an index that says manifest", `{"schemaVersion":2,"mediaType":"` + source.MediaManifest + `","manifests":[]}`, "", fault.Unsupported},
		{"a manifest where an index should be", `{"schemaVersion":2,"config":{},"layers":[]}`, source.MediaIndex, fault.Unsupported},
		{"schema 1", `{"schemaVersion":1,"fsLayers":[]}`, "", fault.Unsupported},
		{"schema 1 by its place", `{"schemaVersion":2,"layers":[]}`, "application/vnd.docker.distribution.manifest.v1+prettyjws", fault.Unsupported},
		{"schema 3", `{"schemaVersion":3,"config":{},"layers":[]}`, "", fault.Invalid},
		{"an entry with a bad digest (CVE-2024-3727)", `{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x","size":1}]}`, "", fault.Invalid},
		{"an entry with a negative size", `{"schemaVersion":2,"manifests":[{"digest":"` + zeros + `","size":-1}]}`, "", fault.Invalid},
		{"an array", `[]`, "", fault.Invalid},
		{"nothing", ``, "", fault.Invalid},
		{"two documents", `{"schemaVersion":2,"config":{},"layers":[]}{}`, "", fault.Invalid},
		{"too many entries", `{"schemaVersion":2,"manifests":[` + strings.Repeat(entry+",", 5000) + entry + `]}`, "", fault.Invalid},
		{"too large", `{"schemaVersion":2,"config":{},"layers":[],"x":"` + strings.Repeat("x", source.MaxManifest) + `"}`, "", fault.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := source.ParseDocument([]byte(tt.in), tt.place)
			if (err == nil) != (tt.want == "") || err != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// A memory is a source in memory.
type memory map[string][]byte

func (m memory) add(mediaType string, v any) source.Descriptor {
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v)
	}
	d := source.Descriptor{MediaType: mediaType, Digest: source.Digest(b), Size: int64(len(b))}
	m[d.Digest] = b
	return d
}

func (m memory) Root(context.Context) (source.Descriptor, []byte, error) {
	b := m["root"]
	return source.Descriptor{Digest: source.Digest(b), Size: int64(len(b))}, b, nil
}

func (m memory) Manifest(_ context.Context, d source.Descriptor) ([]byte, error) {
	return m[d.Digest], nil
}

func (m memory) Blob(_ context.Context, d source.Descriptor, offset int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m[d.Digest][offset:])), nil
}

func (m memory) Close() error { return nil }

func (m memory) image(platform string, change func(*source.Manifest)) source.Descriptor {
	p, _ := source.ParsePlatform(platform)
	layer := m.add(source.MediaLayer, []byte("layer for "+platform))
	config := m.add(source.MediaConfig, map[string]any{"os": p.OS, "architecture": p.Architecture, "variant": p.Variant,
		"rootfs": map[string]any{"diff_ids": []string{layer.Digest}}})
	man := source.Manifest{SchemaVersion: 2, Config: config, Layers: []source.Descriptor{layer}}
	if change != nil {
		change(&man)
	}
	d := m.add(source.MediaManifest, man)
	d.Platform = &p
	return d
}

func (m memory) index(entries ...source.Descriptor) source.Descriptor {
	return m.add(source.MediaIndex, map[string]any{"schemaVersion": 2, "manifests": entries})
}

func TestResolvePicksThePlatform(t *testing.T) {
	for _, tt := range []struct{ name, want, have, got string }{
		{"the same", "linux/arm64", "linux/amd64 linux/arm64", "linux/arm64"},
		{"arm64 and arm64/v8 are one", "linux/arm64/v8", "linux/amd64 linux/arm64", "linux/arm64"},
		{"the kernel's word", "linux/x86_64", "linux/arm64 linux/amd64", "linux/amd64"},
		{"arm is arm/v7", "linux/arm", "linux/arm/v6 linux/arm/v7", "linux/arm/v7"},
		{"an older variant runs too", "linux/arm/v7", "linux/arm/v5 linux/arm/v6", "linux/arm/v6"},
		{"the best variant", "linux/amd64/v3", "linux/amd64 linux/amd64/v2 linux/amd64/v4", "linux/amd64/v2"},
		{"a newer variant does not run", "linux/arm/v6", "linux/arm/v7", ""},
		{"another system", "windows/amd64", "linux/amd64", ""},
		{"a single word is a processor", "arm64", "linux/arm64", "linux/arm64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := memory{}
			var entries []source.Descriptor
			for _, p := range strings.Fields(tt.have) {
				entries = append(entries, m.image(p, nil))
			}
			m["root"] = m[m.index(entries...).Digest]
			img, err := source.Resolve(context.Background(), m, source.Options{Platform: tt.want})
			if tt.got == "" {
				if !errors.Is(err, fault.NotFound) || !strings.Contains(fault.HintOf(err), strings.Fields(tt.have)[0]) {
					t.Errorf("got %v, hint %q; want not found and a list", err, fault.HintOf(err))
				}
				return
			}
			if err != nil || img.Platform.String() != tt.got {
				t.Errorf("got %+v, %v; want %s", img, err, tt.got)
			}
		})
	}
}

func TestResolveOfASingleImageTakesItUnlessAnotherPlatformWasAskedFor(t *testing.T) {
	m := memory{}
	m["root"] = m[m.image("linux/s390x", nil).Digest]
	if img, err := source.Resolve(context.Background(), m, source.Options{}); err != nil || img.Platform.Architecture != "s390x" {
		t.Errorf("got %+v, %v", img, err)
	}
	if _, err := source.Resolve(context.Background(), m, source.Options{Platform: "linux/amd64"}); !errors.Is(err, fault.NotFound) {
		t.Errorf("asked for another platform: got %v", err)
	}
}

func TestResolveRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*source.Manifest)
		want   fault.Kind
	}{
		{"a layer from elsewhere", func(m *source.Manifest) { m.Layers[0].URLs = []string{"http://169.254.169.254/"} }, fault.Unsupported},
		{"an encrypted layer", func(m *source.Manifest) { m.Layers[0].MediaType += "+encrypted" }, fault.Unsupported},
		{"a layer of unknown type", func(m *source.Manifest) { m.Layers[0].MediaType = "text/html" }, fault.Unsupported},
		{"a layer with a bad digest", func(m *source.Manifest) { m.Layers[0].Digest = "sha256:../../../../etc/shadow" }, fault.Invalid},
		{"more layers than the config has", func(m *source.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }, fault.Invalid},
		{"501 layers", func(m *source.Manifest) {
			for range 500 {
				m.Layers = append(m.Layers, m.Layers[0])
			}
		}, fault.Invalid},
		{"an artifact", func(m *source.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }, fault.Unsupported},
		{"a config of the wrong size", func(m *source.Manifest) { m.Config.Size++ }, fault.Invalid},
		{"a huge config", func(m *source.Manifest) { m.Config.Size = 1 << 40 }, fault.Invalid},
		{"a config that is another blob", func(m *source.Manifest) { m.Config.Digest = zeros }, fault.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := memory{zeros: []byte("{}")}
			m["root"] = m[m.image("linux/amd64", tt.change).Digest]
			if _, err := source.Resolve(context.Background(), m, source.Options{}); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestResolveOfNestedIndexes(t *testing.T) {
	m := memory{}
	d := m.image("linux/amd64", nil)
	for depth := 1; depth <= 6; depth++ {
		d = m.index(d)
		m["root"] = m[d.Digest]
		_, err := source.Resolve(context.Background(), m, source.Options{Platform: "linux/amd64"})
		if (err == nil) != (depth <= 4) {
			t.Errorf("%d deep: got %v", depth, err)
		}
		d.Platform = nil
	}
	wide := memory{}
	var entries []source.Descriptor
	for range 100 {
		e := wide.image("linux/s390x", nil)
		e.Platform = nil
		entries = append(entries, e)
	}
	wide["root"] = wide[wide.index(entries...).Digest]
	if _, err := source.Resolve(context.Background(), wide, source.Options{Platform: "linux/amd64"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("100 entries without a platform: got %v, want it given up", err)
	}
}

func TestOpenRefusesWhatIsDamaged(t *testing.T) {
	for _, tt := range []struct{ name, content string }{
		{"another byte", "abcx"}, {"too short", "abc"}, {"too long", "abcde"}, {"nothing", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := source.Descriptor{Digest: source.Digest([]byte("abcd")), Size: 4}
			rc, err := source.Open(context.Background(), memory{d.Digest: []byte(tt.content)}, d, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(rc); !errors.Is(err, fault.Invalid) {
				t.Errorf("got %v, want it refused as invalid", err)
			}
		})
	}
}

func TestParsePlatformRefuses(t *testing.T) {
	for _, s := range []string{"", "/", "linux/", "a/b/c/d", "linux/am d64", "linux/\x1b[31m"} {
		if s == "" {
			continue // is this host's, says Resolve
		}
		if p, err := source.ParsePlatform(s); !errors.Is(err, fault.Invalid) {
			t.Errorf("ParsePlatform(%q) = %v, %v; want it refused as invalid", s, p, err)
		}
	}
}

// Whatever the bytes, an image that Resolve gives keeps its bounds.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[`+entry+`]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"`+zeros+`"},"layers":[{"digest":"`+zeros+`","size":3,"mediaType":"`+source.MediaLayer+`"}]}`), source.MediaManifest)
	f.Fuzz(func(t *testing.T, b []byte, place string) {
		doc, err := source.ParseDocument(b, place)
		if err != nil {
			return
		}
		if (doc.Manifest == nil) == (doc.Index == nil) {
			t.Errorf("%q is both or neither", b)
		}
		m := memory{"root": b, zeros: []byte(`{"rootfs":{"diff_ids":["` + zeros + `"]}}`)}
		if img, err := source.Resolve(context.Background(), m, source.Options{}); err == nil && len(img.Layers) > source.MaxLayers {
			t.Errorf("%d layers", len(img.Layers))
		}
	})
}
