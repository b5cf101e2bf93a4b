// Package snapshot stacks unpacked layers into one root file system.
//
//	takes    the keys of layers, the lowest first; where changes go
//	gives    chroot.Mounts; single files of the stack without mounting it
//	touches  lib/snapshots/overlay/layers/, reading
//	state    the directories, which package layer fills and nobody changes
//
// A layer lies in layers/KEY/diff, its metadata in layers/KEY/layer.json. The
// key is its DiffID, since a layer is unpacked once whatever is below it. Only
// where the layer leaves out directories that its files lie in (they are
// listed as "implied"), their mode and owner are those of the layers below,
// and the key is the ChainID (image-spec, config.md).
//
// The directory's name is the first 32 digits of the key: 78 bytes of path for
// root, so that 50 layers fit the one page that mount(2) has for options. For
// more, a Mount has to be made by fsconfig(2) with "lowerdir+" (Linux 6.5),
// which takes 500.
//
// It is linked into the small binary. Safe for concurrent use.
package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"kiste/fault"
	"kiste/kernel/chroot"
	"kiste/store"
)

// MaxLayers is how many layers overlayfs stacks (OVL_MAX_STACK).
const MaxLayers = 500

// Layers is where unpacked layers lie.
type Layers struct {
	Dir string

	// Userxattr: the layers' marks are in user.overlay.*, as overlayfs wants
	// it of a mount made in a user namespace.
	Userxattr bool
}

// Open gives the layers of s. It touches nothing.
func Open(s store.Store) Layers {
	return Layers{Dir: s.Layers("overlay"), Userxattr: os.Geteuid() != 0}
}

// Metadata is what is remembered of an unpacked layer.
type Metadata struct {
	Schema  int      `json:"schema"`
	Key     string   `json:"key"`
	DiffID  string   `json:"diffID"`
	Size    int64    `json:"size"`              // of the files' content, in bytes
	Entries int64    `json:"entries"`           // in the tar
	Implied []string `json:"implied,omitempty"` // directories that the tar leaves out
	Boot    string   `json:"boot,omitempty"`    // the boot that wrote it, if it is not known to have reached the disk
	Skipped int64    `json:"skipped,omitempty"` // device nodes that could not be made
}

const keyDigits = 32

// Path is the layer's own directory, which holds diff and its metadata.
func (l Layers) Path(key string) string {
	_, hex, _ := strings.Cut(key, ":")
	return filepath.Join(l.Dir, hex[:min(keyDigits, len(hex))])
}

// Diff is the directory of the layer's files.
func (l Layers) Diff(key string) string { return filepath.Join(l.Path(key), "diff") }

// Metadata reads what is remembered of a layer. One that is not there is
// fault.NotFound.
func (l Layers) Metadata(key string) (Metadata, error) {
	var m Metadata
	err := store.ReadJSON(filepath.Join(l.Path(key), "layer.json"), &m)
	switch {
	case err == nil && m.Key != key:
		err = &fault.Error{Op: "read layer", On: key, Kind: fault.Invalid, Err: fmt.Errorf("its directory holds %s", m.Key)}
	case errors.Is(err, fs.ErrNotExist):
		err = &fault.Error{Op: "find layer", On: key, Kind: fault.NotFound, Err: errors.New("it is not unpacked here"), Hint: "pull the image again"}
	}
	return m, err
}

// Mounts is what makes the root file system of the layers with the given keys,
// the lowest first: one overlay. Upper and work are the directories that take
// changes; with an empty upper it is read-only. Nothing is touched.
func (l Layers) Mounts(keys []string, upper, work string) ([]chroot.Mount, error) {
	if len(keys) > MaxLayers {
		return nil, &fault.Error{Op: "stack layers", Kind: fault.Unsupported, Err: fmt.Errorf("the image has %d layers and overlayfs takes %d", len(keys), MaxLayers)}
	}
	if len(keys) == 0 && upper == "" {
		return nil, &fault.Error{Op: "stack layers", Kind: fault.Invalid, Err: errors.New("the image has no layers, and there is no place for changes")}
	}
	lower := l.lower(keys)
	if len(lower) == 0 {
		return []chroot.Mount{{Type: "bind", Source: upper, Target: "/", Options: []string{"bind"}}}, nil
	}
	if len(lower) == 1 && upper == "" { // overlayfs wants two directories
		return []chroot.Mount{{Type: "bind", Source: lower[0], Target: "/", Options: []string{"bind", "ro"}}}, nil
	}
	m := chroot.Mount{Type: "overlay", Source: "overlay", Target: "/", Lower: lower, Upper: upper, Work: work}
	if upper == "" {
		m.Options = append(m.Options, "ro")
	}
	if l.Userxattr {
		m.Options = append(m.Options, "userxattr")
	}
	return []chroot.Mount{m}, nil
}

// lower lists the directories, the topmost first, each once: overlayfs refuses
// one that is there twice (ELOOP). Of two equal layers the upper one counts,
// since it covers what lies between; what it removes stays removed, and what
// the lower one adds the upper one adds again.
func (l Layers) lower(keys []string) []string {
	var dirs []string
	seen := make(map[string]bool, len(keys))
	for i := len(keys) - 1; i >= 0; i-- {
		if !seen[keys[i]] {
			seen[keys[i]] = true
			dirs = append(dirs, l.Diff(keys[i]))
		}
	}
	return dirs
}
