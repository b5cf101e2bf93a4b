package reference

import (
	"fmt"
	"strings"

	"kiste/fault"
)

// A Transport says how an image, or a root file system, is reached.
type Transport string

// The transports, in skopeo's words where skopeo has them
// (containers-transports(5)).
const (
	Docker        Transport = "docker"         // a registry: [docker://]NAME
	OCI           Transport = "oci"            // an OCI layout: oci:DIR[:TAG|@DIGEST]
	OCIArchive    Transport = "oci-archive"    // the same in a tar: oci-archive:FILE[:TAG|@DIGEST]
	DockerArchive Transport = "docker-archive" // what "docker save" writes: docker-archive:FILE[:NAME|:@N]
	Dir           Transport = "dir"            // a flat directory: dir:DIR
	Rootfs        Transport = "rootfs"         // a plain root file system, directory or tar: rootfs:PATH
	Embedded      Transport = "embedded"       // an image inside Kiste itself: embedded:hello
)

// A Source says where an image comes from. Two equal Sources are the same.
type Source struct {
	Transport Transport
	Ref       Reference // Docker only
	Path      string    // all but Docker; for Embedded the image's name
	Tag       string    // which image of OCI, OCIArchive and DockerArchive: a tag or name, "@DIGEST", "@N"; empty: the only one
}

// ParseSource reads TRANSPORT:WHERE; without a transport it is a name in a
// registry. An image whose name is a transport's word ("oci:1") is written
// with docker:// before it. A bad one is fault.Invalid.
func ParseSource(s string) (Source, error) {
	if name, ok := strings.CutPrefix(s, "docker://"); ok {
		return parseDocker(name)
	}
	word, rest, ok := strings.Cut(s, ":")
	if !ok {
		return parseDocker(s)
	}
	src, err := Source{}, error(nil)
	switch t := Transport(word); t {
	case OCI, OCIArchive:
		src, err = parseTagged(t, rest)
	case DockerArchive:
		src, err = parseDockerArchive(rest)
	case Dir, Rootfs:
		src = Source{Transport: t, Path: rest}
	case Embedded:
		src, err = parseEmbedded(rest)
	default:
		if strings.HasPrefix(rest, "//") {
			return Source{}, bad(s, fmt.Errorf("transport %q is not known", word))
		}
		return parseDocker(s)
	}
	if err == nil && src.Path == "" {
		err = fmt.Errorf("nothing stands behind %q", word+":")
	}
	if err == nil && strings.ContainsRune(s, 0) {
		err = fmt.Errorf("a path has no zero byte")
	}
	if err != nil {
		return Source{}, bad(s, err)
	}
	return src, nil
}

func bad(s string, err error) error {
	return &fault.Error{Op: "read image source", On: s, Kind: fault.Invalid, Err: err,
		Hint: "write docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], dir:DIR, rootfs:PATH or embedded:NAME"}
}

func parseDocker(s string) (Source, error) {
	ref, err := Parse(s)
	if err != nil {
		return Source{}, err
	}
	return Source{Transport: Docker, Ref: ref}, nil
}

// parseTagged reads PATH[:TAG] or PATH@DIGEST. As in skopeo the path ends at
// its first colon, since a tag of a layout may be a whole name with more.
func parseTagged(t Transport, s string) (Source, error) {
	if path, digest, ok := cutDigest(s); ok {
		if strings.Contains(path, ":") {
			return Source{}, fmt.Errorf("a tag or a digest chooses the image, not both")
		}
		return Source{Transport: t, Path: path, Tag: "@" + digest}, CheckDigest(digest)
	}
	path, tag, hasTag := strings.Cut(s, ":")
	if hasTag && !validRefName(tag) {
		return Source{}, fmt.Errorf("the tag (%s) is not valid", tag)
	}
	return Source{Transport: t, Path: path, Tag: tag}, nil
}

// cutDigest cuts "@sha256:…" or "@sha512:…" off the end of s.
func cutDigest(s string) (path, digest string, ok bool) {
	for _, algorithm := range [...]string{"@sha256:", "@sha512:"} {
		if i := strings.LastIndex(s, algorithm); i >= 0 {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// validRefName accepts the characters of an org.opencontainers.image.ref.name
// (image-spec, annotations), and "@N", the Nth image of the index.
func validRefName(s string) bool {
	if n, ok := strings.CutPrefix(s, "@"); ok {
		return validIndex(n)
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && strings.IndexByte("-._:@/+", c) < 0 {
			return false
		}
	}
	return s != ""
}

func validIndex(s string) bool { return len(s) <= 5 && validPort(s) }

// parseDockerArchive reads FILE[:NAME[:TAG]|:@N]. The name becomes canonical.
func parseDockerArchive(s string) (Source, error) {
	path, name, hasName := strings.Cut(s, ":")
	src := Source{Transport: DockerArchive, Path: path, Tag: name}
	switch n, isIndex := strings.CutPrefix(name, "@"); {
	case !hasName:
		return src, nil
	case isIndex && validIndex(n):
		return src, nil
	case isIndex:
		return src, fmt.Errorf("%q is not the number of an image", name)
	}
	ref, err := parse(name)
	src.Tag = ref.String()
	return src, err
}

func parseEmbedded(name string) (Source, error) {
	if !validComponent(name) {
		return Source{}, fmt.Errorf("%q is no name of an embedded image", name)
	}
	return Source{Transport: Embedded, Path: name}, nil
}

// String is what ParseSource reads as the same Source.
func (s Source) String() string {
	if s.Transport == Docker {
		return s.dockerString()
	}
	text := string(s.Transport) + ":" + s.Path
	switch {
	case s.Tag == "":
		return text
	case strings.HasPrefix(s.Tag, "@sha") && s.Transport != DockerArchive:
		return text + s.Tag
	}
	return text + ":" + s.Tag
}

// dockerString has docker:// only where the registry is called like another
// transport ("oci:5000/app").
func (s Source) dockerString() string {
	name := s.Ref.String()
	if again, err := ParseSource(name); err != nil || again != s {
		return "docker://" + name
	}
	return name
}
