package heavy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"kiste/cli"
	"kiste/engine"
	"kiste/engine/files"
	"kiste/fault"
	"kiste/image/reference"
	"kiste/internal/sys"
	"kiste/store"
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
	if err := checkFile(o.Output); err != nil {
		return err
	}
	e, done, err := insideEngine(env)
	if done || err != nil {
		return err
	}
	return writeOutput(env, o.Output, func(w io.Writer) error { return files.Export(e, args[0], w) })
}

// checkFile refuses what no file can be written to; nothing is standard output.
func checkFile(path string) error {
	if path == "" {
		return nil
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return &fault.Error{Op: "write", On: path, Kind: fault.Invalid, Err: errors.New("invalid output path: it is a directory")}
	}
	return files.CheckOutput(path)
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

// rootVariable says to the child that it has the root of a container as
// descriptor 4.
const rootVariable = "KISTE_ROOT"

// cp is "kiste cp".
func cp(ctx context.Context, env *cli.Env, args []string, options any) error {
	o := options.(*cli.CopyOptions)
	inContainer, inPath := files.SplitArg(args[0])
	outContainer, outPath := files.SplitArg(args[1])
	refuse := func(why string) error {
		return &fault.Error{Op: "copy", On: args[0], Kind: fault.Invalid, Err: errors.New(why)}
	}
	switch {
	case inContainer != "" && outContainer != "":
		return refuse("copying between containers is not supported")
	case inContainer == "" && outContainer == "":
		return refuse("must specify at least one container source")
	}
	c := files.CopyOptions{Follow: o.Follow, Archive: o.Archive, Path: inPath, Host: outPath}
	name, stream := inContainer, env.Stdout
	if outContainer != "" {
		c.Path, c.Host, name, stream = outPath, inPath, outContainer, env.In
	}
	if c.Path == "" || c.Host == "" {
		return refuse("source and destination paths cannot be empty")
	}
	if c.Host == "-" {
		c.Stream = stream
	}
	e, done, err := containerEngine(env, name, &c.Options)
	if done || err != nil {
		return err
	}
	copying, where := files.CopyOut, outPath
	if outContainer != "" {
		copying, where = files.CopyIn, args[1]
	}
	n, err := copying(ctx, e, name, c)
	if err == nil && c.Stream == nil && !o.Quiet && sys.IsTerminal(env.Stdout) {
		fmt.Fprintf(env.Err, "Successfully copied %s to %s\n", cli.DecimalSize(n), where)
	}
	return err
}

// containerEngine is insideEngine for who works on the files of a container,
// which may be running: a user namespace that is not the container's own may not
// open its root, so that is done before.
func containerEngine(env *cli.Env, name string, o *files.Options) (e *engine.Engine, done bool, err error) {
	e = &engine.Engine{Store: store.Locate()}
	if os.Geteuid() != 0 && os.Getenv(insideVariable) == "" {
		if err := e.Store.Check(); err != nil {
			return nil, false, err
		}
		root, err := files.RootOf(e, name)
		if err != nil {
			return nil, false, err
		}
		return nil, true, inNamespace(env, e.Store, root)
	}
	o.Inside = os.Getenv(insideVariable) != ""
	if os.Getenv(rootVariable) != "" {
		o.Root = os.NewFile(4, "root")
	}
	e, _, err = insideEngine(env)
	return e, false, err
}

// commit is "kiste commit".
func commit(ctx context.Context, env *cli.Env, args []string, options any) error {
	o := options.(*cli.CommitOptions)
	c := files.CommitOptions{Changes: o.Changes, Author: o.Author, Message: o.Message, Pause: o.Pause}
	if len(args) == 2 {
		var err error
		if c.Name, err = newName(args[1]); err != nil {
			return err
		}
	}
	s, how, done, err := unpacker(env)
	if done || err != nil {
		return err
	}
	if err := s.Check(); err != nil {
		return err
	}
	c.Layer = how
	made, err := files.Commit(ctx, &engine.Engine{Store: s}, args[0], c)
	if err == nil {
		fmt.Fprintln(env.Out, made.ID)
	}
	return err
}

// newName is the canonical form of a name for an image that is made here.
func newName(arg string) (string, error) {
	ref, err := reference.Parse(arg)
	if err == nil && ref.Digest != "" {
		err = &fault.Error{Op: "name image", On: arg, Kind: fault.Invalid, Err: errors.New("a digest cannot be given")}
	}
	return ref.String(), err
}

// pauseGroup helps commit: see files.Pause. What it cannot do it says where commit
// reads it.
func pauseGroup(_ context.Context, env *cli.Env, args []string, _ any) error {
	signal.Ignore(syscall.SIGPIPE) // who is killed does not read what is said, and the group is to go on
	err := files.Pause(args[0], env.In, env.Out)
	if err != nil {
		fmt.Fprintln(env.Out, err)
	}
	return err
}
