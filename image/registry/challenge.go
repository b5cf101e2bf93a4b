package registry

import (
	"strings"
)

// A challenge is one way to authenticate that a server offers (RFC 9110,
// 11.6.1).
type challenge struct {
	scheme string // lower case: "basic", "bearer"
	params map[string]string
}

const maxChallenges = 16

// parseChallenges reads WWW-Authenticate headers, each of which may hold
// several challenges. Where a header stops making sense the rest of it is left
// out.
func parseChallenges(headers []string) []challenge {
	var all []challenge
	for _, h := range headers {
		p := scanner{h}
		for len(all) < maxChallenges {
			p.skip(" \t,")
			scheme := p.token()
			if scheme == "" {
				break
			}
			c := challenge{strings.ToLower(scheme), map[string]string{}}
			p.params(c.params)
			all = append(all, c)
		}
	}
	return all
}

// A scanner holds what is left to read of a header.
type scanner struct{ rest string }

func (p *scanner) skip(chars string) { p.rest = strings.TrimLeft(p.rest, chars) }

// token reads a token of RFC 9110, 5.6.2; empty if there is none.
func (p *scanner) token() string {
	n := 0
	for n < len(p.rest) && isTokenChar(p.rest[n]) {
		n++
	}
	t := p.rest[:n]
	p.rest = p.rest[n:]
	return t
}

func isTokenChar(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// params reads NAME=VALUE with commas between them, up to what does not look
// so: the next scheme.
func (p *scanner) params(into map[string]string) {
	for {
		before := p.rest
		p.skip(" \t,")
		name := p.token()
		p.skip(" \t")
		if name == "" || !strings.HasPrefix(p.rest, "=") {
			p.rest = before
			if name == "" {
				p.rest = "" // nothing that could be a scheme
			}
			return
		}
		p.rest = p.rest[1:]
		p.skip(" \t")
		value, ok := p.value()
		if !ok {
			p.rest = ""
			return
		}
		if name = strings.ToLower(name); len(into) < maxChallenges {
			into[name] = value
		}
	}
}

// value reads a token or a quoted string.
func (p *scanner) value() (string, bool) {
	if !strings.HasPrefix(p.rest, `"`) {
		v := p.token()
		return v, v != ""
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; c {
		case '"':
			p.rest = p.rest[i+1:]
			return b.String(), true
		case '\\':
			if i++; i < len(p.rest) {
				b.WriteByte(p.rest[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}
