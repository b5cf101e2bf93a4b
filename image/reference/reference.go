// Package reference reads the names of images as Docker users write them, and
// the transports that say where an image comes from in skopeo's words.
//
//	takes    text: "alpine", "localhost:5000/app:1@sha256:…", "oci:DIR:TAG"
//	gives    a Reference or a Source, comparable values
//	touches  nothing
//	state    none
//
// The grammar is that of github.com/distribution/reference, with Docker's
// defaults: a name without a registry is one of docker.io, one without a user
// is in library/, one without tag and digest has the tag latest.
//
// It is linked into the small binary, so there is no regular expression and no
// table built at start. Safe for concurrent use.
package reference

import (
	"fmt"
	"strings"

	"kiste/fault"
)

// A Reference names an image in a registry. Parse makes valid ones; two are
// the same image name exactly if they are equal.
type Reference struct {
	Registry   string // "docker.io", "localhost:5000"
	Repository string // "library/alpine"
	Tag        string // "latest"; empty only where there is a Digest
	Digest     string // "sha256:…", or empty
}

const (
	defaultRegistry = "docker.io"
	legacyRegistry  = "index.docker.io"
	officialUser    = "library/"
	defaultTag      = "latest"

	maxRepository = 255 // distribution/reference: RepositoryNameTotalLengthMax
	maxRegistry   = 255 // RFC 1035, and a port
	maxTag        = 128
)

// Parse reads a name as Docker does. A bad one is fault.Invalid.
func Parse(s string) (Reference, error) {
	r, err := parse(s)
	if err != nil {
		return Reference{}, &fault.Error{Op: "read image name", On: s, Kind: fault.Invalid, Err: err, Hint: hint(s)}
	}
	return r, nil
}

// hint proposes the lower-case name where that is what Parse would take.
func hint(s string) string {
	if lower := strings.ToLower(s); lower != s {
		if _, err := parse(lower); err == nil {
			return "perhaps you mean " + lower
		}
	}
	return "a name is [REGISTRY[:PORT]/]REPOSITORY[:TAG][@DIGEST], such as debian:12 or localhost:5000/team/app"
}

func parse(s string) (Reference, error) {
	if s == "" {
		return Reference{}, fmt.Errorf("it is empty")
	}
	if len(s) > maxRegistry+maxRepository+maxTag+256 {
		return Reference{}, fmt.Errorf("%d bytes are too many", len(s))
	}
	if len(s) == 64 && isHex(s) {
		return Reference{}, fmt.Errorf("64 hexadecimal digits are an image's ID, not a name")
	}
	name, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		if err := CheckDigest(digest); err != nil {
			return Reference{}, err
		}
	}
	registry, rest := splitRegistry(name)
	repository, tag, hasTag := strings.Cut(rest, ":")
	if err := checkRepository(repository); err != nil {
		return Reference{}, err
	}
	if hasTag {
		if err := checkTag(tag); err != nil {
			return Reference{}, err
		}
	}
	if err := checkRegistry(registry); err != nil {
		return Reference{}, err
	}
	if registry == defaultRegistry && !strings.Contains(repository, "/") {
		repository = officialUser + repository
	}
	if len(repository) > maxRepository {
		return Reference{}, fmt.Errorf("repository name must not be longer than %d characters", maxRepository)
	}
	if !hasTag && !hasDigest {
		tag = defaultTag
	}
	return Reference{registry, repository, tag, digest}, nil
}

// splitRegistry cuts the registry off as Docker does: the first component is a
// registry if it could not be a user's name.
func splitRegistry(name string) (registry, rest string) {
	first, after, ok := strings.Cut(name, "/")
	switch {
	case !ok:
		return defaultRegistry, name
	case first == legacyRegistry:
		return defaultRegistry, after
	case first == "localhost", strings.ContainsAny(first, ".:"), strings.ToLower(first) != first:
		return first, after
	}
	return defaultRegistry, name
}

// String is the canonical name, which Parse reads as the same Reference.
func (r Reference) String() string { return r.Name() + r.suffix() }

// Name is the canonical name without tag and digest.
func (r Reference) Name() string { return r.Registry + "/" + r.Repository }

// Familiar is the short name that Docker's users read: "alpine:latest".
func (r Reference) Familiar() string { return r.FamiliarName() + r.suffix() }

// FamiliarName is Familiar without tag and digest.
func (r Reference) FamiliarName() string {
	if r.Registry != defaultRegistry {
		return r.Name()
	}
	short, official := strings.CutPrefix(r.Repository, officialUser)
	switch {
	case official && !strings.Contains(short, "/"):
		return short
	case readsAsRegistry(r.Repository):
		return r.Name()
	}
	return r.Repository
}

