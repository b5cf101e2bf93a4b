// Package source is what every place that images come from has in common: a
// registry, a layout, an archive.
//
//	takes    a Source, and a platform
//	gives    an Image: its manifest, its config, its layers; blobs, verified
//	touches  what the Source touches
//	state    none
//
// A Source only moves bytes. All judgement is here, once for all of them:
// which kind of document it is, which manifest of an index fits the platform,
// how large anything may be, and that every byte is the one that its digest
// names. What a Source gives is hostile until it has passed here.
//
//	img, err := source.Resolve(ctx, src, source.Options{})
//	blob, err := source.Open(ctx, src, img.Layers[0].Descriptor, nil)
//
// The types are those of the OCI image specification v1.1.1 as far as Kiste
// needs them, and this package links neither HTTP nor compression.
//
// A Source is safe for concurrent use.
package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"kiste/fault"
	"kiste/image/reference"
)

// A Source is one image, perhaps for several platforms, in one place.
type Source interface {
	// Root gives the document that the image's name stands for: a manifest or
	// an index. The descriptor's size and digest are those of the bytes; its
	// media type may be empty where the place does not tell.
	Root(ctx context.Context) (Descriptor, []byte, error)

	// Manifest gives the document that d, found in an index, describes: at
	// most MaxManifest bytes, not verified.
	Manifest(ctx context.Context, d Descriptor) ([]byte, error)

	// Blob gives the content that d describes from the byte at offset on, not
	// verified. Offset is at most d.Size.
	Blob(ctx context.Context, d Descriptor, offset int64) (io.ReadCloser, error)

	// Close gives back what the Source holds.
	Close() error
}

// A Descriptor names content (image-spec, descriptor.md).
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// Bounds on what is read into memory.
const (
	MaxManifest = 4 << 20 // of a manifest or an index, as registries have it
	MaxConfig   = 8 << 20
	MaxLayers   = 500 // the overlay driver's limit
	maxEntries  = 4096
	maxNested   = 4  // indexes in indexes
	maxLooks    = 16 // documents read to find one that fits
)

// An Image is one manifest and what it leads to.
type Image struct {
	Root         Descriptor // what the name stands for: the manifest, or an index that leads to it
	Manifest     Descriptor
	ManifestJSON []byte // exactly as it came: its digest is Manifest.Digest
	Config       Descriptor
	ConfigJSON   []byte // the image-spec's config.md, exactly as it came
	Platform     Platform
	Layers       []Layer // the lowest first
}

// A Layer is a blob and what it unpacks to.
type Layer struct {
	Descriptor
	DiffID      string // the digest of the tar inside
	Compression string // what the media type says: "", "gzip" or "zstd"
}

// Options says which image is wanted.
type Options struct {
	// Platform is "os/arch[/variant]". Empty: this host's; then an image for a
	// single other platform is given all the same, as Docker does.
	Platform string
}

// Resolve finds the image of s for a platform. No image for it is
// fault.NotFound and lists those that there are; what is no image, or is
// damaged, is fault.Invalid; what Kiste does not take is fault.Unsupported.
func Resolve(ctx context.Context, s Source, o Options) (*Image, error) {
	want, err := wanted(o.Platform)
	if err != nil {
		return nil, err
	}
	root, b, err := s.Root(ctx)
	if err != nil {
		return nil, err
	}
	if err := check(root, b); err != nil {
		return nil, err
	}
	root.Platform = nil // nothing was chosen by it
	r := &resolver{source: s, want: want, strict: o.Platform != ""}
	img, err := r.document(ctx, root, b, 0)
	switch {
	case err != nil:
		return nil, err
	case img == nil:
		return nil, r.noPlatform()
	}
	img.Root = root
	return img, nil
}

// A resolver looks for one manifest.
type resolver struct {
	source Source
	want   []Platform // the best first
	strict bool       // the platform was asked for
	looks  int
	seen   []string // the platforms that were there
}

func (r *resolver) noPlatform() error {
	return &fault.Error{Op: "find image for platform", On: r.want[0].String(), Kind: fault.NotFound,
		Err:  errors.New("the image has none for it"),
		Hint: "it has " + r.list() + "; choose with --platform"}
}

func (r *resolver) list() string {
	if len(r.seen) == 0 {
		return "no platform at all"
	}
	const most = 32
	if len(r.seen) > most {
		return strings.Join(r.seen[:most], ", ") + " …"
	}
	return strings.Join(r.seen, ", ")
}

// document looks at one manifest or index. No image and no error: it does not
// fit the platform.
func (r *resolver) document(ctx context.Context, d Descriptor, b []byte, depth int) (*Image, error) {
	doc, err := ParseDocument(b, d.MediaType)
	if err != nil {
		return nil, err
	}
	d.MediaType = doc.MediaType
	if doc.Index != nil {
		return r.index(ctx, doc.Index, depth)
	}
	return r.image(ctx, d, b, doc.Manifest, depth)
}

// index tries the entries that fit, the best first.
func (r *resolver) index(ctx context.Context, entries []Descriptor, depth int) (*Image, error) {
	if depth == maxNested {
		return nil, invalid("indexes are nested more than %d deep", maxNested)
	}
	r.note(entries)
	for _, d := range rank(entries, r.want) {
		if r.looks++; r.looks > maxLooks {
			return nil, invalid("more than %d documents had to be read", maxLooks)
		}
		b, err := r.manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		img, err := r.document(ctx, d, b, depth+1)
		if err != nil || img != nil {
			return img, err
		}
	}
	return nil, nil
}

