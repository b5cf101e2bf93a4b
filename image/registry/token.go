package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kiste/fault"
)

const (
	maxToken     = 1 << 20          // of a token server's answer
	tokenLife    = 60 * time.Second // where the server does not say (distribution, token.md)
	tokenReserve = 5 * time.Second  // before its end, a token is not used any more
)

// An authorizer holds what an endpoint is to be authorized with.
//
//	nothing ──answer──▶ basic, for ever
//	   │ ▲
//	   │ └──header, when it has expired──┐
//	   └───────answer───────▶ bearer token
type authorizer struct {
	endpoint *endpoint

	mu          sync.Mutex
	value       string       // of the Authorization header
	expires     time.Time    // zero: never
	credentials *credentials // nil: not looked up yet

	wrong atomic.Value // string; what went wrong while looking for credentials, readable without mu
}

// header is what to send now; empty: nothing.
func (a *authorizer) header() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.expires.IsZero() && time.Now().After(a.expires) {
		a.value, a.expires = "", time.Time{}
	}
	return a.value
}

// note is what went wrong while looking for credentials, for a hint.
func (a *authorizer) note() string {
	text, _ := a.wrong.Load().(string)
	return text
}

// answer answers the challenges of a 401, which came although used was sent.
// Retry: there is now something else to send.
func (a *authorizer) answer(ctx context.Context, res *http.Response, used string) (retry bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.value != used && a.value != "" {
		return true, nil // another goroutine did
	}
	challenges := parseChallenges(res.Header.Values("WWW-Authenticate"))
	if a.credentials == nil {
		a.credentials = findCredentials(ctx, a.endpoint.o.AuthFile, a.endpoint.key, a.endpoint.repository)
		a.wrong.Store(a.credentials.note)
	}
	if c, ok := pick(challenges, "bearer"); ok {
		a.value, a.expires, err = a.bearer(ctx, c)
		return err == nil, err
	}
	if _, ok := pick(challenges, "basic"); ok && a.credentials.username != "" {
		a.value, a.expires = basic(a.credentials), time.Time{}
		return a.value != used, nil
	}
	return false, nil
}

func pick(challenges []challenge, scheme string) (challenge, bool) {
	for _, c := range challenges {
		if c.scheme == scheme {
			return c, true
		}
	}
	return challenge{}, false
}

func basic(c *credentials) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.username+":"+c.password))
}

// bearer gets a token from the server that the challenge names (distribution,
// token.md; with an identity token oauth.md).
func (a *authorizer) bearer(ctx context.Context, c challenge) (header string, expires time.Time, err error) {
	if t := a.credentials.registryToken; t != "" {
		return "Bearer " + t, time.Time{}, nil
	}
	realm, err := a.realm(c.params["realm"])
	if err != nil {
		return "", time.Time{}, err
	}
	query := url.Values{"client_id": {"kiste"}, "scope": {first(c.params["scope"], "repository:"+a.endpoint.repository+":pull")}}
	if s := c.params["service"]; s != "" {
		query.Set("service", s)
	}
	ctx, cancel := context.WithTimeout(ctx, 4*a.endpoint.o.Stall)
	defer cancel()
	res, err := a.endpoint.client.send(ctx, func(string) (*http.Request, error) { return a.tokenRequest(ctx, *realm, query) })
	if err != nil {
		return "", time.Time{}, a.endpoint.unavailable(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", time.Time{}, a.refused(res)
	}
	b, err := readAll(res.Body, maxToken)
	if err != nil {
		return "", time.Time{}, a.endpoint.unavailable(err)
	}
	token, life, err := parseToken(b)
	if err != nil {
		return "", time.Time{}, err
	}
	return "Bearer " + token, time.Now().Add(max(life-tokenReserve, life/2)), nil
}

// refused is the error of a token server that gives none.
func (a *authorizer) refused(res *http.Response) error {
	err := a.endpoint.failure(res, "a token for "+a.endpoint.repository)
	var f *fault.Error
	if errors.As(err, &f) && f.Kind == fault.Denied && a.credentials.found() {
		f.Hint = "the password for " + a.endpoint.key + " in " + a.credentials.from + " is not, or no longer, right: docker login " + a.endpoint.key
	}
	return err
}

// realm checks the address of a token server. Credentials go there, so it is
// HTTPS wherever the registry is.
func (a *authorizer) realm(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return nil, &fault.Error{Op: "authenticate at", On: a.endpoint.host, Kind: fault.Invalid, Err: fmt.Errorf("it names the token server %.200q", s)}
	}
	if u.Scheme == "http" && !a.endpoint.client.plain() {
		return nil, &fault.Error{Op: "authenticate at", On: a.endpoint.host, Kind: fault.Denied, Err: fmt.Errorf("it names the token server %.200q, to be spoken to without TLS", s)}
	}
	return u, nil
}

func (a *authorizer) tokenRequest(ctx context.Context, realm url.URL, query url.Values) (*http.Request, error) {
	if t := a.credentials.identityToken; t != "" {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {t}}
		for k, v := range query {
			form[k] = v
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	all := realm.Query()
	for k, v := range query {
		all[k] = v
	}
	if a.credentials.username != "" {
		all.Set("account", a.credentials.username)
	}
	realm.RawQuery = all.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err == nil && a.credentials.username != "" {
		req.Header.Set("Authorization", basic(a.credentials))
	}
	return req, err
}

// parseToken reads a token server's answer.
func parseToken(b []byte) (token string, life time.Duration, err error) {
	var doc struct {
		Token       string
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return "", 0, badToken(errors.New("its answer is no JSON object"))
	}
	token = first(doc.Token, doc.AccessToken)
	for i := range len(token) {
		if token[i] <= ' ' || token[i] >= 0x7f {
			return "", 0, badToken(errors.New("its token cannot stand in a header"))
		}
	}
	if token == "" {
		return "", 0, badToken(errors.New("its answer has no token"))
	}
	life = tokenLife
	if doc.ExpiresIn > 0 {
		life = time.Duration(min(doc.ExpiresIn, 24*3600)) * time.Second
	}
	return token, life, nil
}

func badToken(err error) error {
	return &fault.Error{Op: "read token server's answer", Kind: fault.Invalid, Err: err}
}
