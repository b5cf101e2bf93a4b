package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"kiste/fault"
	"kiste/image/compression"
	"kiste/image/reference"
	"kiste/image/source"
)

const (
	maxTable  = 4 << 20 // of manifest.json
	maxImages = 4096
)

// An item is one image in the manifest.json of an archive (Docker image
// specification v1.2).
type item struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// A docker is a Source over an archive of "docker save". Such an archive has
// no manifest: one is made up, with the layers as the blobs, which is the same
// each time.
type docker struct {
	tree     *tarTree
	manifest []byte
	files    map[string]string // paths in the tar, by digest
}

func newDocker(t *tarTree, which string) (*docker, error) {
	b, err := t.read("manifest.json", maxTable)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noTable(t)
	}
	if err != nil {
		return nil, err
	}
	items, err := parseTable(b)
	if err != nil {
		return nil, err
	}
	it, err := choose(items, which)
	if err != nil {
		return nil, err
	}
	d := &docker{tree: t, files: map[string]string{}}
	if err := d.compose(it); err != nil {
		return nil, err
	}
	return d, nil
}

// noTable says what an archive without manifest.json is instead.
func noTable(t *tarTree) error {
	e := &fault.Error{Op: "read archive", Kind: fault.Invalid, Err: errors.New("it has no manifest.json"),
		Hint: `"docker save" makes such archives; a tar of a plain root file system is rootfs:FILE, or "kiste import"`}
	if _, err := t.find("oci-layout"); err == nil {
		e.Hint = "it is an OCI layout: write oci-archive:FILE"
	} else if _, err := t.find("repositories"); err == nil {
		e.Kind, e.Hint = fault.Unsupported, "it was saved by a Docker before 1.10: load it into a newer one and save it again"
	}
	return e
}

// parseTable reads manifest.json.
func parseTable(b []byte) ([]item, error) {
	var items []item
	if err := json.Unmarshal(b, &items); err != nil {
		return nil, damaged(fmt.Errorf("manifest.json: %w", err))
	}
	if len(items) > maxImages {
		return nil, damaged(fmt.Errorf("it has %d images and may have %d", len(items), maxImages))
	}
	for i, it := range items {
		if it.Config == "" {
			return nil, damaged(fmt.Errorf("image %d has no config", i))
		}
		if len(it.Layers) > source.MaxLayers {
			return nil, damaged(fmt.Errorf("image %d has %d layers and may have %d", i, len(it.Layers), source.MaxLayers))
		}
	}
	return items, nil
}

func choose(items []item, which string) (item, error) {
	if n, ok := strings.CutPrefix(which, "@"); ok {
		if i, err := strconv.Atoi(n); err == nil && i >= 0 && i < len(items) {
			return items[i], nil
		}
		return item{}, notThere(items, which)
	}
	if which == "" {
		if len(items) == 1 {
			return items[0], nil
		}
		return item{}, &fault.Error{Op: "choose image", Kind: fault.Invalid, Err: fmt.Errorf("there are %d", len(items)),
			Hint: "say which, by :NAME or :@N: it has " + names(items)}
	}
	for _, it := range items {
		if slices.ContainsFunc(it.RepoTags, func(tag string) bool {
			ref, err := reference.Parse(tag)
			return err == nil && ref.String() == which
		}) {
			return it, nil
		}
	}
	return item{}, notThere(items, which)
}

func notThere(items []item, which string) error {
	return &fault.Error{Op: "find image in archive", On: which, Kind: fault.NotFound, Hint: "it has " + names(items)}
}

func names(items []item) string {
	var list []string
	for i, it := range items {
		if i == 16 {
			list = append(list, "…")
			break
		}
		name := "@" + strconv.Itoa(i)
		if len(it.RepoTags) > 0 {
			name = fmt.Sprintf("%.128q", it.RepoTags[0])
		}
		list = append(list, name)
	}
	if len(list) == 0 {
		return "no image at all"
	}
	return strings.Join(list, ", ")
}

