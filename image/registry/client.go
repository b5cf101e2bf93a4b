package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"kiste/fault"
)

const (
	maxHeader    = 128 << 10
	maxRedirects = 10
	maxPause     = 30 * time.Second // that a registry may ask for
	readBuffer   = 128 << 10
)

// A client speaks HTTP with one registry, and with the hosts that it sends us
// to.
type client struct {
	host   string
	o      Options
	http   *http.Client
	own    *http.Transport // for the host itself
	others *http.Transport // for token servers and stores of blobs: the same authorities, no client certificate
	loose  *http.Transport // for insecure hosts: any certificate
	certs  error           // why the host's certificates cannot be used

	mu     sync.Mutex
	scheme string // empty: not known yet
}

func newClient(host, scheme string, o Options) *client {
	c := &client{host: host, o: o, scheme: scheme}
	if !c.insecure(host) && scheme == "" {
		c.scheme = "https"
	}
	authorities, certificates, err := readCerts(o.CertDirs, host)
	c.certs = err
	c.own = c.transport(&tls.Config{RootCAs: authorities, Certificates: certificates, InsecureSkipVerify: c.insecure(host)})
	c.others = c.transport(&tls.Config{RootCAs: authorities})
	c.loose = c.transport(&tls.Config{InsecureSkipVerify: true})
	c.http = &http.Client{Transport: c, CheckRedirect: c.redirect}
	return c
}

// transport speaks HTTP/1.1 only.
func (c *client) transport(config *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: min(c.o.Stall, 30*time.Second), KeepAlive: 30 * time.Second}
	var only http.Protocols
	only.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialHost(dialer),
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    min(c.o.Stall, 30*time.Second),
		ResponseHeaderTimeout:  c.o.Stall,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        30 * time.Second,
		DisableCompression:     true, // a blob is the bytes that were asked for
		ReadBufferSize:         readBuffer,
		Protocols:              &only,
	}
}

// dialHost makes "localhost" mean this host, whatever a name server says: it
// may be spoken to without TLS.
func dialHost(dialer *net.Dialer) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil || host != "localhost" {
			return dialer.DialContext(ctx, network, address)
		}
		conn, err := dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			if six, err6 := dialer.DialContext(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
				return six, nil
			}
		}
		return conn, err
	}
}

func (c *client) close() {
	for _, t := range []*http.Transport{c.own, c.others, c.loose} {
		t.CloseIdleConnections()
	}
}

// RoundTrip chooses the transport by the host, and is the one place that lets
// plain HTTP pass.
func (c *client) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Host
	if req.URL.Scheme == "http" && !c.insecure(host) && !(host == c.host && c.plain()) {
		return nil, &fault.Error{Op: "connect to", On: host, Kind: fault.Denied, Err: errors.New("it is to be spoken to without TLS"),
			Hint: "if you trust the network on the way, write \"insecure " + host + "\" into registries.conf"}
	}
	if c.certs != nil {
		return nil, c.certs
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	switch {
	case host == c.host:
		return c.own.RoundTrip(req)
	case c.insecure(host):
		return c.loose.RoundTrip(req)
	}
	return c.others.RoundTrip(req)
}

// redirect follows at most ten times, never from HTTPS to HTTP, never with a
// body, and without credentials to any other host.
func (c *client) redirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	switch {
	case len(via) > maxRedirects:
		return &fault.Error{Op: "follow redirects", Kind: fault.Invalid, Err: fmt.Errorf("there are more than %d", maxRedirects)}
	case from.Scheme == "https" && req.URL.Scheme != "https":
		return &fault.Error{Op: "follow redirect to", On: req.URL.Host, Kind: fault.Denied, Err: errors.New("it leads from HTTPS to plain HTTP")}
	case via[0].Method != http.MethodGet:
		return http.ErrUseLastResponse
	}
	req.Header.Del("Referer")
	for _, r := range append(slices.Clone(via), req) {
		if r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme {
			req.Header.Del("Authorization")
			req.Header.Del("Cookie")
		}
	}
	return nil
}

// insecure reports whether host may be spoken to without TLS, or with a
// certificate that nobody signed.
func (c *client) insecure(host string) bool {
	return loopback(host) || c.o.Settings.isInsecure(host)
}

// loopback reports whether HOST[:PORT] is this very host.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (c *client) plain() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.scheme == "http"
}

