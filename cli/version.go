package cli

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"

	"kiste/cli/option"
)

// Version is set by the linker: -X kiste/cli.Version=….
var Version = "development"

// versionJSON is what docker version knows of its two halves, which here are
// one program.
type versionJSON struct {
	Client programJSON
	Server serverJSON
}

type programJSON struct {
	Version, GitCommit, GoVersion, Os, Arch, Context string
}

type serverJSON struct {
	Platform                                struct{ Name string }
	Components                              []componentJSON
	Version, GitCommit, GoVersion, Os, Arch string
}

type componentJSON struct {
	Name, Version string
}

func versions() versionJSON {
	v := versionJSON{Client: programJSON{Version, commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH, "default"}}
	v.Server = serverJSON{Components: []componentJSON{{"Engine", Version}}, Version: Version, GitCommit: commit(), GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH}
	v.Server.Platform.Name = "Kiste"
	return v
}

// commit is the end of a version as git-describe(1) makes it, or all of one that
// is a commit.
func commit() string {
	v := strings.TrimSuffix(Version, "-dirty")
	if i := strings.LastIndex(v, "-g"); i >= 0 {
		v = v[i+2:]
	}
	if strings.Trim(v, "0123456789abcdef") != "" {
		return ""
	}
	return v
}

func versionCommand() *Command {
	var format string
	return &Command{
		Name:     "version",
		Short:    "show the version of this program",
		Long:     "Shows it in Docker's form: client and server, which are one here. \"kiste --version\" is one line.",
		Examples: []string{"kiste version --format '{{.Server.Version}}'"},
		Options:  []option.Row{{"-f, --format", "TEXT", `show it as TEXT says, or "json"`, option.String(&format)}},
		Run: func(_ context.Context, env *Env, _ []string) error {
			v := versions()
			if format != "" {
				return env.show(format, v)
			}
			_, err := io.WriteString(env.Out, v.text())
			return err
		},
	}
}

func (v *versionJSON) text() string {
	var b strings.Builder
	c, s := v.Client, v.Server
	fmt.Fprintf(&b, "Client:\n Version:           %s\n Go version:        %s\n", c.Version, c.GoVersion)
	if c.GitCommit != "" {
		fmt.Fprintf(&b, " Git commit:        %s\n", c.GitCommit)
	}
	fmt.Fprintf(&b, " OS/Arch:           %s/%s\n Context:           %s\n\nServer: %s\n Engine:\n  Version:          %s\n  Go version:       %s\n", c.Os, c.Arch, c.Context, s.Platform.Name, s.Version, s.GoVersion)
	if s.GitCommit != "" {
		fmt.Fprintf(&b, "  Git commit:       %s\n", s.GitCommit)
	}
	fmt.Fprintf(&b, "  OS/Arch:          %s/%s\n", s.Os, s.Arch)
	return b.String()
}

func shortVersionCommand() *Command {
	return &Command{
		Name:   "__version",
		Short:  "show the version of this program in one line",
		Hidden: true,
		Raw:    true,
		Run: func(_ context.Context, env *Env, _ []string) error {
			_, err := fmt.Fprintf(env.Out, "kiste %s (%s, %s/%s)\n", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