// compose makes the manifest up.
func (d *docker) compose(it item) error {
	raw, err := d.tree.read(it.Config, source.MaxConfig)
	if err != nil {
		return incomplete(err)
	}
	config, err := source.ParseConfig(raw)
	if err != nil {
		return err
	}
	if len(config.RootFS.DiffIDs) != len(it.Layers) {
		return damaged(fmt.Errorf("manifest.json has %d layers and the config has %d", len(it.Layers), len(config.RootFS.DiffIDs)))
	}
	m := source.Manifest{SchemaVersion: 2, MediaType: source.MediaDockerManifest,
		Config: source.Descriptor{MediaType: source.MediaDockerConfig, Digest: source.Digest(raw), Size: int64(len(raw))},
		Layers: []source.Descriptor{}}
	d.files[m.Config.Digest] = it.Config
	for i, name := range it.Layers {
		layer, err := d.layer(name, config.RootFS.DiffIDs[i])
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, layer)
	}
	d.manifest, err = json.Marshal(m)
	return err
}

// layer describes a layer's file. It is a tar, and so has the digest that the
// config gives; but newer archives may have it compressed, and then only the
// file's name or its bytes tell the digest.
func (d *docker) layer(name, diffID string) (source.Descriptor, error) {
	e, err := d.tree.find(name)
	if err != nil {
		return source.Descriptor{}, incomplete(err)
	}
	if err := reference.CheckDigest(diffID); err != nil {
		return source.Descriptor{}, damaged(err)
	}
	content := io.NewSectionReader(d.tree.file, e.offset, e.size)
	head := make([]byte, compression.HeadSize)
	n, _ := content.ReadAt(head, 0)
	desc := source.Descriptor{MediaType: source.MediaDockerLayer, Digest: diffID, Size: e.size}
	switch c := compression.Of(head[:n]); c {
	case "":
	case "gzip", "zstd":
		desc.MediaType += "." + c
		if desc.Digest, err = digestOf(name, content); err != nil {
			return source.Descriptor{}, err
		}
	default:
		return source.Descriptor{}, &fault.Error{Op: "read archive", Kind: fault.Unsupported, Err: fmt.Errorf("layer %.80q is compressed with %s", name, c)}
	}
	d.files[desc.Digest] = name
	return desc, nil
}

// digestOf takes the digest from a path like blobs/sha256/HEX, since the
// content is verified when it is read; else it reads the content.
func digestOf(name string, content io.Reader) (string, error) {
	if dir, hex := path.Split(name); dir == "blobs/sha256/" && reference.CheckDigest("sha256:"+hex) == nil {
		return "sha256:" + hex, nil
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, content); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), nil
}

func incomplete(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return damaged(err)
	}
	return err
}

func (d *docker) Root(context.Context) (source.Descriptor, []byte, error) {
	return source.Descriptor{MediaType: source.MediaDockerManifest, Digest: source.Digest(d.manifest), Size: int64(len(d.manifest))}, d.manifest, nil
}

// Manifest finds nothing: the root is no index.
func (d *docker) Manifest(_ context.Context, desc source.Descriptor) ([]byte, error) {
	return nil, &fault.Error{Op: "open manifest", On: desc.Digest, Kind: fault.NotFound}
}

func (d *docker) Blob(_ context.Context, desc source.Descriptor, offset int64) (io.ReadCloser, error) {
	name, ok := d.files[desc.Digest]
	if !ok {
		return nil, &fault.Error{Op: "open blob", On: desc.Digest, Kind: fault.NotFound}
	}
	f, _, err := d.tree.Open(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	return f, nil
}

func (d *docker) Close() error { return d.tree.Close() }

// read reads a small file of the tar.
func (t *tarTree) read(name string, most int64) ([]byte, error) {
	e, err := t.find(name)
	if err != nil {
		return nil, err
	}
	if e.size > most {
		return nil, damaged(fmt.Errorf("%.80q has %d bytes and may have %d", name, e.size, most))
	}
	b := make([]byte, e.size)
	_, err = t.file.ReadAt(b, e.offset)
	return b, err
}