// current is the scheme to try; known, that it is the right one.
func (c *client) current() (scheme string, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.scheme == "" {
		return "https", false
	}
	return c.scheme, true
}

func (c *client) settle(scheme string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.scheme == "" {
		c.scheme = scheme
	}
}

// send sends the request that make makes for a scheme, until an attempt gives
// something final. Of an insecure host the first attempt finds out the scheme.
func (c *client) send(ctx context.Context, make func(scheme string) (*http.Request, error)) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		res, err := c.once(make)
		if err == nil && !transient(res.StatusCode) {
			return res, nil
		}
		pause := c.o.pause(attempt)
		if err == nil {
			if after, ok := retryAfter(res.Header.Get("Retry-After")); ok {
				pause = after
			}
			if attempt == c.o.Attempts || pause > maxPause {
				return res, nil
			}
			drop(res)
		} else if attempt == c.o.Attempts || ctx.Err() != nil || final(err) {
			return nil, err
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// once sends a request. Where the scheme is not known, HTTPS is tried before
// HTTP.
func (c *client) once(make func(scheme string) (*http.Request, error)) (*http.Response, error) {
	scheme, known := c.current()
	res, err := c.try(make, scheme)
	if known {
		return res, err
	}
	if err != nil && noTLS(err) {
		scheme = "http"
		res, err = c.try(make, scheme)
	}
	if err == nil {
		c.settle(scheme)
	}
	return res, err
}

// try sends one request. The body that comes does not wait for ever.
func (c *client) try(make func(scheme string) (*http.Request, error), scheme string) (*http.Response, error) {
	req, err := make(scheme)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	res, err := c.http.Do(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	res.Body = &patient{ReadCloser: res.Body, ctx: ctx, cancel: cancel, limit: c.o.Stall}
	return res, nil
}

// noTLS reports whether err is that of a server that speaks no TLS, or has no
// port for it.
func noTLS(err error) bool {
	var record tls.RecordHeaderError
	return errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
}

// transient reports whether a later attempt may give another status.
func transient(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// final reports whether err would come again at once: what we refuse
// ourselves, names that do not exist, bad certificates, a closed port.
func final(err error) bool {
	var f *fault.Error
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &f), errors.As(err, &cert), errors.As(err, &record), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return true
	case errors.As(err, &dns):
		return !dns.IsTemporary
	}
	return false
}

// pause is how long to wait after an attempt: twice as long each time, give or
// take a quarter, so that many clients do not come back at once.
func (o Options) pause(attempt int) time.Duration {
	p := min(o.Backoff<<min(attempt-1, 16), maxPause)
	return p - p/4 + rand.N(p/2+1)
}

// retryAfter reads seconds or a date (RFC 9110, 10.2.3).
func retryAfter(s string) (time.Duration, bool) {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(time.Until(t), 0), true
	}
	return 0, false
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// readCerts reads what dirs have for host: *.crt are authorities besides the
// system's, and X.cert with X.key is a certificate of our own.
func readCerts(dirs []string, host string) (*x509.CertPool, []tls.Certificate, error) {
	var pool *x509.CertPool
	var own []tls.Certificate
	for _, dir := range dirs {
		entries, err := os.ReadDir(filepath.Join(dir, host))
		if err != nil {
			continue // most hosts have none, and an ordinary user may not look into some
		}
		for _, e := range entries {
			name := filepath.Join(dir, host, e.Name())
			switch filepath.Ext(name) {
			case ".crt":
				if pool, err = withAuthority(pool, name); err != nil {
					return nil, nil, err
				}
			case ".cert":
				c, err := tls.LoadX509KeyPair(name, strings.TrimSuffix(name, ".cert")+".key")
				if err != nil {
					return nil, nil, &fault.Error{Op: "read client certificate", On: name, Kind: fault.Invalid, Err: err}
				}
				own = append(own, c)
			}
		}
	}
	return pool, own, nil
}

func withAuthority(pool *x509.CertPool, name string) (*x509.CertPool, error) {
	if pool == nil {
		var err error
		if pool, err = x509.SystemCertPool(); err != nil {
			pool = x509.NewCertPool()
		}
	}
	pem, err := os.ReadFile(name)
	if err == nil && !pool.AppendCertsFromPEM(pem) {
		err = errors.New("it has no certificate in PEM")
	}
	if err != nil {
		return nil, &fault.Error{Op: "read certificate authority", On: name, Kind: fault.Invalid, Err: err}
	}
	return pool, nil
}
