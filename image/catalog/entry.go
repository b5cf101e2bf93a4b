package catalog

import (
	"path/filepath"
	"strings"
	"time"

	"kiste/image/reference"
)

// Schema is the version of the documents that this program writes. A document
// of a later schema is refused.
const Schema = 1

// An Entry is one name of an image, with all that a start of a container
// needs.
type Entry struct {
	Schema   int       `json:"schema"`
	Name     string    `json:"name,omitempty"`   // canonical: "docker.io/library/debian:12"; empty: no name is left
	ID       string    `json:"id"`               // the digest of the config: Docker's IMAGE ID
	Manifest string    `json:"manifest"`         // its digest
	Root     string    `json:"root,omitempty"`   // the digest that the name stood for: of the manifest, or of an index
	Source   string    `json:"source,omitempty"` // where it came from, as reference.ParseSource reads it
	Platform string    `json:"platform"`         // "linux/amd64"
	DiffIDs  []string  `json:"diffIDs"`          // the lowest layer first
	Layers   []string  `json:"layers"`           // the keys of the unpacked layers for package snapshot, the lowest first
	Blobs    []Blob    `json:"blobs"`            // the layers as they came, the lowest first
	Size     int64     `json:"size"`             // unpacked, in bytes
	Created  time.Time `json:"created"`
	Pulled   time.Time `json:"pulled"`
	Config   Config    `json:"config"`
}

// A Blob is a layer as it was fetched.
type Blob struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType,omitempty"`
}

// A Config is how an image wishes to be run (image-spec, config.md, and
// Docker's additions), in the words of its own JSON.
type Config struct {
	Architecture string              `json:"architecture,omitempty"`
	OS           string              `json:"os,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	User         string              `json:"User,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	OnBuild      []string            `json:"OnBuild,omitempty"`
	Shell        []string            `json:"Shell,omitempty"`
	Healthcheck  *Healthcheck        `json:"Healthcheck,omitempty"`
}

// A Healthcheck is how an image wants to be asked whether it is well.
type Healthcheck struct {
	Test          []string      `json:"Test,omitempty"`
	Interval      time.Duration `json:"Interval,omitempty"`
	Timeout       time.Duration `json:"Timeout,omitempty"`
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`
	StartInterval time.Duration `json:"StartInterval,omitempty"`
	Retries       int           `json:"Retries,omitempty"`
}

// ShortID is the first 12 digits of the ID, as "kiste images" shows it.
func (e *Entry) ShortID() string { return short(e.ID) }

func short(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(12, len(hex))]
}

// Repository and Tag are the two halves of the name; of an entry without a
// name, and of one named by digest alone, the missing half is empty.
func (e *Entry) Repository() string { repository, _ := e.split(); return repository }

// Tag is the tag of the name, or "".
func (e *Entry) Tag() string { _, tag := e.split(); return tag }

func (e *Entry) split() (repository, tag string) {
	name, _, _ := strings.Cut(e.Name, "@")
	slash := strings.LastIndexByte(name, '/')
	if colon := strings.LastIndexByte(name, ':'); colon > slash {
		return name[:colon], name[colon+1:]
	}
	return name, ""
}

// NameOf is the canonical name that an image of src gets here: a registry's
// own; that of an archive's or layout's tag, where it is a whole name; else
// localhost/FILE:TAG. It may be empty.
func NameOf(src reference.Source) string {
	if src.Transport == reference.Docker {
		return src.Ref.String()
	}
	tag := src.Tag
	if strings.ContainsAny(tag, "/:") && !strings.HasPrefix(tag, "@") {
		if ref, err := reference.Parse(tag); err == nil {
			return ref.String()
		}
	}
	if tag == "" || strings.HasPrefix(tag, "@") {
		tag = "latest"
	}
	base := filepath.Base(src.Path)
	for _, end := range [...]string{".gz", ".xz", ".zst", ".bz2", ".tgz", ".tar", ".oci"} {
		base = strings.TrimSuffix(base, end)
	}
	ref, err := reference.Parse("localhost/" + strings.ToLower(base) + ":" + tag)
	if err != nil {
		return ""
	}
	return ref.String()
}
