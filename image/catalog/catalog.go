// Package catalog keeps the names of images: one JSON document each, with all
// that a container's start needs.
//
//	takes    a store, names as Docker users write them, IDs and their beginnings
//	gives    Entries: layers, the image's config, digests
//	touches  lib/images/
//	state    the documents; every process sees the same
//
// A document lies in lib/images/NAME.json, its name with "+" for "/", so that
// a start reads one file and searches none. An image whose last name was given
// to another image is kept as lib/images/@HEX.json until "kiste rmi" or
// "kiste gc".
//
// What is damaged, or of a later schema, is an error that names the image; the
// others stay usable. Writing is store.WriteJSON: the old document or the new
// one. Whoever writes holds lib/lock shared, for gc's sake.
//
// It is linked into the small binary. Safe for concurrent use.
package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kiste/fault"
	"kiste/image/reference"
	"kiste/store"
)

// maxFile is the longest file name for a document, below NAME_MAX by what a
// temporary name needs.
const maxFile = 240

// file is the name of the document of a canonical image name.
func file(name string) (string, error) {
	f := strings.ReplaceAll(name, "/", "+") + ".json"
	if len(f) > maxFile {
		return "", &fault.Error{Op: "store image", On: name, Kind: fault.Invalid,
			Err: fmt.Errorf("its name has %d letters and may have %d here", len(name), maxFile-len(".json")), Hint: "kiste pull a shorter name, or by digest"}
	}
	return f, nil
}

// nameless is the name of the document of an image without a name.
func nameless(id string) string {
	_, hex, _ := strings.Cut(id, ":")
	return "@" + hex + ".json"
}

func path(s store.Store, e *Entry) (string, error) {
	if e.Name == "" {
		return filepath.Join(s.Images(), nameless(e.ID)), nil
	}
	f, err := file(e.Name)
	return filepath.Join(s.Images(), f), err
}

// Get finds the image that query means, as Docker does: a name, with
// ":latest" where it has no tag; NAME@DIGEST; an ID, with or without
// "sha256:"; or the beginning of an ID. None is fault.NotFound, two are
// fault.Invalid.
func Get(s store.Store, query string) (Entry, error) {
	ref, refErr := reference.Parse(query)
	if refErr == nil {
		if e, err := byName(s, ref); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return e, err
		}
	}
	if e, err := byID(s, query); err != nil || e.ID != "" {
		return e, err
	}
	if refErr == nil && ref.Digest != "" {
		return byDigest(s, ref, query)
	}
	return Entry{}, missing(query)
}

func missing(query string) error {
	return &fault.Error{Op: "find image", On: query, Kind: fault.NotFound, Err: errors.New("there is none of this name or ID"),
		Hint: `"kiste images" lists those that there are, and "kiste pull" fetches one`}
}

// byName reads the one document of that name.
func byName(s store.Store, ref reference.Reference) (Entry, error) {
	f, err := file(ref.String())
	if err != nil {
		return Entry{}, fs.ErrNotExist
	}
	return read(s, f)
}

// byDigest finds NAME[:TAG]@DIGEST among the names of that repository.
func byDigest(s store.Store, ref reference.Reference, query string) (Entry, error) {
	all, _ := List(s)
	for _, e := range all {
		if e.Repository() == ref.Name() && (e.Root == ref.Digest || e.Manifest == ref.Digest) {
			return e, nil
		}
	}
	return Entry{}, missing(query)
}

// byID finds an ID, or the beginning of one. No Entry and no error: query
// does not mean any.
func byID(s store.Store, query string) (Entry, error) {
	hex := strings.TrimPrefix(query, "sha256:")
	if hex == "" || len(hex) > 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return Entry{}, nil
	}
	all, _ := List(s)
	var found Entry
	for _, e := range all {
		switch {
		case !strings.HasPrefix(e.ID, "sha256:"+hex):
		case found.ID == "":
			found = e
		case found.ID != e.ID:
			return Entry{}, &fault.Error{Op: "find image", On: query, Kind: fault.Invalid,
				Err: fmt.Errorf("both %s and %s begin so", found.ShortID(), e.ShortID()), Hint: "give more digits"}
		}
	}
	return found, nil
}

