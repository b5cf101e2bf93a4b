package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"kiste/fault"
	"kiste/image/reference"
)

const (
	// maxTags bounds the tags of a repository: a registry could make up more
	// for ever.
	maxTags = 100_000

	// tagsPage is how many are asked for at once; a registry may give fewer.
	tagsPage = 1000

	maxTagsPage = 4 << 20 // bytes
)

// Tags lists the tags of ref's repository in the registry's order, or those of
// a mirror that has it. More than a hundred thousand, and what is no tag, are
// fault.Invalid. See distribution-spec, "Listing tags".
func Tags(ctx context.Context, ref reference.Reference, o Options) ([]string, error) {
	r, err := newRepository(ref, o)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var tags []string
	err = r.try(ctx, func(e *endpoint) (err error) {
		tags, err = r.tags(ctx, e)
		return err
	})
	return tags, err
}

func (r *repository) tags(ctx context.Context, e *endpoint) ([]string, error) {
	var all []string
	page := url.Values{"n": {fmt.Sprint(tagsPage)}}
	for {
		tags, next, err := r.tagsPage(ctx, e, page)
		if err != nil {
			return nil, err
		}
		for _, tag := range tags {
			full, err := reference.Parse(r.ref.Registry + "/" + r.ref.Repository + ":" + tag)
			if err != nil || full.Tag != tag {
				return nil, invalidTags(r.ref, fmt.Errorf("%.200q is no tag", tag))
			}
		}
		if all = append(all, tags...); len(all) > maxTags {
			return nil, invalidTags(r.ref, fmt.Errorf("there are more than %d", maxTags))
		}
		// a page without tags is the last, whatever it says
		if next == nil || len(tags) == 0 {
			return all, nil
		}
		page = next
	}
}

func invalidTags(ref reference.Reference, err error) error {
	return &fault.Error{Op: "list tags", On: ref.FamiliarName(), Kind: fault.Invalid, Err: err}
}

// tagsPage gets one page, and the query of the next if there is one.
func (r *repository) tagsPage(ctx context.Context, e *endpoint, query url.Values) (tags []string, next url.Values, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*r.o.Stall)
	defer cancel()
	res, err := e.get(ctx, "tags/list?"+query.Encode(), http.Header{"Accept": {"application/json"}})
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, nil, e.failure(res, "repository "+r.ref.FamiliarName())
	}
	b, err := readAll(res.Body, maxTagsPage)
	if err != nil {
		return nil, nil, e.unavailable(err)
	}
	var list struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, nil, invalidTags(r.ref, err)
	}
	return list.Tags, nextPage(res.Header.Get("Link")), nil
}

// nextPage reads the query of `<URL>; rel="next"` (RFC 8288). Where the URL
// leads is the registry's to say, and not followed: the next page has the path
// of this one.
func nextPage(link string) url.Values {
	target, parameters, ok := strings.Cut(link, ">")
	before, target, ok2 := strings.Cut(target, "<")
	if !ok || !ok2 || strings.TrimSpace(before) != "" || !strings.Contains(strings.ReplaceAll(parameters, `"`, ""), "rel=next") {
		return nil
	}
	u, err := url.Parse(target)
	if err != nil {
		return nil
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || query.Get("last") == "" {
		return nil
	}
	return query
}
