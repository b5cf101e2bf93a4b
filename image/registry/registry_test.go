package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kiste/fault"
	"kiste/image/reference"
	"kiste/image/source"
)

// A fake is a registry with one image, in which a test bends what it likes.
type fake struct {
	manifest, config, layer []byte
	before                  func(w http.ResponseWriter, r *http.Request) (done bool) // nil: nothing is bent
	requests                atomic.Int32
}

func newFake() *fake {
	f := &fake{layer: make([]byte, 1<<20)}
	rand.NewChaCha8([32]byte{7}).Read(f.layer) //nolint:errcheck // never fails
	f.config, _ = json.Marshal(map[string]any{"os": "linux", "architecture": "amd64",
		"rootfs": map[string]any{"diff_ids": []string{source.Digest(f.layer)}}})
	f.manifest, _ = json.Marshal(source.Manifest{SchemaVersion: 2, MediaType: source.MediaManifest,
		Config: source.Descriptor{MediaType: source.MediaConfig, Digest: source.Digest(f.config), Size: int64(len(f.config))},
		Layers: []source.Descriptor{f.layerDescriptor()}})
	return f
}

func (f *fake) layerDescriptor() source.Descriptor {
	return source.Descriptor{MediaType: source.MediaLayer, Digest: source.Digest(f.layer), Size: int64(len(f.layer))}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.requests.Add(1)
	if f.before != nil && f.before(w, r) {
		return
	}
	switch {
	case strings.Contains(r.URL.Path, "/manifests/"):
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		if name != "1" && name != source.Digest(f.manifest) {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`) //nolint:errcheck // a test's server
			return
		}
		w.Header().Set("Content-Type", source.MediaManifest)
		w.Write(f.manifest) //nolint:errcheck // a test's server
	case strings.HasSuffix(r.URL.Path, source.Digest(f.config)):
		w.Write(f.config) //nolint:errcheck // a test's server
	case strings.HasSuffix(r.URL.Path, source.Digest(f.layer)):
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.layer))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func serve(t testing.TB, h http.Handler) (host string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// quick are options that do not make a test wait, and read no file of the
// host.
func quick(t testing.TB) Options {
	t.Helper()
	empty := t.TempDir()
	for _, name := range []string{"DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HOME"} {
		t.Setenv(name, empty)
	}
	t.Setenv("REGISTRY_AUTH_FILE", "")
	return Options{Settings: &Settings{}, CertDirs: []string{}, Stall: 30 * time.Second, Attempts: 3, Backoff: time.Millisecond}
}

func open(t testing.TB, name string, o Options) *repository {
	t.Helper()
	ref, err := reference.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(ref, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*repository)
}

// pull fetches all of the image.
func pull(s source.Source) error {
	ctx := context.Background()
	img, err := source.Resolve(ctx, s, source.Options{Platform: "linux/amd64"})
	if err != nil {
		return err
	}
	_, err = source.Read(ctx, s, img.Layers[0].Descriptor, 1<<30)
	return err
}

func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

func (f *fake) isLayer(r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, source.Digest(f.layer))
}

// hangUp ends the connection without an end of the answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	chunk := make([]byte, 64<<10)
	for r.Context().Err() == nil {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func TestABentRegistry(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bend  func(f *fake) func(w http.ResponseWriter, r *http.Request) bool
		image string     // empty: "app:1"
		want  fault.Kind // empty: the pull succeeds
		says  string     // in the error or its hint
		most  int32      // requests; 0: does not matter
	}{
		{name: "not bent", bend: func(*fake) func(http.ResponseWriter, *http.Request) bool { return nil }, most: 5},
		{name: "no such tag", image: "app:2", want: fault.NotFound, says: "manifest for HOST/app:2 not found: manifest unknown",
			bend: func(*fake) func(http.ResponseWriter, *http.Request) bool { return nil }},
		{name: "it has a bad day and recovers", bend: func(*fake) func(http.ResponseWriter, *http.Request) bool {
			var n atomic.Int32
			return func(w http.ResponseWriter, _ *http.Request) bool {
				bad := n.Add(1)%2 == 1
				if bad {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				return bad
			}
		}},
		{name: "it is broken for good", want: fault.Unavailable, says: "answers 500", most: 4, bend: always(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })},
		{name: "it asks to come back in a moment", bend: func(*fake) func(http.ResponseWriter, *http.Request) bool {
			var n atomic.Int32
			return func(w http.ResponseWriter, _ *http.Request) bool {
				if n.Add(1) > 1 {
					return false
				}
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			}
		}},
		{name: "it asks to come back in hours", want: fault.Unavailable, says: "docker login", most: 2, bend: always(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "21600")
			w.WriteHeader(http.StatusTooManyRequests)
		})},
		{name: "it denies", want: fault.Denied, says: "docker login", bend: always(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })},
		{name: "it wants something unknown", want: fault.Denied, bend: always(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Negotiate`)
			w.WriteHeader(401)
		})},
		{name: "it hangs up", want: fault.Unavailable, bend: always(func(w http.ResponseWriter, _ *http.Request) { hangUp(w) })},
		{name: "headers without end", want: fault.Unavailable, bend: always(func(w http.ResponseWriter, _ *http.Request) {
			for i := range 5000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
			}
		})},
		{name: "a manifest without end", want: fault.Invalid, says: "4194304", bend: onManifest(endless)},
		{name: "a manifest that is a page of HTML", want: fault.Invalid, bend: onManifest(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "<html>log in to the Wi-Fi</html>") //nolint:errcheck // a test's server
		})},
		{name: "a manifest with another digest in its header", want: fault.Invalid, bend: func(f *fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Docker-Content-Digest", source.Digest([]byte("x")))
				return false
			}
		}},
		{name: "another manifest than the digest says", image: "app@" + source.Digest([]byte("x")), want: fault.Invalid,
			bend: func(f *fake) func(http.ResponseWriter, *http.Request) bool {
				return func(w http.ResponseWriter, r *http.Request) bool {
					if isManifest(r) {
						w.Write(f.manifest) //nolint:errcheck // a test's server
					}
					return isManifest(r)
				}
			}},
		{name: "an error that paints the terminal", want: fault.Invalid, says: "?[31m", bend: onManifest(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(418)
			b, _ := json.Marshal(map[string]any{"errors": []map[string]string{{"message": "a\u009b31m\u202e" + strings.Repeat("x", 10000) + "?[31m"}, {"message": "\x7f[31m"}}})
			w.Write(b) //nolint:errcheck // a test's server
		})},
		{name: "redirects without end", want: fault.Invalid, says: "redirects", bend: always(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, 302) })},
		{name: "a redirect to plain HTTP elsewhere", want: fault.Denied, says: "TLS", bend: onLayer(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://203.0.113.1/x", 307)
		})},
		{name: "a blob that breaks off every 100 kB", bend: onLayerOf(func(f *fake, w http.ResponseWriter, r *http.Request) {
			http.ServeContent(&cut{w, 100_000}, r, "", time.Time{}, bytes.NewReader(f.layer))
		})},
		{name: "a blob that breaks off, and no ranges", bend: func(f *fake) func(http.ResponseWriter, *http.Request) bool {
			var n atomic.Int32
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !f.isLayer(r) {
					return false
				}
				r.Header.Del("Range")
				http.ServeContent(&cut{w, int(n.Add(1)) * 300_000}, r, "", time.Time{}, bytes.NewReader(f.layer))
				return true
			}
		}},
		{name: "a blob that breaks off after each byte", want: fault.Unavailable, most: 12, bend: onLayerOf(func(f *fake, w http.ResponseWriter, r *http.Request) {
			http.ServeContent(&cut{w, 1}, r, "", time.Time{}, bytes.NewReader(f.layer))
		})},
		{name: "a blob without length that ends early, then the rest", bend: onLayerOf(func(f *fake, w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.layer))
				return
			}
			w.(http.Flusher).Flush()
			w.Write(f.layer[:500_000]) //nolint:errcheck // a test's server
		})},
		{name: "another part than was asked for", want: fault.Invalid, bend: onLayerOf(func(f *fake, w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				http.ServeContent(&cut{w, 100_000}, r, "", time.Time{}, bytes.NewReader(f.layer))
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(f.layer)-1, len(f.layer)))
			w.WriteHeader(206)
			w.Write(f.layer) //nolint:errcheck // a test's server
		})},
		{name: "a blob of another length", want: fault.Invalid, says: "bytes", bend: onLayerOf(func(f *fake, w http.ResponseWriter, r *http.Request) {
			w.Write([]byte("short")) //nolint:errcheck // a test's server
		})},
		{name: "a blob with other content", want: fault.Invalid, says: "digest", bend: onLayerOf(func(f *fake, w http.ResponseWriter, r *http.Request) {
			w.Write(make([]byte, len(f.layer))) //nolint:errcheck // a test's server
		})},
		{name: "a blob without end", want: fault.Invalid, says: "more of it", bend: onLayer(endless)},
		{name: "a blob that is gone", want: fault.NotFound, bend: onLayer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			f.before = tt.bend(f)
			host := serve(t, f)
			image := tt.image
			if image == "" {
				image = "app:1"
			}
			err := pull(open(t, host+"/"+image, quick(t)))
			if (err == nil) != (tt.want == "") || err != nil && fault.KindOf(err) != tt.want {
				t.Fatalf("got %v (%q), want %q", err, fault.KindOf(err), tt.want)
			}
			if n := f.requests.Load(); tt.most > 0 && n > tt.most {
				t.Errorf("%d requests, want at most %d", n, tt.most)
			}
			if err == nil {
				return
			}
			text := err.Error() + "\n" + fault.HintOf(err)
			if !strings.Contains(text, strings.ReplaceAll(tt.says, "HOST", host)) || strings.ContainsAny(text, "\x1b\u009b\u202e") || len(text) > 1000 {
				t.Errorf("got %q, want %q in it, and it short and printable", text, tt.says)
			}
			t.Log(text)
		})
	}
}

