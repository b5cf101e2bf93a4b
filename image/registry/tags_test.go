package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/image/reference"
)

// tagServer gives pages of tags; link makes the header of a page that is not
// the last.
func tagServer(t *testing.T, all []string, page int, link func(r *http.Request, last string) string) (host string, asked *[]string) {
	t.Helper()
	asked = &[]string{}
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.String())
		from := slices.Index(all, r.URL.Query().Get("last")) + 1
		to := min(from+page, len(all))
		if to < len(all) {
			w.Header().Set("Link", link(r, all[to-1]))
		}
		json.NewEncoder(w).Encode(map[string]any{"name": "ann/app", "tags": all[from:to]}) //nolint:errcheck // a test's server
	})), asked
}

func tagsOf(t *testing.T, host string, o Options) ([]string, error) {
	t.Helper()
	ref, err := reference.Parse(host + "/ann/app")
	if err != nil {
		t.Fatal(err)
	}
	return Tags(context.Background(), ref, o)
}

func TestTags(t *testing.T) {
	var many []string
	for i := range 25 {
		many = append(many, fmt.Sprintf("1.%d", i))
	}
	for _, tt := range []struct {
		name  string
		all   []string
		link  func(r *http.Request, last string) string
		pages int
		want  int
	}{
		{"one page", []string{"a", "b"}, nil, 1, 2},
		{"none", nil, nil, 1, 0},
		{"a path", many, func(r *http.Request, last string) string {
			return "</v2/ann/app/tags/list?last=" + last + `&n=10>; rel="next"`
		}, 3, 25},
		{"a whole URL", many, func(r *http.Request, last string) string {
			return "<http://" + r.Host + r.URL.Path + "?last=" + last + ">; rel=next"
		}, 3, 25},
		{"another host is not followed", many, func(r *http.Request, last string) string {
			return "<http://evil.example/x?last=" + last + `>; rel="next"`
		}, 3, 25},
		{"no next", many, func(r *http.Request, last string) string { return "<?last=" + last + `>; rel="prev"` }, 1, 10},
		{"no last", many, func(r *http.Request, last string) string { return `<?n=5>; rel="next"` }, 1, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host, asked := tagServer(t, tt.all, 10, tt.link)
			got, err := tagsOf(t, host, quick(t))
			if err != nil || len(got) != tt.want || !slices.Equal(got, tt.all[:tt.want]) || len(*asked) != tt.pages {
				t.Errorf("%v, %v of %v; want %d of %d pages", got, err, *asked, tt.want, tt.pages)
			}
		})
	}
}

func TestTagsAreBounded(t *testing.T) {
	n := 0
	for _, tt := range []struct {
		name, want string
		handler    http.HandlerFunc
	}{
		{"without end", "more than 100000", func(w http.ResponseWriter, r *http.Request) {
			var tags []string
			for range 30000 {
				n++
				tags = append(tags, fmt.Sprint(n))
			}
			w.Header().Set("Link", fmt.Sprintf(`<?last=%d>; rel="next"`, n))
			json.NewEncoder(w).Encode(map[string]any{"tags": tags}) //nolint:errcheck // a test's server
		}},
		{"a page without end", "more than", endless},
		{"no JSON", "invalid character", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") }},
		{"a tag that leads elsewhere", "is no tag", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"tags":["../../x"]}`) }},
		{"a digest", "is no tag", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"tags":["1@sha256:%s"]}`, strings.Repeat("0", 64))
		}},
		{"nothing", "is no tag", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"tags":[""]}`) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tags, err := tagsOf(t, serve(t, tt.handler), quick(t))
			if !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%d tags, %v; want %q", len(tags), err, tt.want)
			}
		})
	}
	host := serve(t, http.NotFoundHandler())
	if _, err := tagsOf(t, host, quick(t)); !errors.Is(err, fault.NotFound) {
		t.Errorf("no such repository: %v", err)
	}
}

func TestTagsOfAMirror(t *testing.T) {
	host, asked := tagServer(t, []string{"a"}, 10, nil)
	o := quick(t)
	if err := o.Settings.Parse("mirror docker.io http://" + host + "/cache"); err != nil {
		t.Fatal(err)
	}
	ref, err := reference.Parse("ann/app")
	if err != nil {
		t.Fatal(err)
	}
	if tags, err := Tags(context.Background(), ref, o); err != nil || len(tags) != 1 || (*asked)[0] != "/v2/cache/ann/app/tags/list?n=1000&ns=docker.io" {
		t.Errorf("%v, %v of %v", tags, err, *asked)
	}
}

// What a header says, the next page is asked for with words that a URL takes.
func FuzzNextPage(f *testing.F) {
	f.Add(`</v2/x/tags/list?last=1.2&n=100>; rel="next"`)
	f.Add(`<>; rel=next`)
	f.Fuzz(func(t *testing.T, link string) {
		query := nextPage(link)
		if query == nil {
			return
		}
		if again, err := url.ParseQuery(query.Encode()); err != nil || again.Get("last") == "" {
			t.Errorf("%q: %v, %v", link, again, err)
		}
	})
}
