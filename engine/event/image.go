package event

import (
	"maps"
	"strconv"

	"kiste/store"
)

// OfImage tells that action has happened to the image with the ID: pull (of
// which the ID is the name), push, tag, untag, delete, import, load, save. To be
// written down is tried once; nothing fails for it.
func OfImage(s store.Store, action, id, name string, labels map[string]string) {
	all := map[string]string{}
	maps.Copy(all, labels)
	all["name"] = name
	if Append(s, New(Image, action, id, all)) != nil {
		// with labels that are longer than an event may be
		_ = Append(s, New(Image, action, id, map[string]string{"name": name}))
	}
}

// OfPrune tells that so many bytes were freed by a prune of a kind of objects.
func OfPrune(s store.Store, kind string, reclaimed int64) {
	_ = Append(s, New(kind, "prune", "", map[string]string{"reclaimed": strconv.FormatInt(reclaimed, 10)}))
}