func always(h http.HandlerFunc) func(*fake) func(http.ResponseWriter, *http.Request) bool {
	return func(*fake) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool { h(w, r); return true }
	}
}

func onManifest(h http.HandlerFunc) func(*fake) func(http.ResponseWriter, *http.Request) bool {
	return func(*fake) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if isManifest(r) {
				h(w, r)
			}
			return isManifest(r)
		}
	}
}

func onLayer(h http.HandlerFunc) func(*fake) func(http.ResponseWriter, *http.Request) bool {
	return onLayerOf(func(_ *fake, w http.ResponseWriter, r *http.Request) { h(w, r) })
}

func onLayerOf(h func(*fake, http.ResponseWriter, *http.Request)) func(*fake) func(http.ResponseWriter, *http.Request) bool {
	return func(f *fake) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if f.isLayer(r) {
				h(f, w, r)
			}
			return f.isLayer(r)
		}
	}
}

// A cut response breaks off after some bytes.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	c.ResponseWriter.Write(p[:c.left]) //nolint:errcheck // a test's server
	c.ResponseWriter.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestSilence(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    func(f *fake, w http.ResponseWriter, r *http.Request)
	}{
		{"nothing after the headers", func(_ *fake, w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		{"a byte now and then", func(_ *fake, w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.Write([]byte{1}) //nolint:errcheck // a test's server
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			f.before = onLayerOf(tt.h)(f)
			o := quick(t)
			o.Stall, o.Attempts = 200*time.Millisecond, 2
			start := time.Now()
			err := pull(open(t, serve(t, f)+"/app:1", o))
			if !errors.Is(err, fault.Unavailable) || time.Since(start) > time.Minute {
				t.Errorf("got %v after %v, want it unavailable after two times 200 ms", err, time.Since(start))
			}
		})
	}
}

func TestCancelEndsABlobAtOnce(t *testing.T) {
	f := newFake()
	f.before = onLayer(func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); <-r.Context().Done() })(f)
	ctx, cancel := context.WithCancel(context.Background())
	rc, err := source.Open(ctx, open(t, serve(t, f)+"/app:1", quick(t)), f.layerDescriptor(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := io.ReadAll(rc); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it canceled", err)
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	for _, tt := range []struct{ name, host, hint string }{
		{"nothing listens", closed, "nothing listens"},
		{"no such name", "registry.invalid", "KISTE_REGISTRY_MIRROR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := pull(open(t, tt.host+"/app:1", quick(t)))
			if !errors.Is(err, fault.Unavailable) || !strings.Contains(fault.HintOf(err), tt.hint) {
				t.Errorf("got %v, hint %q; want it unavailable and %q", err, fault.HintOf(err), tt.hint)
			}
		})
	}
}

