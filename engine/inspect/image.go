package inspect

import (
	"time"

	"kiste/container/bundle"
)

// An Image is what the engine knows of one.
type Image struct {
	ID      string   // "sha256:…" of its config
	Tags    []string // "docker.io/library/debian:12", as people write them
	Digests []string // "debian@sha256:…"
	Created time.Time
	Tagged  time.Time
	Author  string
	Comment string
	Variant string
	Size    int64    // bytes unpacked
	Layers  []string // DiffIDs, the lowest first
	Driver  string
	Graph   map[string]string // where its layers lie
	Config  bundle.ImageConfig
}

// ImageJSON is an image as GET /images/{name}/json answers.
type ImageJSON struct {
	ID            string `json:"Id"`
	RepoTags      []string
	RepoDigests   []string
	Parent        string
	Comment       string
	Created       string
	DockerVersion string
	Author        string
	Config        ConfigJSON
	Architecture  string
	Variant       string `json:",omitempty"`
	OS            string `json:"Os"`
	Size          int64
	GraphDriver   GraphDriverJSON
	RootFS        RootFSJSON
	Metadata      MetadataJSON
}

// RootFSJSON is Docker's RootFS.
type RootFSJSON struct {
	Type   string
	Layers []string `json:",omitempty"`
}

// MetadataJSON is Docker's Metadata.
type MetadataJSON struct{ LastTagTime string }

// JSON is i in Docker's shape.
func (i *Image) JSON() ImageJSON {
	c := i.Config
	return ImageJSON{
		ID: i.ID, RepoTags: list(i.Tags), RepoDigests: list(i.Digests), Comment: i.Comment, Created: Stamp(i.Created), Author: i.Author,
		Config: ConfigJSON{
			User: c.User, ExposedPorts: c.ExposedPorts, Env: c.Env, Cmd: c.Cmd, Healthcheck: c.Healthcheck, Volumes: c.Volumes,
			WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, Labels: c.Labels, StopSignal: c.StopSignal, Shell: c.Shell,
		},
		Architecture: c.Architecture, Variant: i.Variant, OS: c.OS, Size: i.Size, GraphDriver: GraphDriverJSON{Name: i.Driver, Data: i.Graph},
		RootFS: RootFSJSON{Type: "layers", Layers: i.Layers}, Metadata: MetadataJSON{Stamp(i.Tagged)},
	}
}
