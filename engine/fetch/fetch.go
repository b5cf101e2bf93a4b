// Package fetch brings images into the store: pull and import.
//
//	takes    a store, where an image is, options
//	gives    a catalog.Entry; layers unpacked and ready to stack
//	touches  the store; the network, through package registry
//	state    the store's files
//
// A layer is unpacked while it is downloaded, into a directory beside its
// place, and takes its place by rename when both digests have turned out
// right. What was downloaded stays in blobs/partial when a pull ends early, and
// the next one goes on from there. The writer of a partial file holds its
// flock: a second pull of the same blob waits, and then finds the layer there.
//
// Nothing is synced file by file. When all layers are there, one syncfs(2)
// makes them last, before the name is written; some while they come keep the
// disk from idling. Until then a layer's metadata
// has the boot's ID, and is believed in that boot only; so a power cut costs
// one more download at most.
//
// The whole of it holds lib/lock shared; GC holds it alone. The compressed
// blobs are kept: they are what a later push sends, and what a layer is made
// of again.
//
// Linked by kisted only. Safe for concurrent use, also by several processes.
package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"kiste/engine/event"
	"kiste/fault"
	"kiste/host"
	"kiste/image/catalog"
	"kiste/image/layer"
	"kiste/image/reference"
	"kiste/image/snapshot"
	"kiste/image/source"
	"kiste/image/transport"
	"kiste/progress"
	"kiste/store"
)

// A Policy says when a registry is asked.
type Policy string

// The policies, in Docker's words.
const (
	Always  Policy = "always"
	Missing Policy = "missing" // only when the image is not here
	Never   Policy = "never"
)

// Options of Pull. The zero value is a good pull for root.
type Options struct {
	// Platform is "os/arch[/variant]". Empty: this host's.
	Platform string

	// Jobs bounds the layers at once. Zero: 4.
	Jobs int

	// Progress hears how far each layer is. Nil: nobody listens.
	Progress progress.Func

	// Policy empty is Always.
	Policy Policy

	// Layer says how layers are written: as an ordinary user otherwise than
	// as root.
	Layer layer.Options

	Transport transport.Options
}

// A Result is what Pull found.
type Result struct {
	catalog.Entry
	Fresh bool // the name stands for another image than before
}

// Pull brings the image of src into s and gives it its name.
func Pull(ctx context.Context, s store.Store, src reference.Source, o Options) (Result, error) {
	r, err := pull(ctx, s, src, o)
	if err != nil {
		return r, &fault.Error{Op: "pull", On: src.String(), Err: err}
	}
	return r, nil
}

func pull(ctx context.Context, s store.Store, src reference.Source, o Options) (Result, error) {
	if err := prepare(s); err != nil {
		return Result{}, err
	}
	lock, err := store.LockFile(filepath.Join(s.Lib, "lock"), false)
	if err != nil {
		return Result{}, err
	}
	defer lock.Unlock()
	name := catalog.NameOf(src)
	old, oldErr := catalog.Get(s, name)
	switch {
	case o.Policy == Never && oldErr != nil:
		return Result{}, oldErr
	case o.Policy == Never || o.Policy == Missing && oldErr == nil && complete(s, old):
		return Result{Entry: old}, nil
	case src.Transport == reference.Rootfs:
		return importRootfs(ctx, s, src, name, o)
	}
	from, err := transport.Open(ctx, src, o.Transport)
	if err != nil {
		return Result{}, err
	}
	defer from.Close()
	img, err := source.Resolve(ctx, from, source.Options{Platform: o.Platform})
	if err != nil {
		return Result{}, err
	}
	p := &puller{s: s, layers: snapshot.Open(s), from: from, img: img, o: o, boot: host.BootID()}
	p.layers.Userxattr = o.Layer.Userxattr
	e, err := p.run(ctx)
	if err != nil {
		return Result{}, err
	}
	e.Name, e.Source = name, src.String()
	fresh := oldErr != nil || old.ID != e.ID
	if err := catalog.Put(s, e); err != nil {
		return Result{}, err
	}
	if fresh || src.Transport == reference.Docker { // what lies on this host is looked at by every run
		name := familiar(e)
		event.OfImage(s, "pull", name, withoutTag(name), e.Config.Labels)
	}
	return Result{e, fresh}, nil
}

// familiar is the name of an image as people write it.
func familiar(e catalog.Entry) string {
	if ref, err := reference.Parse(e.Name); err == nil {
		return ref.Familiar()
	}
	return e.ID
}

