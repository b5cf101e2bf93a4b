package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kiste/fault"
	"kiste/image/source"
	"kiste/image/source/sourcetest"
	"kiste/internal/need"
)

// A tokens is a fake registry whose token server is on the same port.
type tokens struct {
	*fake
	valid    atomic.Value // the token that is taken now
	issued   atomic.Int32
	want     string // "" anonymous; "NAME:PASSWORD"; "refresh TOKEN"
	answer   func(token string) string
	lastForm atomic.Value
}

func newTokens(t *testing.T) (*tokens, string) {
	s := &tokens{fake: newFake()}
	s.valid.Store("none yet")
	s.answer = func(token string) string { return fmt.Sprintf(`{"token":%q,"expires_in":300}`, token) }
	s.before = s.check
	return s, serve(t, s)
}

func (s *tokens) check(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path == "/token" {
		s.issue(w, r)
		return true
	}
	if r.Header.Get("Authorization") == "Bearer "+s.valid.Load().(string) {
		return false
	}
	w.Header().Add("WWW-Authenticate", `Basic realm="old"`)
	w.Header().Add("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="reg.test",scope="repository:team/app:pull"`, r.Host))
	w.WriteHeader(401)
	return true
}

func (s *tokens) issue(w http.ResponseWriter, r *http.Request) {
	r.ParseForm() //nolint:errcheck // a test's server
	s.lastForm.Store(r.Form)
	got := ""
	if name, password, ok := r.BasicAuth(); ok {
		got = name + ":" + password
	} else if r.Method == http.MethodPost {
		got = "refresh " + r.PostForm.Get("refresh_token")
	}
	if got != s.want {
		w.WriteHeader(401)
		w.Write([]byte(`{"details":"incorrect username or password"}`)) //nolint:errcheck // a test's server
		return
	}
	token := fmt.Sprintf("token-%d", s.issued.Add(1))
	s.valid.Store(token)
	w.Write([]byte(s.answer(token))) //nolint:errcheck // a test's server
}

func encoded(name, password string) map[string]string {
	return map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(name + ":" + password))}
}

func TestToken(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		file       func(host string) any // nil: none
		answer     func(string) string   // nil: the usual
		fails      fault.Kind
		hint       string
	}{
		{name: "anonymous"},
		{name: "an answer as OAuth has it", answer: func(token string) string { return fmt.Sprintf(`{"access_token":%q}`, token) }},
		{name: "a name and a password", want: "ann:s:e", file: func(h string) any {
			return map[string]any{"auths": map[string]any{h: encoded("ann", "s:e")}}
		}},
		{name: "an entry for the repository, as Podman has it", want: "ann:right", file: func(h string) any {
			return map[string]any{"auths": map[string]any{h: encoded("ann", "wrong"), h + "/team": encoded("ann", "right")}}
		}},
		{name: "an old entry, a URL", want: "ann:x", file: func(h string) any {
			return map[string]any{"auths": map[string]any{"https://" + h + "/v1/": encoded("ann", "x")}}
		}},
		{name: "an identity token", want: "refresh ID", file: func(h string) any {
			return map[string]any{"auths": map[string]any{h: map[string]string{"identitytoken": "ID", "auth": encoded("x", "y")["auth"]}}}
		}},
		{name: "a wrong password", want: "ann:right", fails: fault.Denied, hint: "no longer, right: docker login", file: func(h string) any {
			return map[string]any{"auths": map[string]any{h: encoded("ann", "wrong")}}
		}},
		{name: "none where one is needed", want: "ann:x", fails: fault.Denied, hint: "docker login"},
		{name: "a helper that is not installed, where one is needed", want: "ann:x", fails: fault.Denied, hint: "docker-credential-nothing is not installed",
			file: func(string) any { return map[string]any{"credsStore": "nothing"} }},
		{name: "a helper that is not installed, where none is needed", file: func(string) any { return map[string]any{"credsStore": "nothing"} }},
		{name: "a helper with a path for a name", file: func(string) any { return map[string]any{"credsStore": "/../../bin/sh"} }},
		{name: "a damaged file, where none is needed", file: func(string) any { return "nonsense" }},
		{name: "an answer that is nonsense", fails: fault.Invalid, answer: func(string) string { return "<html>" }},
		{name: "an answer without a token", fails: fault.Invalid, answer: func(string) string { return "{}" }},
		{name: "a token that would end the header", fails: fault.Invalid, answer: func(string) string { return `{"token":"a\r\nX: y"}` }},
		{name: "an answer that is too large", fails: fault.Invalid, answer: func(string) string { return strings.Repeat("x", maxToken+1) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, host := newTokens(t)
			s.want = tt.want
			if tt.answer != nil {
				s.answer = tt.answer
			}
			o := quick(t)
			if tt.file != nil {
				o.AuthFile = authFile(t, tt.file(host))
			}
			err := pull(open(t, host+"/team/app:1", o))
			if fault.KindOf(err) != tt.fails || !strings.Contains(fault.HintOf(err), tt.hint) {
				t.Fatalf("got %v, hint %q; want %q and %q", err, fault.HintOf(err), tt.fails, tt.hint)
			}
			if form := fmt.Sprint(s.lastForm.Load()); !strings.Contains(form, "repository:team/app:pull") || !strings.Contains(form, "reg.test") {
				t.Errorf("the token server was asked %s", form)
			}
			if n := s.issued.Load(); err == nil && n != 1 {
				t.Errorf("%d tokens were issued, want 1 for all requests", n)
			}
		})
	}
}

