package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kiste/engine/event"
	"kiste/fault"
	"kiste/host"
	"kiste/image/catalog"
	"kiste/image/layer"
	"kiste/image/reference"
	"kiste/image/snapshot"
	"kiste/image/source"
	"kiste/store"
)

// ImportOptions says what to make of a tar. The zero value is an image without
// a name and with an empty config.
type ImportOptions struct {
	Name     string   // canonical; empty: none
	Changes  []string // Dockerfile instructions, such as "CMD /bin/sh"
	Message  string   // of its one history entry
	Platform string   // "os/arch[/variant]". Empty: this host's
	Source   string   // where it came from, for the catalog
	Layer    layer.Options
}

// Import makes an image of one layer of a root file system's tar, compressed or
// not, as "docker import" does.
func Import(ctx context.Context, s store.Store, r io.Reader, o ImportOptions) (catalog.Entry, error) {
	e, err := importTar(ctx, s, r, o)
	if err != nil {
		return e, &fault.Error{Op: "import image", On: o.Name, Err: err}
	}
	return e, nil
}

func importTar(ctx context.Context, s store.Store, r io.Reader, o ImportOptions) (catalog.Entry, error) {
	if err := prepare(s); err != nil {
		return catalog.Entry{}, err
	}
	lock, err := store.LockFile(filepath.Join(s.Lib, "lock"), false)
	if err != nil {
		return catalog.Entry{}, err
	}
	defer lock.Unlock()
	e, err := importLocked(ctx, s, r, o)
	if err == nil {
		event.OfImage(s, "import", e.ID, familiar(e), e.Config.Labels)
	}
	return e, err
}

// importRootfs is pull of rootfs:PATH.
func importRootfs(ctx context.Context, s store.Store, src reference.Source, name string, o Options) (Result, error) {
	f, err := os.Open(src.Path)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = &fault.Error{Op: "import", On: src.Path, Kind: fault.Invalid, Err: errors.New("it is a directory, which is used where it is"), Hint: "kiste run " + src.String()}
	}
	if err != nil {
		return Result{}, err
	}
	e, err := importLocked(ctx, s, f, ImportOptions{Name: name, Platform: o.Platform, Source: src.String(), Layer: o.Layer})
	return Result{e, true}, err
}

func importLocked(ctx context.Context, s store.Store, r io.Reader, o ImportOptions) (catalog.Entry, error) {
	config := catalog.Config{}
	if err := changeAll(&config, o.Changes); err != nil {
		return catalog.Entry{}, err
	}
	l := snapshot.Open(s)
	l.Userxattr = o.Layer.Userxattr
	temp, err := os.MkdirTemp(l.Dir, ".tmp-*")
	if err != nil {
		return catalog.Entry{}, err
	}
	defer os.RemoveAll(temp)
	blob, err := os.CreateTemp(filepath.Dir(s.Partial("sha256:x")), ".tmp-*")
	if err != nil {
		return catalog.Entry{}, err
	}
	defer os.Remove(blob.Name())
	defer blob.Close()
	fl, err := startFlush(s)
	if err != nil {
		return catalog.Entry{}, err
	}
	defer fl.close()
	m, b, err := importLayer(ctx, r, io.MultiWriter(blob, fl), temp, o.Layer)
	if err != nil {
		return catalog.Entry{}, err
	}
	if err := os.Rename(blob.Name(), s.Blob(b.Digest)); err != nil {
		return catalog.Entry{}, err
	}
	if !present(l, m.Key, m.Boot) {
		if err := commit(l, temp, m); err != nil {
			return catalog.Entry{}, err
		}
	}
	if err := settle(fl, l, []string{m.Key}); err != nil {
		return catalog.Entry{}, err
	}
	return describe(s, config, m, b, o)
}

// importLayer is unpackLayer of a whole root file system.
func importLayer(ctx context.Context, r io.Reader, blob io.Writer, temp string, o layer.Options) (snapshot.Metadata, catalog.Blob, error) {
	o.Plain = true
	m, b, err := unpackLayer(ctx, r, blob, temp, o)
	if err == nil && m.Entries == 0 {
		err = &fault.Error{Op: "read tar", Kind: fault.Invalid, Err: errors.New("there is nothing in it")}
	}
	return m, b, err
}

