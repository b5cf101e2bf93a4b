package fetch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"kiste/fault"
	"kiste/image/catalog"
	"kiste/image/snapshot"
	"kiste/store"
)

// Freed is what GC took away.
type Freed struct {
	Entries []catalog.Entry // names of images that were removed, and images without a name
	Images  []string        // IDs of images of which nothing is left
	Layers  int
	Blobs   int
	Bytes   int64 // on disk
}

// GC removes what no name of an image and no container needs: images without a
// name, layers, blobs, what pulls that ended early have left. Containers name
// their layers and their image in config.json. While anybody adds to the store,
// it is fault.Conflict. A document that cannot be read stops it before anything
// is removed: what it needs is not known.
func GC(s store.Store) (Freed, error) {
	return Prune(s, func(e *catalog.Entry) bool { return e.Name == "" })
}

// Prune is GC that removes also the images that goes chooses. One of which there
// is a container stays in any case.
func Prune(s store.Store, goes func(e *catalog.Entry) bool) (Freed, error) {
	freed, err := prune(s, goes)
	if err != nil {
		return freed, &fault.Error{Op: "collect garbage", On: s.Lib, Err: err}
	}
	return freed, nil
}

// patience is how long starts of containers, which are short, are waited for.
const patience = time.Second

func prune(s store.Store, goes func(e *catalog.Entry) bool) (Freed, error) {
	var f Freed
	if err := prepare(s); err != nil {
		return f, err
	}
	lock, err := store.LockSoon(filepath.Join(s.Lib, "lock"), true, patience)
	if err != nil {
		return f, &fault.Error{Op: "lock store", Kind: fault.Conflict, Err: errors.New("a pull or an import is under way"), Hint: "try again when it is done"}
	}
	defer lock.Unlock()
	needed, unwanted, err := roots(s, goes)
	if err != nil {
		return f, err
	}
	for _, e := range unwanted {
		if err := catalog.Remove(s, e); err != nil {
			return f, err
		}
		f.Entries = append(f.Entries, e)
		if !needed[e.ID] && !slices.Contains(f.Images, e.ID) {
			f.Images = append(f.Images, e.ID)
		}
	}
	l := snapshot.Open(s)
	return f, errors.Join(
		sweep(l.Dir, func(name string) bool { return needed[name] }, &f.Layers, &f.Bytes),
		sweep(filepath.Dir(s.Partial("sha256:x")), func(string) bool { return false }, nil, &f.Bytes),
		sweep(filepath.Dir(s.Blob("sha256:x")), func(name string) bool { return needed["sha256:"+name] }, &f.Blobs, &f.Bytes),
		sweep(filepath.Dir(s.Blob("sha512:x")), func(name string) bool { return needed["sha512:"+name] }, &f.Blobs, &f.Bytes),
		sweepTemp(s.Images(), &f.Bytes),
	)
}

// roots lists what is needed: digests of blobs, and directories' names of
// layers; and the images that are to go.
func roots(s store.Store, goes func(e *catalog.Entry) bool) (needed map[string]bool, unwanted []catalog.Entry, err error) {
	all, err := catalog.List(s)
	if err != nil {
		return nil, nil, err
	}
	l := snapshot.Open(s)
	needed = map[string]bool{}
	layers, used, err := containerNeeds(s)
	if err != nil {
		return nil, nil, err
	}
	for _, key := range layers {
		needed[filepath.Base(l.Path(key))] = true
	}
	for _, e := range all {
		if goes(&e) && !used[e.ID] {
			unwanted = append(unwanted, e)
			continue
		}
		needed[e.ID], needed[e.Manifest] = true, true
		for _, b := range e.Blobs {
			needed[b.Digest] = true
		}
		for _, key := range e.Layers {
			needed[filepath.Base(l.Path(key))] = true
		}
	}
	return needed, unwanted, nil
}

// containerNeeds gives the layers that containers stand on, and the IDs of the
// images that they were made of.
func containerNeeds(s store.Store) (layers []string, images map[string]bool, err error) {
	dirs, err := os.ReadDir(s.Containers())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	images = map[string]bool{}
	for _, d := range dirs {
		if !d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			continue
		}
		var c struct {
			Layers  []string `json:"layers"`
			ImageID string
		}
		err := store.ReadJSON(filepath.Join(s.Container(d.Name()), "config.json"), &c)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // who knows what it needs
			return nil, nil, &fault.Error{Op: "read container", On: d.Name(), Kind: fault.Invalid, Err: err, Hint: "its document is damaged; remove it: kiste rm -f " + d.Name()[:min(12, len(d.Name()))]}
		}
		layers, images[c.ImageID] = append(layers, c.Layers...), true
	}
	return layers, images, nil
}

// sweep removes the names in dir that are not to be kept.
func sweep(dir string, keep func(string) bool, count *int, bytes *int64) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var all []error
	for _, e := range entries {
		if keep(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		*bytes += usage(path)
		if err := discard(dir, path); err != nil {
			all = append(all, err)
		} else if count != nil && !strings.HasPrefix(e.Name(), ".") {
			*count++
		}
	}
	return errors.Join(append(all, err)...)
}

// discard removes path. A layer's directory is renamed first: from then on
// nobody takes half of it for the layer.
func discard(dir, path string) error {
	if base := filepath.Base(path); !strings.HasPrefix(base, ".") {
		aside := filepath.Join(dir, ".gone-"+base)
		if err := os.Rename(path, aside); err != nil {
			return err
		}
		path = aside
	}
	return os.RemoveAll(path)
}

// sweepTemp removes what interrupted writes of documents have left.
func sweepTemp(dir string, bytes *int64) error {
	return sweep(dir, func(name string) bool { return !strings.HasPrefix(name, ".tmp-") }, nil, bytes)
}

// usage adds up what path takes on disk.
func usage(path string) int64 {
	var n int64
	filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read is not counted
		}
		if info, err := d.Info(); err == nil && (info.IsDir() || info.Mode().IsRegular()) {
			n += onDisk(info)
		}
		return nil
	})
	return n
}

// onDisk is what a file takes. One with more names is shared among them.
func onDisk(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if info.IsDir() {
			return st.Blocks * 512
		}
		return st.Blocks * 512 / max(int64(st.Nlink), 1)
	}
	return info.Size()
}
