// Package files does what concerns the files of containers and volumes: what has
// changed, all of them as a tar, copies in and out, an image made of them.
//
//	takes    a store, containers, tars, paths
//	gives    changes, tars, files, images
//	touches  the store, below descriptors of roots; of an ordinary user's files a
//	         process in a user namespace
//	state    none
//
// Images and containers are hostile. What is in a root is found by openat2(2)
// with RESOLVE_IN_ROOT and handled by descriptor, so that no link leads out and
// nobody can exchange what was looked at; nothing but plain files is opened, and
// every name is bounded.
//
// It needs archive/tar, which kiste does not link: kisted does these verbs.
package files

import (
	"io"

	"kiste/engine"
	"kiste/fault"
	"kiste/image/snapshot"
)

// Diff tells what a container has changed of its image, in snapshot.Changes's
// order. It runs as root, perhaps of the user namespace that an ordinary user's
// files belong to, as all of this package.
func Diff(e *engine.Engine, query string) ([]snapshot.Change, error) {
	c, err := e.Find(query)
	if err != nil {
		return nil, err
	}
	upper, lower, err := e.Stack(c)
	if err != nil {
		return nil, err
	}
	changes, err := snapshot.Changes(upper, lower)
	if err != nil {
		return nil, &fault.Error{Op: "compare files of container", On: c.Name, Err: err}
	}
	return changes, nil
}

// Export writes the root file system of a container as a tar: its own files,
// without those of its mounts, of which there are the mount points.
func Export(e *engine.Engine, query string, w io.Writer) error {
	c, err := e.Find(query)
	if err != nil {
		return err
	}
	err = packAll(e, c, w)
	if err != nil {
		return &fault.Error{Op: "export container", On: c.Name, Err: err}
	}
	e.Emit("export", c, nil)
	return nil
}

// rootDirs are the directories that a container's root is stacked of.
func rootDirs(e *engine.Engine, c *engine.Container) ([]string, error) {
	if c.Wishes.RootFS {
		return c.Lower, nil
	}
	upper, lower, err := e.Stack(c)
	return append([]string{upper}, lower...), err
}
