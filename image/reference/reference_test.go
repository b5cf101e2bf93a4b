package reference_test

import (
	"errors"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/image/reference"
)

const (
	hex64  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	sha256 = "sha256:" + hex64
	sha512 = "sha512:" + hex64 + hex64
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in       string
		want     string // canonical; empty: Parse must refuse
		familiar string
	}{
		{"bare", "alpine", "docker.io/library/alpine:latest", "alpine:latest"},
		{"tag", "alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"},
		{"user", "ann/app", "docker.io/ann/app:latest", "ann/app:latest"},
		{"library said", "library/alpine", "docker.io/library/alpine:latest", "alpine:latest"},
		{"docker.io said", "docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"},
		{"old index", "index.docker.io/ann/app", "docker.io/ann/app:latest", "ann/app:latest"},
		{"port", "localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"},
		{"localhost", "localhost/app", "localhost/app:latest", "localhost/app:latest"},
		{"registry", "ghcr.io/a/b/c:1", "ghcr.io/a/b/c:1", "ghcr.io/a/b/c:1"},
		{"IPv4", "127.0.0.1:5000/a", "127.0.0.1:5000/a:latest", "127.0.0.1:5000/a:latest"},
		{"IPv6", "[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"},
		{"an upper-case first word is a host, as in Docker", "Host/app", "Host/app:latest", "Host/app:latest"},
		{"a word and a number are a name and a tag", "host:5000", "docker.io/library/host:5000", "host:5000"},
		{"digest wins over latest", "a@" + sha256, "docker.io/library/a@" + sha256, "a@" + sha256},
		{"tag and digest", "a:1@" + sha512, "docker.io/library/a:1@" + sha512, "a:1@" + sha512},
		{"separators", "a__b/c-----d/e.f_g", "docker.io/a__b/c-----d/e.f_g:latest", "a__b/c-----d/e.f_g:latest"},
		{"short hex is a name", "abcdef", "docker.io/library/abcdef:latest", "abcdef:latest"},
		{"a host below docker.io keeps docker.io", "docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"},
		{"longest tag", "a:" + strings.Repeat("t", 128), "docker.io/library/a:" + strings.Repeat("t", 128), "a:" + strings.Repeat("t", 128)},

		{"empty", "", "", ""},
		{"upper case", "Alpine", "", ""},
		{"upper case in the path", "ghcr.io/A/b", "", ""},
		{"an ID", hex64, "", ""},
		{"empty tag", "a:", "", ""},
		{"long tag", "a:" + strings.Repeat("t", 129), "", ""},
		{"tag with a leading dash", "a:-x", "", ""},
		{"empty component", "a//b", "", ""},
		{"slash at the end", "a/", "", ""},
		{"slash at the beginning", "/a", "", ""},
		{"three underscores", "a___b", "", ""},
		{"two dots", "a..b", "", ""},
		{"way up", "../../etc/passwd", "", ""},
		{"separator at the end", "a-", "", ""},
		{"long repository", strings.Repeat("a", 256), "", ""},
		{"long with library", strings.Repeat("a", 250), "", ""},
		{"short digest", "a@sha256:00", "", ""},
		{"long digest", "a@" + sha256 + "0", "", ""},
		{"upper-case digest", "a@sha256:" + strings.ToUpper(hex64), "", ""},
		{"other algorithm", "a@md5:d41d8cd98f00b204e9800998ecf8427e", "", ""},
		{"digest that is a path", "a@sha256:../../../../../../../../../../../../../../../../../../../../../x", "", ""},
		{"two digests", "a@" + sha256 + "@" + sha256, "", ""},
		{"port that is none", "localhost:99999999/a", "", ""},
		{"scheme", "https://ghcr.io/a", "", ""},
		{"white space", "a b", "", ""},
		{"zero byte", "a\x00b", "", ""},
		{"not ASCII", "ä", "", ""},
		{"Kelvin's sign, which is a k in lower case", "\u212aiste", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := reference.Parse(tt.in)
			if tt.want == "" {
				if !errors.Is(err, fault.Invalid) {
					t.Errorf("Parse(%q) = %v, %v; want it refused as invalid", tt.in, got, err)
				}
				return
			}
			if err != nil || got.String() != tt.want || got.Familiar() != tt.familiar {
				t.Errorf("Parse(%q) = %q (%q), %v; want %q (%q)", tt.in, got, got.Familiar(), err, tt.want, tt.familiar)
			}
		})
	}
}

