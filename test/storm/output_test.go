package storm

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A repeat is an io.Writer that wants the same bytes over and over.
type repeat struct {
	of   []byte
	got  int64
	from int64 // where it was wrong first; 0: nowhere
}

func (r *repeat) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		at := int(r.got % int64(len(r.of)))
		n := min(len(rest), len(r.of)-at)
		if r.from == 0 && !bytes.Equal(rest[:n], r.of[at:at+n]) {
			r.from = r.got + 1
		}
		rest, r.got = rest[n:], r.got+int64(n)
	}
	return len(b), nil
}

func (r *repeat) wants(t *testing.T, where string, size int64) {
	t.Helper()
	if r.got != size || r.from != 0 {
		t.Errorf("%s: %d bytes of %d, and wrong from %d on", where, r.got, size, r.from-1)
	}
}

// volume is how much output there is: with $KISTE_CROWD as much as is promised.
func volume() int {
	switch {
	case os.Getenv("KISTE_CROWD") != "":
		return 1 << 30
	case testing.Short():
		return 8 << 20
	}
	return 96 << 20
}

// mostOfMonitor is what output may cost the monitor at most, in bytes, however
// much it is: what it needs for that is there once and used again.
const mostOfMonitor = 24 << 20

// Output at full speed arrives whole, in the log and at whoever is attached or
// follows, and costs a monitor no memory.
func TestMuchOutput(t *testing.T) {
	const piece = 4 << 20
	random := make([]byte, piece)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(random)
	random[piece-1] = '\n'
	text := []byte(base64.StdEncoding.EncodeToString(random))[:piece]
	for i := 0; i < piece; i += 1 + i%200 {
		text[i] = '\n'
	}
	text[piece-1] = '\n'
	for _, tt := range []struct {
		name    string
		bytes   []byte
		options []string
	}{
		{"local, binary", random, []string{"--log-driver", "local", "--log-opt", "max-size=2g", "--log-opt", "compress=false"}},
		{"local, rotated and compressed", text, []string{"--log-driver", "local", "--log-opt", "max-size=32m", "--log-opt", "max-file=100"}},
		{"json-file", text, []string{"--log-driver", "json-file", "--log-opt", "max-size=512m", "--log-opt", "max-file=10"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newField(t)
			if err := os.WriteFile(filepath.Join(f.root, "piece"), tt.bytes, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("busybox", filepath.Join(f.root, "bin/cat")); err != nil {
				t.Fatal(err)
			}
			times := volume() / piece
			size := int64(times) * piece
			args := append([]string{"run", "-d", "-i", "--name", "talks"}, tt.options...)
			script := "read go; i=0; while [ $i -lt " + strconv.Itoa(times) + " ]; do cat /piece; i=$((i+1)); done; exit 3"
			f.must(append(args, "rootfs:"+f.root, "sh", "-c", script)...)
			attached, followed, logged := &repeat{of: tt.bytes}, &repeat{of: tt.bytes}, &repeat{of: tt.bytes}
			a := f.command("attach", "--sig-proxy=false", "talks")
			go_, _ := a.StdinPipe()
			a.Stdout = attached
			l := f.command("logs", "-f", "talks")
			l.Stdout = followed
			var complaint bytes.Buffer
			l.Stderr = &complaint
			if err := l.Start(); err != nil {
				t.Fatal(err)
			}
			if err := a.Start(); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, _ = io.WriteString(go_, "go\n")
			if err := a.Wait(); err == nil || !strings.Contains(err.Error(), "status 3") {
				t.Errorf("attach: %v", err)
			}
			took := time.Since(start)
			peak := f.peak()
			if err := l.Wait(); err != nil {
				t.Errorf("logs -f: %v: %s", err, complaint.String())
			}
			again := f.command("logs", "talks")
			again.Stdout = logged
			if err := again.Run(); err != nil {
				t.Errorf("logs: %v", err)
			}
			attached.wants(t, "attach", size)
			followed.wants(t, "logs -f", size)
			logged.wants(t, "logs", size)
			t.Logf("%d MB in %v; the monitor has had %d MiB at most", size>>20, took.Round(time.Millisecond), peak>>20)
			if peak == 0 || peak > mostOfMonitor {
				t.Errorf("%d MiB are too many", peak>>20)
			}
			f.must("rm", "-f", "talks")
		})
	}
}

// peak is the most memory that the monitor has had, in bytes: VmHWM of
// proc_pid_status(5).
func (f *field) peak() (most int64) {
	for _, pid := range f.monitors() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(text)) {
			if w := strings.Fields(line); len(w) > 1 && w[0] == "VmHWM:" {
				n, _ := strconv.ParseInt(w[1], 10, 64)
				most = max(most, n<<10)
			}
		}
	}
	return most
}
