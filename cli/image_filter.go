package cli

import (
	"path"
	"slices"
	"time"

	"kiste/cli/option"
	"kiste/image/catalog"
	"kiste/image/reference"
	"kiste/store"
)

// An imageTest reports whether an image is to be listed, or not.
type imageTest = func(e *catalog.Entry) bool

// imageFilters are Docker's.
var imageFilters = []filter[store.Store, *catalog.Entry]{
	{"before", "IMAGE", beforeImage},
	{"dangling", "true|false", danglingImage},
	{"label", "KEY[=VALUE]", labelledImage},
	{"reference", "PATTERN", referenceImage},
	{"since", "IMAGE", sinceImage},
	{"until", "TIME", untilImage},
}

func beforeImage(s store.Store, v string) (imageTest, error) {
	than, err := catalog.Get(s, v)
	return func(e *catalog.Entry) bool { return e.Created.Before(than.Created) }, err
}

func sinceImage(s store.Store, v string) (imageTest, error) {
	than, err := catalog.Get(s, v)
	return func(e *catalog.Entry) bool { return e.Created.After(than.Created) }, err
}

func untilImage(_ store.Store, v string) (imageTest, error) {
	end, err := option.ParseMoment(v, time.Now())
	return func(e *catalog.Entry) bool { return e.Created.Before(end) }, err
}

func danglingImage(_ store.Store, v string) (imageTest, error) {
	is, err := filterBool("dangling", v)
	return func(e *catalog.Entry) bool { return (e.Name == "") == is }, err
}

func labelledImage(_ store.Store, v string) (imageTest, error) {
	return func(e *catalog.Entry) bool { return hasLabel(e.Config.Labels, v) }, nil
}

// referenceImage compares as Docker does: the familiar name, with and without
// its tag, and the canonical one, by path.Match.
func referenceImage(_ store.Store, pattern string) (imageTest, error) {
	_, err := path.Match(pattern, "")
	return func(e *catalog.Entry) bool {
		ref, err := reference.Parse(e.Name)
		if err != nil {
			return false
		}
		return slices.ContainsFunc([]string{ref.Familiar(), ref.FamiliarName(), ref.String(), ref.Name()}, func(name string) bool {
			ok, _ := path.Match(pattern, name)
			return ok
		})
	}, err
}
