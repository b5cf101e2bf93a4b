package files

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"kiste/container/bundle"
	"kiste/engine"
	"kiste/engine/fetch"
	"kiste/image/catalog"
	"kiste/image/layer"
	"kiste/image/snapshot"
	"kiste/internal/sys"
)

// CommitOptions say how to commit. The zero value does not pause.
type CommitOptions struct {
	Name    string   // of the new image, canonical; empty: none
	Changes []string // Dockerfile instructions
	Author  string
	Message string
	Pause   bool // nothing in the container runs meanwhile
	Layer   layer.Options
}

// Commit makes an image of what a container has changed, on the image that it is
// of. A container that has no image, but a directory, gives one of all its files.
func Commit(ctx context.Context, e *engine.Engine, query string, o CommitOptions) (catalog.Entry, error) {
	c, err := e.Find(query)
	if err != nil {
		return catalog.Entry{}, err
	}
	write := func(w io.Writer) error { return packAll(e, c, w) }
	if c.ImageID != "" {
		upper, _, err := e.Stack(c)
		if err != nil {
			return catalog.Entry{}, err
		}
		write = func(w io.Writer) error { return packChanges(upper, w) }
	}
	if o.Pause {
		thaw, err := pause(c)
		if err != nil {
			return catalog.Entry{}, err
		}
		defer thaw()
	}
	var made catalog.Entry
	_, err = across(write, func(r io.Reader) error {
		made, err = fetch.Commit(ctx, e.Store, r, fetch.CommitOptions{Name: o.Name, Parent: c.ImageID, Config: configOf(c), Changes: o.Changes,
			Author: o.Author, Message: o.Message, Container: c.ID, Layer: o.Layer})
		return err
	})
	if err != nil {
		return catalog.Entry{}, err
	}
	e.Emit("commit", c, map[string]string{"comment": o.Message, "imageID": made.ID, "imageRef": made.Name})
	return made, nil
}

// configOf is a container's config, as its image's words.
func configOf(c *engine.Container) catalog.Config {
	j := c.JSON().Config
	config := catalog.Config{Entrypoint: j.Entrypoint, Cmd: j.Cmd, Env: j.Env, User: j.User, WorkingDir: j.WorkingDir, Volumes: j.Volumes,
		ExposedPorts: j.ExposedPorts, StopSignal: j.StopSignal, Labels: j.Labels, Shell: j.Shell, Healthcheck: health(j.Healthcheck)}
	return config
}

func health(h *bundle.Healthcheck) *catalog.Healthcheck {
	if h == nil {
		return nil
	}
	return &catalog.Healthcheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries}
}

// packAll writes all files of a container.
func packAll(e *engine.Engine, c *engine.Container, w io.Writer) error {
	dirs, err := rootDirs(e, c)
	if err != nil {
		return err
	}
	p := layer.Pack(w)
	if err := snapshot.Walk(dirs, func(f snapshot.File) error { return p.Add(f.Path, f.FD, f.Stat) }); err != nil {
		return err
	}
	return p.Close()
}

// packChanges writes an upper directory of overlayfs as a layer of an image:
// whiteouts as files with their names (image-spec, layer.md).
func packChanges(upper string, w io.Writer) error {
	fd, err := sys.OpenAt(unix.AT_FDCWD, upper, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	p := layer.Pack(w)
	if err := packUpper(p, fd, ""); err != nil {
		return err
	}
	return p.Close()
}

func packUpper(p *layer.Packer, dir int, name string) error {
	if len(name) > unix.PathMax {
		return &fs.PathError{Op: "read", Path: name[:64] + "…", Err: unix.ENAMETOOLONG}
	}
	names, err := list(dir)
	if err != nil {
		return err
	}
	for _, base := range names {
		fd, err := sys.OpenAt(dir, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone this moment
		}
		if err != nil {
			return err
		}
		err = packOne(p, fd, path.Join(name, base))
		sys.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func packOne(p *layer.Packer, fd int, name string) error {
	st, err := sys.StatAt(fd, "")
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		return p.Whiteout(name)
	}
	if err := snapshot.RefuseHalf(fd, name); err != nil {
		return err
	}
	if err := p.Add(name, fd, st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	if snapshot.Opaque(fd) {
		if err := p.Opaque(name); err != nil {
			return err
		}
	}
	return packUpper(p, fd, name)
}
