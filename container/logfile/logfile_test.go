package logfile

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
)

func gzipped(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }

func gunzipped(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }

func both(t *testing.T, test func(t *testing.T, o Options)) {
	for _, f := range formats() {
		t.Run(f.name, func(t *testing.T) {
			test(t, Options{Dir: t.TempDir(), Format: f.name, Compress: gzipped, Decompress: gunzipped})
		})
	}
}

func create(t *testing.T, o Options) *Writer {
	t.Helper()
	w, err := Create(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func put(t *testing.T, w *Writer, stream string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if err := w.Write(Entry{Stream: stream, Line: []byte(line)}); err != nil {
			t.Fatal(err)
		}
	}
}

func all(t *testing.T, o Options, s Selection) []string {
	t.Helper()
	var got []string
	err := Read(o, s, func(e *Entry) error {
		got = append(got, string(e.Line))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

var everything = Selection{Tail: -1}

func TestWhatIsWrittenIsRead(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.Attrs = map[string]string{"label": `a "quoted" one`}
		w := create(t, o)
		lines := []string{"plain", "", `quotes " and \ and tabs` + "\t\r", "ünïcödé \u2028 <b>&amp;", "\x01\x1b[31mred"}
		put(t, w, Stdout, lines...)
		put(t, w, Stderr, "from the other stream")
		var got []Entry
		err := Read(o, everything, func(e *Entry) error { got = append(got, *e); return nil })
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range got {
			want, stream := append(slices.Clone(lines), "from the other stream")[i], Stdout
			if i == len(lines) {
				stream = Stderr
			}
			if string(e.Line) != want || e.Stream != stream || e.Partial {
				t.Errorf("entry %d is %q of %s, want %q of %s", i, e.Line, e.Stream, want, stream)
			}
			if i > 0 && !e.Time.After(got[i-1].Time) {
				t.Errorf("entry %d is not later than the one before", i)
			}
		}
		if len(got) != len(lines)+1 {
			t.Errorf("%d entries, want %d", len(got), len(lines)+1)
		}
	})
}

func TestBinaryStaysAsItIsInLocal(t *testing.T) {
	o := Options{Dir: t.TempDir(), Format: "local"}
	text := "\xff\xfe\x00binary\x80"
	put(t, create(t, o), Stdout, text)
	if got := all(t, o, everything); !slices.Equal(got, []string{text}) {
		t.Errorf("%q", got)
	}
}

// What Docker 20.10's driver "json-file" wrote for the same line.
func TestJSONIsDockers(t *testing.T) {
	e := Entry{Time: time.Date(2026, 11, 24, 18, 24, 23, 296745171, time.FixedZone("", 3600)), Stream: Stdout, Line: []byte("a <b> \"c\"\t\xff x")}
	docker := `{"log":"a \u003cb\u003e \"c\"\u0009\ufffd x\n","stream":"stdout","time":"2026-11-24T17:24:23.296745171Z"}` + "\n"
	if got := string(addJSON(nil, &e)); got != docker {
		t.Errorf("%s, want %s", got, docker)
	}
}

// What Docker 20.10's driver "local" wrote for "echo hello".
func TestLocalIsDockers(t *testing.T) {
	docker := "\x00\x00\x00\x19\n\x06stdout\x10\x97\x9c\xb6\xc1\xd6\xe2\xc2\xf5\x18\x1a\x05hello\x00\x00\x00\x19"
	var e Entry
	if err := nextLocal(newReader(strings.NewReader(docker)), &e); err != nil || string(e.Line) != "hello" || e.Stream != Stdout || e.Time.Format(time.RFC3339) != "2026-11-24T17:24:23Z" {
		t.Errorf("%+v, %v", e, err)
	}
	if got := string(addLocal(nil, &e)); got != docker {
		t.Errorf("%q, want %q", got, docker)
	}
}

func TestTail(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.MaxSize, o.MaxFiles = 400, 4
		w := create(t, o)
		for i := range 20 {
			put(t, w, Stdout, fmt.Sprint("line ", i))
		}
		whole := all(t, o, everything)
		for n := range 20 {
			got, want := all(t, o, Selection{Tail: n}), whole[max(0, len(whole)-n):]
			if !slices.Equal(got, want) {
				t.Errorf("the last %d: %q, want %q", n, got, want)
			}
		}
		if whole[len(whole)-1] != "line 19" || len(whole) < 5 {
			t.Errorf("kept %q", whole)
		}
	})
}

func TestSinceAndUntil(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		w := create(t, o)
		put(t, w, Stdout, "one", "two")
		mark := time.Now()
		put(t, w, Stdout, "three", "four")
		if got := all(t, o, Selection{Tail: -1, Since: mark}); !slices.Equal(got, []string{"three", "four"}) {
			t.Errorf("since: %q", got)
		}
		if got := all(t, o, Selection{Tail: -1, Until: mark}); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("until: %q", got)
		}
	})
}

