// Package sourcetest has the rules that every source of images must keep, and
// the images to try them on.
//
//	takes    a function that opens a source
//	gives    test failures
//	touches  temporary directories of the test
//	state    none
package sourcetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"kiste/fault"
	"kiste/image/layout"
	"kiste/image/source"
)

// Tag names the image that Build makes.
const Tag = "one"

// Index names the index that Build makes: the image for amd64, another for
// arm64, and an attestation, as buildx writes them.
const Index = "many"

// Build makes an OCI layout in dir: one image of two layers, the upper of
// which is large enough to be read in parts, and an index.
func Build(t testing.TB, dir string) {
	t.Helper()
	w, err := layout.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	amd := image(t, w, "amd64")
	name(t, w, amd, Tag)
	arm := image(t, w, "arm64")
	amd.Platform = &source.Platform{OS: "linux", Architecture: "amd64"}
	arm.Platform = &source.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	attestation := arm
	attestation.Platform = &source.Platform{OS: "unknown", Architecture: "unknown"}
	index, err := w.PutJSON(source.MediaIndex, layout.Index{SchemaVersion: 2, MediaType: source.MediaIndex,
		Manifests: []source.Descriptor{arm, amd, attestation}})
	if err != nil {
		t.Fatal(err)
	}
	name(t, w, index, Index)
}

func name(t testing.TB, w *layout.Writer, d source.Descriptor, name string) {
	t.Helper()
	if err := w.Name(d, name); err != nil {
		t.Fatal(err)
	}
}

// image writes an image for a processor, with busybox in it where the host has
// one.
func image(t testing.TB, w *layout.Writer, arch string) source.Descriptor {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		busybox = []byte("no busybox here")
	}
	random := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(random) //nolint:errcheck // never fails
	var layers []source.Descriptor
	var ids []string
	for _, content := range []map[string][]byte{{"bin/busybox": busybox, "arch": []byte(arch)}, {"random": random}} {
		plain := Tar(t, content)
		var z bytes.Buffer
		zw := gzip.NewWriter(&z)
		zw.Write(plain) //nolint:errcheck // into memory
		zw.Close()
		d, err := w.Put(source.MediaLayer+"+gzip", &z)
		if err != nil {
			t.Fatal(err)
		}
		layers, ids = append(layers, d), append(ids, source.Digest(plain))
	}
	config := map[string]any{"os": "linux", "architecture": arch, "config": map[string]any{"Cmd": []string{"/bin/busybox"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}}
	c, err := w.PutJSON(source.MediaConfig, config)
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.PutJSON(source.MediaManifest, source.Manifest{SchemaVersion: 2, MediaType: source.MediaManifest, Config: c, Layers: layers})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Tar makes a tar of files.
func Tar(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name]
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		w.Write(content) //nolint:errcheck // Close tells
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Suite tries every rule on the source that open opens: the image Tag of
// Build, however it is stored there.
func Suite(t *testing.T, open func(t *testing.T) source.Source) {
	for _, rule := range []struct {
		name  string
		check func(*testing.T, source.Source)
	}{
		{"the image has its layers and its platform", hasLayers},
		{"every layer unpacks to its DiffID", unpacks},
		{"a blob can be had from any offset on", resumes},
		{"a resumed blob with a damaged beginning is refused at its end", refusesDamagedBeginning},
		{"a beginning longer than the blob is refused", refusesLongBeginning},
		{"a blob that is not there is not found", missesBlob},
		{"a descriptor that lies about the size is refused", refusesLie},
		{"a platform that is not there is not found and lists what there is", listsPlatforms},
		{"many blobs can be read at once", concurrent},
	} {
		t.Run(rule.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			rule.check(t, s)
		})
	}
}

