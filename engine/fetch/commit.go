package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kiste/fault"
	"kiste/image/catalog"
	"kiste/image/layer"
	"kiste/image/snapshot"
	"kiste/image/source"
	"kiste/store"
)

// CommitOptions say what to make of a container.
type CommitOptions struct {
	Name      string         // of the new image, canonical; empty: none
	Parent    string         // the ID of the image that the changes are laid on; empty: they are all there is
	Config    catalog.Config // of the container, with what its user said at its start
	Changes   []string       // Dockerfile instructions
	Author    string
	Message   string
	Container string // its id, for the catalog
	Layer     layer.Options
}

// Commit makes an image of a layer's tar and the image below it, as "docker
// commit" does: the history and the layers of the parent stay. A tar without
// entries makes no layer.
func Commit(ctx context.Context, s store.Store, r io.Reader, o CommitOptions) (catalog.Entry, error) {
	e, err := commitTar(ctx, s, r, o)
	if err != nil {
		return e, &fault.Error{Op: "commit container", On: o.Container, Err: err}
	}
	return e, nil
}

func commitTar(ctx context.Context, s store.Store, r io.Reader, o CommitOptions) (catalog.Entry, error) {
	if err := changeAll(&o.Config, o.Changes); err != nil {
		return catalog.Entry{}, err
	}
	if err := prepare(s); err != nil {
		return catalog.Entry{}, err
	}
	lock, err := store.LockFile(filepath.Join(s.Lib, "lock"), false)
	if err != nil {
		return catalog.Entry{}, err
	}
	defer lock.Unlock()
	parent, doc, err := parentOf(s, o.Parent)
	if err != nil {
		return catalog.Entry{}, err
	}
	parent.Name, parent.Source = o.Name, "container:"+o.Container
	return commitLayer(ctx, s, r, parent, doc, o)
}

// A document is an image's config as it lies in the store; what Kiste does not
// know is kept.
type document map[string]json.RawMessage

// parentOf reads the image that is to be the parent.
func parentOf(s store.Store, id string) (catalog.Entry, document, error) {
	doc := document{}
	if id == "" {
		p := source.Host()
		e := catalog.Entry{Platform: p.String()}
		return e, doc, errors.Join(doc.set("architecture", p.Architecture), doc.set("os", p.OS))
	}
	e, err := catalog.Get(s, id)
	if fault.KindOf(err) == fault.NotFound {
		err = &fault.Error{Op: "find the container's image", On: id, Kind: fault.NotFound, Err: errors.New("it was removed by force"), Hint: "pull it again, or make an image without a parent: kiste export CONTAINER | kiste import - NAME"}
	}
	if err != nil {
		return e, nil, err
	}
	b, err := os.ReadFile(s.Blob(e.ID))
	if err == nil && source.Digest(b) != e.ID {
		err = errors.New("it is damaged")
	}
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil {
		return e, nil, &fault.Error{Op: "read config of image", On: id, Kind: fault.Invalid, Err: err, Hint: "pull the image again"}
	}
	return e, doc, nil
}

func (d document) set(key string, v any) error {
	b, err := json.Marshal(v)
	d[key] = b
	return err
}

// grow adds to a list of the document.
func (d document) grow(list *[]json.RawMessage, raw json.RawMessage, v any) error {
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, list); err != nil {
			return err
		}
	}
	b, err := json.Marshal(v)
	*list = append(*list, b)
	return err
}

// commitLayer unpacks the layer and writes the image that has it.
func commitLayer(ctx context.Context, s store.Store, r io.Reader, e catalog.Entry, doc document, o CommitOptions) (catalog.Entry, error) {
	l := snapshot.Open(s)
	l.Userxattr = o.Layer.Userxattr
	temp, err := os.MkdirTemp(l.Dir, ".tmp-*")
	if err != nil {
		return e, err
	}
	defer os.RemoveAll(temp)
	blob, err := os.CreateTemp(filepath.Dir(s.Partial("sha256:x")), ".tmp-*")
	if err != nil {
		return e, err
	}
	defer os.Remove(blob.Name())
	defer blob.Close()
	fl, err := startFlush(s)
	if err != nil {
		return e, err
	}
	defer fl.close()
	m, b, err := unpackLayer(ctx, r, io.MultiWriter(blob, fl), temp, o.Layer)
	if err != nil {
		return e, err
	}
	if m.Entries > 0 {
		if err := os.Rename(blob.Name(), s.Blob(b.Digest)); err != nil {
			return e, err
		}
		if !present(l, m.Key, m.Boot) {
			if err := commit(l, temp, m); err != nil {
				return e, err
			}
		}
		if err := settle(fl, l, []string{m.Key}); err != nil {
			return e, err
		}
		e.DiffIDs, e.Layers, e.Blobs, e.Size = append(e.DiffIDs, m.DiffID), append(e.Layers, m.Key), append(e.Blobs, b), e.Size+m.Size
	}
	return describeCommit(s, e, doc, m.Entries == 0, o)
}

// A history is one entry of an image's history (image-spec, config.md).
type history struct {
	Created    time.Time `json:"created"`
	CreatedBy  string    `json:"created_by,omitempty"`
	Author     string    `json:"author,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	EmptyLayer bool      `json:"empty_layer,omitempty"`
}

// describeCommit writes config and manifest and the catalog's entry.
func describeCommit(s store.Store, e catalog.Entry, doc document, empty bool, o CommitOptions) (catalog.Entry, error) {
	now := time.Now().UTC()
	var past []json.RawMessage
	err := doc.grow(&past, doc["history"], history{now, strings.Join(o.Config.Cmd, " "), o.Author, o.Message, empty})
	config := o.Config
	config.Architecture, config.OS = "", ""
	delete(doc, "author")
	if o.Author != "" {
		err = errors.Join(err, doc.set("author", o.Author))
	}
	err = errors.Join(err, doc.set("history", past), doc.set("created", now), doc.set("config", config),
		doc.set("rootfs", map[string]any{"type": "layers", "diff_ids": append([]string{}, e.DiffIDs...)}))
	if err != nil {
		return e, err
	}
	configJSON, err := json.Marshal(doc)
	if err != nil {
		return e, err
	}
	manifest := source.Manifest{SchemaVersion: 2, MediaType: source.MediaManifest, Layers: []source.Descriptor{},
		Config: source.Descriptor{MediaType: source.MediaConfig, Digest: source.Digest(configJSON), Size: int64(len(configJSON))}}
	for _, b := range e.Blobs {
		manifest.Layers = append(manifest.Layers, source.Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size})
	}
	manifestJSON, err := json.Marshal(manifest)
	if err != nil {
		return e, err
	}
	e.ID, e.Manifest, e.Root = source.Digest(configJSON), source.Digest(manifestJSON), source.Digest(manifestJSON)
	e.Created, e.Pulled = now, now
	if err := readConfig(configJSON, &e); err != nil {
		return e, err
	}
	if err := errors.Join(keepBlob(s, e.ID, configJSON), keepBlob(s, e.Manifest, manifestJSON)); err != nil {
		return e, err
	}
	return e, catalog.Put(s, e)
}
