package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/image/source"
)

// A member is an entry of a test's tar.
type member struct {
	name, content, link string
	kind                byte // 0: a file
}

func makeTar(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if m.kind == 0 {
			m.kind = tar.TypeReg
		}
		h := &tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.content)), Typeflag: m.kind, Linkname: m.link}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, m.content) //nolint:errcheck // Close tells
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t testing.TB, b []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

const layerA, layerB = "the lower layer", "the upper layer"

func config(layers ...string) string {
	ids := []string{}
	for _, l := range layers {
		ids = append(ids, source.Digest([]byte(l)))
	}
	b, _ := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	return string(b)
}

func table(layers ...string) string {
	b, _ := json.Marshal([]item{{Config: "c.json", RepoTags: []string{"app:1"}, Layers: layers}})
	return string(b)
}

func pull(file, which string, o Options) ([]string, error) {
	ctx := context.Background()
	s, err := OpenDocker(ctx, file, which, o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	img, err := source.Resolve(ctx, s, source.Options{})
	if err != nil {
		return nil, err
	}
	var got []string
	for _, l := range img.Layers {
		b, err := source.Read(ctx, s, l.Descriptor, 1<<20)
		if err != nil {
			return nil, err
		}
		if l.Compression == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				return nil, err
			}
			if b, err = io.ReadAll(z); err != nil {
				return nil, err
			}
		}
		got = append(got, string(b))
	}
	return got, nil
}

func gzipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s) //nolint:errcheck // into memory
	z.Close()
	return b.String()
}

