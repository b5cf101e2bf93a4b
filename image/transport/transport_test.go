package transport_test

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"kiste/fault"
	"kiste/image/reference"
	"kiste/image/registry"
	"kiste/image/source"
	"kiste/image/source/sourcetest"
	"kiste/image/transport"
	"kiste/internal/need"
)

// One suite, one row for each transport. All but the first are written by
// skopeo.
func TestTransports(t *testing.T) {
	need.Program(t, "skopeo", "docker-registry")
	dir := t.TempDir()
	oci := filepath.Join(dir, "oci")
	sourcetest.Build(t, oci)
	host := sourcetest.Registry(t, "")
	one := "oci:" + oci + ":" + sourcetest.Tag
	for _, tt := range []struct {
		name string
		copy []string // skopeo's options and target
		open string
	}{
		{"oci", nil, one},
		{"oci index", nil, "oci:" + oci + ":" + sourcetest.Index},
		{"oci made by skopeo", []string{"oci:" + dir + "/oci2:t"}, "oci:" + dir + "/oci2:t"},
		{"oci-archive", []string{"oci-archive:" + dir + "/oci.tar:t"}, "oci-archive:" + dir + "/oci.tar"},
		{"docker-archive", []string{"docker-archive:" + dir + "/docker.tar:app:1"}, "docker-archive:" + dir + "/docker.tar:app:1"},
		{"docker-archive by number", nil, "docker-archive:" + dir + "/docker.tar:@0"},
		{"dir", []string{"dir:" + dir + "/flat"}, "dir:" + dir + "/flat"},
		{"dir as Docker has it", []string{"--format", "v2s2", "dir:" + dir + "/flat2"}, "dir:" + dir + "/flat2"},
		{"registry", []string{"--dest-tls-verify=false", "docker://" + host + "/team/app:1"}, host + "/team/app:1"},
		{"registry with zstd", []string{"--dest-tls-verify=false", "--dest-compress-format", "zstd", "docker://" + host + "/z:1"}, host + "/z:1"},
		{"registry with Docker's types", []string{"--dest-tls-verify=false", "--format", "v2s2", "docker://" + host + "/v2s2:1"}, host + "/v2s2:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.copy != nil {
				sourcetest.Skopeo(t, append([]string{"copy", "-q", one}, tt.copy...)...)
			}
			sourcetest.Suite(t, func(t *testing.T) source.Source { return open(t, tt.open) })
		})
	}
}

