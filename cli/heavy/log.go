package heavy

import (
	"compress/gzip"
	"context"
	"errors"
	"io"

	"kiste/cli"
)

// compress packs a full log: engine.CompressCommand.
func compress(_ context.Context, env *cli.Env, _ []string, _ any) error {
	w, err := gzip.NewWriterLevel(env.Out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, env.In)
	return errors.Join(err, w.Close())
}

// decompress unpacks it: engine.DecompressCommand.
func decompress(_ context.Context, env *cli.Env, _ []string, _ any) error {
	r, err := gzip.NewReader(env.In)
	if err != nil {
		return err
	}
	_, err = io.Copy(env.Out, r)
	return err
}
