package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"kiste/fault"
)

// The media types that Kiste takes (image-spec, media-types.md; Docker's image
// manifest version 2, schema 2).
const (
	MediaIndex    = "application/vnd.oci.image.index.v1+json"
	MediaManifest = "application/vnd.oci.image.manifest.v1+json"
	MediaConfig   = "application/vnd.oci.image.config.v1+json"
	MediaLayer    = "application/vnd.oci.image.layer.v1.tar" // and "+gzip", "+zstd"

	MediaDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaDockerConfig   = "application/vnd.docker.container.image.v1+json"
	MediaDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar" // and ".gzip", ".zstd"
)

// compressionOf tells how a layer's media type says it is compressed; not ok:
// it is not a layer's.
func compressionOf(mediaType string) (compression string, ok bool) {
	for _, base := range [...]string{MediaLayer, MediaDockerLayer,
		"application/vnd.oci.image.layer.nondistributable.v1.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar"} {
		rest, found := strings.CutPrefix(mediaType, base)
		if !found {
			continue
		}
		switch rest {
		case "":
			return "", true
		case "+gzip", ".gzip":
			return "gzip", true
		case "+zstd", ".zstd":
			return "zstd", true
		}
	}
	return "", false
}

// A Document is a manifest or an index.
type Document struct {
	MediaType string
	Manifest  *Manifest    // nil: it is an index
	Index     []Descriptor // of an index, never nil then
}

// ParseDocument reads a manifest or an index. MediaType is what its place says
// it is; empty, or a general type, leaves that to the document. One that could
// be read as two things is refused (CVE-2021-41190): with both manifests and
// layers, with a key twice, or of another media type than its place says.
func ParseDocument(b []byte, mediaType string) (*Document, error) {
	if len(b) > MaxManifest {
		return nil, invalid("the manifest has %d bytes and may have %d", len(b), MaxManifest)
	}
	keys, err := topKeys(b)
	if err != nil {
		return nil, invalid("the manifest: %w", err)
	}
	mediaType, err = kindOf(b, keys, mediaType)
	if err != nil {
		return nil, err
	}
	if mediaType == MediaIndex || mediaType == MediaDockerList {
		return parseIndex(b, mediaType)
	}
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, invalid("the manifest: %w", err)
	}
	if m.SchemaVersion != 2 {
		return nil, invalid("the manifest has schema version %d, not 2", m.SchemaVersion)
	}
	return &Document{MediaType: mediaType, Manifest: m}, nil
}

func parseIndex(b []byte, mediaType string) (*Document, error) {
	var index struct {
		SchemaVersion int          `json:"schemaVersion"`
		Manifests     []Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, invalid("the index: %w", err)
	}
	if index.SchemaVersion != 2 {
		return nil, invalid("the index has schema version %d, not 2", index.SchemaVersion)
	}
	if len(index.Manifests) > maxEntries {
		return nil, invalid("the index has %d entries and may have %d", len(index.Manifests), maxEntries)
	}
	for _, d := range index.Manifests {
		if err := d.check(); err != nil {
			return nil, err
		}
	}
	if index.Manifests == nil {
		index.Manifests = []Descriptor{}
	}
	return &Document{MediaType: mediaType, Index: index.Manifests}, nil
}

// kindOf decides what a document is, by its keys, its own media type and that
// of its place, which must agree.
func kindOf(b []byte, keys []string, place string) (string, error) {
	var own struct {
		MediaType     string          `json:"mediaType"`
		SchemaVersion json.RawMessage `json:"schemaVersion"`
	}
	if err := json.Unmarshal(b, &own); err != nil {
		return "", invalid("the manifest: %w", err)
	}
	if string(own.SchemaVersion) == "1" || strings.Contains(place, "distribution.manifest.v1+") || has(keys, "fsLayers") {
		return "", &fault.Error{Op: "read manifest", Kind: fault.Unsupported,
			Err:  errors.New("it is of Docker's schema 1, which was given up in 2017"),
			Hint: "build or push the image again with any newer tool"}
	}
	isIndex := has(keys, "manifests")
	isImage := has(keys, "layers") || has(keys, "config")
	if isIndex == isImage {
		return "", invalid("the document is neither an index nor a manifest, or it is both")
	}
	if general(place) {
		place = ""
	}
	if own.MediaType != "" && place != "" && own.MediaType != place {
		return "", invalid("the document says that it is %.100q and its place says %.100q", own.MediaType, place)
	}
	mediaType := first(own.MediaType, place)
	switch {
	case mediaType == "" && isIndex:
		return MediaIndex, nil
	case mediaType == "":
		return MediaManifest, nil
	case isIndex && (mediaType == MediaIndex || mediaType == MediaDockerList), isImage && (mediaType == MediaManifest || mediaType == MediaDockerManifest):
		return mediaType, nil
	}
	return "", &fault.Error{Op: "read manifest", Kind: fault.Unsupported, Err: fmt.Errorf("its media type is %.100q", mediaType)}
}

// general reports whether a media type says nothing of the document.
func general(mediaType string) bool {
	switch mediaType {
	case "", "application/json", "application/octet-stream", "text/plain", "text/json":
		return true
	}
	return false
}

// topKeys lists the keys of the object b. A key that stands there twice, or in
// another case than one that matters, is refused: readers disagree about such
// documents.
func topKeys(b []byte) ([]string, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is not a JSON object")
	}
	var keys []string
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, _ := t.(string)
		for _, k := range keys {
			if strings.EqualFold(k, key) {
				return nil, fmt.Errorf("the key %.100q stands there twice", key)
			}
		}
		if known := matters(key); known != "" && known != key {
			return nil, fmt.Errorf("the key %.100q is written %q", known, key)
		}
		if keys = append(keys, key); len(keys) > 64 {
			return nil, errors.New("it has too many keys")
		}
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("something follows the JSON object")
	}
	return keys, nil
}

// matters gives the right spelling of a key that decides what a document is.
func matters(key string) string {
	for _, k := range [...]string{"manifests", "layers", "config", "mediaType", "schemaVersion", "fsLayers"} {
		if strings.EqualFold(k, key) {
			return k
		}
	}
	return ""
}

func has(keys []string, key string) bool {
	for _, k := range keys {
		if k == key {
			return true
		}
	}
	return false
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
