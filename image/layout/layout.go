// Package layout reads and writes images in directories: the OCI image layout
// ("oci:DIR") and skopeo's flat directory ("dir:DIR").
//
//	takes    a directory, or any Tree of files; which image of it
//	gives    a source.Source; a Writer that makes a layout
//	touches  files below the directory
//	state    the files
//
// The directory may be somebody else's: names are resolved inside it, by file
// descriptor, so that a symbolic link leads nowhere else, and only plain files
// are opened. Content is verified by package source, as everybody's is.
//
// See image-spec, image-layout.md. A Source is safe for concurrent use.
package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"kiste/fault"
	"kiste/image/reference"
	"kiste/image/source"
)

// A Tree is where the files of a layout lie. A file that is not there is
// fs.ErrNotExist.
type Tree interface {
	// Open opens a plain file by its path with slashes, and tells its size.
	Open(name string) (io.ReadSeekCloser, int64, error)
	Close() error
}

// The annotations that name an image in an index.
const (
	annotationRefName    = "org.opencontainers.image.ref.name" // image-spec, annotations.md
	annotationContainerd = "io.containerd.image.name"          // containerd and Docker write the whole name here
)

// Open opens the layout in dir. Which is a tag, "@DIGEST", "@N" for the Nth
// image counted from 0, or "" for the only one. No such image is
// fault.NotFound and lists those that there are.
func Open(dir, which string) (source.Source, error) {
	tree, err := openTree(dir)
	if err != nil {
		return nil, &fault.Error{Op: "open image layout", On: dir, Err: err}
	}
	s, err := New(tree, which)
	if err != nil {
		tree.Close()
		return nil, &fault.Error{Op: "open image layout", On: dir, Err: err}
	}
	return s, nil
}

// New is Open on a tree, which it owns if there is no error.
func New(tree Tree, which string) (source.Source, error) {
	if err := checkVersion(tree); err != nil {
		return nil, err
	}
	b, err := readFile(tree, "index.json", source.MaxManifest)
	if err != nil {
		return nil, err
	}
	doc, err := source.ParseDocument(b, source.MediaIndex)
	if err != nil {
		return nil, err
	}
	root, err := choose(doc.Index, which)
	if err != nil {
		return nil, err
	}
	return &layout{tree, root}, nil
}

func checkVersion(tree Tree) error {
	b, err := readFile(tree, "oci-layout", 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return &fault.Error{Op: "read image layout", Kind: fault.Invalid, Err: errors.New("it has no file oci-layout"),
			Hint: `"skopeo copy … oci:DIR" makes such a directory; a plain root file system is rootfs:DIR`}
	}
	if err != nil {
		return err
	}
	var v struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return &fault.Error{Op: "read", On: "oci-layout", Kind: fault.Invalid, Err: err}
	}
	if !strings.HasPrefix(v.Version, "1.") {
		return &fault.Error{Op: "read image layout", Kind: fault.Unsupported, Err: fmt.Errorf("it has version %.40q, not 1", v.Version)}
	}
	return nil
}

// choose finds the entry of the index that which names.
func choose(entries []source.Descriptor, which string) (source.Descriptor, error) {
	if n, ok := strings.CutPrefix(which, "@"); ok {
		if i, err := strconv.Atoi(n); err == nil && i >= 0 && i < len(entries) {
			return entries[i], nil
		}
	}
	var found []source.Descriptor
	for _, d := range entries {
		if which == "" || "@"+d.Digest == which || isNamed(d, which) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return source.Descriptor{}, &fault.Error{Op: "find image in layout", On: which, Kind: fault.NotFound, Hint: "it has " + names(entries)}
	case same(found):
		return found[0], nil
	case which == "":
		return source.Descriptor{}, &fault.Error{Op: "choose image", Kind: fault.Invalid,
			Err: fmt.Errorf("there are %d", len(found)), Hint: "say which, by :TAG or @DIGEST: it has " + names(entries)}
	}
	return source.Descriptor{}, &fault.Error{Op: "choose image", On: which, Kind: fault.Invalid,
		Err: fmt.Errorf("%d have this name", len(found)), Hint: "say which, by @DIGEST"}
}

// isNamed compares with both annotations; a whole name also as Docker reads it.
func isNamed(d source.Descriptor, which string) bool {
	name := d.Annotations[annotationContainerd]
	if d.Annotations[annotationRefName] == which || name == which {
		return true
	}
	ref, err := reference.Parse(which)
	return err == nil && name != "" && ref.String() == name
}

// same reports whether all are one image under several names.
func same(entries []source.Descriptor) bool {
	for _, d := range entries {
		if d.Digest != entries[0].Digest {
			return false
		}
	}
	return true
}

func names(entries []source.Descriptor) string {
	const most = 16
	var list []string
	for i, d := range entries {
		if i == most {
			list = append(list, "…")
			break
		}
		name := "@" + d.Digest
		if tag := d.Annotations[annotationRefName]; tag != "" {
			name = fmt.Sprintf("%.128q", tag)
		}
		list = append(list, name)
	}
	if len(list) == 0 {
		return "no image at all"
	}
	return strings.Join(list, ", ")
}

// A layout is a Source over a tree.
type layout struct {
	tree Tree
	root source.Descriptor
}

func (l *layout) Root(ctx context.Context) (source.Descriptor, []byte, error) {
	b, err := l.Manifest(ctx, l.root)
	return l.root, b, err
}

func (l *layout) Manifest(_ context.Context, d source.Descriptor) ([]byte, error) {
	b, err := readFile(l.tree, blobPath(d.Digest), source.MaxManifest)
	return b, missing(d, err)
}

func (l *layout) Blob(_ context.Context, d source.Descriptor, offset int64) (io.ReadCloser, error) {
	f, err := openAt(l.tree, blobPath(d.Digest), d, offset)
	return f, missing(d, err)
}

func (l *layout) Close() error { return l.tree.Close() }

func blobPath(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

// openAt opens a blob and goes to offset. A file of the wrong size is known to
// be wrong before the first byte is read.
func openAt(tree Tree, name string, d source.Descriptor, offset int64) (io.ReadCloser, error) {
	f, size, err := tree.Open(name)
	if err != nil {
		return nil, err
	}
	if size != d.Size {
		f.Close()
		return nil, &fault.Error{Op: "open blob", On: d.Digest, Kind: fault.Invalid,
			Err: fmt.Errorf("it has %d bytes instead of %d", size, d.Size), Hint: "the image is damaged: copy it again"}
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// missing says of a blob that is not there what that means.
func missing(d source.Descriptor, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &fault.Error{Op: "open blob", On: d.Digest, Kind: fault.NotFound, Hint: "the image is incomplete: copy it again, for all platforms that are wanted"}
	}
	return err
}

// readFile reads a file of at most most bytes.
func readFile(tree Tree, name string, most int64) ([]byte, error) {
	f, size, err := tree.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > most {
		return nil, &fault.Error{Op: "read", On: name, Kind: fault.Invalid, Err: fmt.Errorf("it has %d bytes and may have %d", size, most)}
	}
	return io.ReadAll(io.LimitReader(f, size))
}
