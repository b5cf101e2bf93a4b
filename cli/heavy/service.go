package heavy

import (
	"context"

	"kiste/cli"
	"kiste/engine"
	"kiste/store"
)

// service becomes a service of the store.
func service(serve func(context.Context, *engine.Engine) error) func(context.Context, *cli.Env, []string, any) error {
	return func(ctx context.Context, _ *cli.Env, _ []string, _ any) error {
		return serve(ctx, &engine.Engine{Store: store.Locate()})
	}
}