// dial leads a name to a server of the test, for what must not be loopback.
func dial(r *repository, to map[string]string) {
	for _, e := range r.endpoints {
		for _, tr := range []*http.Transport{e.client.own, e.client.others, e.client.loose} {
			tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				if real, ok := to[address]; ok {
					address = real
				}
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}
		}
	}
}

func TestTLS(t *testing.T) {
	f := newFake()
	s := httptest.NewTLSServer(f)
	t.Cleanup(s.Close)
	plain := serve(t, f)
	secure := s.Listener.Addr().String()
	certs := t.TempDir()
	if err := os.MkdirAll(filepath.Join(certs, "example.com"), 0o755); err != nil {
		t.Fatal(err)
	}
	pem := "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString(s.Certificate().Raw) + "\n-----END CERTIFICATE-----\n"
	if err := os.WriteFile(filepath.Join(certs, "example.com", "ca.crt"), []byte(pem), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, server string
		change       func(*Options)
		want         fault.Kind
		hint         string
	}{
		{"a certificate that nobody signed is refused", secure, func(*Options) {}, fault.Unavailable, "certs.d/example.com/ca.crt"},
		{"its authority in certs.d is enough", secure, func(o *Options) { o.CertDirs = []string{certs} }, "", ""},
		{"an insecure registry may have any certificate", secure, func(o *Options) { o.Settings.Insecure = []string{"example.com"} }, "", ""},
		{"plain HTTP is refused", plain, func(*Options) {}, fault.Unavailable, "insecure example.com"},
		{"an insecure registry may speak plain HTTP", plain, func(o *Options) { o.Settings.Insecure = []string{"example.com"} }, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := quick(t)
			tt.change(&o)
			r := open(t, "example.com/app:1", o)
			dial(r, map[string]string{"example.com:443": tt.server, "example.com:80": tt.server})
			err := pull(r)
			if fault.KindOf(err) != tt.want || !strings.Contains(fault.HintOf(err), tt.hint) {
				t.Errorf("got %v, hint %q; want %q", err, fault.HintOf(err), tt.want)
			}
		})
	}
	t.Run("a redirect from HTTPS to HTTP is refused", func(t *testing.T) {
		f := newFake()
		f.before = onLayer(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://"+plain+r.URL.Path, 307) })(f)
		s := httptest.NewTLSServer(f)
		t.Cleanup(s.Close)
		if err := pull(open(t, s.Listener.Addr().String()+"/app:1", quick(t))); !errors.Is(err, fault.Denied) {
			t.Errorf("got %v, want it refused", err)
		}
	})
}

