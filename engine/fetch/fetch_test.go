package fetch_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kiste/engine/fetch"
	"kiste/fault"
	"kiste/host"
	"kiste/image/catalog"
	"kiste/image/reference"
	"kiste/image/snapshot"
	"kiste/image/source"
	"kiste/internal/need"
	"kiste/store"
)

// TestMain is also the program that the kill storm kills.
func TestMain(m *testing.M) {
	syscall.Umask(0)
	if name := os.Getenv("KISTE_TEST_PULL"); name != "" {
		src, err := reference.ParseSource(name)
		if err == nil {
			_, err = fetch.Pull(context.Background(), store.Locate(), src, fetch.Options{})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A server is a registry with one image, which counts what it serves.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	blobs  map[string][]byte
	root   []byte
	served atomic.Int64
	cut    atomic.Int64 // blobs end after so many bytes; 0: whole
	slow   time.Duration
	layers []source.Descriptor
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	part := strings.Split(r.URL.Path, "/")
	last := part[len(part)-1]
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", source.MediaManifest)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.root))
		return
	}
	s.mu.Lock()
	b, ok := s.blobs[last]
	s.mu.Unlock()
	if !ok {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.NotFound(w, r)
		}
		return
	}
	http.ServeContent(&counting{w, s, 0}, r, "", time.Time{}, bytes.NewReader(b))
}

type counting struct {
	http.ResponseWriter
	s *server
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		chunk := p[done:min(len(p), done+16<<10)]
		if cut := c.s.cut.Load(); cut > 0 && c.n+int64(len(chunk)) > cut {
			panic(http.ErrAbortHandler)
		}
		time.Sleep(c.s.slow)
		n, err := c.ResponseWriter.Write(chunk)
		done += n
		c.n += int64(n)
		c.s.served.Add(int64(n))
		if err != nil {
			return done, err
		}
	}
	return len(p), nil
}

func (s *server) name() string { return s.Listener.Addr().String() + "/test:1" }

