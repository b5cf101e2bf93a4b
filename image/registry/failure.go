package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"kiste/fault"
)

const maxFailure = 64 << 10 // of an error's body

// failure makes an error of a response that is none that was hoped for. What
// names the thing that was asked for.
func (e *endpoint) failure(res *http.Response, what string) error {
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxFailure)) // a broken text is no text
	text := message(body)
	with := func(s string) error {
		if text != "" {
			s += ": " + text
		}
		return errors.New(s)
	}
	switch code := res.StatusCode; {
	case code == http.StatusNotFound:
		return &fault.Error{Op: "fetch from", On: e.host, Kind: fault.NotFound, Err: with(what + " not found"),
			Hint: missing(what)}
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return e.denied(with("access to " + what + " is denied"))
	case code == http.StatusTooManyRequests:
		return &fault.Error{Op: "fetch from", On: e.host, Kind: fault.Unavailable, Err: with("it has had too many requests from here"),
			Hint: "log in for a higher limit (docker login " + e.key + "), wait, or use a mirror (KISTE_REGISTRY_MIRROR)"}
	case code >= 500, transient(code):
		return &fault.Error{Op: "fetch from", On: e.host, Kind: fault.Unavailable, Err: with(fmt.Sprintf("%s: the registry answers %d", what, code)),
			Hint: "the registry has a problem: try again later"}
	default:
		return &fault.Error{Op: "fetch from", On: e.host, Kind: fault.Invalid, Err: with(fmt.Sprintf("%s: the registry answers %d", what, code)),
			Hint: "is " + e.host + " a registry?"}
	}
}

// missing is the hint for what is not there.
func missing(what string) string {
	if strings.HasPrefix(what, "blob ") {
		return "the image is incomplete in the registry: push it again"
	}
	return "check the spelling of the name and the tag"
}

func (e *endpoint) denied(err error) error {
	hint := "if the image is private, log in: docker login " + e.key + " (Kiste reads the same files); else it may not exist"
	if note := e.auth.note(); note != "" {
		hint = note
	}
	return &fault.Error{Op: "fetch from", On: e.host, Kind: fault.Denied, Err: err, Hint: hint}
}

// message takes the text out of an error's body (distribution-spec, Error
// Codes), made safe for a terminal.
func message(body []byte) string {
	var doc struct {
		Errors []struct{ Code, Message string }
		// of token servers
		Details string
		Error   string `json:"error_description"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return ""
	}
	var parts []string
	for _, e := range doc.Errors {
		if text := clean(first(e.Message, e.Code)); text != "" && len(parts) < 3 {
			parts = append(parts, text)
		}
	}
	if len(parts) == 0 {
		return clean(first(doc.Details, doc.Error))
	}
	return strings.Join(parts, ", ")
}

// clean makes foreign text safe to print: short, one line, printable.
func clean(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r < ' ':
			return ' '
		case r >= 0x7f && r < 0xa0, r == 0xfffd, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return '?'
		}
		return r
	}, s))
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// unavailable explains why a registry cannot be reached. What has a kind of
// its own keeps it.
func (e *endpoint) unavailable(err error) error {
	var wrap *url.Error
	if errors.As(err, &wrap) {
		err = wrap.Err // without the URL, which may hold a signature
	}
	var f *fault.Error
	if errors.As(err, &f) || errors.Is(err, context.Canceled) {
		return err
	}
	hint := e.remedy(err)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it closed the connection")
	}
	return &fault.Error{Op: "reach registry", On: e.host, Kind: fault.Unavailable, Err: err, Hint: hint}
}

func (e *endpoint) remedy(err error) string {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.As(err, &dns):
		return "check the registry's name and this host's network; where there is no way out, KISTE_REGISTRY_MIRROR names a registry that can be reached"
	case errors.As(err, &cert):
		return "put the certificate of its authority into /etc/docker/certs.d/" + e.host + "/ca.crt"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "it speaks no TLS: if you trust the network on the way, write \"insecure " + e.host + "\" into registries.conf"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: is the registry running, and is the port right?"
	case errors.Is(err, errStalled), errors.As(err, &timeout) && timeout.Timeout():
		return "the registry does not answer: check the network, or try again later"
	}
	return "check the network, or try again later: what has been fetched is kept"
}