func TestLongAndUnfinishedLines(t *testing.T) {
	s := Splitter{Stream: Stdout}
	var got []string
	take := func(entries []Entry, rest []byte) {
		if len(rest) > 0 {
			t.Errorf("%d bytes are left", len(rest))
		}
		for _, e := range entries {
			mark := "."
			if e.Partial {
				mark = "…"
			}
			got = append(got, fmt.Sprint(len(e.Line), mark))
		}
	}
	take(s.Split([]byte("one\n\ntwo\nthr"), make([]Entry, 0, 8)))
	take(s.Split([]byte("ee\n"), make([]Entry, 0, 8)))
	take(s.Split(bytes.Repeat([]byte("x"), 2*MaxLine+5), make([]Entry, 0, 8)))
	take(s.Split([]byte("\nrest"), make([]Entry, 0, 8)))
	take(s.End(), nil)
	take(s.End(), nil)
	want := []string{"3.", "0.", "3.", "3…", "2.", "16384…", "16384…", "5…", "0.", "4…", "0."}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestRotation(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.MaxSize, o.MaxFiles = 1000, 3
		w := create(t, o)
		for i := range 200 {
			put(t, w, Stdout, fmt.Sprint("line ", i))
		}
		names, err := filepath.Glob(filepath.Join(o.Dir, "*"))
		if err != nil || len(names) != 3 {
			t.Errorf("files %q, %v", names, err)
		}
		got := all(t, o, everything)
		if len(got) < 20 || got[len(got)-1] != "line 199" {
			t.Fatalf("%d entries to %q", len(got), got[len(got)-1])
		}
		for i := range got {
			if want := fmt.Sprint("line ", 200-len(got)+i); got[i] != want {
				t.Fatalf("entry %d is %q, want %q", i, got[i], want)
			}
		}
	})
}

// A file grows by no more than an entry beyond its size, however many come at once.
func TestManyEntriesAtOnceAreRotated(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.MaxSize, o.MaxFiles = 1000, 3
		w := create(t, o)
		many := make([]Entry, 1000)
		for i := range many {
			many[i] = Entry{Stream: Stdout, Line: []byte("line")}
		}
		if err := errors.Join(w.Write(many...), w.Close()); err != nil {
			t.Fatal(err)
		}
		if n := len(all(t, o, Selection{Tail: -1})); n > 200 {
			t.Errorf("%d lines are left", n)
		}
	})
}

func TestOneFileIsBegunAnew(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.MaxSize = 500
		w := create(t, o)
		for i := range 100 {
			put(t, w, Stdout, fmt.Sprint("line ", i))
		}
		if info, err := os.Stat(o.Path()); err != nil || info.Size() > 600 {
			t.Errorf("%v, %v", info, err)
		}
	})
}

func TestAFollowerSeesAllThroughRotations(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.MaxSize, o.MaxFiles = 4000, 5
		const count = 3000
		w := create(t, o)
		ended, done := make(chan struct{}), make(chan []string)
		var seen atomic.Int64
		go func() {
			var got []string
			err := Read(o, Selection{Tail: -1, Follow: func() bool {
				select {
				case <-ended:
					return true
				default:
					return false
				}
			}}, func(e *Entry) error { got = append(got, string(e.Line)); seen.Add(1); return nil })
			if err != nil {
				t.Error(err)
			}
			done <- got
		}()
		for i := range count {
			put(t, w, Stdout, fmt.Sprint("line ", i))
			for late := time.Now().Add(time.Minute); int64(i)-seen.Load() > 50; time.Sleep(time.Millisecond) {
				if time.Now().After(late) {
					t.Fatalf("it has seen %d of %d", seen.Load(), i)
				}
			}
		}
		close(ended)
		if err := os.WriteFile(filepath.Join(o.Dir, "state"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		got := <-done
		for i := 1; i < len(got); i++ {
			var a, b int
			fmt.Sscanf(got[i-1], "line %d", &a)
			fmt.Sscanf(got[i], "line %d", &b)
			if b != a+1 {
				t.Fatalf("after %q comes %q", got[i-1], got[i])
			}
		}
		if len(got) == 0 || got[len(got)-1] != fmt.Sprint("line ", count-1) {
			t.Errorf("the last of %d is not the last one", len(got))
		}
	})
}

