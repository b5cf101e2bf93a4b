package files

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"kiste/engine"
	"kiste/fault"
	"kiste/image/compression"
	"kiste/image/layer"
	"kiste/internal/sys"
)

// ExportVolume writes what is in a volume as a tar.
func ExportVolume(e *engine.Engine, name string, w io.Writer) error {
	dir, err := volumeDir(e, name)
	if err != nil {
		return err
	}
	fd, err := sys.OpenAt(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		defer sys.Close(fd)
		err = packAt(w, fd)
	}
	if err != nil {
		return &fault.Error{Op: "export volume", On: name, Err: err}
	}
	return nil
}

func packAt(w io.Writer, fd int) error {
	st, err := sys.StatAt(fd, "")
	if err != nil {
		return err
	}
	p := layer.Pack(w)
	if err := packTree(p, fd, st, "."); err != nil {
		return err
	}
	return p.Close()
}

// ImportVolume unpacks a tar, compressed or not, into a volume. Inside is as in
// Options.
func ImportVolume(ctx context.Context, e *engine.Engine, name string, r io.Reader, inside bool) error {
	dir, err := volumeDir(e, name)
	if err != nil {
		return err
	}
	err = unpackAt(ctx, dir, r, layer.Options{Userxattr: inside})
	if err != nil {
		return &fault.Error{Op: "import volume", On: name, Err: err}
	}
	return nil
}

func unpackAt(ctx context.Context, dir string, r io.Reader, o layer.Options) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	plain, err := compression.Decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	_, err = layer.Extract(ctx, plain, int(root.Fd()), ".", o)
	return err
}

// volumeDir is where the files of a volume are: of one that is a directory of the
// host, that directory. What is only mounted in containers is nowhere.
func volumeDir(e *engine.Engine, name string) (string, error) {
	v, err := e.Volume(name)
	if err != nil {
		return "", err
	}
	dir, ok := v.Files()
	if !ok {
		return "", &fault.Error{Op: "open volume", On: name, Kind: fault.Unsupported, Err: errors.New("it is a " + v.Options["type"] + " that is mounted in containers only"), Hint: "kiste cp CONTAINER:PATH - copies from one that runs"}
	}
	return dir, nil
}
