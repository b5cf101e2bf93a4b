package engine

import (
	"slices"

	"kiste/engine/inspect"
	"kiste/image/catalog"
	"kiste/image/reference"
)

// Image gives all that is known of the image with the name, the ID, or the
// beginning of an ID. Errors are catalog.Get's.
func (e *Engine) Image(query string) (*inspect.Image, error) {
	entry, err := catalog.Get(e.Store, query)
	if err != nil {
		return nil, err
	}
	i := &inspect.Image{ID: entry.ID, Created: entry.Created, Tagged: entry.Pulled, Size: entry.Size, Layers: entry.DiffIDs, Driver: "overlay", Graph: e.imageGraph(entry.Layers), Config: imageConfig(entry.Config)}
	if d, err := e.imageDocument(&entry); err == nil { // a damaged one tells nothing
		i.Author, i.Variant = d.Author, d.Variant
		if n := len(d.History); n > 0 {
			i.Comment = d.History[n-1].Comment
		}
	}
	all, _ := catalog.List(e.Store) // a damaged neighbour is no matter here
	for _, other := range all {
		if other.ID == entry.ID {
			addName(i, other)
		}
	}
	return i, nil
}

// addName adds one of the image's names, and the digest it was pulled by.
func addName(i *inspect.Image, e catalog.Entry) {
	ref, err := reference.Parse(e.Name)
	if err != nil {
		return // it has no name left
	}
	if ref.Tag != "" {
		i.Tags = append(i.Tags, ref.FamiliarName()+":"+ref.Tag)
	}
	if d := ref.FamiliarName() + "@" + e.Root; e.Root != "" && !slices.Contains(i.Digests, d) {
		i.Digests = append(i.Digests, d)
	}
}
