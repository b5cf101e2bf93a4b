package heavy

import (
	"context"
	"errors"
	"io"
	"os"

	"kiste/cli"
	"kiste/engine/files"
	"kiste/fault"
	"kiste/internal/sys"
)

// volumeInspect is "kiste volume inspect --format".
func volumeInspect(_ context.Context, env *cli.Env, names []string, options any) error {
	o := options.(*cli.VolumeInspectOptions)
	found, err := o.Objects(names)
	if bad := Format(env.Out, o.Format, found); bad != nil {
		return errors.Join(bad, err)
	}
	return err
}

// volumeExport is "kiste volume export".
func volumeExport(_ context.Context, env *cli.Env, args []string, options any) error {
	o := options.(*cli.VolumeExportOptions)
	if o.Output == "" && sys.IsTerminal(env.Stdout) {
		return &fault.Error{Op: "export volume", On: args[0], Kind: fault.Invalid, Err: errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")}
	}
	if err := checkFile(o.Output); err != nil {
		return err
	}
	e, done, err := insideEngine(env)
	if done || err != nil {
		return err
	}
	return writeOutput(env, o.Output, func(w io.Writer) error { return files.ExportVolume(e, args[0], w) })
}

// volumeImport is "kiste volume import".
func volumeImport(ctx context.Context, env *cli.Env, args []string, _ any) error {
	e, done, err := insideEngine(env)
	if done || err != nil {
		return err
	}
	in := env.In
	if len(args) == 2 && args[1] != "-" {
		if in, err = os.Open(args[1]); err != nil {
			return &fault.Error{Op: "import volume", On: args[0], Err: err}
		}
		defer in.Close()
	}
	if sys.IsTerminal(in) {
		return &fault.Error{Op: "import volume", On: args[0], Kind: fault.Invalid, Err: errors.New("standard input is a terminal"), Hint: "pipe a tar into it: … | kiste volume import " + args[0]}
	}
	return files.ImportVolume(ctx, e, args[0], in, os.Getenv(insideVariable) != "")
}
