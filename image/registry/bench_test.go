package registry

import (
	"context"
	"io"
	"testing"

	"kiste/image/source"
)

// BenchmarkBlob reads and verifies a blob from a registry on loopback.
func BenchmarkBlob(b *testing.B) {
	f := newFake()
	f.layer = make([]byte, 64<<20)
	d := f.layerDescriptor()
	b.SetBytes(d.Size)
	s := open(b, serve(b, f)+"/app:1", quick(b))
	for b.Loop() {
		rc, err := source.Open(context.Background(), s, d, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rc); err != nil {
			b.Fatal(err)
		}
		rc.Close()
	}
}
