package event

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kiste/fault"
	"kiste/store"
)

func aStore(t testing.TB) store.Store {
	dir := t.TempDir()
	return store.Store{Lib: filepath.Join(dir, "lib"), Run: filepath.Join(dir, "run")}
}

// past gives the events of a store so far.
func past(t *testing.T, s store.Store) []Event {
	t.Helper()
	var all []Event
	err := Listen(t.Context(), s, Span{Until: time.Now()}, func(e Event) error { all = append(all, e); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAnEventHasDockersShape(t *testing.T) {
	s := aStore(t)
	if err := Append(s, New(Container, "start", "0a", map[string]string{"image": "debian", "name": "web"})); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(logFile(s))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"status":"start","id":"0a","from":"debian","Type":"container","Action":"start","Actor":{"ID":"0a","Attributes":{"image":"debian","name":"web"}},"scope":"local","time":`
	if !strings.HasPrefix(string(b), want) || !strings.HasSuffix(string(b), "}\n") {
		t.Errorf("got %s", b)
	}
	if all := past(t, s); len(all) != 1 || all[0].Actor.Attributes["name"] != "web" {
		t.Errorf("read %+v", all)
	}
}

// Many who tell at once, over many rotations; one listener hears each once.
func TestNothingIsLostOverRotations(t *testing.T) {
	s := aStore(t)
	const writers, each = 4, 500
	big := strings.Repeat("x", 10<<10)
	heard := map[string]int{}
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	if err := Append(s, New(Volume, "create", "first", nil)); err != nil {
		t.Fatal(err)
	}
	done := errors.New("enough")
	ended := make(chan error)
	begun := make(chan bool)
	var told, got atomic.Int64
	go func() {
		ended <- Listen(ctx, s, Span{Since: time.Unix(1, 0)}, func(e Event) error {
			if len(heard) == 0 {
				close(begun)
			}
			heard[e.Actor.ID]++
			got.Add(1)
			if len(heard) == writers*each+1 {
				return done
			}
			return nil
		})
	}()
	<-begun
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				if err := Append(s, New(Volume, "create", fmt.Sprint(w, "-", i), map[string]string{"big": big})); err != nil {
					t.Error(err)
				}
				// a listener that is two rotations behind has lost some, rightly
				for told.Add(1)-got.Load() > 200 && ctx.Err() == nil {
					told.Add(-1)
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	if err := <-ended; err != done {
		t.Errorf("heard %d of %d: %v", len(heard), writers*each+1, err)
	}
	for id, n := range heard {
		if n != 1 {
			t.Errorf("%s heard %d times", id, n)
		}
	}
	files, _ := os.ReadDir(s.Events())
	if len(files) != 2 {
		t.Errorf("%d files", len(files))
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil && info.Size() > maxFile+writers*maxLine {
			t.Errorf("%s has %d bytes", f.Name(), info.Size())
		}
	}
}

func TestSpan(t *testing.T) {
	s := aStore(t)
	var times []time.Time
	for i := range 3 {
		e := New(Image, "pull", fmt.Sprint(i), nil)
		times = append(times, time.Unix(0, e.TimeNano))
		if err := Append(s, e); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	for _, tt := range []struct {
		span Span
		want string
	}{
		{Span{Until: time.Now()}, "012"},
		{Span{Since: times[1], Until: time.Now()}, "12"},
		{Span{Since: times[1], Until: times[1]}, "1"},
		{Span{Until: times[0]}, "0"},
		{Span{Until: time.Now().Add(10 * time.Millisecond)}, "012"},
	} {
		got := ""
		if err := Listen(t.Context(), s, tt.span, func(e Event) error { got += e.ID; return nil }); err != nil || got != tt.want {
			t.Errorf("%+v: %q, %v; want %q", tt.span, got, err, tt.want)
		}
	}
}

func TestALineThatWasCutShortHarmsNoOther(t *testing.T) {
	s := aStore(t)
	if err := os.MkdirAll(s.Events(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(logFile(s), []byte("\x00garbage\n"+`{"status":"start","id":"0`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{Container, Volume} {
		if err := Append(s, New(kind, "create", "x", map[string]string{"a": `{"status":`})); err != nil {
			t.Fatal(err)
		}
	}
	if all := past(t, s); len(all) != 2 {
		t.Errorf("read %+v", all)
	}
}

func TestAppendRefusesWhatIsTooLong(t *testing.T) {
	if err := Append(aStore(t), New(Volume, "create", strings.Repeat("x", maxLine), nil)); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestFilter(t *testing.T) {
	start := New(Container, "start", "0a1b", map[string]string{"image": "debian:12", "name": "web", "tier": "front"})
	check := New(Container, "exec_create: true", "0a1b", map[string]string{"name": "web"})
	pull := New(Image, "pull", "localhost:5000/debian:12", map[string]string{"name": "localhost:5000/debian"})
	volume := New(Volume, "create", "data", map[string]string{"driver": "local"})
	for _, tt := range []struct {
		filters string
		want    string // which of the four fit
	}{
		{"", "scpv"},
		{"type=container", "sc"},
		{"type=container type=volume", "scv"},
		{"event=start", "s"},
		{"event=exec_create", "c"},
		{"event=star", ""},
		{"container=web", "sc"},
		{"container=0a", "sc"},
		{"container=x", ""},
		{"image=debian:12", "s"},
		{"image=debian", "s"},
		{"image=localhost:5000/debian", "p"},
		{"label=tier", "s"},
		{"label=tier=front label=name", "s"},
		{"label=tier=back", ""},
		{"volume=data", "v"},
		{"scope=local event=pull", "p"},
		{"network=x", ""},
	} {
		f := Filter{}
		for _, text := range strings.Fields(tt.filters) {
			if err := f.Add(text); err != nil {
				t.Fatal(err)
			}
		}
		got := ""
		for i, e := range []Event{start, check, pull, volume} {
			if f.Fits(e) {
				got += "scpv"[i : i+1]
			}
		}
		if got != tt.want {
			t.Errorf("%q: %q, want %q", tt.filters, got, tt.want)
		}
	}
	for _, bad := range []string{"", "type", "colour=red"} {
		if err := (Filter{}).Add(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"status":"start","id":"0{"status":"start","id":"0a","Type":"container","Action":"start","Actor":{"ID":"0a"},"scope":"local","time":1,"timeNano":1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if e, ok := parse(line); ok && (e.Type == "" || e.Action == "") {
			t.Errorf("%q: %+v", line, e)
		}
	})
}

// What an event costs whoever tells of it.
func BenchmarkAppend(b *testing.B) {
	s := aStore(b)
	for b.Loop() {
		if err := Append(s, New(Container, "start", strings.Repeat("0a", 32), map[string]string{"image": "debian:12", "name": "web"})); err != nil {
			b.Fatal(err)
		}
	}
}
