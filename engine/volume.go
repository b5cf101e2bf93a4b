package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kiste/container/bundle"
	"kiste/fault"
	"kiste/image/snapshot"
	"kiste/internal/sys"
	"kiste/kernel/namespace"
	"kiste/store"
)

// What lies beside a volume's files, which are in _data.
const (
	// volumeOwner is a link to the id of the container that an anonymous
	// volume was made for. Another that uses the volume by its name takes the
	// link away, as does a removal of the container that keeps its volumes.
	volumeOwner = "container"

	// volumeFilling is a copy from the image that somebody makes, or was killed
	// over. It counts for nothing.
	volumeFilling = "filling"

	// volumeFilled is a copy that is whole, and on its way into _data. Whoever
	// uses the volume next ends what was begun.
	volumeFilled = "filled"
)

// useVolume gives a volume, made and filled where need be. Lower are the directories of the image, the topmost first.
func (p *Prepared) useVolume(v *bundle.Volume, lower []string) (*VolumeInfo, error) {
	name, owner := v.Mount.Source, ""
	if name == "" {
		owner = p.ID
		if name = p.VolumeNames[v.Mount.Target]; name == "" {
			name = newID()
		}
	}
	p.VolumeNames[v.Mount.Target] = name
	data := p.e.Store.Volume(name)
	if p.o.DryRun {
		return &VolumeInfo{Name: name, Dir: data, Options: v.Mount.DriverOptions}, nil
	}
	home := filepath.Dir(data)
	doc, err := wishedVolume(v.Mount)
	if err != nil {
		return nil, err
	}
	fresh, err := makeVolume(home, owner, doc)
	if err != nil {
		return nil, volumeError("make", name, err)
	}
	if fresh {
		p.e.EmitVolume("create", name, nil)
	}
	if owner == "" {
		os.Remove(filepath.Join(home, volumeOwner))
	}
	made, err := readVolume(home)
	if err != nil {
		return nil, err
	}
	info := &VolumeInfo{Name: name, Dir: data, Options: made.Options}
	f := filling{home: home, from: v.Mount.Target, lower: lower, lasting: owner == "" || !p.Wishes.Remove}
	if v.Mount.NoCopy || v.Mount.Subpath != "" || info.binds() {
		f.lower = nil
	}
	switch {
	case !info.mounts():
		if err = f.once(); err == nil && !info.binds() {
			err = p.labelVolume(data)
		}
	case os.Geteuid() == 0:
		err = info.attach(p.e, p.ID, f)
	}
	if err != nil {
		return nil, fillError(name, err)
	}
	p.e.EmitVolume("mount", name, map[string]string{"container": p.ID, "destination": v.Mount.Target, "propagation": "", "read/write": strconv.FormatBool(!v.Mount.ReadOnly)})
	return info, nil
}

// wishedVolume is what --mount says of a volume that may have to be made: nil is
// nothing.
func wishedVolume(m bundle.Mount) (*volumeDocument, error) {
	if m.Driver != "" && m.Driver != "local" {
		return nil, &fault.Error{Op: "make volume", On: m.Source, Kind: fault.Unsupported, Err: fmt.Errorf("error looking up volume plugin %s: plugin %q not found", m.Driver, m.Driver), Hint: `"local" is the only driver`}
	}
	if len(m.DriverOptions) == 0 && len(m.Labels) == 0 {
		return nil, nil
	}
	if err := checkVolumeOptions(m.DriverOptions); err != nil {
		return nil, err
	}
	return &volumeDocument{Schema: Schema, Labels: m.Labels, Options: m.DriverOptions, Created: time.Now()}, nil
}

// fillVolume is the Op of errors of volumes that could not be filled.
const fillVolume = "fill volume"

func fillError(name string, err error) error {
	if had, ok := err.(*fault.Error); ok {
		return had
	}
	f := &fault.Error{Op: fillVolume, On: name, Err: err}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		f.Kind, f.Hint = fault.Unavailable, "free some space, with kiste gc for instance, or leave the volume empty: -v NAME:PATH:nocopy"
	}
	return f
}