func TestARegistryTokenIsSentAsItIs(t *testing.T) {
	s, host := newTokens(t)
	s.valid.Store("mine")
	o := quick(t)
	o.AuthFile = authFile(t, map[string]any{"auths": map[string]any{host: map[string]string{"registrytoken": "mine"}}})
	if err := pull(open(t, host+"/team/app:1", o)); err != nil || s.issued.Load() != 0 {
		t.Errorf("got %v, %d tokens issued", err, s.issued.Load())
	}
}

// A token that ends in the middle of a pull is renewed, whether its end was
// announced or not, and also in the middle of a blob.
func TestTokenEnds(t *testing.T) {
	s, host := newTokens(t)
	cutOnce := true
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if s.check(w, r) {
			return true
		}
		if s.isLayer(r) && cutOnce {
			cutOnce = false
			s.valid.Store("another")
			w.Header().Set("Content-Length", fmt.Sprint(len(s.layer)))
			(&cut{w, 200_000}).Write(s.layer) //nolint:errcheck // it panics
		}
		return false
	}
	if err := pull(open(t, host+"/team/app:1", quick(t))); err != nil {
		t.Fatal(err)
	}
	if n := s.issued.Load(); n != 2 {
		t.Errorf("%d tokens were issued, want 2", n)
	}
	a := &authorizer{value: "old", expires: time.Now().Add(-time.Second)}
	if got := a.header(); got != "" {
		t.Errorf("an expired token is still used: %q", got)
	}
}

func TestCredentialsDoNotGoToATokenServerWithoutTLS(t *testing.T) {
	e := newEndpoint("example.com", "app", "example.com", "", quick(t))
	for _, realm := range []string{"http://example.com/token", "http://127.0.0.1/token", "ftp://x/", "", "//x", "https://user:pw@x/"} {
		if u, err := e.auth.realm(realm); err == nil {
			t.Errorf("realm(%q) = %v; want it refused", realm, u)
		}
	}
	if _, err := e.auth.realm("https://auth.example.com/token?x=y"); err != nil {
		t.Error(err)
	}
}

func TestCredentialHelpers(t *testing.T) {
	bin := t.TempDir()
	write := func(name, script string) {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("good", `read key; [ "$1" = get ] && echo "{\"ServerURL\":\"$key\",\"Username\":\"ann\",\"Secret\":\"for $key\"}"`)
	write("token", `echo '{"Username":"<token>","Secret":"ID"}'`)
	write("none", `echo "credentials not found in native keychain"; exit 1`)
	write("locked", `echo "the keychain is locked"; exit 1`)
	write("nonsense", `echo nonsense`)
	write("endless", `yes`)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, tt := range []struct {
		name string
		file authFileContent
		want credentials
		err  string
	}{
		{"for all", authFileContent{CredsStore: "good"}, credentials{username: "ann", password: "for r.test", from: "docker-credential-good"}, ""},
		{"for this registry", authFileContent{CredHelpers: map[string]string{"r.test": "token"}, CredsStore: "good"}, credentials{identityToken: "ID", from: "docker-credential-token"}, ""},
		{"it has none, but the file has", authFileContent{CredsStore: "none", Auths: map[string]authEntry{"r.test": {Username: "bob", Password: "x"}}}, credentials{username: "bob", password: "x"}, ""},
		{"it has none", authFileContent{CredsStore: "none"}, credentials{}, ""},
		{"it is locked", authFileContent{CredsStore: "locked"}, credentials{}, "the keychain is locked"},
		{"it talks nonsense", authFileContent{CredsStore: "nonsense"}, credentials{}, "does not answer in JSON"},
		{"it talks without end", authFileContent{CredsStore: "endless"}, credentials{}, "docker-credential-endless"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := tt.file.find(context.Background(), "r.test", "app")
			if c == nil {
				c = &credentials{}
			}
			if !reflect.DeepEqual(*c, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %+v, %v; want %+v, %q", *c, err, tt.want, tt.err)
			}
		})
	}
	c, err := (&authFileContent{CredsStore: "good"}).find(context.Background(), "docker.io", "library/alpine")
	if err != nil || c.password != "for "+dockerIndex {
		t.Errorf("docker.io is asked for as %q, %v; want Docker's old URL", c.password, err)
	}
}

