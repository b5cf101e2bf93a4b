// Package registry fetches images from registries that speak the OCI
// distribution protocol, Docker's own among them.
//
//	takes    a reference
//	gives    a source.Source
//	touches  the network; reads ~/.docker/config.json and its relatives, certs.d, Kiste's registries.conf; runs docker-credential-* programs
//	state    tokens, in memory
//
// Requests go over HTTPS. Plain HTTP, and certificates that nobody signed, are
// for this very host (127.0.0.0/8, ::1, localhost) and for registries that the
// options or registries.conf call insecure. Credentials go to the registry
// that they are for and to the token server that it names, and to no host
// that either redirects to.
//
// Everything from the network is bounded: headers, documents, redirects,
// attempts, and the time without progress; a large blob may take as long as
// it likes while bytes arrive. When a connection breaks in the middle of a
// blob, the reader asks for the rest and goes on.
//
// Mirrors are tried before the registry itself: $KISTE_REGISTRY_MIRROR, then
// those of registries.conf (see Settings).
//
// See the OCI distribution-spec v1.1, and docs.docker.com/registry/spec/auth
// for tokens. A Source is safe for concurrent use; HTTP/1.1 is spoken, where
// every blob under way has a connection, and so a TCP window, of its own.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"kiste/fault"
	"kiste/image/reference"
	"kiste/image/source"
)

// Options of Open. The zero value is right.
type Options struct {
	// UserAgent is "kiste/VERSION". Empty: "kiste".
	UserAgent string

	// AuthFile is asked for credentials before all other files.
	AuthFile string

	// CertDirs have a directory HOST[:PORT] with *.crt, *.cert and *.key for
	// each registry that needs them. Nil: /etc/docker/certs.d and
	// /etc/containers/certs.d.
	CertDirs []string

	// Settings are mirrors and insecure registries. Nil: ReadSettings.
	Settings *Settings

	// Stall is how long a registry may be silent. Zero: a minute.
	Stall time.Duration

	// Attempts bounds tries without progress. Zero: 5.
	Attempts int

	// Backoff is the pause after the first failed attempt; it doubles. Zero:
	// 250 ms.
	Backoff time.Duration
}

func (o Options) filled() (Options, error) {
	if o.UserAgent == "" {
		o.UserAgent = "kiste"
	}
	if o.CertDirs == nil {
		o.CertDirs = []string{"/etc/docker/certs.d", "/etc/containers/certs.d"}
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	if o.Attempts == 0 {
		o.Attempts = 5
	}
	if o.Backoff == 0 {
		o.Backoff = 250 * time.Millisecond
	}
	if o.Settings == nil {
		s, err := ReadSettings()
		if err != nil {
			return o, err
		}
		o.Settings = s
	}
	return o, nil
}

// Open gives the image ref of its registry, or of a mirror. Nothing is asked
// of the network yet.
func Open(ref reference.Reference, o Options) (source.Source, error) {
	r, err := newRepository(ref, o)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func newRepository(ref reference.Reference, o Options) (*repository, error) {
	o, err := o.filled()
	if err != nil {
		return nil, err
	}
	r := &repository{ref: ref, o: o}
	for _, m := range o.Settings.mirrorsOf(ref.Registry) {
		r.endpoints = append(r.endpoints, m.endpoint(ref, o))
	}
	host := ref.Registry
	if host == "docker.io" {
		host = "registry-1.docker.io"
	}
	r.endpoints = append(r.endpoints, newEndpoint(host, ref.Repository, ref.Registry, "", o))
	return r, nil
}

// A repository is a Source: one image in a registry and its mirrors.
type repository struct {
	ref       reference.Reference
	o         Options
	endpoints []*endpoint // the registry itself is the last
}

// accept lists what Kiste can read of a manifest.
var accept = []string{source.MediaManifest, source.MediaIndex, source.MediaDockerManifest, source.MediaDockerList}

func (r *repository) Root(ctx context.Context) (source.Descriptor, []byte, error) {
	name := r.ref.Tag
	if r.ref.Digest != "" {
		name = r.ref.Digest
	}
	var d source.Descriptor
	var b []byte
	err := r.try(ctx, func(e *endpoint) error {
		var err error
		d, b, err = r.fetch(ctx, e, name)
		return err
	})
	return d, b, err
}

func (r *repository) Manifest(ctx context.Context, d source.Descriptor) ([]byte, error) {
	var b []byte
	err := r.try(ctx, func(e *endpoint) error {
		var err error
		_, b, err = r.fetch(ctx, e, d.Digest)
		return err
	})
	return b, err
}

// fetch gets a manifest by tag or digest.
func (r *repository) fetch(ctx context.Context, e *endpoint, name string) (source.Descriptor, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*r.o.Stall)
	defer cancel()
	res, err := e.get(ctx, "manifests/"+name, http.Header{"Accept": accept})
	if err != nil {
		return source.Descriptor{}, nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return source.Descriptor{}, nil, e.failure(res, "manifest for "+r.familiar(name))
	}
	b, err := readAll(res.Body, source.MaxManifest)
	if err != nil {
		return source.Descriptor{}, nil, e.unavailable(err)
	}
	return describe(name, res.Header, b)
}

// familiar is the name of the image as people know it, with another digest
// for a part of it.
func (r *repository) familiar(name string) string {
	if name == r.ref.Tag || name == r.ref.Digest {
		return r.ref.Familiar()
	}
	return r.ref.FamiliarName() + "@" + name
}

// describe gives the descriptor of a manifest. Asked for by tag, its digest is
// that of its bytes, and the registry must not say otherwise.
func describe(name string, h http.Header, b []byte) (source.Descriptor, []byte, error) {
	mediaType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		mediaType = ""
	}
	d := source.Descriptor{MediaType: mediaType, Digest: source.Digest(b), Size: int64(len(b))}
	if reference.CheckDigest(name) == nil {
		d.Digest = name
		return d, b, nil
	}
	said := h.Get("Docker-Content-Digest")
	schema1 := strings.Contains(mediaType, "distribution.manifest.v1") // whose digest leaves the signature out
	if strings.HasPrefix(said, "sha256:") && said != d.Digest && !schema1 {
		return d, nil, &fault.Error{Op: "verify manifest", On: name, Kind: fault.Invalid,
			Err: fmt.Errorf("the registry says %.80q and its content has the digest %s", said, d.Digest)}
	}
	return d, b, nil
}