// readsAsRegistry reports whether a docker.io repository would be read as one
// of another registry if docker.io were left out: "localhost/x", "a.b/x".
func readsAsRegistry(repository string) bool {
	first, _ := splitRegistry(repository)
	return first != defaultRegistry || strings.HasPrefix(repository, defaultRegistry+"/") || strings.HasPrefix(repository, legacyRegistry+"/")
}

func (r Reference) suffix() string {
	s := ""
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// checkRepository wants path components of lower-case letters and digits,
// joined inside by ".", "_", "__" or any number of "-".
func checkRepository(s string) error {
	if s == "" {
		return fmt.Errorf("repository name is missing")
	}
	if strings.ToLower(s) != s {
		return fmt.Errorf("repository name (%s) must be lowercase", s)
	}
	for component := range strings.SplitSeq(s, "/") {
		if !validComponent(component) {
			return fmt.Errorf("repository name (%s) is not valid", s)
		}
	}
	return nil
}

func validComponent(s string) bool {
	if s == "" || !isLowerAlnum(s[0]) || !isLowerAlnum(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if isLowerAlnum(s[i]) {
			i++
			continue
		}
		start := i
		for i < len(s) && !isLowerAlnum(s[i]) {
			i++
		}
		if !validSeparator(s[start:i]) {
			return false
		}
	}
	return true
}

func validSeparator(s string) bool {
	return s == "." || s == "_" || s == "__" || strings.Trim(s, "-") == ""
}

// checkTag wants a word character and up to 127 of word characters, "." and "-".
func checkTag(s string) error {
	if s == "" {
		return fmt.Errorf("the tag is empty")
	}
	if len(s) > maxTag {
		return fmt.Errorf("the tag has %d characters and may have %d", len(s), maxTag)
	}
	for i := range len(s) {
		if c := s[i]; !isWord(c) && (i == 0 || c != '.' && c != '-') {
			return fmt.Errorf("the tag (%s) is not valid", s)
		}
	}
	return nil
}

// checkRegistry wants HOST[:PORT], where HOST is a domain name, an IPv4
// address or an IPv6 address in brackets.
func checkRegistry(s string) error {
	bad := fmt.Errorf("registry (%s) is not valid", s)
	if len(s) > maxRegistry {
		return bad
	}
	host, port, hasPort := s, "", false
	if end := strings.IndexByte(s, ']'); strings.HasPrefix(s, "[") && end > 0 {
		host = s[:end+1]
		rest := s[end+1:]
		if rest != "" && rest[0] != ':' {
			return bad
		}
		port, hasPort = strings.TrimPrefix(rest, ":"), rest != ""
		if !validIPv6(host[1:end]) {
			return bad
		}
	} else {
		host, port, hasPort = strings.Cut(s, ":")
		if !validDomain(host) {
			return bad
		}
	}
	if hasPort && !validPort(port) {
		return bad
	}
	return nil
}

func validPort(s string) bool {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
		if n = n*10 + int(s[i]-'0'); n > 65535 {
			return false
		}
	}
	return s != ""
}

func validIPv6(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != ':' && !isHexDigit(c) && (c < 'A' || c > 'F') {
			return false
		}
	}
	return strings.Contains(s, ":")
}

func validDomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; c != '-' && !isAlnum(c) {
				return false
			}
		}
	}
	return true
}

// CheckDigest accepts "sha256:" and 64, or "sha512:" and 128, lower-case
// hexadecimal digits, and nothing else: a digest becomes part of paths and
// URLs (CVE-2024-3727).
func CheckDigest(s string) error {
	algorithm, hex, _ := strings.Cut(s, ":")
	want := 0
	switch algorithm {
	case "sha256":
		want = 64
	case "sha512":
		want = 128
	default:
		return fmt.Errorf("digest (%.80s) must be of sha256 or sha512", s)
	}
	if len(hex) != want || !isHex(hex) {
		return fmt.Errorf("digest (%.200s) must have %d lower-case hexadecimal digits", s, want)
	}
	return nil
}

func isHex(s string) bool {
	for i := range len(s) {
		if !isHexDigit(s[i]) {
			return false
		}
	}
	return true
}

func isHexDigit(c byte) bool   { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
func isLowerAlnum(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' }
func isAlnum(c byte) bool      { return isLowerAlnum(c) || c >= 'A' && c <= 'Z' }
func isWord(c byte) bool       { return isAlnum(c) || c == '_' }
