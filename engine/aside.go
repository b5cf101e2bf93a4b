package engine

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

// noRoom reports whether nothing can be written where it was tried, whatever it
// is: what runs is not to suffer from that.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}

// aside is where a container's document lies that lib has no room for: in run,
// by the name of the one in lib that it goes on from. That one is replaced as
// soon as there is room, and then nobody looks at what lay aside.
func (e *Engine) aside(id string) (string, error) {
	inode, written, err := sys.VersionOf(e.document(id))
	if err != nil {
		return "", err
	}
	return e.Store.Running(id) + "/aside-" + strconv.FormatUint(inode, 16) + "-" + strconv.FormatInt(written, 16), nil
}

// putAside writes a document aside. Of a container that has none in lib yet, and
// of one that has not run since the host's boot, it is an error.
func (e *Engine) putAside(c *Container, b []byte) error {
	file, err := e.aside(c.ID)
	if err == nil {
		err = store.WriteBriefly(file, b)
	}
	if err == nil {
		c.aside = file
	}
	return err
}

// readFile reads a container's document, wherever it is.
func (e *Engine) readFile(c *Container, id string, without []store.Part) error {
	file, err := e.aside(id)
	if err != nil {
		return err
	}
	err = store.ReadJSONWithout(file, c, without...)
	if err == nil {
		c.aside = file
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return store.ReadJSONWithout(e.document(id), c, without...)
}

// Unaside writes into lib what lies aside of a container, and is nil where
// nothing does.
func (e *Engine) unaside(id string) error {
	file, err := e.aside(id)
	if err != nil {
		return ignoreGone(err)
	}
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l, err := e.lockState(id)
	if err != nil {
		return ignoreGone(err)
	}
	defer l.Unlock()
	c, err := e.read(id)
	if err != nil || c.aside == "" {
		return ignoreGone(err)
	}
	return e.writeToLib(c)
}

// cannotWrite says that a container's document could not be written.
func (e *Engine) cannotWrite(c *Container, err error) error {
	f := &fault.Error{Op: "write container", On: c.Name, Err: cause(err)}
	if noRoom(err) {
		f.Hint = e.Store.Lib + " must be writable and have room: kiste system df shows what could go"
	}
	return f
}
