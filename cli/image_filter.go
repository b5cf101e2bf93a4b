package cli

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/cli/option"
	"kiste/fault"
	"kiste/image/catalog"
	"kiste/image/reference"
	"kiste/store"
)

// An imageTest reports whether an image is to be listed, or removed.
type imageTest func(e *catalog.Entry) bool

// An imageFilter makes a test of a filter's value, as Docker has it.
type imageFilter struct {
	key, help string
	test      func(s store.Store, value string) (imageTest, error)
}

func imageFilters() []imageFilter {
	return []imageFilter{
		{"before", "IMAGE", beforeImage},
		{"dangling", "true|false", danglingImage},
		{"label", "KEY[=VALUE]", labelledImage},
		{"reference", "PATTERN", referenceImage},
		{"since", "IMAGE", sinceImage},
		{"until", "TIME", untilImage},
	}
}

func imageFilterNames() string {
	var names []string
	for _, f := range imageFilters() {
		names = append(names, f.key+"="+f.help)
	}
	return strings.Join(names, ", ")
}

// chooseImages makes one test of all filters: labels have to fit all, of each
// other key one.
func chooseImages(s store.Store, words []string) (imageTest, error) {
	tests := map[string][]imageTest{}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, badFilter(w, "bad format of filter (expected name=value)", "KEY=VALUE, as in reference=debian:*")
		}
		all := imageFilters()
		i := slices.IndexFunc(all, func(f imageFilter) bool { return f.key == strings.ToLower(key) })
		if i < 0 {
			return nil, badFilter(w, "invalid filter '"+key+"'", imageFilterNames())
		}
		t, err := all[i].test(s, value)
		switch {
		case err != nil && fault.KindOf(err) == fault.NotFound:
			return nil, err
		case err != nil:
			return nil, badFilter(w, "invalid filter '"+w+"'", key+"="+all[i].help)
		}
		tests[all[i].key] = append(tests[all[i].key], t)
	}
	return func(e *catalog.Entry) bool {
		for key, ts := range tests {
			passes := func(t imageTest) bool { return t(e) }
			fails := func(t imageTest) bool { return !t(e) }
			if key == "label" && slices.ContainsFunc(ts, fails) || !slices.ContainsFunc(ts, passes) {
				return false
			}
		}
		return true
	}, nil
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
	is, err := strconv.ParseBool(v)
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
