package engine

import (
	"errors"
	"io/fs"
	"time"

	"kiste/image/catalog"
	"kiste/image/snapshot"
	"kiste/store"
)

// A Step of an image's history is one instruction that made it.
type Step struct {
	Created time.Time
	By      string // the instruction, or the command
	Comment string
	Size    int64 // of the layer's files, in bytes; 0: it has no layer
}

// imageDocument is what is read of an image's config only by who looks at it
// closely (image-spec, config.md).
type imageDocument struct {
	Author  string `json:"author"`
	Variant string `json:"variant"`
	History []struct {
		Created    *time.Time `json:"created"`
		CreatedBy  string     `json:"created_by"`
		Comment    string     `json:"comment"`
		EmptyLayer bool       `json:"empty_layer"`
	} `json:"history"`
}

// document reads an image's config. One that is not there is empty: the image
// runs without it.
func (e *Engine) imageDocument(entry *catalog.Entry) (imageDocument, error) {
	var d imageDocument
	err := store.ReadJSON(e.Store.Blob(entry.ID), &d)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return d, err
}

// History gives the image's ID and its steps, the last one first. Layers of
// which the history says nothing are steps, too.
func (e *Engine) History(query string) (id string, steps []Step, err error) {
	entry, err := catalog.Get(e.Store, query)
	if err != nil {
		return "", nil, err
	}
	d, err := e.imageDocument(&entry)
	if err != nil {
		return "", nil, err
	}
	sizes := e.layerSizes(&entry)
	next := 0
	layer := func() (n int64) {
		if next < len(sizes) {
			n = sizes[next]
		}
		next++
		return n
	}
	for _, h := range d.History {
		s := Step{By: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			s.Created = *h.Created
		}
		if !h.EmptyLayer {
			s.Size = layer()
		}
		steps = append([]Step{s}, steps...)
	}
	for next < len(sizes) {
		steps = append([]Step{{Created: entry.Created, Size: layer()}}, steps...)
	}
	return entry.ID, steps, nil
}

// layerSizes are those of the image's layers, the lowest first.
func (e *Engine) layerSizes(entry *catalog.Entry) []int64 {
	layers := snapshot.Open(e.Store)
	var sizes []int64
	for _, key := range entry.Layers {
		m, _ := layers.Metadata(key) // one that is damaged counts as nothing
		sizes = append(sizes, m.Size)
	}
	return sizes
}
