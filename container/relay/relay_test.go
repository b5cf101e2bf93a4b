package relay_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kiste/container/logfile"
	"kiste/container/relay"
	"kiste/fault"
	"kiste/internal/sys"
)

func entry(text string) logfile.Entry {
	return logfile.Entry{Time: time.Date(2026, 1, 2, 15, 4, 5, 678901000, time.UTC), Stream: logfile.Stdout, Line: []byte(text)}
}

func plain(e *logfile.Entry) []byte { return append(bytes.Clone(e.Line), '\n') }

// listen is a journald that can be asked for the next message.
func listen(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func next(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 1<<20)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := c.Read(b)
	if err != nil {
		t.Fatalf("nothing came: %v", err)
	}
	return string(b[:n])
}

func dial(path string) func() (*os.File, error) {
	return func() (*os.File, error) { return sys.DialUnixPacket(path) }
}

// All that is written arrives, in order, also through a connection that was
// lost.
func TestRelayGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	r := relay.Open(relay.Options{Name: "test", Dial: dial(path), Format: plain})
	if err := r.Write(entry("one"), entry("two")); err != nil { // nobody listens yet
		t.Fatal(err)
	}
	first := listen(t, path)
	for _, want := range []string{"one\n", "two\n"} {
		if got := next(t, first); got != want {
			t.Errorf("got %q; want %q", got, want)
		}
	}
	first.Close()
	os.Remove(path)
	if err := r.Write(entry("three")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	second := listen(t, path)
	if got := next(t, second); got != "three\n" {
		t.Errorf("got %q; want three", got)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// Where nobody listens, nobody waits: what has no room is counted as lost, also
// at the end.
func TestRelayWaitsForNobody(t *testing.T) {
	for _, wait := range []bool{false, true} {
		r := relay.Open(relay.Options{Name: "test", Dial: dial(filepath.Join(t.TempDir(), "none")), Format: plain, Limit: 10, Wait: wait, Patience: 10 * time.Millisecond})
		begun := time.Now()
		err := r.Write(entry("12345"), entry("too long"), entry("more"))
		for end := begun.Add(30 * time.Second); err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
			err = r.Write(entry("more yet"))
		}
		if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "entries are lost: connect") {
			t.Errorf("wait %v: got %v; want some lost, and why", wait, err)
		}
		if err := r.Close(); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "1 entries are lost") {
			t.Errorf("wait %v: Close: got %v; want what is left counted as lost", wait, err)
		}
		if took := time.Since(begun); took > time.Minute {
			t.Errorf("wait %v: it took %v", wait, took)
		}
		if err := r.Write(entry("late")); err == nil {
			t.Error("a closed relay takes entries")
		}
	}
}

