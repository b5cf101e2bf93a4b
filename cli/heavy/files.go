package heavy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"kiste/cli"
	"kiste/engine"
	"kiste/engine/files"
	"kiste/fault"
	"kiste/internal/sys"
)

// insideEngine gives the engine where it can touch all files of containers: for
// an ordinary user done by a child in a user namespace, as for unpacker.
func insideEngine(env *cli.Env) (e *engine.Engine, done bool, err error) {
	s, _, done, err := unpacker(env)
	if done || err != nil {
		return nil, done, err
	}
	return &engine.Engine{Store: s}, false, s.Check()
}

// diff is "kiste diff".
func diff(_ context.Context, env *cli.Env, args []string, _ any) error {
	e, done, err := insideEngine(env)
	if done || err != nil {
		return err
	}
	changes, err := files.Diff(e, args[0])
	if err != nil {
		return err
	}
	out := bufio.NewWriter(env.Out)
	for _, c := range changes {
		fmt.Fprintf(out, "%c %s\n", c.Kind, c.Path)
	}
	return out.Flush()
}

// export is "kiste export".
func export(_ context.Context, env *cli.Env, args []string, options any) error {
	o := options.(*cli.ExportOptions)
	if o.Output == "" && sys.IsTerminal(env.Stdout) {
		return &fault.Error{Op: "export container", On: args[0], Kind: fault.Invalid, Err: errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")}
	}
	if err := checkOutput(o.Output); err != nil {
		return &fault.Error{Op: "export container", On: args[0], Err: err}
	}
	e, done, err := insideEngine(env)
	if done || err != nil {
		return err
	}
	return writeOutput(env, o.Output, func(w io.Writer) error { return files.Export(e, args[0], w) })
}

// checkOutput refuses a file that cannot be written, in Docker's words.
func checkOutput(path string) error {
	if path == "" {
		return nil
	}
	bad := func(format string, args ...any) error {
		return &fault.Error{Op: "write", On: path, Kind: fault.Invalid, Err: fmt.Errorf("invalid output path: "+format, args...)}
	}
	if dir := filepath.Dir(path); dir != "." {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return bad("directory %q does not exist", dir)
		}
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return bad("%q is a directory", path)
	case err == nil && !info.Mode().IsRegular():
		return bad("%q must be a directory or a regular file", path)
	}
	return nil
}

// writeOutput writes to standard output, or a file that is there when it is
// whole.
func writeOutput(env *cli.Env, path string, do func(io.Writer) error) error {
	if path == "" {
		out := bufio.NewWriterSize(env.Out, 64<<10)
		err := do(out)
		if err == nil {
			err = out.Flush()
		}
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(f, 64<<10)
	if err = do(out); err == nil {
		err = out.Flush()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