// read reads one document and checks what others rely on.
func read(s store.Store, f string) (Entry, error) {
	var e Entry
	err := store.ReadJSON(filepath.Join(s.Images(), f), &e)
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{}, err
	}
	if err == nil {
		err = e.check()
	}
	if err != nil {
		name := strings.ReplaceAll(strings.TrimSuffix(f, ".json"), "+", "/")
		return Entry{}, &fault.Error{Op: "read image", On: name, Err: err, Hint: hint(err, name)}
	}
	return e, nil
}

func hint(err error, name string) string {
	if fault.KindOf(err) == fault.Unsupported {
		return "use the newer kiste that wrote it"
	}
	return "its document is damaged: pull it again, or kiste rmi " + name
}

func (e *Entry) check() error {
	if e.Schema > Schema {
		return &fault.Error{Op: "read document", Kind: fault.Unsupported, Err: fmt.Errorf("it has schema %d and this kiste knows %d", e.Schema, Schema)}
	}
	if len(e.Layers) != len(e.DiffIDs) {
		return &fault.Error{Op: "read document", Kind: fault.Invalid, Err: fmt.Errorf("it has %d layers and %d digests of layers", len(e.Layers), len(e.DiffIDs))}
	}
	for _, d := range slices.Concat([]string{e.ID, e.Manifest}, e.DiffIDs, e.Layers) {
		if err := reference.CheckDigest(d); err != nil {
			return &fault.Error{Op: "read document", Kind: fault.Invalid, Err: err}
		}
	}
	return nil
}

// List gives every image, sorted by name. With an error, which names those
// that could not be read, it still gives all others.
func List(s store.Store) ([]Entry, error) {
	files, err := os.ReadDir(s.Images())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &fault.Error{Op: "list images", Err: err}
	}
	var all []Entry
	var damaged []error
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") || !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		e, err := read(s, f.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed since
		case err != nil:
			damaged = append(damaged, err)
		default:
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	switch len(damaged) {
	case 0:
		return all, nil
	case 1:
		return all, damaged[0]
	}
	return all, errors.Join(damaged...)
}

// Put gives e its name. The image that had the name, if it is another and has
// no other name, stays without one.
func Put(s store.Store, e Entry) error {
	e.Schema = Schema
	if err := e.check(); err != nil {
		return &fault.Error{Op: "store image", On: e.Name, Err: err}
	}
	p, err := path(s, &e)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.Images(), 0o700); err != nil {
		return &fault.Error{Op: "store image", On: e.Name, Err: err}
	}
	if err := keepOld(s, &e, filepath.Base(p)); err != nil {
		return err
	}
	if err := store.WriteJSON(p, e); err != nil {
		return &fault.Error{Op: "store image", On: e.Name, Err: err}
	}
	if e.Name != "" {
		forget(s, e.ID)
	}
	return nil
}

// keepOld keeps the image that loses its name to e.
func keepOld(s store.Store, e *Entry, f string) error {
	old, err := read(s, f)
	if err != nil || old.ID == e.ID || old.Name == "" || hasOtherName(s, &old) {
		return nil
	}
	old.Name = ""
	if err := store.WriteJSON(filepath.Join(s.Images(), nameless(old.ID)), old); err != nil {
		return &fault.Error{Op: "store image", On: old.ID, Err: err}
	}
	return nil
}

func hasOtherName(s store.Store, e *Entry) bool {
	all, _ := List(s)
	return slices.ContainsFunc(all, func(o Entry) bool { return o.ID == e.ID && o.Name != e.Name })
}

// forget removes the nameless document of an image that has a name now.
func forget(s store.Store, id string) {
	os.Remove(filepath.Join(s.Images(), nameless(id)))
}

// Remove takes the entry away. Its layers and blobs are gc's. An image that
// loses its last name so is gone.
func Remove(s store.Store, e Entry) error {
	p, err := path(s, &e)
	if err == nil {
		err = os.Remove(p)
	}
	if err != nil {
		return &fault.Error{Op: "remove image", On: cmp.Or(e.Name, e.ID), Err: err}
	}
	return store.SyncDir(s.Images())
}

// RemoveDamaged removes the document of name although it cannot be read.
func RemoveDamaged(s store.Store, name string) error {
	ref, err := reference.Parse(name)
	if err != nil {
		return err
	}
	return Remove(s, Entry{Name: ref.String()})
}
