package layout

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"

	"kiste/fault"
	"kiste/image/source"
	"kiste/store"
)

// A Writer makes an OCI layout. It is for one goroutine.
type Writer struct {
	dir     string
	entries []source.Descriptor
}

// Create begins a layout in dir, which it makes if need be. A layout that is
// there already is fault.Exists.
func Create(dir string) (*Writer, error) {
	w := &Writer{dir: dir}
	if _, err := os.Lstat(filepath.Join(dir, "oci-layout")); err == nil {
		return nil, &fault.Error{Op: "create image layout", On: dir, Kind: fault.Exists}
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return nil, &fault.Error{Op: "create image layout", On: dir, Err: err}
	}
	err := errors.Join(w.writeIndex(), store.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`)))
	if err != nil {
		return nil, &fault.Error{Op: "create image layout", On: dir, Err: err}
	}
	return w, nil
}

// Put adds a blob and gives its descriptor.
func (w *Writer) Put(mediaType string, r io.Reader) (source.Descriptor, error) {
	blobs := filepath.Join(w.dir, "blobs/sha256")
	f, err := os.CreateTemp(blobs, ".tmp-*")
	if err != nil {
		return source.Descriptor{}, err
	}
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, hash), r)
	err = errors.Join(err, f.Close())
	name := hex.EncodeToString(hash.Sum(nil))
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(blobs, name))
	}
	if err != nil {
		os.Remove(f.Name())
		return source.Descriptor{}, &fault.Error{Op: "write blob", On: w.dir, Err: err}
	}
	return source.Descriptor{MediaType: mediaType, Digest: "sha256:" + name, Size: n}, nil
}

// PutJSON adds v as a blob.
func (w *Writer) PutJSON(mediaType string, v any) (source.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return source.Descriptor{}, &fault.Error{Op: "write blob", On: w.dir, Kind: fault.Invalid, Err: err}
	}
	return w.Put(mediaType, bytes.NewReader(b))
}

// Name makes d, a manifest or an index, an image of the layout. An older image
// of the same name loses it; an empty name is none.
func (w *Writer) Name(d source.Descriptor, name string) error {
	var kept []source.Descriptor
	for _, e := range w.entries {
		if name == "" || e.Annotations[annotationRefName] != name {
			kept = append(kept, e)
		}
	}
	if name != "" {
		d.Annotations = map[string]string{annotationRefName: name}
	}
	w.entries = append(kept, d)
	return w.writeIndex()
}

// An Index is an image index (image-spec, image-index.md), to be written.
type Index struct {
	SchemaVersion int                 `json:"schemaVersion"`
	MediaType     string              `json:"mediaType,omitempty"`
	Manifests     []source.Descriptor `json:"manifests"`
}

func (w *Writer) writeIndex() error {
	entries := w.entries
	if entries == nil {
		entries = []source.Descriptor{}
	}
	b, err := json.Marshal(Index{SchemaVersion: 2, MediaType: source.MediaIndex, Manifests: entries})
	if err != nil {
		return err
	}
	return store.WriteFile(filepath.Join(w.dir, "index.json"), b)
}