func TestParseSaysWhatDockerSays(t *testing.T) {
	_, err := reference.Parse("Alpine")
	if err == nil || !strings.Contains(err.Error(), "repository name (Alpine) must be lowercase") || fault.HintOf(err) != "perhaps you mean alpine" {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
}

func TestParseSource(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     reference.Source // zero: refused
		text     string           // empty: as in
	}{
		{"a name", "alpine", reference.Source{Transport: reference.Docker, Ref: reference.Reference{Registry: "docker.io", Repository: "library/alpine", Tag: "latest"}}, "docker.io/library/alpine:latest"},
		{"docker", "docker://localhost:5000/a:1", reference.Source{Transport: reference.Docker, Ref: reference.Reference{Registry: "localhost:5000", Repository: "a", Tag: "1"}}, "localhost:5000/a:1"},
		{"docker with a transport's name", "docker://oci:1", reference.Source{Transport: reference.Docker, Ref: reference.Reference{Registry: "docker.io", Repository: "library/oci", Tag: "1"}}, "docker.io/library/oci:1"},
		{"docker with a host like a transport", "docker://dir:5000/a:1", reference.Source{Transport: reference.Docker, Ref: reference.Reference{Registry: "dir:5000", Repository: "a", Tag: "1"}}, ""},
		{"oci", "oci:/a/b", reference.Source{Transport: reference.OCI, Path: "/a/b"}, ""},
		{"oci with a tag", "oci:./b:1.0", reference.Source{Transport: reference.OCI, Path: "./b", Tag: "1.0"}, ""},
		{"oci with a name", "oci:b:docker.io/library/a:1", reference.Source{Transport: reference.OCI, Path: "b", Tag: "docker.io/library/a:1"}, ""},
		{"oci with a digest", "oci:b@" + sha256, reference.Source{Transport: reference.OCI, Path: "b", Tag: "@" + sha256}, ""},
		{"oci by number", "oci:b:@2", reference.Source{Transport: reference.OCI, Path: "b", Tag: "@2"}, ""},
		{"oci-archive", "oci-archive:a.tar:t", reference.Source{Transport: reference.OCIArchive, Path: "a.tar", Tag: "t"}, ""},
		{"docker-archive", "docker-archive:a.tar", reference.Source{Transport: reference.DockerArchive, Path: "a.tar"}, ""},
		{"docker-archive with a name", "docker-archive:a.tar:app", reference.Source{Transport: reference.DockerArchive, Path: "a.tar", Tag: "docker.io/library/app:latest"}, "docker-archive:a.tar:docker.io/library/app:latest"},
		{"docker-archive by number", "docker-archive:a.tar:@0", reference.Source{Transport: reference.DockerArchive, Path: "a.tar", Tag: "@0"}, ""},
		{"dir with colons", "dir:/a:b:c", reference.Source{Transport: reference.Dir, Path: "/a:b:c"}, ""},
		{"rootfs", "rootfs:/srv/root", reference.Source{Transport: reference.Rootfs, Path: "/srv/root"}, ""},
		{"embedded", "embedded:hello", reference.Source{Transport: reference.Embedded, Path: "hello"}, ""},

		{"nothing behind", "oci:", reference.Source{}, ""},
		{"unknown transport", "ftp://x/y", reference.Source{}, ""},
		{"bad digest", "oci:b@sha256:00", reference.Source{}, ""},
		{"tag and digest", "oci:b:t@" + sha256, reference.Source{}, ""},
		{"bad number", "docker-archive:a:@x", reference.Source{}, ""},
		{"bad name", "docker-archive:a:App", reference.Source{}, ""},
		{"bad tag", "oci:b:a b", reference.Source{}, ""},
		{"bad embedded", "embedded:../x", reference.Source{}, ""},
		{"zero byte", "dir:a\x00b", reference.Source{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := reference.ParseSource(tt.in)
			if got != tt.want || (err == nil) != (tt.want != reference.Source{}) {
				t.Fatalf("ParseSource(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
			}
			if err != nil {
				if !errors.Is(err, fault.Invalid) {
					t.Errorf("%v is not invalid", err)
				}
				return
			}
			text := tt.text
			if text == "" {
				text = tt.in
			}
			if got.String() != text {
				t.Errorf("String() = %q, want %q", got.String(), text)
			}
		})
	}
}

// What Parse accepts it must print so that Parse reads the same again, in both
// forms.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"ghcr.io/a/b:1.2@" + sha256, "0000:", "docker.io/docker.io/a", "localhost/a", "[::1]:5/a", "A/b", "index.docker.io/a.b/c", "0:0.."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := reference.Parse(s)
		if err != nil {
			return
		}
		for _, text := range []string{r.String(), r.Familiar()} {
			if again, err := reference.Parse(text); err != nil || again != r {
				t.Errorf("%q -> %+v -> %q -> %+v, %v", s, r, text, again, err)
			}
		}
		// A tag may have dots in a row, as in Docker's grammar, but neither
		// begin with one nor have a slash.
		if strings.Contains(r.Name(), "..") || strings.HasPrefix(r.Tag, ".") || strings.Contains(r.Tag, "/") || strings.ContainsAny(r.String(), " \x00\n") {
			t.Errorf("%q -> %q", s, r)
		}
	})
}

func FuzzParseSource(f *testing.F) {
	for _, s := range []string{"oci:a:b", "oci-archive:a@" + sha256, "docker-archive:f:app:1", "docker-archive:f:@1", "dir:a", "rootfs:x", "embedded:hello", "docker://oci:5/a", "oci:@sha256:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := reference.ParseSource(s)
		if err != nil {
			return
		}
		if again, err := reference.ParseSource(r.String()); err != nil || again != r {
			t.Errorf("%q -> %+v -> %q -> %+v, %v", s, r, r.String(), again, err)
		}
	})
}
