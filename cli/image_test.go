package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"kiste/fault"
	"kiste/image/catalog"
	"kiste/progress"
	"kiste/store"
)

func TestDecimalSizeIsDockers(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1000: "1kB", 7800000: "7.8MB", 117000000: "117MB", 999900: "1MB", 4260000000: "4.26GB"} {
		if got := DecimalSize(n); got != want {
			t.Errorf("%d is %s; want %s", n, got, want)
		}
	}
}

func TestAgeIsDockers(t *testing.T) {
	now := time.Unix(1700000000, 0)
	for d, want := range map[time.Duration]string{
		0: "Less than a second ago", 5 * time.Second: "5 seconds ago", 70 * time.Second: "About a minute ago", 5 * time.Minute: "5 minutes ago",
		70 * time.Minute: "About an hour ago", 5 * time.Hour: "5 hours ago", 72 * time.Hour: "3 days ago", 21 * 24 * time.Hour: "3 weeks ago",
		100 * 24 * time.Hour: "3 months ago", 800 * 24 * time.Hour: "2 years ago",
	} {
		if got := age(now.Add(-d), now); got != want {
			t.Errorf("%v is %q; want %q", d, got, want)
		}
	}
	if got := age(time.Time{}, now); got != "N/A" {
		t.Errorf("no time at all is %q", got)
	}
}

func TestImageFilters(t *testing.T) {
	where := store.Store{Lib: t.TempDir()}
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	image := func(name, id string, age time.Duration) catalog.Entry {
		e := catalog.Entry{Name: name, ID: digest(id), Manifest: digest(id), Created: time.Now().Add(-age), Config: catalog.Config{Labels: map[string]string{"a": "b"}}}
		if err := catalog.Put(where, e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	e := image("docker.io/library/debian:12", "a", 2*time.Hour)
	image("docker.io/library/old:1", "b", 3*time.Hour)
	image("docker.io/library/new:1", "c", time.Hour)
	for filter, want := range map[string]bool{"reference=debian": true, "reference=deb*:1?": true, "reference=docker.io/*/debian:12": true, "reference=alpine": false,
		"reference=x reference=debian": true, "dangling=true": false, "dangling=false": true, "label=a": true, "label=a=b": true, "label=a=c": false, "label=x": false, "label=a label=x": false,
		"before=new:1": true, "before=old:1": false, "since=old:1": true, "since=new:1": false, "until=90m": true, "until=150m": false, "until=2001-01-01": false} {
		keep, err := choose(imageFilters, where, strings.Fields(filter))
		if err != nil || keep.fit(&e) != want {
			t.Errorf("%s: %v; want %v", filter, err, want)
		}
	}
	for _, bad := range []string{"colour=x", "dangling=perhaps", "until=x", "reference=[", "label"} {
		if _, err := choose(imageFilters, where, []string{bad}); !errors.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := choose(imageFilters, where, []string{"since=nothing"}); !errors.Is(err, fault.NotFound) {
		t.Errorf("since an image that is not here: %v", err)
	}
}

func TestProgressLines(t *testing.T) {
	events := []progress.Event{{ID: "sha256:0123456789abcdef", Phase: progress.Waiting}, {ID: "sha256:0123456789abcdef", Phase: progress.Downloading, Done: 1, Total: 2},
		{ID: "sha256:0123456789abcdef", Phase: progress.Downloading, Done: 2, Total: 2}, {ID: "sha256:0123456789abcdef", Phase: progress.Done}}
	var out, err bytes.Buffer
	for _, style := range []Style{Auto, JSON, Silent} {
		f, done := Progress(&Env{Out: &out, Err: &err}, style)
		for _, e := range events {
			f.Report(e)
		}
		done()
	}
	if want := "0123456789ab: Pulling fs layer\n0123456789ab: Pull complete\n"; err.String() != want {
		t.Errorf("plain lines: %q; want %q", err.String(), want)
	}
	if n := strings.Count(out.String(), "\n"); n != 3 || !strings.HasPrefix(out.String(), `{"id":"sha256:0123456789abcdef","phase":"waiting"}`) {
		t.Errorf("JSON lines: %q", out.String())
	}
}

func TestBarLinesFit(t *testing.T) {
	for width := 20; width < 200; width += 7 {
		for _, e := range []progress.Event{{ID: "sha256:0123456789abcdef", Phase: progress.Downloading, Done: 123456789, Total: 223456789}, {ID: "x", Phase: progress.Unpacking, Done: 5, Total: 4}, {ID: "x", Phase: progress.Waiting}} {
			if line := barLine(e, max(width, 40)); len(line) > max(width, 40) {
				t.Errorf("%d letters in a terminal of %d: %q", len(line), width, line)
			}
		}
	}
}