func TestDockerArchive(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte(layerB), 0o600); err != nil {
		t.Fatal(err)
	}
	z := gzipped(layerB)
	blob := "blobs/sha256/" + strings.TrimPrefix(source.Digest([]byte(z)), "sha256:")
	tests := []struct {
		name    string
		which   string
		members []member
		want    fault.Kind // empty: both layers are there
	}{
		{"as Docker 1.10 to 24 write it", "", []member{
			{name: "a/", kind: tar.TypeDir}, {name: "a/VERSION", content: "1.0"}, {name: "a/json", content: "{}"}, {name: "a/layer.tar", content: layerA},
			{name: "b/layer.tar", content: layerB}, {name: "c.json", content: config(layerA, layerB)},
			{name: "manifest.json", content: table("a/layer.tar", "b/layer.tar")}, {name: "repositories", content: `{"app":{"1":"b"}}`}}, ""},
		{"with a link to a layer that is there already", "", []member{
			{name: "x/layer.tar", content: layerA}, {name: "a/layer.tar", kind: tar.TypeSymlink, link: "../x/layer.tar"}, {name: "b/layer.tar", content: layerB},
			{name: "c.json", content: config(layerA, layerB)}, {name: "manifest.json", content: table("a/layer.tar", "b/layer.tar")}}, ""},
		{"with a hard link", "", []member{
			{name: "x/layer.tar", content: layerA}, {name: "a/layer.tar", kind: tar.TypeLink, link: "x/layer.tar"}, {name: "b/layer.tar", content: layerB},
			{name: "c.json", content: config(layerA, layerB)}, {name: "manifest.json", content: table("a/layer.tar", "b/layer.tar")}}, ""},
		{"as Docker with containerd writes it", "", []member{
			{name: "oci-layout", content: `{"imageLayoutVersion":"1.0.0"}`}, {name: "a", content: layerA}, {name: blob, content: z},
			{name: "c.json", content: config(layerA, layerB)}, {name: "manifest.json", content: table("a", blob)}}, ""},
		{"with a compressed layer of any name", "", []member{
			{name: "a", content: layerA}, {name: "b", content: z}, {name: "c.json", content: config(layerA, layerB)}, {name: "manifest.json", content: table("a", "b")}}, ""},
		{"names with dots are cleaned", "docker.io/library/app:1", []member{
			{name: "./a", content: layerA}, {name: "../../b", content: layerB}, {name: "./c.json", content: config(layerA, layerB)}, {name: "./manifest.json", content: table("a", "../b")}}, ""},

		{"no such name", "docker.io/library/other:1", []member{{name: "manifest.json", content: table()}}, fault.NotFound},
		{"no such number", "@1", []member{{name: "manifest.json", content: table()}}, fault.NotFound},
		{"a link to the host", "", []member{
			{name: "a", content: layerA}, {name: "b", kind: tar.TypeSymlink, link: outside}, {name: "c.json", content: config(layerA, layerB)}, {name: "manifest.json", content: table("a", "b")}}, fault.Invalid},
		{"a path to the host", "", []member{
			{name: "a", content: layerA}, {name: "c.json", content: config(layerA, layerB)}, {name: "manifest.json", content: table("a", outside)}}, fault.Invalid},
		{"a link to itself", "", []member{{name: "manifest.json", kind: tar.TypeSymlink, link: "manifest.json"}}, fault.Invalid},
		{"a layer with other content", "", []member{
			{name: "a", content: layerA}, {name: "b", content: "something else"}, {name: "c.json", content: config(layerA, layerB)}, {name: "manifest.json", content: table("a", "b")}}, fault.Invalid},
		{"a layer too few", "", []member{
			{name: "a", content: layerA}, {name: "c.json", content: config(layerA, layerB)}, {name: "manifest.json", content: table("a")}}, fault.Invalid},
		{"a bad DiffID (CVE-2024-3727)", "", []member{
			{name: "a", content: layerA}, {name: "c.json", content: `{"rootfs":{"diff_ids":["sha256:../../../x"]}}`}, {name: "manifest.json", content: table("a")}}, fault.Invalid},
		{"no config", "", []member{{name: "manifest.json", content: table()}}, fault.Invalid},
		{"no table", "", []member{{name: "x", content: "y"}}, fault.Invalid},
		{"saved before Docker 1.10", "", []member{{name: "repositories", content: "{}"}}, fault.Unsupported},
		{"a table that is nonsense", "", []member{{name: "manifest.json", content: "nonsense"}}, fault.Invalid},
		{"a table that is too large", "", []member{{name: "manifest.json", content: strings.Repeat(" ", maxTable+1)}}, fault.Invalid},
		{"an empty archive", "", nil, fault.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := pull(write(t, makeTar(t, tt.members...)), tt.which, Options{})
			if tt.want != "" {
				if !errors.Is(err, tt.want) {
					t.Errorf("got %q, %v; want %s", got, err, tt.want)
				}
				return
			}
			if err != nil || fmt.Sprint(got) != fmt.Sprint([]string{layerA, layerB}) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func good(t testing.TB) []byte {
	return makeTar(t, member{name: "a", content: layerA}, member{name: "b", content: layerB},
		member{name: "c.json", content: config(layerA, layerB)}, member{name: "manifest.json", content: table("a", "b")})
}

func TestAnArchiveThatIsCutOffAnywhereIsRefused(t *testing.T) {
	whole := good(t)
	// the last two blocks are the end of a tar, which may be missing
	for n := 0; n < len(whole)-1024-512; n += 256 {
		if got, err := pull(write(t, whole[:n]), "", Options{}); !errors.Is(err, fault.Invalid) {
			t.Errorf("cut off at %d of %d: got %q, %v; want it refused as invalid", n, len(whole), got, err)
		}
	}
}

func TestABombIsRefusedAndLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(good(t))              //nolint:errcheck // into memory
	z.Write(make([]byte, 10<<20)) //nolint:errcheck // into memory
	z.Close()
	_, err := pull(write(t, b.Bytes()), "", Options{Temp: temp, MaxSize: 1 << 20})
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "1048576") {
		t.Errorf("got %v, want it refused with its limit", err)
	}
	if entries, err := os.ReadDir(temp); err != nil || len(entries) != 0 {
		t.Errorf("%v are left, %v", entries, err)
	}
}

func TestAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		w.Write(good(t)) //nolint:errcheck // the reader tells
		w.Close()
	}()
	got, err := pull(fmt.Sprintf("/dev/fd/%d", r.Fd()), "", Options{Temp: t.TempDir()})
	if err != nil || len(got) != 2 {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestCancelEndsDecompression(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := OpenDocker(ctx, write(t, []byte(gzipped(string(good(t))))), "", Options{Temp: t.TempDir()})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it canceled", err)
	}
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// Whatever the bytes: no panic, and no layer whose content is not its digest's.
func FuzzDockerArchive(f *testing.F) {
	f.Add(good(f))
	f.Add(makeTar(f, member{name: "manifest.json", kind: tar.TypeSymlink, link: "../x"}, member{name: "x", content: table("x")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := readTar(inMemory{bytes.NewReader(b)}, int64(len(b)))
		if err != nil {
			return
		}
		d, err := newDocker(tree, "")
		if err != nil {
			return
		}
		img, err := source.Resolve(context.Background(), d, source.Options{})
		if err != nil {
			return
		}
		for _, l := range img.Layers {
			content, err := source.Read(context.Background(), d, l.Descriptor, 1<<20)
			if err == nil && strings.HasPrefix(l.Digest, "sha256:") && source.Digest(content) != l.Digest {
				t.Errorf("layer %s has other content", l.Digest)
			}
		}
	})
}
