package layout

import (
	"context"
	"io"
	"strings"

	"kiste/fault"
	"kiste/image/source"
)

// OpenDir opens skopeo's flat directory: manifest.json, and each blob in a
// file named by the hexadecimal digits of its digest
// (containers-transports(5)).
func OpenDir(path string) (source.Source, error) {
	tree, err := openTree(path)
	if err != nil {
		return nil, &fault.Error{Op: "open image directory", On: path, Err: err}
	}
	b, err := readFile(tree, "manifest.json", source.MaxManifest)
	if err != nil {
		tree.Close()
		return nil, &fault.Error{Op: "open image directory", On: path, Err: err,
			Hint: `"skopeo copy … dir:DIR" makes such a directory; a plain root file system is rootfs:DIR, an OCI layout is oci:DIR`}
	}
	return &flat{tree, b}, nil
}

// A flat is a Source over skopeo's directory.
type flat struct {
	tree     Tree
	manifest []byte
}

func (f *flat) Root(context.Context) (source.Descriptor, []byte, error) {
	return source.Descriptor{Digest: source.Digest(f.manifest), Size: int64(len(f.manifest))}, f.manifest, nil
}

// Manifest reads a manifest of an index: "skopeo copy --all" writes it to
// HEX.manifest.json.
func (f *flat) Manifest(_ context.Context, d source.Descriptor) ([]byte, error) {
	b, err := readFile(f.tree, flatName(d.Digest)+".manifest.json", source.MaxManifest)
	return b, missing(d, err)
}

func (f *flat) Blob(_ context.Context, d source.Descriptor, offset int64) (io.ReadCloser, error) {
	rc, err := openAt(f.tree, flatName(d.Digest), d, offset)
	return rc, missing(d, err)
}

func (f *flat) Close() error { return f.tree.Close() }

// flatName is HEX, and sha512-HEX for what is not of sha256.
func flatName(digest string) string {
	if hex, ok := strings.CutPrefix(digest, "sha256:"); ok {
		return hex
	}
	return strings.Replace(digest, ":", "-", 1)
}