func (r *repository) Blob(ctx context.Context, d source.Descriptor, offset int64) (io.ReadCloser, error) {
	if offset == d.Size {
		return http.NoBody, nil
	}
	var b *blob
	err := r.try(ctx, func(e *endpoint) error {
		b = &blob{ctx: ctx, endpoint: e, d: d, at: offset, o: r.o}
		return b.open()
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Close lets idle connections go.
func (r *repository) Close() error {
	for _, e := range r.endpoints {
		e.close()
	}
	return nil
}

// try asks the endpoints in order, until one has it.
func (r *repository) try(ctx context.Context, ask func(*endpoint) error) error {
	var before []string
	for i, e := range r.endpoints {
		err := ask(e)
		switch {
		case err == nil, ctx.Err() != nil:
			return err
		case i < len(r.endpoints)-1:
			before = append(before, err.Error())
		case len(before) > 0 && fault.KindOf(err) == fault.Unavailable:
			return &fault.Error{Op: "reach a mirror or the registry", Err: fmt.Errorf("%w; before it: %s", err, strings.Join(before, "; "))}
		default:
			return err
		}
	}
	return errors.New("no registry") // not reached: Open gives at least one
}

// An endpoint is a repository on one host.
type endpoint struct {
	host       string // HOST[:PORT], as in a URL
	repository string
	namespace  string // of a mirror: the registry that it stands in for
	key        string // what credentials are filed under
	client     *client
	auth       authorizer
	o          Options
}

// newEndpoint makes the endpoint of a registry. Scheme is "http" where that is
// configured, else empty.
func newEndpoint(host, repository, key, scheme string, o Options) *endpoint {
	e := &endpoint{host: host, repository: repository, key: key, o: o, client: newClient(host, scheme, o)}
	e.auth.endpoint = e
	return e
}

func (e *endpoint) close() { e.client.close() }

// get asks for a path of the repository, perhaps with a query, with
// authorization where the registry wants it. The response may have any status but those that another
// attempt may mend.
func (e *endpoint) get(ctx context.Context, path string, h http.Header) (*http.Response, error) {
	for asked := false; ; asked = true {
		used := e.auth.header()
		res, err := e.client.send(ctx, func(scheme string) (*http.Request, error) { return e.request(ctx, scheme, path, h, used) })
		if err != nil {
			return nil, e.unavailable(err)
		}
		if res.StatusCode != http.StatusUnauthorized || asked {
			return res, nil
		}
		drop(res)
		retry, err := e.auth.answer(ctx, res, used)
		if err != nil {
			return nil, err
		}
		if !retry {
			return nil, e.denied(errors.New("it wants credentials"))
		}
	}
}

func (e *endpoint) request(ctx context.Context, scheme, path string, h http.Header, authorization string) (*http.Request, error) {
	path, query, _ := strings.Cut(path, "?")
	u := url.URL{Scheme: scheme, Host: e.host, Path: "/v2/" + e.repository + "/" + path, RawQuery: query}
	if e.namespace != "" {
		u.RawQuery = strings.TrimPrefix(query+"&"+url.Values{"ns": {e.namespace}}.Encode(), "&")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range h {
		req.Header[k] = v
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	return req, nil
}

// readAll reads a document of at most most bytes.
func readAll(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = &fault.Error{Op: "read answer", Kind: fault.Invalid, Err: fmt.Errorf("it has more than %d bytes", most)}
	}
	return b, err
}

// drop ends with a response; a short rest is read so that the connection can
// be used again.
func drop(res *http.Response) {
	io.CopyN(io.Discard, res.Body, 4096) //nolint:errcheck // nothing is lost
	res.Body.Close()
}

// contentRange reads "bytes FROM-TO/SIZE" (RFC 9110, 14.4); size is -1 where
// it is "*".
func contentRange(s string) (from, size int64, ok bool) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, total, ok2 := strings.Cut(rest, "/")
	first, _, ok3 := strings.Cut(span, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	if !ok || !ok2 || !ok3 || err != nil || from < 0 {
		return 0, 0, false
	}
	if total == "*" {
		return from, -1, true
	}
	size, err = strconv.ParseInt(total, 10, 64)
	return from, size, err == nil && size >= 0
}