func (r *resolver) note(entries []Descriptor) {
	for _, d := range entries {
		if d.Platform != nil && d.Platform.known() {
			r.saw(*d.Platform)
		}
	}
}

func (r *resolver) saw(p Platform) {
	name := p.normal().String()
	for _, have := range r.seen {
		if have == name {
			return
		}
	}
	r.seen = append(r.seen, name)
}

func (r *resolver) manifest(ctx context.Context, d Descriptor) ([]byte, error) {
	if d.Size > MaxManifest {
		return nil, invalid("the manifest %s has %d bytes and may have %d", d.Digest, d.Size, MaxManifest)
	}
	b, err := r.source.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	return b, check(d, b)
}

// image reads the config of a manifest and checks that the two fit together.
func (r *resolver) image(ctx context.Context, d Descriptor, b []byte, m *Manifest, depth int) (*Image, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	raw, err := Read(ctx, r.source, m.Config, MaxConfig)
	if err != nil {
		return nil, err
	}
	config, err := ParseConfig(raw)
	if err != nil {
		return nil, err
	}
	r.saw(config.Platform)
	if !r.fits(config.Platform, d.Platform, depth) {
		return nil, nil
	}
	layers, err := m.layers(config.RootFS.DiffIDs)
	if err != nil {
		return nil, err
	}
	return &Image{Manifest: d, ManifestJSON: b, Config: m.Config, ConfigJSON: raw, Platform: config.Platform.normal(), Layers: layers}, nil
}

// fits decides by the config. What the index said of a manifest is believed:
// it was chosen for that. A manifest that stands alone is taken as it is,
// unless a platform was asked for.
func (r *resolver) fits(have Platform, index *Platform, depth int) bool {
	if index != nil && index.known() || depth == 0 && !r.strict {
		return true
	}
	return score(have, r.want) >= 0
}

// Read reads the whole of what d describes, verified, if it has at most most
// bytes.
func Read(ctx context.Context, s Source, d Descriptor, most int64) ([]byte, error) {
	if d.Size > most {
		return nil, invalid("%s has %d bytes and may have %d", d.Digest, d.Size, most)
	}
	rc, err := Open(ctx, s, d, nil)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

// A Manifest is an image manifest (image-spec, manifest.md), also Docker's
// schema 2, which has the same shape.
type Manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

func (m *Manifest) check() error {
	switch m.Config.MediaType {
	case MediaConfig, MediaDockerConfig, "application/octet-stream", "":
	default:
		return &fault.Error{Op: "read manifest", Kind: fault.Unsupported,
			Err: fmt.Errorf("it is of an artifact (%.100q), not of a container image", m.Config.MediaType)}
	}
	if err := m.Config.check(); err != nil {
		return err
	}
	if len(m.Layers) > MaxLayers {
		return invalid("the image has %d layers and may have %d", len(m.Layers), MaxLayers)
	}
	for _, d := range m.Layers {
		if err := checkLayer(d); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manifest) layers(diffIDs []string) ([]Layer, error) {
	if len(diffIDs) != len(m.Layers) {
		return nil, invalid("the manifest has %d layers and the config has %d", len(m.Layers), len(diffIDs))
	}
	layers := make([]Layer, len(diffIDs))
	for i, id := range diffIDs {
		if err := reference.CheckDigest(id); err != nil {
			return nil, invalid("layer %d: %w", i, err)
		}
		compression, _ := compressionOf(m.Layers[i].MediaType)
		layers[i] = Layer{Descriptor: m.Layers[i], DiffID: id, Compression: compression}
	}
	return layers, nil
}

func (d Descriptor) check() error {
	if err := reference.CheckDigest(d.Digest); err != nil {
		return invalid("%w", err)
	}
	if d.Size < 0 {
		return invalid("%s has %d bytes", d.Digest, d.Size)
	}
	return nil
}

func checkLayer(d Descriptor) error {
	if err := d.check(); err != nil {
		return err
	}
	if len(d.URLs) > 0 {
		return &fault.Error{Op: "read manifest", Kind: fault.Unsupported,
			Err: errors.New("a layer is to be fetched from elsewhere (a foreign layer, as Windows images have)")}
	}
	if strings.HasSuffix(d.MediaType, "+encrypted") {
		return &fault.Error{Op: "read manifest", Kind: fault.Unsupported, Err: errors.New("a layer is encrypted")}
	}
	if _, ok := compressionOf(d.MediaType); !ok {
		return &fault.Error{Op: "read manifest", Kind: fault.Unsupported, Err: fmt.Errorf("a layer has the media type %.100q", d.MediaType)}
	}
	return nil
}

// A Config is what Resolve needs of an image's config (image-spec, config.md).
type Config struct {
	Platform
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// ParseConfig reads an image's config.
func ParseConfig(b []byte) (*Config, error) {
	c := &Config{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, invalid("the image's config: %w", err)
	}
	if len(c.RootFS.DiffIDs) > MaxLayers {
		return nil, invalid("the image's config has %d layers and may have %d", len(c.RootFS.DiffIDs), MaxLayers)
	}
	return c, nil
}

func invalid(format string, args ...any) error {
	return &fault.Error{Op: "read image", Kind: fault.Invalid, Err: fmt.Errorf(format, args...)}
}
