package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kiste/fault"
	"kiste/image/reference"
)

// Settings are mirrors and insecure registries, as registries.conf has them:
//
//	# what a registry is fetched from before itself; * is every registry
//	mirror docker.io https://mirror.example.com
//	mirror * http://localhost:5000/cache/{registry}
//	# registries that may be spoken to without TLS, or with any certificate
//	insecure registry.lan:5000
//
// A mirror is [SCHEME://]HOST[:PORT][/PREFIX]; the repository is looked for
// below PREFIX, in which {registry} is replaced by the registry's name, and
// the query has ns=REGISTRY, as containerd's has. One that says http:// is
// thereby called insecure.
type Settings struct {
	Mirrors  []Mirror
	Insecure []string // HOST or HOST:PORT
}

// A Mirror stands in for a registry.
type Mirror struct {
	Registry string // "docker.io"; "*": every one
	Scheme   string // "http", else empty
	Host     string // HOST[:PORT]
	Prefix   string // without slashes around it, perhaps with {registry}
}

const maxSettings = 1 << 20

// ReadSettings reads $KISTE_REGISTRY_MIRROR, mirrors for every registry with
// spaces or commas between them, then registries.conf in $XDG_CONFIG_HOME/kiste
// (~/.config/kiste) and in /etc/kiste. A file that is not there has nothing.
func ReadSettings() (*Settings, error) {
	s := &Settings{}
	for _, m := range strings.FieldsFunc(os.Getenv("KISTE_REGISTRY_MIRROR"), func(r rune) bool { return r == ' ' || r == ',' }) {
		if err := s.addMirror("*", m); err != nil {
			return nil, &fault.Error{Op: "read", On: "KISTE_REGISTRY_MIRROR", Kind: fault.Invalid, Err: err, Hint: mirrorHint}
		}
	}
	for _, dir := range []string{first(os.Getenv("XDG_CONFIG_HOME"), inHome(".config")), "/etc"} {
		if dir == "" {
			continue
		}
		if err := s.readFile(filepath.Join(dir, "kiste", "registries.conf")); err != nil {
			return nil, err
		}
	}
	return s, nil
}

const mirrorHint = "a mirror is [http://|https://]HOST[:PORT][/PREFIX]"

func (s *Settings) readFile(name string) error {
	b, err := readSmall(name, maxSettings)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.Parse(string(b)); err != nil {
		return &fault.Error{Op: "read", On: name, Kind: fault.Invalid, Err: err,
			Hint: "its lines are \"mirror REGISTRY|* [SCHEME://]HOST[:PORT][/PREFIX]\" and \"insecure HOST[:PORT]\""}
	}
	return nil
}

// Parse adds the lines of a registries.conf.
func (s *Settings) Parse(text string) error {
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		var err error
		switch {
		case len(words) == 0:
		case words[0] == "mirror" && len(words) == 3:
			err = s.addMirror(words[1], words[2])
		case words[0] == "insecure" && len(words) == 2:
			err = checkHost(words[1])
			s.Insecure = append(s.Insecure, words[1])
		default:
			err = fmt.Errorf("%.100q is not understood", strings.TrimSpace(line))
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
	return nil
}

func (s *Settings) addMirror(registry, text string) error {
	m := Mirror{Registry: registry}
	rest := text
	if plain, ok := strings.CutPrefix(rest, "http://"); ok {
		m.Scheme, rest = "http", plain
	} else {
		rest = strings.TrimPrefix(rest, "https://")
	}
	m.Host, m.Prefix, _ = strings.Cut(strings.TrimRight(rest, "/"), "/")
	if err := checkHost(m.Host); err != nil {
		return err
	}
	// what is made of it must be a repository
	if m.Prefix != "" {
		if _, err := reference.Parse("localhost/" + strings.ReplaceAll(m.Prefix, "{registry}", "r") + "/x"); err != nil {
			return err
		}
	}
	s.Mirrors = append(s.Mirrors, m)
	return nil
}

// checkHost wants HOST[:PORT], as it stands in a reference.
func checkHost(host string) error {
	ref, err := reference.Parse(host + "/x")
	if err == nil && ref.Registry != host && !strings.Contains(host, "/") {
		// a single word, which a reference would take for a user
		ref, err = reference.Parse(host + ":1/x")
		ref.Registry = strings.TrimSuffix(ref.Registry, ":1")
	}
	if err != nil || ref.Registry != host {
		return fmt.Errorf("%.100q is not a host", host)
	}
	return nil
}

func (s *Settings) mirrorsOf(registry string) []Mirror {
	return slices.DeleteFunc(slices.Clone(s.Mirrors), func(m Mirror) bool {
		return m.Registry != "*" && m.Registry != registry || m.Host == registry
	})
}

func (s *Settings) isInsecure(host string) bool {
	name, _, _ := strings.Cut(host, ":")
	return slices.Contains(s.Insecure, host) || slices.Contains(s.Insecure, name) && !strings.HasPrefix(host, "[")
}

// endpoint is the repository of ref on the mirror.
func (m Mirror) endpoint(ref reference.Reference, o Options) *endpoint {
	repository := ref.Repository
	if m.Prefix != "" {
		// the registry's port would end the repository
		repository = strings.ReplaceAll(m.Prefix, "{registry}", strings.ReplaceAll(strings.ToLower(ref.Registry), ":", "-")) + "/" + repository
	}
	e := newEndpoint(m.Host, repository, m.Host, m.Scheme, o)
	e.namespace = ref.Registry
	return e
}

func inHome(name string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, name)
}

// readSmall reads a plain file of at most most bytes.
func readSmall(name string, most int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, &fault.Error{Op: "read", On: name, Kind: fault.Invalid, Err: fmt.Errorf("it is no plain file of at most %d bytes", most)}
	}
	return os.ReadFile(name)
}