func withoutTag(name string) string {
	if ref, err := reference.Parse(name); err == nil {
		return ref.FamiliarName()
	}
	return name
}

// prepare makes the store and its directories.
func prepare(s store.Store) error {
	if err := s.Open(); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(s.Blob("sha256:x")), filepath.Dir(s.Partial("sha256:x")), s.Images()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return os.MkdirAll(s.Layers("overlay"), 0o711)
}

func complete(s store.Store, e catalog.Entry) bool {
	l, boot := snapshot.Open(s), host.BootID()
	for _, key := range e.Layers {
		if !present(l, key, boot) {
			return false
		}
	}
	return true
}

// present reports whether a layer is unpacked here and can be believed.
func present(l snapshot.Layers, key, boot string) bool {
	m, err := l.Metadata(key)
	return err == nil && (m.Boot == "" || m.Boot == boot)
}

// A puller brings one image in.
type puller struct {
	s      store.Store
	layers snapshot.Layers
	from   source.Source
	img    *source.Image
	o      Options
	boot   string
	flush  *flush
}

// A job is one layer of the image.
type job struct {
	layer source.Layer
	chain string // its ChainID
	key   string // where it lies; empty: not there yet
	temp  string // unpacked here, and waiting for the layers below
	meta  snapshot.Metadata
	err   error

	resumed bool // the last try began with what was here
}

func (p *puller) run(ctx context.Context) (e catalog.Entry, err error) {
	if p.flush, err = startFlush(p.s); err != nil {
		return e, err
	}
	defer p.flush.close()
	if err := keepBlob(p.s, p.img.Config.Digest, p.img.ConfigJSON); err != nil {
		return catalog.Entry{}, err
	}
	if err := keepBlob(p.s, p.img.Manifest.Digest, p.img.ManifestJSON); err != nil {
		return catalog.Entry{}, err
	}
	jobs := p.jobs()
	defer func() {
		for _, j := range jobs {
			if j.temp != "" {
				os.RemoveAll(j.temp)
			}
		}
	}()
	if err := p.all(ctx, jobs); err != nil {
		return catalog.Entry{}, err
	}
	if err := p.stack(jobs); err != nil {
		return catalog.Entry{}, err
	}
	var keys []string
	for _, j := range jobs {
		keys = append(keys, j.key)
	}
	if err := settle(p.flush, p.layers, keys); err != nil {
		return catalog.Entry{}, err
	}
	return p.entry(jobs)
}