// unpackLayer unpacks r into temp and copies it, as it came, to blob.
func unpackLayer(ctx context.Context, r io.Reader, blob io.Writer, temp string, o layer.Options) (snapshot.Metadata, catalog.Blob, error) {
	diff := filepath.Join(temp, "diff")
	if err := errors.Join(os.Chmod(temp, 0o711), os.Mkdir(diff, 0o755), os.Chmod(diff, 0o755)); err != nil {
		return snapshot.Metadata{}, catalog.Blob{}, err
	}
	c := &counter{w: blob, sum: sha256.New()}
	res, err := layer.Apply(ctx, io.TeeReader(r, c), diff, o)
	if err != nil {
		return snapshot.Metadata{}, catalog.Blob{}, err
	}
	m := snapshot.Metadata{Schema: 1, Key: res.DiffID, DiffID: res.DiffID, Size: res.Size, Entries: res.Entries, Skipped: res.Skipped, Boot: host.BootID()}
	return m, catalog.Blob{Digest: "sha256:" + hex.EncodeToString(c.sum.Sum(nil)), Size: c.n, MediaType: mediaType(c.head)}, nil
}

// A counter writes, counts, hashes, and keeps the first bytes.
type counter struct {
	w    io.Writer
	sum  hash.Hash
	n    int64
	head []byte
}

func (c *counter) Write(p []byte) (int, error) {
	c.head = append(c.head, p[:min(len(p), max(0, 4-len(c.head)))]...)
	c.n += int64(len(p))
	c.sum.Write(p)
	return c.w.Write(p)
}

// mediaType is that of a layer that begins with head; of bzip2 and xz, for
// which OCI has none, that of no compression with its name.
func mediaType(head []byte) string {
	switch {
	case strings.HasPrefix(string(head), "\x1f\x8b"):
		return source.MediaLayer + "+gzip"
	case strings.HasPrefix(string(head), "\x28\xb5\x2f\xfd"):
		return source.MediaLayer + "+zstd"
	case strings.HasPrefix(string(head), "BZh"):
		return source.MediaLayer + "+bzip2"
	case strings.HasPrefix(string(head), "\xfd7zX"):
		return source.MediaLayer + "+xz"
	}
	return source.MediaLayer
}

// describe writes config and manifest and the catalog's entry.
func describe(s store.Store, config catalog.Config, m snapshot.Metadata, b catalog.Blob, o ImportOptions) (catalog.Entry, error) {
	platform := source.Host()
	if o.Platform != "" {
		var err error
		if platform, err = source.ParsePlatform(o.Platform); err != nil {
			return catalog.Entry{}, err
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	message := o.Message
	if message == "" {
		message = "Imported from " + o.Source
	}
	configJSON, err := json.Marshal(map[string]any{
		"created": now, "architecture": platform.Architecture, "os": platform.OS, "variant": platform.Variant, "config": config,
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{m.DiffID}},
		"history": []any{map[string]any{"created": now, "comment": message}},
	})
	if err != nil {
		return catalog.Entry{}, err
	}
	manifestJSON, err := json.Marshal(source.Manifest{SchemaVersion: 2, MediaType: source.MediaManifest,
		Config: source.Descriptor{MediaType: source.MediaConfig, Digest: source.Digest(configJSON), Size: int64(len(configJSON))},
		Layers: []source.Descriptor{{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size}}})
	if err != nil {
		return catalog.Entry{}, err
	}
	e := catalog.Entry{Name: o.Name, ID: source.Digest(configJSON), Manifest: source.Digest(manifestJSON), Root: source.Digest(manifestJSON),
		Source: o.Source, Platform: platform.String(), DiffIDs: []string{m.DiffID}, Layers: []string{m.Key}, Blobs: []catalog.Blob{b},
		Size: m.Size, Created: now, Pulled: now, Config: config}
	e.Config.Architecture, e.Config.OS = platform.Architecture, platform.OS
	if err := errors.Join(keepBlob(s, e.ID, configJSON), keepBlob(s, e.Manifest, manifestJSON)); err != nil {
		return catalog.Entry{}, err
	}
	return e, catalog.Put(s, e)
}
