// Package heavy does the commands that need TLS, HTTP or compression. Package
// cli describes them; kisted links both.
//
//	takes    arguments and options that cli has parsed
//	gives    words, progress
//	touches  the store and the network, through package fetch
//	state    none
//
// An ordinary user's layers hold files of subordinate ids. So there a command
// that writes layers starts itself again in a user namespace: see inNamespace.
package heavy

import (
	"context"

	"kiste/cli"
	"kiste/engine"
	"kiste/engine/files"
	"kiste/engine/naming"
	"kiste/engine/proxying"
)

// Commands is the table of what kisted can do, for cli.Env's Heavy.
func Commands() map[string]func(ctx context.Context, env *cli.Env, args []string, options any) error {
	return map[string]func(ctx context.Context, env *cli.Env, args []string, options any) error{
		"pull":   pull,
		"import": importImage,
		"gc":     gc,

		"image prune":  imagePrune,
		"system prune": systemPrune,
		"inspect":      inspect,

		"generate systemd": generateSystemd,
		"generate quadlet": generateQuadlet,

		"compress":   compress,
		"decompress": decompress,

		engine.ConnectCommand: connect,

		"commit": commit,
		"cp":     cp,
		"diff":   diff,
		"export": export,
		"top":    top,

		"userstack": userStack,

		files.PauseCommand: pauseGroup,

		engine.Resolver.Command: service(naming.Serve),
		engine.Proxy.Command:    service(proxying.Serve),

		"volume inspect": volumeInspect,
		"volume export":  volumeExport,
		"volume import":  volumeImport,
	}
}