func TestAFollowerStops(t *testing.T) {
	o := Options{Dir: t.TempDir(), Format: "local"}
	put(t, create(t, o), Stdout, "one")
	stop := make(chan struct{})
	err := Read(o, Selection{Tail: -1, Stop: stop, Follow: func() bool { return false }}, func(*Entry) error {
		close(stop)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	err = Read(o, Selection{Tail: -1, Until: time.Now().Add(20 * time.Millisecond), Follow: func() bool { return false }}, func(*Entry) error { return nil })
	if err != nil {
		t.Error(err)
	}
}

func TestWhatWasCutOffIsTakenAway(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		put(t, create(t, o), Stdout, "one", "two", "three")
		whole, err := os.ReadFile(o.Path())
		if err != nil {
			t.Fatal(err)
		}
		lastEntry := len(whole) - len(whole)/3
		for cut := lastEntry + 2; cut < len(whole); cut++ {
			if err := os.WriteFile(o.Path(), whole[:cut], 0o600); err != nil {
				t.Fatal(err)
			}
			put(t, create(t, o), Stdout, "four")
			if got := all(t, o, everything); !slices.Equal(got, []string{"one", "two", "four"}) {
				t.Fatalf("cut at %d: %q", cut, got)
			}
		}
	})
}

func TestAFullDiskLosesTheNewest(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	both(t, func(t *testing.T, o Options) {
		if err := syscall.Mount("tmpfs", o.Dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		defer syscall.Unmount(o.Dir, 0)
		w := create(t, o)
		line := []byte(strings.Repeat("x", 1000))
		lost, kept := 0, 0
		for range 100 {
			if err := w.Write(Entry{Stream: Stdout, Line: line}); errors.Is(err, syscall.ENOSPC) {
				lost++
			} else if err != nil {
				t.Fatal(err)
			} else {
				kept++
			}
		}
		if lost == 0 {
			t.Fatal("the disk is not full")
		}
		if got := all(t, o, everything); len(got) != kept {
			t.Errorf("%d entries, want %d", len(got), kept)
		}
		if err := syscall.Mount("tmpfs", o.Dir, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
			t.Fatal(err)
		}
		put(t, w, Stdout, "room again")
		got := all(t, o, Selection{Tail: 2})
		want := fmt.Sprintf("kiste: %d entries of this log are lost: ", lost)
		if len(got) != 2 || !strings.HasPrefix(got[0], want) || got[1] != "room again" {
			t.Errorf("%q", got)
		}
		w.Close()
	})
}

func TestDamage(t *testing.T) {
	for name, bad := range map[string]string{"json-file": "{\"log\":\n{}\n", "local": "\x00\x00\x00\x02ab\x00\x00\x00\x03"} {
		o := Options{Dir: t.TempDir(), Format: name}
		if err := os.WriteFile(o.Path(), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Read(o, everything, func(*Entry) error { return nil }); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Create(Options{Format: "papyrus"}); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func FuzzEntries(f *testing.F) {
	e := Entry{Time: time.Unix(1, 2), Stream: Stdout, Line: []byte("hello"), Partial: true}
	f.Add(addLocal(nil, &e), true)
	f.Add(addJSON(nil, &e), false)
	f.Fuzz(func(t *testing.T, b []byte, local bool) {
		form := formats()[0]
		if local {
			form = formats()[1]
		}
		r := newReader(bytes.NewReader(b))
		for {
			var e Entry
			before := r.read
			if form.next(r, &e) != nil {
				break
			}
			if r.read <= before || r.read > int64(len(b)) {
				t.Fatalf("read from %d to %d of %d", before, r.read, len(b))
			}
		}
		for end := int64(len(b)); end > 0; {
			start, err := form.back(bytes.NewReader(b), end)
			if err != nil {
				break
			}
			if start >= end || start < 0 {
				t.Fatalf("back from %d to %d", end, start)
			}
			end = start
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	for _, f := range formats() {
		b.Run(f.name, func(b *testing.B) {
			w, err := Create(Options{Dir: b.TempDir(), Format: f.name, MaxSize: 20 << 20, MaxFiles: 2})
			if err != nil {
				b.Fatal(err)
			}
			chunk := bytes.Repeat([]byte(strings.Repeat("x", 79)+"\n"), 800)
			s := Splitter{Stream: Stdout}
			b.SetBytes(int64(len(chunk)))
			room := make([]Entry, 256)
			for b.Loop() {
				for rest := chunk; len(rest) > 0; {
					var entries []Entry
					entries, rest = s.Split(rest, room)
					if err := w.Write(entries...); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// A follower may find any part of an entry, and takes it when the rest is there.
func TestAnEntryCutAnywhere(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		form, err := formatOf(o.Format)
		if err != nil {
			t.Fatal(err)
		}
		entry := form.add(nil, &Entry{Time: time.Unix(1, 0), Stream: Stdout, Line: []byte("some words")})
		for cut := 1; cut < len(entry); cut++ {
			var file bytes.Buffer
			file.Write(entry)
			file.Write(entry[:cut])
			r := newReader(&file)
			var e Entry
			if err := form.next(r, &e); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				before := r.read
				if err := form.next(r, &e); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				r.unread(before)
			}
			file.Write(entry[cut:])
			if err := form.next(r, &e); err != nil || string(e.Line) != "some words" || r.read != int64(2*len(entry)) {
				t.Fatalf("cut at %d: %q, %v, %d bytes", cut, e.Line, err, r.read)
			}
		}
	})
}