// Who asks for it waits for a slow listener, and loses nothing.
func TestRelayWaitsWhenAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	c := listen(t, path)
	_ = c.SetReadBuffer(4 << 10)
	r := relay.Open(relay.Options{Name: "test", Dial: dial(path), Format: plain, Limit: 1 << 10, Wait: true})
	const many = 2000
	connected := make(chan struct{})
	go func() {
		for i := range many {
			if err := r.Write(entry(fmt.Sprintf("%0100d", i))); err != nil {
				t.Error(err)
			}
			if i == 0 {
				<-connected
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i := range many {
		if got, want := next(t, c), fmt.Sprintf("%0100d\n", i); got != want {
			t.Fatalf("got %q; want %q", got, want)
		}
		if i == 0 {
			close(connected)
		}
	}
}

// So does one who writes more at once than has room, also when nothing waits, and
// before it is known whether anybody listens.
func TestRelayWaitsWithinOneWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	c := listen(t, path)
	r := relay.Open(relay.Options{Name: "test", Dial: dial(path), Format: plain, Limit: 10, Wait: true})
	for range 2 {
		written := make(chan error, 1)
		go func() { written <- r.Write(entry("first"), entry("second"), entry("third")) }()
		for _, want := range []string{"first\n", "second\n", "third\n"} {
			if got := next(t, c); got != want {
				t.Fatalf("got %q; want %q", got, want)
			}
		}
		if err := <-written; err != nil {
			t.Error(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestJournal(t *testing.T) {
	e := entry("hello")
	e.Stream, e.Partial = logfile.Stderr, true
	f := relay.Journal(map[string]string{"CONTAINER_ID": "abc", "my.label": "x", "_trusted": "y", "9": "gone"})
	want := "CONTAINER_ID=abc\nTRUSTED=y\nMY_LABEL=x\nMESSAGE=hello\nPRIORITY=3\nSYSLOG_TIMESTAMP=2026-01-02T15:04:05.678901Z\nCONTAINER_PARTIAL_MESSAGE=true\n"
	if got := string(f(&e)); got != want {
		t.Errorf("got %q; want %q", got, want)
	}
	two := entry("a\nb")
	if got := string(f(&two)); !strings.Contains(got, "MESSAGE\n\x03\x00\x00\x00\x00\x00\x00\x00a\nb\nPRIORITY=6\n") {
		t.Errorf("a message of two lines is %q", got)
	}
}

func TestSyslog(t *testing.T) {
	for _, tt := range []struct {
		s    relay.Syslog
		want string
	}{
		{relay.Syslog{}, "<30>Jan  2 15:04:05 tag[7]: hello\n"},
		{relay.Syslog{Format: "rfc3164", Facility: "local0"}, "<134>Jan  2 15:04:05 box tag[7]: hello\n"},
		{relay.Syslog{Format: "rfc5424", Facility: "1"}, "<14>1 2026-01-02T15:04:05Z box tag 7 tag - hello\n"},
		{relay.Syslog{Format: "rfc5424micro"}, "<30>1 2026-01-02T15:04:05.678901Z box tag 7 tag - hello\n"},
		{relay.Syslog{Format: "rfc1"}, "Invalid syslog format"},
		{relay.Syslog{Facility: "nobody"}, "invalid syslog facility"},
		{relay.Syslog{Facility: "24"}, "invalid syslog facility"},
	} {
		tt.s.Host, tt.s.Tag, tt.s.PID = "box", "tag", 7
		f, err := tt.s.Messages()
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			e := entry("hello")
			got = string(f(&e))
		}
		if got != tt.want {
			t.Errorf("%+v: got %q; want %q", tt.s, got, tt.want)
		}
	}
}

func TestReadJournal(t *testing.T) {
	const text = `{"__CURSOR":"s=1","MESSAGE":"hello","PRIORITY":"6","SYSLOG_TIMESTAMP":"2026-01-02T15:04:05.678901Z","MY_LABEL":"x"}
{"__CURSOR":"s=2","MESSAGE":[0,255,10],"PRIORITY":"3","__REALTIME_TIMESTAMP":"1795896074570410","CONTAINER_PARTIAL_MESSAGE":"true"}
`
	var got []string
	err := relay.ReadJournal(strings.NewReader(text), map[string]string{"MY_LABEL": "my.label"}, func(e *logfile.Entry, cursor string) error {
		got = append(got, fmt.Sprintf("%s %s %q %v %v %d", cursor, e.Stream, e.Line, e.Partial, e.Attrs, e.Time.UnixMicro()))
		return nil
	})
	want := `[s=1 stdout "hello" false map[my.label:x] 1767366245678901 s=2 stderr "\x00\xff\n" true map[] 1795896074570410]`
	if fmt.Sprint(got) != want || err != nil {
		t.Errorf("got %v, %v; want %s", got, err, want)
	}
	for _, bad := range []string{"x\n", "{}\n", `{"__REALTIME_TIMESTAMP":"x"}` + "\n"} {
		if err := relay.ReadJournal(strings.NewReader(bad), nil, func(*logfile.Entry, string) error { return nil }); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v; want it refused", bad, err)
		}
	}
}

// Whatever journalctl writes is read or refused; what was read is at most as
// long as what was written.
func FuzzReadJournal(f *testing.F) {
	f.Add([]byte(`{"__CURSOR":"s=2","MESSAGE":[0,255],"__REALTIME_TIMESTAMP":"1","CONTAINER_PARTIAL_MESSAGE":["true","x"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_ = relay.ReadJournal(bytes.NewReader(b), map[string]string{"A": "a"}, func(e *logfile.Entry, _ string) error {
			n += len(e.Line)
			return nil
		})
		if n > 3*len(b) {
			t.Errorf("%d bytes of %d", n, len(b))
		}
	})
}