// keepBlob stores a small document by its digest, which has been checked.
func keepBlob(s store.Store, digest string, b []byte) error {
	path := s.Blob(digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if st, err := os.Stat(path); err == nil && st.Size() == int64(len(b)) {
		return nil
	}
	return store.WriteFile(path, b)
}

// jobs lists the layers, and which are here.
func (p *puller) jobs() []*job {
	jobs := make([]*job, len(p.img.Layers))
	chain := ""
	for i, l := range p.img.Layers {
		if chain = chainID(chain, l.DiffID); i == 0 {
			chain = l.DiffID
		}
		j := &job{layer: l, chain: chain}
		for _, key := range []string{l.DiffID, chain} {
			if j.key == "" && present(p.layers, key, p.boot) {
				j.key = key
			}
		}
		jobs[i] = j
	}
	return jobs
}

// chainID is that of a layer on those below (image-spec, config.md).
func chainID(below, diffID string) string { return source.Digest([]byte(below + " " + diffID)) }

// all unpacks what is not here, several layers at once. The first error ends
// the others.
func (p *puller) all(ctx context.Context, jobs []*job) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n := p.o.Jobs
	if n <= 0 {
		n = 4
	}
	slots := make(chan struct{}, n)
	var wg sync.WaitGroup
	first := map[string]*job{}
	for _, j := range jobs {
		if j.key != "" {
			p.o.Progress.Report(progress.Event{ID: j.layer.Digest, Phase: progress.Present})
			continue
		}
		if first[j.layer.DiffID] != nil { // the same layer twice
			continue
		}
		first[j.layer.DiffID] = j
		p.o.Progress.Report(progress.Event{ID: j.layer.Digest, Phase: progress.Waiting, Total: j.layer.Size})
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if j.err = ctx.Err(); j.err == nil {
				j.err = p.layer(ctx, j)
			}
			if j.err != nil {
				p.o.Progress.Report(progress.Event{ID: j.layer.Digest, Phase: progress.Failed, Detail: j.err.Error()})
				cancel(j.err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}

// stack gives layers that leave out directories the owner and mode of those
// below, from the lowest up, and puts them in their places.
func (p *puller) stack(jobs []*job) error {
	var below []string // directories, the topmost first
	twins := map[string]string{}
	for _, j := range jobs {
		if j.key == "" && j.temp == "" {
			j.key = twins[j.layer.DiffID]
		}
		if j.key == "" {
			if err := p.fix(j, below); err != nil {
				return err
			}
		}
		twins[j.layer.DiffID] = j.key
		below = append([]string{p.layers.Diff(j.key)}, below...)
	}
	return nil
}

func (p *puller) fix(j *job, below []string) error {
	for _, name := range j.meta.Implied {
		info, err := snapshot.Stat(below, name, false)
		if err != nil || !info.Mode.IsDir() {
			continue // nothing below: what was made up stays
		}
		if err := layer.Dress(filepath.Join(j.temp, "diff"), name, info.Mode, int(info.UID), int(info.GID), info.Modified); err != nil {
			return err
		}
	}
	j.meta.Key = j.chain
	if err := commit(p.layers, j.temp, j.meta); err != nil {
		return err
	}
	j.key, j.temp = j.chain, ""
	return nil
}

// commit puts an unpacked layer in its place.
func commit(l snapshot.Layers, temp string, m snapshot.Metadata) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, "layer.json"), b, 0o600); err != nil {
		return err
	}
	place := l.Path(m.Key)
	err = os.Rename(temp, place)
	if !errors.Is(err, fs.ErrExist) && fault.KindOf(err) != fault.Conflict {
		return err
	}
	if present(l, m.Key, m.Boot) {
		return os.RemoveAll(temp) // another pull was faster
	}
	// what is there is not to be believed: it is of a boot that ended badly
	aside := temp + ".old"
	if err := os.Rename(place, aside); err != nil {
		return err
	}
	return errors.Join(os.Rename(temp, place), os.RemoveAll(aside))
}

// settle makes layers last that are not known to have reached the disk.
func settle(fl *flush, l snapshot.Layers, keys []string) error {
	var unsettled []snapshot.Metadata
	for _, key := range keys {
		m, err := l.Metadata(key)
		if err != nil {
			return err
		}
		if m.Boot != "" {
			unsettled = append(unsettled, m)
		}
	}
	if len(unsettled) == 0 {
		return nil
	}
	if err := fl.sync(); err != nil {
		return err
	}
	for _, m := range unsettled {
		m.Boot = ""
		if err := replace(filepath.Join(l.Path(m.Key), "layer.json"), m); err != nil {
			return err
		}
	}
	return nil
}

// replace writes a document without syncing: what a crash damages is unpacked
// again.
func replace(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// entry is what the catalog keeps.
func (p *puller) entry(jobs []*job) (catalog.Entry, error) {
	e := catalog.Entry{ID: p.img.Config.Digest, Manifest: p.img.Manifest.Digest, Root: p.img.Root.Digest,
		Platform: p.img.Platform.String(), Pulled: time.Now().UTC()}
	if err := readConfig(p.img.ConfigJSON, &e); err != nil {
		return e, err
	}
	for _, j := range jobs {
		m, err := p.layers.Metadata(j.key)
		if err != nil {
			return e, err
		}
		e.DiffIDs = append(e.DiffIDs, j.layer.DiffID)
		e.Layers = append(e.Layers, j.key)
		e.Blobs = append(e.Blobs, catalog.Blob{Digest: j.layer.Digest, Size: j.layer.Size, MediaType: j.layer.MediaType})
		e.Size += m.Size
	}
	return e, nil
}

// readConfig takes what a start needs out of an image's config.
func readConfig(b []byte, e *catalog.Entry) error {
	var c struct {
		Created      *time.Time     `json:"created"`
		Architecture string         `json:"architecture"`
		OS           string         `json:"os"`
		Config       catalog.Config `json:"config"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return &fault.Error{Op: "read the image's config", Kind: fault.Invalid, Err: err}
	}
	e.Config = c.Config
	e.Config.Architecture, e.Config.OS = c.Architecture, c.OS
	if c.Created != nil {
		e.Created = *c.Created
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &fault.Error{Op: "verify layer", Kind: fault.Invalid, Err: fmt.Errorf(format, args...), Hint: "the image is damaged where it comes from"}
}