func resolve(t *testing.T, s source.Source) *source.Image {
	t.Helper()
	img, err := source.Resolve(context.Background(), s, source.Options{Platform: "linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func hasLayers(t *testing.T, s source.Source) {
	img := resolve(t, s)
	if len(img.Layers) != 2 || img.Platform.String() != "linux/amd64" {
		t.Errorf("got %d layers for %v, want 2 for linux/amd64", len(img.Layers), img.Platform)
	}
	if got := source.Digest(img.ManifestJSON); got != img.Manifest.Digest {
		t.Errorf("the manifest's bytes have the digest %s, not %s", got, img.Manifest.Digest)
	}
	if got := source.Digest(img.ConfigJSON); got != img.Config.Digest {
		t.Errorf("the config's bytes have the digest %s, not %s", got, img.Config.Digest)
	}
}

func unpacks(t *testing.T, s source.Source) {
	for _, l := range resolve(t, s).Layers {
		b := read(t, s, l.Descriptor, nil)
		if l.Compression == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if b, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if got := source.Digest(b); l.Compression != "zstd" && got != l.DiffID {
			t.Errorf("layer %s unpacks to %s, want %s", l.Digest, got, l.DiffID)
		}
	}
}

// read reads what d describes behind the bytes that are here.
func read(t *testing.T, s source.Source, d source.Descriptor, have []byte) []byte {
	t.Helper()
	var begin io.Reader
	if have != nil {
		begin = bytes.NewReader(have)
	}
	rc, err := source.Open(context.Background(), s, d, begin)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func resumes(t *testing.T, s source.Source) {
	d := resolve(t, s).Layers[1].Descriptor
	whole := read(t, s, d, nil)
	for _, n := range []int{0, 1, len(whole) / 2, len(whole) - 1, len(whole)} {
		if rest := read(t, s, d, whole[:n]); !bytes.Equal(rest, whole[n:]) {
			t.Errorf("from %d on there are %d bytes that differ from the %d of the whole", n, len(rest), len(whole)-n)
		}
	}
}

func refusesDamagedBeginning(t *testing.T, s source.Source) {
	d := resolve(t, s).Layers[1].Descriptor
	rc, err := source.Open(context.Background(), s, d, bytes.NewReader(make([]byte, 100)))
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if _, err := io.ReadAll(rc); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v, want it refused as invalid", err)
	}
}

func refusesLongBeginning(t *testing.T, s source.Source) {
	d := resolve(t, s).Layers[1].Descriptor
	if _, err := source.Open(context.Background(), s, d, bytes.NewReader(make([]byte, d.Size+1))); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v, want it refused as invalid", err)
	}
}

func missesBlob(t *testing.T, s source.Source) {
	resolve(t, s)
	sum := sha256.Sum256([]byte("nothing has this content"))
	d := source.Descriptor{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: 24}
	if _, err := source.Open(context.Background(), s, d, nil); !errors.Is(err, fault.NotFound) {
		t.Errorf("got %v, want it not found", err)
	}
}

func refusesLie(t *testing.T, s source.Source) {
	for _, by := range []int64{-1, 1} {
		d := resolve(t, s).Layers[1].Descriptor
		d.Size += by
		rc, err := source.Open(context.Background(), s, d, nil)
		if err == nil {
			_, err = io.ReadAll(rc)
			rc.Close()
		}
		if !errors.Is(err, fault.Invalid) {
			t.Errorf("off by %d: got %v, want it refused as invalid", by, err)
		}
	}
}

func listsPlatforms(t *testing.T, s source.Source) {
	_, err := source.Resolve(context.Background(), s, source.Options{Platform: "linux/riscv64"})
	if !errors.Is(err, fault.NotFound) || !bytes.Contains([]byte(fault.HintOf(err)), []byte("linux/amd64")) {
		t.Errorf("got %v, hint %q; want not found and a list with linux/amd64", err, fault.HintOf(err))
	}
}

func concurrent(t *testing.T, s source.Source) {
	layers := resolve(t, s).Layers
	done := make(chan error)
	const readers = 8
	for i := range readers {
		go func() {
			_, err := source.Read(context.Background(), s, layers[i%2].Descriptor, 1<<30)
			done <- err
		}()
	}
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
