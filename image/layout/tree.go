package layout

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// A dirTree is a directory that is held open.
type dirTree struct{ dir *os.File }

func openTree(dir string) (*dirTree, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	info, err := d.Stat()
	if err == nil && !info.IsDir() {
		err = &fault.Error{Op: "open directory", On: dir, Kind: fault.Invalid, Err: fmt.Errorf("it is a file"),
			Hint: "an archive is oci-archive:FILE or docker-archive:FILE"}
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return &dirTree{d}, nil
}

// Open opens without waiting, so that a FIFO in a blob's place does no harm.
func (t *dirTree) Open(name string) (io.ReadSeekCloser, int64, error) {
	fd, err := sys.OpenIn(int(t.dir.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, err
	}
	f := os.NewFile(uintptr(fd), name)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fault.Error{Op: "open", On: name, Kind: fault.Invalid, Err: fmt.Errorf("it is no plain file")}
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func (t *dirTree) Close() error { return t.dir.Close() }