func TestRedirectsCarryNoCredentials(t *testing.T) {
	f := newFake()
	var got sync.Map
	other := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, h := range []string{"Authorization", "Cookie", "Referer"} {
			if v := r.Header.Get(h); v != "" {
				got.Store(h, v)
			}
		}
		f.ServeHTTP(w, r)
	}))
	o := quick(t)
	front := newFake()
	front.before = func(w http.ResponseWriter, r *http.Request) bool {
		if name, password, ok := r.BasicAuth(); !ok || name != "ann" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return true
		}
		if front.isLayer(r) {
			http.Redirect(w, r, "http://"+other+r.URL.Path+"?signature=x", 307)
			return true
		}
		return false
	}
	host := serve(t, front)
	o.AuthFile = authFile(t, map[string]any{"auths": map[string]any{host: map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("ann:secret"))}}})
	if err := pull(open(t, host+"/app:1", o)); err != nil {
		t.Fatal(err)
	}
	got.Range(func(k, v any) bool { t.Errorf("the other host got %v: %v", k, v); return true })
}

func authFile(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestMirrors(t *testing.T) {
	has, hasNot := newFake(), http.NotFoundHandler()
	var asked atomic.Value
	has.before = func(_ http.ResponseWriter, r *http.Request) bool { asked.Store(r.URL.String()); return false }
	mirror, empty := serve(t, has), serve(t, hasNot)
	registry := serve(t, newFake())
	for _, tt := range []struct{ name, settings, image, path string }{
		{"one for all", "mirror * http://" + mirror, "docker.io/library/app:1", "/v2/library/app/"},
		{"one without a scheme, on loopback", "mirror * " + mirror, "app:1", "/v2/library/app/"},
		{"one for one registry", "mirror quay.invalid http://" + mirror, "quay.invalid/app:1", "ns=quay.invalid"},
		{"with a prefix", "mirror * http://" + mirror + "/cache/{registry}", "quay.invalid:5000/app:1", "/v2/cache/quay.invalid-5000/app/"},
		{"an empty one before it", "mirror * " + empty + "\nmirror * " + mirror, "quay.invalid/app:1", "ns=quay.invalid"},
		{"one that is not there", "mirror * localhost:1", registry + "/app:1", ""},
		{"an empty one, and then the registry itself", "mirror * " + empty, registry + "/app:1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := quick(t)
			if err := o.Settings.Parse(tt.settings); err != nil {
				t.Fatal(err)
			}
			asked.Store("")
			if err := pull(open(t, tt.image, o)); err != nil {
				t.Fatal(err)
			}
			if got := asked.Load().(string); !strings.Contains(got, tt.path) {
				t.Errorf("the mirror was asked for %s, want %s", got, tt.path)
			}
		})
	}
	t.Run("from the environment", func(t *testing.T) {
		o := quick(t)
		o.Settings = nil
		t.Setenv("KISTE_REGISTRY_MIRROR", "http://"+mirror)
		if err := pull(open(t, "app:1", o)); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("none has it", func(t *testing.T) {
		o := quick(t)
		if err := o.Settings.Parse("mirror * " + empty); err != nil {
			t.Fatal(err)
		}
		if err := pull(open(t, "registry.invalid/app:1", o)); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), empty) {
			t.Errorf("got %v, want it unavailable, with a word of the mirror", err)
		}
	})
}

func TestSettingsRefuse(t *testing.T) {
	for _, text := range []string{"mirror", "mirror *", "mirror * ftp://x", "mirror * a b", "insecure", "insecure a/b", "insecure ..", "mirror * http://../x", "nonsense x", "mirror * x/../y"} {
		if err := (&Settings{}).Parse(text); err == nil {
			t.Errorf("Parse(%q) took it", text)
		}
	}
	s := &Settings{}
	if err := s.Parse("# comment\n\ninsecure registry # its LAN\ninsecure a.b:5000\n"); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{"registry": true, "registry:80": true, "a.b:5000": true, "a.b": false, "a.b:1": false} {
		if s.isInsecure(host) != want {
			t.Errorf("isInsecure(%q) = %v", host, !want)
		}
	}
}