// makeVolume makes a volume where there is none, all at once. Doc may be nil.
// Fresh: it was not there before.
func makeVolume(home, owner string, doc *volumeDocument) (fresh bool, err error) {
	if _, err := os.Lstat(filepath.Join(home, "_data")); err == nil {
		return false, nil
	}
	all := filepath.Dir(home)
	if err := os.MkdirAll(all, 0o711); err != nil {
		return false, err
	}
	made, err := os.MkdirTemp(all, ".tmp-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(made)
	data := filepath.Join(made, "_data")
	if err := errors.Join(os.Chmod(made, 0o711), os.Mkdir(data, 0o755), os.Chmod(data, 0o755)); err != nil {
		return false, err
	}
	if owner != "" {
		if err := os.Symlink(owner, filepath.Join(made, volumeOwner)); err != nil {
			return false, err
		}
	}
	if doc != nil {
		if err := doc.write(made); err != nil {
			return false, err
		}
	}
	err = os.Rename(made, home)
	if err != nil {
		unlimitVolume(made)
	}
	if err != nil && isDir(filepath.Join(home, "_data")) { // another was faster
		return false, nil
	}
	return err == nil, err
}

// write puts a document into the directory of a volume that is being made, and
// the limit that it speaks of into force.
func (doc *volumeDocument) write(made string) error {
	size, limited, err := volumeSize(doc.Options)
	if err == nil && limited {
		doc.Project, err = limitVolume(filepath.Join(made, "_data"), size)
	}
	if err != nil {
		return err
	}
	return store.WriteJSON(filepath.Join(made, volumeFile), doc)
}

// A filling copies what the image has at a place into a volume that is empty.
//
//	         copy             rename            move
//	empty ─────────▶ filling ─────────▶ filled ───────▶ in _data
//
// Who is killed leaves one of these: filling is thrown away, filled is moved by
// the next. The files are moved and _data is not replaced, since a container may
// have it mounted. Who fills holds the flock on the volume's directory.
type filling struct {
	home    string   // the volume's directory
	from    string   // the path in the image
	lower   []string // the image's directories, the topmost first; none: it is not to be filled
	lasting bool     // the files are to survive a power cut
}

// once fills the volume unless there is something in it.
func (f filling) once() error {
	if f.done() {
		return nil
	}
	lock, err := store.LockDir(f.home, true)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if os.Geteuid() != 0 {
		return f.mapped()
	}
	return f.do()
}

// done reports whether there is nothing to do. The order matters: _data is no
// longer empty before filled is gone.
func (f filling) done() bool {
	empty := isEmpty(filepath.Join(f.home, "_data"))
	_, err := os.Lstat(filepath.Join(f.home, volumeFilled))
	return errors.Is(err, fs.ErrNotExist) && (!empty || len(f.lower) == 0)
}

// isEmpty reports whether a directory is empty, or cannot be looked into.
func isEmpty(dir string) bool {
	d, err := os.Open(dir)
	if err != nil {
		return true
	}
	defer d.Close()
	names, _ := d.Readdirnames(1)
	return len(names) == 0
}

// FillCommand is the hidden command that calls Fill.
const FillCommand = "__fill"

// mapped is do for an ordinary user, whose images have files of subordinate ids:
// this program again, as root of a user namespace that has them.
func (f filling) mapped() error {
	uids, gids := ownRanges()
	user, err := namespace.ParseKind("user")
	if err != nil {
		return err
	}
	args := []string{sys.SelfExe, FillCommand, f.home, f.from, fmt.Sprint(f.lasting)}
	code, err := namespace.Run(namespace.Options{
		New: []namespace.Kind{user}, UIDs: namespace.RootMap(uint32(os.Geteuid()), uids), GIDs: namespace.RootMap(uint32(os.Getegid()), gids),
		KillChild: true, Args: append(args, f.lower...),
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("the copy ended with code %d", code)
	}
	return err
}

// Fill does what FillCommand's arguments say, for an engine that holds the
// volume's lock. It runs as root, perhaps of a user namespace.
func Fill(args []string) error {
	if len(args) < 3 {
		return &fault.Error{Op: fillVolume, Kind: fault.Invalid, Err: errors.New("arguments are missing")}
	}
	f := filling{home: args[0], from: args[1], lasting: args[2] == "true", lower: args[3:]}
	if err := f.do(); err != nil {
		return fillError(filepath.Base(f.home), err)
	}
	return nil
}

// do makes the arrows of the diagram, as far as they are not made yet.
func (f filling) do() error {
	filled := filepath.Join(f.home, volumeFilled)
	if _, err := os.Lstat(filled); err == nil {
		return f.move()
	}
	if f.done() {
		return nil
	}
	temp := filepath.Join(f.home, volumeFilling)
	if err := errors.Join(os.RemoveAll(temp), os.Mkdir(temp, 0o700)); err != nil {
		return err
	}
	found, err := snapshot.Copy(f.lower, f.from, temp)
	if err == nil && f.lasting && !isEmpty(temp) {
		err = syncAround(temp)
	}
	if err == nil && found {
		err = os.Rename(temp, filled)
	}
	if err != nil || !found {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return f.move()
}

// syncAround brings the file system of path to the disk.
func syncAround(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return sys.Syncfs(int(d.Fd()))
}

// move moves what was copied into _data, which becomes like the image's
// directory. What is there by now stays.
func (f filling) move() error {
	home, err := os.Open(f.home)
	if err != nil {
		return err
	}
	defer home.Close()
	from, err := os.Open(filepath.Join(f.home, volumeFilled))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Open(filepath.Join(f.home, "_data"))
	if err != nil {
		return err
	}
	defer to.Close()
	was, err := sys.StatAt(int(from.Fd()), "")
	if err != nil {
		return err
	}
	names, err := from.Readdirnames(-1)
	if err != nil && err != io.EOF {
		return err
	}
	for _, name := range names {
		if err := sys.RenameNew(int(from.Fd()), name, int(to.Fd()), name); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := snapshot.CopyAttributes(int(from.Fd()), int(home.Fd()), "_data"); err != nil {
		return err
	}
	// moving has changed the time of what it was copied from
	if err := sys.Utimens(int(to.Fd()), "", was.Atim, was.Mtim); err != nil {
		return err
	}
	if f.lasting {
		if err := errors.Join(to.Sync(), home.Sync()); err != nil {
			return err
		}
	}
	return os.RemoveAll(from.Name())
}

// removeVolume removes an anonymous volume if it is still that of the container
// id.
func (e *Engine) removeVolume(name, id string) error {
	home := filepath.Dir(e.Store.Volume(name))
	if owner, _ := os.Readlink(filepath.Join(home, volumeOwner)); owner != id {
		return nil
	}
	return e.discardVolume(name)
}

// keepVolume makes an anonymous volume of the container id nobody's.
func (e *Engine) keepVolume(name, id string) error {
	mark := filepath.Join(filepath.Dir(e.Store.Volume(name)), volumeOwner)
	if owner, _ := os.Readlink(mark); owner != id {
		return nil
	}
	return os.Remove(mark)
}

// owners tells for the names of volumes whose they are; "" is nobody's.
func (e *Engine) owners() (map[string]string, error) {
	all := filepath.Dir(filepath.Dir(e.Store.Volume("x")))
	entries, err := os.ReadDir(all)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	owners := map[string]string{}
	for _, d := range entries {
		owners[d.Name()], _ = os.Readlink(filepath.Join(all, d.Name(), volumeOwner))
	}
	return owners, nil
}

// volumesOf lists the anonymous volumes of a container. One without a document
// has them all the same.
func (e *Engine) volumesOf(id string, c *Container) ([]string, error) {
	var names []string
	if c != nil {
		for target, name := range c.VolumeNames {
			if c.anonymous(target) {
				names = append(names, name)
			}
		}
		return names, nil
	}
	owners, err := e.owners()
	for name, owner := range owners {
		if owner == id {
			names = append(names, name)
		}
	}
	return names, err
}

// sweepVolumes removes anonymous volumes of containers that are gone, and what
// those who were killed have left. It gives the names of volumes.
func (e *Engine) sweepVolumes() (removed []string, err error) {
	owners, err := e.owners()
	if err != nil {
		return nil, err
	}
	var all []error
	for name, owner := range owners {
		home := filepath.Dir(e.Store.Volume(name))
		switch {
		case strings.HasPrefix(name, "."):
			all = append(all, e.removeTree(home))
		case owner != "" && e.gone(owner):
			err := e.removeVolume(name, owner)
			if err == nil {
				removed = append(removed, name)
			}
			all = append(all, err)
		default:
			e.releaseVolume(home, "")
			all = append(all, e.dropFilling(home))
		}
	}
	return removed, errors.Join(all...)
}

// dropFilling removes a copy that nobody makes any more.
func (e *Engine) dropFilling(home string) error {
	temp := filepath.Join(home, volumeFilling)
	if _, err := os.Lstat(temp); err != nil {
		return nil
	}
	lock, err := store.TryLockDir(home, true)
	if err != nil {
		return nil // somebody makes it
	}
	defer lock.Unlock()
	return e.removeTree(temp)
}