func (s *server) source(t *testing.T) reference.Source {
	t.Helper()
	src, err := reference.ParseSource(s.name())
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func tarOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	r := rand.New(rand.NewPCG(1, uint64(len(entries))))
	for _, h := range entries {
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1700000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, h.Size)
		for i := range body {
			body[i] = byte(r.Uint32())
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func files(dir string, n int, size int64) []tar.Header {
	list := []tar.Header{{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}}
	for i := range n {
		list = append(list, tar.Header{Name: fmt.Sprintf("%s/f%d", dir, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: size})
	}
	return list
}

func newServer(t testing.TB, layers ...[]byte) *server {
	t.Helper()
	s := &server{blobs: map[string][]byte{}}
	var diffIDs []string
	for _, l := range layers {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Write(l)
		w.Close()
		diffIDs = append(diffIDs, source.Digest(l))
		s.layers = append(s.layers, s.add(z.Bytes(), source.MediaLayer+"+gzip"))
	}
	config, err := json.Marshal(map[string]any{"architecture": source.Host().Architecture, "os": "linux", "config": map[string]any{"Cmd": []string{"sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	if err != nil {
		t.Fatal(err)
	}
	s.root, err = json.Marshal(source.Manifest{SchemaVersion: 2, MediaType: source.MediaManifest, Config: s.add(config, source.MediaConfig), Layers: s.layers})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) add(b []byte, mediaType string) source.Descriptor {
	d := source.Descriptor{MediaType: mediaType, Digest: source.Digest(b), Size: int64(len(b))}
	s.blobs[d.Digest] = b
	return d
}

func newStore(t testing.TB) store.Store {
	t.Helper()
	need.Power(t, host.Root)
	top := t.TempDir()
	return store.Store{Lib: filepath.Join(top, "lib"), Run: filepath.Join(top, "run")}
}

func pull(t testing.TB, s store.Store, r *server) (fetch.Result, error) {
	t.Helper()
	src, err := reference.ParseSource(r.name())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return fetch.Pull(ctx, s, src, fetch.Options{})
}

// whole checks that the image is here and complete.
func whole(t *testing.T, s store.Store, r *server, files int) {
	t.Helper()
	e, err := catalog.Get(s, r.name())
	if err != nil {
		t.Fatal(err)
	}
	l := snapshot.Open(s)
	found := 0
	for _, key := range e.Layers {
		m, err := l.Metadata(key)
		if err != nil || m.Boot != "" {
			t.Errorf("layer %s: %+v, %v; want it settled", key, m, err)
		}
		filepath.WalkDir(l.Diff(key), func(_ string, d os.DirEntry, _ error) error {
			if d.Type().IsRegular() {
				found++
			}
			return nil
		})
	}
	if found != files {
		t.Errorf("%d files are here; want %d", found, files)
	}
}

// leftovers lists temporary things of a store.
func leftovers(t *testing.T, s store.Store) []string {
	t.Helper()
	var found []string
	filepath.WalkDir(s.Lib, func(path string, d os.DirEntry, err error) error {
		if err == nil && (strings.HasPrefix(d.Name(), ".tmp-") || strings.HasPrefix(d.Name(), ".gone-") || filepath.Base(filepath.Dir(path)) == "partial") {
			found = append(found, path)
		}
		return nil
	})
	return found
}

func TestPullTwiceMovesNothingTwice(t *testing.T) {
	s, r := newStore(t), newServer(t, tarOf(t, files("a", 50, 3000)...), tarOf(t, files("b", 20, 100)...))
	res, err := pull(t, s, r)
	if err != nil || !res.Fresh {
		t.Fatal(res, err)
	}
	whole(t, s, r, 70)
	before := r.served.Load()
	res, err = pull(t, s, r)
	if err != nil || res.Fresh {
		t.Errorf("again: %v, %v", res.Fresh, err)
	}
	if moved := r.served.Load() - before; moved > 2000 {
		t.Errorf("%d bytes were served again", moved)
	}
	if l := leftovers(t, s); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
}

func sizeOf(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

func TestACutDownloadGoesOn(t *testing.T) {
	s, r := newStore(t), newServer(t, tarOf(t, files("a", 10, 200000)...))
	r.cut.Store(1 << 20)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go func() {
		for r.served.Load() < 1<<20-64<<10 || sizeOf(s.Partial(r.layers[0].Digest)) == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := fetch.Pull(ctx, s, r.source(t), fetch.Options{}); err == nil {
		t.Fatal("the pull ended well although it was cut off")
	}
	st, err := os.Stat(s.Partial(r.layers[0].Digest))
	if err != nil || st.Size() == 0 {
		t.Fatalf("nothing is kept of the download: %v", err)
	}
	r.cut.Store(0)
	before := r.served.Load()
	if _, err := pull(t, s, r); err != nil {
		t.Fatal(err)
	}
	if moved := r.served.Load() - before; moved > r.layers[0].Size-st.Size()+4096 {
		t.Errorf("%d bytes were served for the missing %d", moved, r.layers[0].Size-st.Size())
	}
	whole(t, s, r, 10)
}

func TestADamagedPartialIsFetchedAnew(t *testing.T) {
	s, r := newStore(t), newServer(t, tarOf(t, files("a", 10, 20000)...))
	if err := errors.Join(os.MkdirAll(filepath.Dir(s.Partial("sha256:x")), 0o700), os.WriteFile(s.Partial(r.layers[0].Digest), bytes.Repeat([]byte("x"), 5000), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := pull(t, s, r); err != nil {
		t.Fatal(err)
	}
	whole(t, s, r, 10)
}

func TestWhatIsDamagedIsRefusedAndLeavesNothing(t *testing.T) {
	good := tarOf(t, files("a", 10, 20000)...)
	for _, tt := range []struct {
		name   string
		damage func(r *server)
	}{
		{"a flipped bit", func(r *server) { r.blobs[r.layers[0].Digest][4000] ^= 1 }},
		{"a layer that is too short", func(r *server) { r.blobs[r.layers[0].Digest] = r.blobs[r.layers[0].Digest][:5000] }},
		{"a layer that is another", func(r *server) {
			b := bytes.Clone(r.blobs[r.layers[0].Digest])
			clear(b)
			r.blobs[r.layers[0].Digest] = b
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, r := newStore(t), newServer(t, good)
			tt.damage(r)
			_, err := pull(t, s, r)
			if !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.Unavailable) {
				t.Errorf("got %v", err)
			}
			if _, err := catalog.Get(s, r.name()); !errors.Is(err, fault.NotFound) {
				t.Errorf("the name is there: %v", err)
			}
			for _, l := range leftovers(t, s) {
				if !strings.Contains(l, "/partial/") {
					t.Errorf("left behind: %s", l)
				}
			}
		})
	}
}

func TestAWrongDiffIDIsRefused(t *testing.T) {
	s, r := newStore(t), newServer(t, tarOf(t, files("a", 3, 10)...))
	r.root = bytes.Clone(r.root)
	var m source.Manifest
	json.Unmarshal(r.root, &m)
	config := bytes.Replace(r.blobs[m.Config.Digest], []byte("sha256:"), []byte("sha256:0000"), 1)
	config = append(config[:bytes.Index(config, []byte("0000"))+64], config[bytes.Index(config, []byte("0000"))+68:]...)
	m.Config = r.add(config, source.MediaConfig)
	r.root, _ = json.Marshal(m)
	if _, err := pull(t, s, r); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "unpacks to") {
		t.Errorf("got %v", err)
	}
}

func TestConcurrentPullsShareTheWork(t *testing.T) {
	s, r := newStore(t), newServer(t, tarOf(t, files("a", 30, 30000)...), tarOf(t, files("b", 31, 30000)...))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := pull(t, s, r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	whole(t, s, r, 61)
	if most := r.layers[0].Size + r.layers[1].Size + 16<<10; r.served.Load() > most {
		t.Errorf("%d bytes were served; want %d at most", r.served.Load(), most)
	}
	if l := leftovers(t, s); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
}

// Directories that a layer leaves out look as the layers below say.
func TestImpliedDirectoriesKeepTheirOwner(t *testing.T) {
	s := newStore(t)
	low := tarOf(t, tar.Header{Name: "home", Typeflag: tar.TypeDir, Mode: 0o1777, Uid: 5, Gid: 6}, tar.Header{Name: "home/me", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 7, Gid: 8})
	high := tarOf(t, tar.Header{Name: "home/me/new/f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 1})
	r := newServer(t, low, high)
	res, err := pull(t, s, r)
	if err != nil {
		t.Fatal(err)
	}
	if res.Layers[1] == res.DiffIDs[1] {
		t.Error("the layer is keyed by its DiffID alone")
	}
	var st syscall.Stat_t
	for path, want := range map[string]string{"home": "1777 5:6", "home/me": "700 7:8", "home/me/new": "755 0:0"} {
		if err := syscall.Lstat(filepath.Join(snapshot.Open(s).Diff(res.Layers[1]), path), &st); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%o %d:%d", st.Mode&0o7777, st.Uid, st.Gid); got != want {
			t.Errorf("%s is %s; want %s", path, got, want)
		}
	}
	if res, err = pull(t, s, r); err != nil || res.Fresh {
		t.Errorf("again: %v", err)
	}
}

// A layer that no sync has made last is not believed after another boot.
func TestALayerOfAnotherBootIsMadeAgain(t *testing.T) {
	s, r := newStore(t), newServer(t, tarOf(t, files("a", 3, 10)...))
	res, err := pull(t, s, r)
	if err != nil {
		t.Fatal(err)
	}
	l := snapshot.Open(s)
	m, err := l.Metadata(res.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	m.Boot = "another"
	if err := errors.Join(store.WriteJSON(filepath.Join(l.Path(m.Key), "layer.json"), m), os.Remove(filepath.Join(l.Diff(m.Key), "a/f1"))); err != nil {
		t.Fatal(err)
	}
	before := r.served.Load()
	if _, err := pull(t, s, r); err != nil {
		t.Fatal(err)
	}
	whole(t, s, r, 3)
	if r.served.Load()-before > 2000 {
		t.Error("it was fetched again although its blob is here")
	}
}

func TestGCKeepsWhatIsInUse(t *testing.T) {
	s := newStore(t)
	one, two := newServer(t, tarOf(t, files("a", 3, 10)...), tarOf(t, files("shared", 4, 10)...)), newServer(t, tarOf(t, files("shared", 4, 10)...), tarOf(t, files("c", 5, 10)...))
	first, err := pull(t, s, one)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pull(t, s, two); err != nil {
		t.Fatal(err)
	}
	if f, err := fetch.GC(s); err != nil || f.Layers != 0 || f.Blobs != 0 {
		t.Errorf("all is in use, and gc freed %+v, %v", f, err)
	}
	// a container keeps layers whose image has no name
	if err := errors.Join(os.MkdirAll(s.Container("c1"), 0o755), store.WriteJSON(filepath.Join(s.Container("c1"), "config.json"), map[string]any{"layers": first.Layers}), catalog.Remove(s, first.Entry)); err != nil {
		t.Fatal(err)
	}
	if f, err := fetch.GC(s); err != nil || f.Layers != 0 || f.Blobs != 3 {
		t.Errorf("a container stands on it, and gc freed %+v, %v", f, err)
	}
	if err := errors.Join(os.RemoveAll(s.Container("c1")), os.WriteFile(s.Partial("sha256:ab"), []byte("x"), 0o600), os.MkdirAll(filepath.Join(s.Layers("overlay"), ".tmp-x/diff"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if f, err := fetch.GC(s); err != nil || f.Layers != 1 || f.Bytes == 0 {
		t.Errorf("gc freed %+v, %v", f, err)
	}
	whole(t, s, two, 9)
	if l := leftovers(t, s); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
	lock, err := store.LockFile(filepath.Join(s.Lib, "lock"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if _, err := fetch.GC(s); !errors.Is(err, fault.Conflict) {
		t.Errorf("during a pull: %v", err)
	}
}

func TestGCStopsAtWhatItCannotRead(t *testing.T) {
	s, r := newStore(t), newServer(t, tarOf(t, files("a", 3, 10)...))
	if _, err := pull(t, s, r); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(s.Container("c1"), 0o755), os.WriteFile(filepath.Join(s.Container("c1"), "config.json"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch.GC(s); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
	whole(t, s, r, 3)
}

func TestAFullDisk(t *testing.T) {
	need.Power(t, host.Root)
	top := t.TempDir()
	if err := syscall.Mount("tmpfs", top, "tmpfs", 0, "size=6m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(top, 0); err != nil {
			t.Errorf("left a mount behind: %v", err)
		}
	}()
	s := store.Store{Lib: filepath.Join(top, "lib"), Run: filepath.Join(top, "run")}
	r := newServer(t, tarOf(t, files("a", 40, 100000)...))
	_, err := pull(t, s, r)
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(fault.HintOf(err), "free some space") {
		t.Errorf("got %v (hint %q)", err, fault.HintOf(err))
	}
	for _, l := range leftovers(t, s) {
		if strings.Contains(l, ".tmp-") {
			t.Errorf("left behind: %s", l)
		}
	}
	if err := syscall.Mount("tmpfs", top, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if _, err := pull(t, s, r); err != nil {
		t.Fatal(err)
	}
	whole(t, s, r, 40)
}

// Killed at any moment, a pull leaves a store that the next pull completes.
func TestKillStorm(t *testing.T) {
	s, r := newStore(t), newServer(t, tarOf(t, files("a", 200, 10000)...), tarOf(t, files("b", 201, 10000)...), tarOf(t, files("c", 202, 100)...))
	r.slow = 200 * time.Microsecond
	killed := 0
	for i := range 60 {
		if i%6 == 0 { // from the beginning again
			os.RemoveAll(s.Lib)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "KISTE_TEST_PULL="+r.name(), "KISTE_LIB="+s.Lib, "KISTE_RUN="+s.Run)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		// At some byte of what is left to be served, or somewhat later.
		for at := r.served.Load() + rand.Int64N(4<<20/(1+int64(i%6))); r.served.Load() < at && len(ended) == 0; {
			time.Sleep(100 * time.Microsecond)
		}
		if i%2 == 0 {
			time.Sleep(time.Duration(rand.Int64N(int64(20 * time.Millisecond))))
		}
		cmd.Process.Kill()
		if err := <-ended; err != nil {
			killed++
		}
		if all, err := catalog.List(s); err != nil {
			t.Fatalf("after kill %d: %v", i, err)
		} else if len(all) > 0 {
			whole(t, s, r, 603)
		}
	}
	if killed < 10 {
		t.Errorf("only %d of 60 were killed in time", killed)
	}
	if _, err := pull(t, s, r); err != nil {
		t.Fatal(err)
	}
	whole(t, s, r, 603)
	if _, err := fetch.GC(s); err != nil {
		t.Fatal(err)
	}
	whole(t, s, r, 603)
	if l := leftovers(t, s); len(l) > 0 {
		t.Errorf("gc left behind: %v", l)
	}
}

func TestImport(t *testing.T) {
	s := newStore(t)
	b := tarOf(t, append(files("etc", 3, 10), tar.Header{Name: "etc/.wh.plain", Typeflag: tar.TypeReg, Mode: 0o644})...)
	e, err := fetch.Import(context.Background(), s, bytes.NewReader(b), fetch.ImportOptions{Name: "docker.io/library/mine:1",
		Changes: []string{`CMD ["sh", "-l"]`, "ENV A=1 B='two words'", "EXPOSE 80", "USER me", "WORKDIR /srv", "LABEL x=y", "entrypoint run it", `VOLUME ["/data"]`}})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(e.Config)
	want := `{"architecture":"` + source.Host().Architecture + `","os":"linux","Entrypoint":["/bin/sh","-c","run it"],"Cmd":["sh","-l"],"Env":["A=1","B=two words"],"User":"me","WorkingDir":"/srv","Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}},"Labels":{"x":"y"}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := os.Stat(filepath.Join(snapshot.Open(s).Diff(e.Layers[0]), "etc/.wh.plain")); err != nil {
		t.Errorf("a root file system has no whiteouts: %v", err)
	}
	if f, err := fetch.GC(s); err != nil || f.Layers+f.Blobs != 0 {
		t.Errorf("gc took %+v of it, %v", f, err)
	}
	for _, bad := range []string{"FROM x", "CMD", "ENV =", "VOLUME [x"} {
		if _, err := fetch.Import(context.Background(), s, bytes.NewReader(b), fetch.ImportOptions{Changes: []string{bad}}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := fetch.Import(context.Background(), s, strings.NewReader(""), fetch.ImportOptions{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("an empty file: %v", err)
	}
}
