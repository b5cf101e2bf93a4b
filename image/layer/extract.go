package layer

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// Extract unpacks the tar r, not compressed, into the directory dir below the
// root that the descriptor root stands for, in which others may be at work: no
// link leads out of the root, and what is there stays where the tar does not
// replace it. Whiteouts are names as any other. The directory itself keeps what
// it has, whatever the tar says of it. It reads r to its end.
//
// Errors are Apply's; after one a part is there.
func Extract(ctx context.Context, r io.Reader, root int, dir string, o Options) (Result, error) {
	o.Plain = true
	top, err := sys.OpenIn(root, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return Result{}, extractError(err)
	}
	here, err := sys.OpenIn(root, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		sys.Close(top)
		return Result{}, extractError(err)
	}
	a, err := newApplier(sys.FDPath(here), o)
	sys.Close(here)
	if err != nil {
		sys.Close(top)
		return Result{}, extractError(err)
	}
	sys.Close(a.root)
	a.root = top
	defer a.close()
	if a.below = inside(dir); a.below == "" {
		a.below = "."
	}
	limited := &limit{r: r, ctx: ctx, left: a.o.MaxSize, most: a.o.MaxSize, free: o.MaxSize == 0}
	if err := a.run(limited); err != nil {
		return Result{}, extractError(err)
	}
	if _, err := io.CopyBuffer(onlyWriter{io.Discard}, limited, a.buf); err != nil {
		return Result{}, extractError(err)
	}
	return a.result, nil
}

// extractError is unpackError of what is no layer.
func extractError(err error) error {
	var f *fault.Error
	if errors.As(unpackError(err), &f) {
		f.Op = "unpack tar"
		if f.Kind == fault.Invalid {
			f.Hint = ""
		}
		return f
	}
	return err
}
