package cli

import (
	"fmt"
	"slices"
	"strings"

	"kiste/cli/option"
)

// PullOptions are the options of "kiste pull".
type PullOptions struct {
	Platform string
	AllTags  bool
	Policy   string
	Quiet    bool
	JSON     bool
	Jobs     int64
	AuthFile string
}

func pullCommand() *Command {
	o := &PullOptions{Policy: "always"}
	return &Command{
		Name:  "pull",
		Args:  "IMAGE|TRANSPORT:PATH",
		Short: "fetch an image and unpack its layers",
		Long: `Fetches IMAGE, named as for Docker, from its registry. Layers are unpacked while they are downloaded; those that are here are not fetched again, and a download that was cut off goes on where it ended.

An image may also come from elsewhere:
  docker://NAME             a registry, as without it
  oci:DIR[:TAG]             an OCI layout in a directory
  oci-archive:FILE[:TAG]    the same in a tar
  docker-archive:FILE[:TAG] what "docker save" writes
  dir:DIR                   skopeo's flat directory
  rootfs:FILE               a tar of a root file system, in any compression

A registry is spoken to by HTTPS, with a certificate that somebody this host trusts has signed. This very host, which is localhost, 127.0.0.0/8 and ::1, needs neither. Any other registry that has none is to be named in registries.conf, which is in ~/.config/kiste and in /etc/kiste:
  insecure HOST[:PORT]      it may do without TLS, or with any certificate
  mirror REGISTRY URL       try this one before; * is every registry
Better than to call it insecure is to trust who signed its certificate: /etc/docker/certs.d/HOST:PORT/ca.crt. $KISTE_REGISTRY_MIRROR names mirrors for every registry. Credentials are those of "docker login" and "podman login".`,
		Examples: []string{"kiste pull debian:12", "kiste pull -a localhost:5000/app", "kiste pull --platform linux/arm64 alpine", "kiste pull oci-archive:app.tar:latest"},
		Options: []option.Row{
			{"--platform", "OS/ARCH[/VARIANT]", "fetch the image for this platform", option.String(&o.Platform)},
			{"-a, --all-tags", "", "fetch every image of the repository", option.Bool(&o.AllTags)},
			{"--policy", "POLICY", "always ask the registry, only when the image is missing, or never", oneOf(&o.Policy, "always", "missing", "never")},
			{"-q, --quiet", "", "show the image's name only", option.Bool(&o.Quiet)},
			{"--json", "", "show progress as lines of JSON", option.Bool(&o.JSON)},
			{"--jobs", "N", "fetch at most N layers at once", option.Int(&o.Jobs)},
			{"--authfile", "FILE", "look for credentials in FILE first", option.String(&o.AuthFile)},
		},
		Min: 1, Max: 1,
		Complete: "image",
		Heavy:    "pull", HeavyOptions: o,
	}
}

// ImportOptions are the options of "kiste import".
type ImportOptions struct {
	Changes  []string
	Message  string
	Platform string
}

func importCommand() *Command {
	o := &ImportOptions{}
	return &Command{
		Name:  "import",
		Args:  "FILE|URL|- [NAME[:TAG]]",
		Short: "make an image of a root file system's tar",
		Long:  `Makes an image of one layer of a tar, plain or compressed by gzip, zstd, bzip2 or xz, and shows its ID. With "-" the tar is read from standard input.`,
		Examples: []string{
			"kiste import rootfs.tar.xz debian:mine",
			"mmdebstrap --variant=minbase stable - | kiste import -c 'CMD bash' - debian:mine",
		},
		Options: []option.Row{
			{"-c, --change", "INSTRUCTION", "apply a Dockerfile instruction to the image: CMD, ENV, USER …", option.Strings(&o.Changes)},
			{"-m, --message", "TEXT", "say in the image's history what it is", option.String(&o.Message)},
			{"--platform", "OS/ARCH[/VARIANT]", "say that the image is for this platform", option.String(&o.Platform)},
		},
		Min: 1, Max: 2,
		Complete: "file",
		Heavy:    "import", HeavyOptions: o,
	}
}

func gcCommand() *Command {
	return &Command{
		Name:  "gc",
		Short: "free the space that no image and no container needs",
		Long:  "Removes layers, blobs and images that no name and no container needs, and what was left by pulls that ended early and by containers whose kiste was killed. It never removes what is in use.",
		Heavy: "gc",
	}
}

// oneOf takes one of words.
func oneOf(p *string, words ...string) option.Var {
	return func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("want one of %s", strings.Join(words, ", "))
		}
		*p = s
		return nil
	}
}
