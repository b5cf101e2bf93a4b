// Package transport is the table of the places that images come from.
//
//	takes    a reference.Source
//	gives    a source.Source
//	touches  what the place touches
//	state    none
//
// A new format is a new folder beside this one and a new row here.
package transport

import (
	"context"

	"kiste/fault"
	"kiste/image/archive"
	"kiste/image/layout"
	"kiste/image/reference"
	"kiste/image/registry"
	"kiste/image/source"
)

// Options of Open. The zero value is right.
type Options struct {
	Registry registry.Options
	Archive  archive.Options
}

// transports are those that have images. Rootfs and Embedded have none: what
// they have is not described by a manifest.
var transports = []struct {
	name reference.Transport
	open func(context.Context, reference.Source, Options) (source.Source, error)
}{
	{reference.Docker, func(_ context.Context, s reference.Source, o Options) (source.Source, error) {
		return registry.Open(s.Ref, o.Registry)
	}},
	{reference.OCI, func(_ context.Context, s reference.Source, _ Options) (source.Source, error) {
		return layout.Open(s.Path, s.Tag)
	}},
	{reference.OCIArchive, func(ctx context.Context, s reference.Source, o Options) (source.Source, error) {
		return archive.OpenOCI(ctx, s.Path, s.Tag, o.Archive)
	}},
	{reference.DockerArchive, func(ctx context.Context, s reference.Source, o Options) (source.Source, error) {
		return archive.OpenDocker(ctx, s.Path, s.Tag, o.Archive)
	}},
	{reference.Dir, func(_ context.Context, s reference.Source, _ Options) (source.Source, error) {
		return layout.OpenDir(s.Path)
	}},
}

// Open opens the image that s names. For rootfs: and embedded: it is
// fault.Unsupported.
func Open(ctx context.Context, s reference.Source, o Options) (source.Source, error) {
	for _, t := range transports {
		if t.name == s.Transport {
			return t.open(ctx, s, o)
		}
	}
	return nil, &fault.Error{Op: "open image", On: s.String(), Kind: fault.Unsupported}
}