// The files are looked at in their order, and Docker's old key is docker.io.
func TestFindCredentials(t *testing.T) {
	quick(t)
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	write := func(name string, v any) {
		b, _ := json.Marshal(v)
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("config.json", map[string]any{"auths": map[string]any{dockerIndex: encoded("docker", "1")}})
	write("containers/auth.json", map[string]any{"auths": map[string]any{"docker.io": encoded("podman", "2"), "quay.io": encoded("podman", "3")}})
	for registry, want := range map[string]string{"docker.io": "docker", "quay.io": "podman", "ghcr.io": ""} {
		if c := findCredentials(context.Background(), "", registry, "a/b"); c.username != want {
			t.Errorf("%s: got %q, want %q", registry, c.username, want)
		}
	}
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(dir, "containers/auth.json"))
	if c := findCredentials(context.Background(), "", "docker.io", "a/b"); c.username != "podman" {
		t.Errorf("REGISTRY_AUTH_FILE comes first: got %q", c.username)
	}
}

// Debian's registry with a password file; the password is "allmine".
func TestBasicAuthOfARealRegistry(t *testing.T) {
	need.Program(t, "skopeo", "docker-registry")
	dir := t.TempDir()
	htpasswd := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(htpasswd, []byte("ann:$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host := sourcetest.Registry(t, fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", htpasswd))
	sourcetest.Build(t, dir+"/oci")
	sourcetest.Skopeo(t, "copy", "-q", "--dest-tls-verify=false", "--dest-creds", "ann:allmine", "oci:"+dir+"/oci:"+sourcetest.Tag, "docker://"+host+"/app:1")
	o := quick(t)
	o.Stall = time.Minute // it hashes the password for each request, which takes its time
	if err := pull(open(t, host+"/app:1", o)); !errors.Is(err, fault.Denied) || !strings.Contains(fault.HintOf(err), "docker login "+host) {
		t.Errorf("without credentials: got %v, hint %q", err, fault.HintOf(err))
	}
	o.AuthFile = authFile(t, map[string]any{"auths": map[string]any{host: encoded("ann", "wrong")}})
	if err := pull(open(t, host+"/app:1", o)); !errors.Is(err, fault.Denied) {
		t.Errorf("with wrong credentials: got %v", err)
	}
	o.AuthFile = authFile(t, map[string]any{"auths": map[string]any{host: encoded("ann", "allmine")}})
	sourcetest.Suite(t, func(t *testing.T) source.Source { return open(t, host+"/app:1", o) })
}

func TestParseChallenges(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []string
		want []challenge
	}{
		{"bearer", []string{`Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"`},
			[]challenge{{"bearer", map[string]string{"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"}}}},
		{"two headers", []string{`Basic realm="x"`, `Bearer realm=y`}, []challenge{{"basic", map[string]string{"realm": "x"}}, {"bearer", map[string]string{"realm": "y"}}}},
		{"two in one", []string{`Basic realm="x", Bearer realm="y" , service = z`},
			[]challenge{{"basic", map[string]string{"realm": "x"}}, {"bearer", map[string]string{"realm": "y", "service": "z"}}}},
		{"escaped", []string{`basic REALM="a\"b\\"`}, []challenge{{"basic", map[string]string{"realm": `a"b\`}}}},
		{"no parameters", []string{`Negotiate`}, []challenge{{"negotiate", map[string]string{}}}},
		{"a quote without end", []string{`Basic realm="x`}, []challenge{{"basic", map[string]string{}}}},
		{"nonsense", []string{`"""`, ``, `,,,`, `=`}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := parseChallenges(tt.in); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://a/t",service="s", Basic realm=x, Negotiate`)
	f.Add(`a b c=d,,e="\`)
	f.Fuzz(func(t *testing.T, s string) {
		all := parseChallenges([]string{s})
		if len(all) > maxChallenges {
			t.Errorf("%d challenges", len(all))
		}
		for _, c := range all {
			if c.scheme == "" || len(c.params) > maxChallenges {
				t.Errorf("%q gives %v", s, c)
			}
		}
	})
}

func FuzzAuthFile(f *testing.F) {
	f.Add([]byte(`{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"},"r.test/a":{"identitytoken":"x"}},"credHelpers":{"r.test":"../x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := parseAuthFile(b)
		if err != nil {
			return
		}
		file.CredsStore, file.CredHelpers = "", nil // a fuzzer starts no programs
		for _, registry := range []string{"docker.io", "r.test", "localhost:5000"} {
			if c, err := file.find(context.Background(), registry, "a/b"); c == nil && err == nil && len(file.Auths) == 0 {
				continue
			}
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add([]byte(`{"token":"x","expires_in":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		token, life, err := parseToken(b)
		if err == nil && (strings.ContainsAny(token, "\r\n ") || life <= 0) {
			t.Errorf("%q gives %q for %v", b, token, life)
		}
		message(b)
	})
}

func FuzzSettings(f *testing.F) {
	f.Add("mirror * http://a:1/b\ninsecure c\n# d")
	f.Fuzz(func(t *testing.T, text string) {
		s := &Settings{}
		if s.Parse(text) != nil {
			return
		}
		for _, m := range s.Mirrors {
			if strings.ContainsAny(m.Host+m.Prefix, " ?#@%\\") || strings.Contains(m.Host+"/"+m.Prefix, "..") {
				t.Errorf("%q gives %+v", text, m)
			}
		}
	})
}
