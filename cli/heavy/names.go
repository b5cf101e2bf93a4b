package heavy

import (
	"context"

	"kiste/cli"
	"kiste/engine"
	"kiste/engine/naming"
	"kiste/store"
)

// resolveNames becomes the resolver of the store.
func resolveNames(ctx context.Context, _ *cli.Env, _ []string, _ any) error {
	return naming.Serve(ctx, &engine.Engine{Store: store.Locate()})
}
