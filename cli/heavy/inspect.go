package heavy

import (
	"context"
	"errors"

	"kiste/cli"
)

// inspect is "kiste inspect --format".
func inspect(_ context.Context, env *cli.Env, names []string, options any) error {
	o := options.(*cli.InspectOptions)
	found, err := o.Objects(names)
	if bad := Format(env.Out, o.Format, found); bad != nil {
		return errors.Join(bad, err)
	}
	return err
}