func TestIndexFromEveryPlaceThatKeepsIndexes(t *testing.T) {
	need.Program(t, "skopeo", "docker-registry")
	dir := t.TempDir()
	oci := filepath.Join(dir, "oci")
	sourcetest.Build(t, oci)
	host := sourcetest.Registry(t, "")
	many := "oci:" + oci + ":" + sourcetest.Index
	sourcetest.Skopeo(t, "copy", "-q", "--all", many, "dir:"+dir+"/flat")
	sourcetest.Skopeo(t, "copy", "-q", "--all", "--dest-tls-verify=false", many, "docker://"+host+"/many:1")
	sourcetest.Skopeo(t, "copy", "-q", "--all", many, "oci-archive:"+dir+"/many.tar:m")
	for _, from := range []string{many, "dir:" + dir + "/flat", host + "/many:1", "oci-archive:" + dir + "/many.tar:m"} {
		t.Run(from, func(t *testing.T) {
			s := open(t, from)
			defer s.Close()
			for _, platform := range []string{"linux/amd64", "linux/arm64", "arm64/v8", "aarch64"} {
				img, err := source.Resolve(context.Background(), s, source.Options{Platform: platform})
				if platform == "arm64/v8" {
					if !errors.Is(err, fault.NotFound) {
						t.Errorf("%q reads as the system arm64 and must not be found: %v", platform, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if img.Root.Digest == img.Manifest.Digest {
					t.Errorf("%s: the root must be the index", platform)
				}
				want := map[bool]string{true: "amd64", false: "arm64"}[platform == "linux/amd64"]
				if img.Platform.Architecture != want {
					t.Errorf("%s: got an image for %v", platform, img.Platform)
				}
			}
		})
	}
}

func TestCompressedArchives(t *testing.T) {
	need.Program(t, "skopeo")
	dir := t.TempDir()
	sourcetest.Build(t, dir+"/oci")
	sourcetest.Skopeo(t, "copy", "-q", "oci:"+dir+"/oci:"+sourcetest.Tag, "docker-archive:"+dir+"/a.tar:app:1")
	sourcetest.Skopeo(t, "copy", "-q", "oci:"+dir+"/oci:"+sourcetest.Tag, "oci-archive:"+dir+"/o.tar:t")
	for _, tt := range []struct{ program, ext string }{{"gzip", ".gz"}, {"bzip2", ".bz2"}, {"xz", ".xz"}, {"zstd", ".zst"}} {
		t.Run(tt.program, func(t *testing.T) {
			need.Program(t, tt.program)
			for _, name := range []string{"a.tar", "o.tar"} {
				compress(t, tt.program, filepath.Join(dir, name), filepath.Join(dir, name+tt.ext))
			}
			sourcetest.Suite(t, func(t *testing.T) source.Source { return open(t, "docker-archive:"+dir+"/a.tar"+tt.ext) })
			open(t, "oci-archive:"+dir+"/o.tar"+tt.ext+":t").Close()
		})
	}
	t.Run("a damaged one is refused", func(t *testing.T) {
		bad := dir + "/bad.tar.gz"
		f, err := os.Create(bad)
		if err != nil {
			t.Fatal(err)
		}
		z := gzip.NewWriter(f)
		io.WriteString(z, "this is no tar") //nolint:errcheck // a test's file
		z.Close()
		f.Close()
		if err := openError(t, "docker-archive:"+bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v, want it refused as invalid", err)
		}
	})
}

func compress(t *testing.T, program, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(program, "-c")
	cmd.Stdin, cmd.Stdout = in, out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, from string) source.Source {
	t.Helper()
	src, err := reference.ParseSource(from)
	if err != nil {
		t.Fatal(err)
	}
	s, err := transport.Open(context.Background(), src, transport.Options{Registry: registry.Options{Settings: &registry.Settings{}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openError(t *testing.T, from string) error {
	t.Helper()
	src, err := reference.ParseSource(from)
	if err != nil {
		return err
	}
	s, err := transport.Open(context.Background(), src, transport.Options{Registry: registry.Options{Settings: &registry.Settings{}}})
	if err == nil {
		s.Close()
	}
	return err
}

func TestOpenErrorsSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	sourcetest.Build(t, dir+"/oci")
	if err := os.WriteFile(dir+"/plain.tar", sourcetest.Tar(t, map[string][]byte{"etc/passwd": nil}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, from string
		want       fault.Kind
	}{
		{"no such directory", "oci:" + dir + "/nothing", fault.NotFound},
		{"no such tag", "oci:" + dir + "/oci:nothing", fault.NotFound},
		{"two images and no tag", "oci:" + dir + "/oci", fault.Invalid},
		{"a directory that is no layout", "oci:" + dir, fault.Invalid},
		{"a file that is no layout", "oci:" + dir + "/plain.tar", fault.Invalid},
		{"a tar that is no image", "docker-archive:" + dir + "/plain.tar", fault.Invalid},
		{"a directory that is no archive", "docker-archive:" + dir, fault.Invalid},
		{"a directory that is no flat image", "dir:" + dir, fault.NotFound},
		{"a root file system", "rootfs:/", fault.Unsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := openError(t, tt.from); fault.KindOf(err) != tt.want {
				t.Errorf("got %v (%s), want %s", err, fault.KindOf(err), tt.want)
			} else {
				t.Logf("%v\n  hint: %s", err, fault.HintOf(err))
			}
		})
	}
}
