package cli

import (
	"context"
	"fmt"
	"runtime"
)

// Version is set by the linker: -X kiste/cli.Version=….
var Version = "development"

func versionCommand() *Command {
	return &Command{
		Name:  "version",
		Short: "show the version of this program",
		Run: func(_ context.Context, env *Env, _ []string) error {
			fmt.Fprintf(env.Out, "kiste %s (%s, %s/%s)\n", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
