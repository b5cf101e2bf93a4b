package cli

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"kiste/fault"
)

func TestPruneFilters(t *testing.T) {
	labels := map[string]string{"a": "b", "c": ""}
	made := time.Now().Add(-time.Hour)
	for filters, want := range map[string]bool{"": true, "until=30m": true, "until=2h": false, "label=a": true, "label=a=b label=c": true, "label=a label=x": false,
		"label!=a": false, "label!=x": true, "label!=a=x": true, "until=30m label=x": false} {
		o := PruneOptions{filters: strings.Fields(filters)}
		goes, err := o.Filter()
		if err != nil || goes(made, labels) != want {
			t.Errorf("%s: %v; want %v", filters, err, want)
		}
	}
	for bad, want := range map[string]string{"until=x": `failed to parse value as time or duration: "x"`, "until=1h until=2h": "more than one until", "name=x": "invalid filter 'name'", "label": "bad format of filter", "dangling=x": ""} {
		o := PruneOptions{filters: strings.Fields(bad)}
		if _, err := o.Filter(); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	o := PruneOptions{filters: []string{"dangling=false"}}
	if _, err := o.Filter(); err != nil || !o.All {
		t.Errorf("dangling=false is not --all: %v", err)
	}
}

func TestPruneAsks(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "Y\nmore": true, "n\n": false, "": false, "yes\n": false, " y \n": true} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		w.WriteString(answer)
		w.Close()
		var out bytes.Buffer
		o := PruneOptions{All: true, Volumes: true, filters: []string{"label=x"}}
		got := o.Confirmed(&Env{In: r, Out: &out}, o.SystemWarning())
		r.Close()
		const asked = `WARNING! This will remove:
  - all stopped containers
  - all networks not used by at least one container
  - all anonymous volumes not used by at least one container
  - all images without at least one container associated to them

  Items to be pruned will be filtered with:
  - label=x

Are you sure you want to continue? [y/N] `
		if got != want || out.String() != asked {
			t.Errorf("%q: %v after %q", answer, got, out.String())
		}
	}
}
