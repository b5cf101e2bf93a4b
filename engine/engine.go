// Package engine is where the wings meet: it makes containers of images, and
// keeps account of them.
//
//	takes    a store, an image's name, bundle.Wishes
//	gives    a running container, a list of all, their removal
//	touches  the store; through its rooms everything of a container
//	state    one JSON document a container, in the store
//
// No process owns a container's state, which is a document. Who changes it holds
// the flock on the container's lasting directory; who keeps a container that
// runs holds the flock on its other one, so that everybody can tell whether it
// has a keeper, also when that was killed. Whether it runs the kernel is asked.
//
//	            Create             Start               the process ends
//	(nothing) ────────▶ created ────────▶ running ─────────────────────▶ exited
//	    ▲                  │               ▲  │ ▲                        │ │ │
//	    │                  │         Start │  │ │ after a pause          │ │ │
//	    │                  │               │  │ └──────── restarting ◀───│─│─┤ policy
//	    │                  │               │  │ Pause          │         │ │ │
//	    │                  │               │  ▼      ▲ Unpause │ Stop    │ │ │
//	    │                  │               │ paused ─┘         └────────▶│ │ │
//	    │                  │               └─────────────────────────────┘ │ │
//	    └──── Remove ──────┴────────────────────── Remove ─────────────────┘ │
//	                                                         --rm: removed ◀─┘
//
// All others are conflicts, in Docker's words: to remove what runs (unless by
// force: then it is killed first), to start what is paused or being removed, to
// pause what does not run or is paused, to kill, enter or attach to what does not
// run. To stop what does not run and to start what does is no error; what waits for
// its next start counts as running, except to those who need a process. TestStates
// in test/storm tries every verb in every state. All of the package is safe for
// concurrent use, also by several processes.
package engine

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kiste/container/bundle"
	"kiste/container/monitor"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/store"
)

// Schema is the version of a container's document.
const Schema = 1

// A Container is one container's document.
type Container struct {
	Schema int      `json:"schema"`
	Layers []string `json:"layers"`           // keys of package snapshot: what gc must keep
	Lower  []string `json:"lower,omitempty"`  // the image's directories, the topmost first
	IDs    string   `json:"ids,omitempty"`    // the claim on its range of ids, a file
	Level  string   `json:"level,omitempty"`  // of SELinux, that no other container has; a claim in levels
	Cgroup string   `json:"cgroup,omitempty"` // its group
	Unit   string   `json:"unit,omitempty"`   // the group of the unit of systemd that it belongs to; see Unit

	Asked []string `json:"asked,omitempty"` // see RunOptions

	// Lasting: the monitor keeps it, and it goes on when whoever made it ends.
	Lasting bool `json:"lasting,omitempty"`
	inspect.Container

	brief   bool          // parts of it were not read
	passing bool          // it is written again soon, and need not survive a power cut as it is
	unkept  bool          // it runs, or has ended, and nobody keeps it or has written that down
	was     inspect.State // as it is written down, if it is unkept
	aside   string        // the file that it was read from, where lib had no room for it
}

// An Engine works on one store.
type Engine struct {
	Store store.Store

	// Program is the kiste that becomes the monitor; empty: this program.
	Program string

	// Kisted is where the program is that compresses logs, and is the services.
	// Nil: neither is done.
	Kisted func() (string, error)

	// Inside says that this process is root of a user namespace for the files of its
	// user, who has his networks elsewhere.
	Inside bool

	keepService func(*Service) error // of the monitor: see to it that there is one
}

func newID() string {
	b := make([]byte, 32)
	sys.Random(b)
	return hex.EncodeToString(b)
}

func (e *Engine) document(id string) string {
	return filepath.Join(e.Store.Container(id), "config.json")
}

func (e *Engine) nameFile(name string) string {
	return filepath.Join(e.Store.Lib, "names", name)
}

// claimName makes name id's. The link is made or not: two at once have one
// winner. A name whose container is gone is free.
func (e *Engine) claimName(name, id string) error {
	file := e.nameFile(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	for range 2 {
		err := os.Symlink(id, file)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		owner, _ := os.Readlink(file)
		if _, err := os.Lstat(e.Store.Container(owner)); err == nil {
			return &fault.Error{Op: "take name", On: name, Kind: fault.Conflict,
				Err:  fmt.Errorf("Conflict. The container name %q is already in use by container %q", "/"+name, owner),
				Hint: "remove it (kiste rm " + name + ") or choose another name"}
		}
		os.Remove(file)
	}
	return &fault.Error{Op: "take name", On: name, Kind: fault.Conflict}
}

// randomName is two words that are not taken.
func randomName(id string) string {
	b, _ := hex.DecodeString(id[:8])
	first := []string{"brave", "calm", "clever", "eager", "gentle", "happy", "jolly", "keen", "lucky", "merry", "nimble", "proud", "quiet", "swift", "tidy", "witty"}
	second := []string{"barrel", "basket", "box", "bucket", "carton", "casket", "chest", "coffer", "crate", "drum", "hamper", "keg", "locker", "pallet", "trunk", "vat"}
	return fmt.Sprintf("%s_%s_%x", first[b[0]%16], second[b[1]%16], b[2:4])
}

var errBrief = errors.New("parts of it were not read")

// write stores the document: aside, where lib has no room.
func (e *Engine) write(c *Container) error {
	err := e.writeToLib(c)
	if !noRoom(err) {
		return err
	}
	b, encoding := store.Encode(c)
	if encoding != nil || e.putAside(c, b) != nil {
		return err
	}
	return nil
}

// writeToLib stores the document where it belongs. One that is removed anyway,
// or written again at once, is not worth waiting for the disk.
func (e *Engine) writeToLib(c *Container) error {
	if c.brief {
		return &fault.Error{Op: "write container", On: short(c.ID), Err: errBrief}
	}
	b, err := store.Encode(c)
	if err != nil {
		return err
	}
	write := store.WriteFile
	if c.Wishes.Remove || c.State.Removing || c.passing {
		write = store.WriteBriefly
	}
	if err := write(e.document(c.ID), b); err != nil {
		return e.cannotWrite(c, err)
	}
	if c.aside != "" {
		os.Remove(c.aside)
		c.aside = ""
	}
	return nil
}

// read reads one document. A damaged one is fault.Invalid, one of a later
// program fault.Unsupported.
func (e *Engine) read(id string, without ...store.Part) (*Container, error) {
	c := Container{brief: len(without) > 0}
	err := e.readFile(&c, id, without)
	switch {
	case fault.KindOf(err) == fault.Invalid:
		err = &fault.Error{Op: "read container", On: id, Kind: fault.Invalid, Err: err, Hint: "its document is damaged; remove it: kiste rm -f " + short(id)}
	case errors.Is(err, fs.ErrNotExist):
		err = &fault.Error{Op: "read container", On: id, Kind: fault.NotFound, Err: err, Hint: "it was never finished, or is being made: kiste gc"}
	case err != nil:
	case c.Schema > Schema:
		err = &fault.Error{Op: "read container", On: id, Kind: fault.Unsupported, Err: fmt.Errorf("it has schema %d and this kiste knows %d", c.Schema, Schema), Hint: "use the newer kiste that wrote it"}
	case c.ID != id || !whole(c.Result):
		err = &fault.Error{Op: "read container", On: id, Kind: fault.Invalid, Err: errors.New("its document is damaged"), Hint: "remove it: kiste rm -f " + short(id)}
	}
	return &c, err
}

// whole reports whether r has what all who read it take for granted.
func whole(r *bundle.Result) bool {
	if r == nil || r.Spec == nil {
		return false
	}
	p, l := r.Spec.Process, r.Spec.Linux
	return p != nil && len(p.Args) > 0 && l != nil && l.Resources != nil
}

// Exit codes.
const (
	killed = 137 // of what SIGKILL has ended
	unseen = 255 // of what has ended and nobody saw it
)

// isID reports whether s is a container's id: 64 hexadecimal digits.
func isID(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }

func short(id string) string { return id[:min(12, len(id))] }

// Find gives the container with the name, the id, or the beginning of an id
// that only one has.
func (e *Engine) Find(query string) (*Container, error) {
	id, err := e.id(query)
	if err != nil {
		return nil, err
	}
	return e.loadKept(id)
}

// loadKept is load with a monitor for who needs one, and the end of who has
// ended meanwhile.
func (e *Engine) loadKept(id string, without ...store.Part) (*Container, error) {
	c, err := e.load(id, without...)
	if err != nil || !c.unkept {
		return c, err
	}
	e.nudge()
	if IsActive(c.State.Status) {
		return c, nil
	}
	if c.was.Status == inspect.Restarting {
		// It has a keeper again, and may go on restarting as long as we wait.
		if c, err = e.load(id, without...); err != nil || !c.unkept {
			return c, err
		}
	}
	if err := e.awaitSettled(id, c.was); err != nil {
		return nil, err
	}
	return e.load(id, without...)
}

func (e *Engine) id(query string) (string, error) {
	query = strings.TrimPrefix(query, "/")
	if query != "" && !strings.ContainsAny(query, "/\x00") && query != "." && query != ".." {
		if id, err := os.Readlink(e.nameFile(query)); err == nil {
			if _, err := os.Lstat(e.Store.Container(id)); err == nil {
				return id, nil
			}
		}
	}
	ids, err := e.ids()
	if err != nil {
		return "", err
	}
	var found []string
	for _, id := range ids {
		if query != "" && strings.HasPrefix(id, query) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", noSuch(query)
	}
	return "", &fault.Error{Op: "find container", On: query, Kind: fault.Invalid, Err: fmt.Errorf("%d containers begin so", len(found)), Hint: "write more of the id"}
}

func (e *Engine) ids() ([]string, error) { return idsIn(e.Store.Containers(), fs.ModeDir) }

// idsIn are the names in a directory of the store that are ids, of what is of a
// kind: fs.ModeDir, or 0 for files. A directory that is not there has none.
func idsIn(dir string, kind fs.FileMode) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, d := range entries {
		if d.Type() == kind && isID(d.Name()) {
			ids = append(ids, d.Name())
		}
	}
	return ids, nil
}

// load reads a container and finds out what it does now.
func (e *Engine) load(id string, without ...store.Part) (*Container, error) {
	c, err := e.read(id, without...)
	if err != nil || !IsActive(c.State.Status) {
		return c, err
	}
	kept := e.isKept(id)
	switch {
	case kept:
	case c.runs() && c.Lasting && e.lives(c):
		c.unkept = true
	default:
		// Its keeper was killed, and did not see its end.
		code := killed // as its keeper was
		if c.Lasting {
			code, c.unkept = unseen, true
		}
		c.was = c.State
		c.State.Status, c.State.ExitCode, c.State.PID = inspect.Exited, code, 0
	}
	return c, nil
}

// List gives all containers, the newest first. Damaged ones are told of in
// bad, and do not keep the others from being listed.
func (e *Engine) List() (all []*Container, bad []error, err error) { return e.list() }

func (e *Engine) list(without ...store.Part) (all []*Container, bad []error, err error) {
	ids, err := e.ids()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		c, err := e.loadKept(id, without...)
		switch {
		case errors.Is(err, fault.NotFound): // it is being made, or removed
		case err != nil:
			bad = append(bad, err)
		default:
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *Container) int { return b.Created.Compare(a.Created) })
	return all, bad, nil
}

// Remove removes a container with its changes, its name, and with volumes its
// anonymous volumes. Force kills a running one first, and removes a damaged
// one too.
func (e *Engine) Remove(query string, force, volumes bool) (string, error) {
	id, err := e.id(query)
	if err != nil {
		return "", err
	}
	if force && e.isKept(id) {
		if gone, err := e.removeKept(id, volumes); gone {
			return id, err
		}
	}
	running, err := e.markRemoved(id, query, force, volumes)
	if err == nil && running {
		err = e.endForGood(id)
	}
	if err != nil {
		return id, err
	}
	l, err := e.lockState(id)
	if err != nil {
		return id, ignoreGone(err) // --rm was faster
	}
	defer l.Unlock()
	c, err := e.load(id)
	switch {
	case err == nil && IsActive(c.State.Status):
		return id, conflict("remove container", c, "somebody has started it meanwhile")
	case err == nil:
		e.Emit("destroy", c, nil)
	default:
		c = nil
	}
	return id, e.removeFiles(id, c, volumes)
}

// removeKept lets the monitor, if there is one, kill and remove a container that
// it keeps. It reports whether that is gone, and what could not be undone of it.
func (e *Engine) removeKept(id string, volumes bool) (gone bool, err error) {
	stream, err := sys.DialUnix(e.monitorSocket())
	if err != nil {
		return false, nil
	}
	defer stream.Close()
	var r reply
	err = send(stream, request{Op: "remove", ID: id, Volumes: volumes})
	if err == nil {
		err = receive(stream, &r)
	}
	return err == nil && !r.Declined, r.Error.err()
}

// markRemoved refuses what may not be removed, and keeps others from starting
// what may. It reports whether the container has to be killed first.
func (e *Engine) markRemoved(id, query string, force, volumes bool) (running bool, err error) {
	l, err := e.lockSoon(id, query)
	if err != nil {
		return false, err
	}
	defer l.Unlock()
	c, err := e.load(id)
	switch {
	case err != nil && !force && !errors.Is(err, fault.NotFound):
		return false, err
	case err != nil && e.isKept(id) && !errors.Is(err, fault.NotFound):
		return true, nil
	case err != nil && e.isKept(id):
		return false, &fault.Error{Op: "remove container", On: query, Kind: fault.Conflict, Err: errors.New("somebody is making it")}
	case err != nil || !IsActive(c.State.Status):
		return false, nil
	case !force:
		procedure := ": stop the container before removing or force remove"
		if c.State.Status == inspect.Paused {
			procedure = " and must be unpaused first"
		}
		err := conflict("remove container", c, "container is %s%s", c.State.Status, procedure)
		err.(*fault.Error).Hint = "stop it first, or use -f"
		return false, err
	}
	c.State.Removing, c.State.RemovingVolumes, c.State.Stopped = true, volumes, true
	if err := e.write(c); !noRoom(err) {
		return true, err
	}
	return true, nil // to remove it makes room
}

// lockSoon waits a while for those who change the container. Who makes one holds
// its lock for as long.
func (e *Engine) lockSoon(id, query string) (*store.Lock, error) {
	pause := 50 * time.Microsecond
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		pause = min(2*pause, 5*time.Millisecond)
		l, err := store.TryLockDir(e.Store.Container(id), true)
		switch {
		case err == nil && l.Holds(e.Store.Container(id)):
			return l, nil
		case err == nil:
			l.Unlock()
			return nil, noSuch(query)
		case errors.Is(err, fs.ErrNotExist):
			return nil, noSuch(query)
		case !errors.Is(err, fault.Conflict):
			return nil, err
		case time.Now().After(end):
			return nil, &fault.Error{Op: "remove container", On: query, Kind: fault.Conflict, Err: errors.New("somebody is making or changing it"), Hint: "try again when that is done"}
		}
	}
}

// endForGood kills a container that runs, and waits until its keeper has let go.
func (e *Engine) endForGood(id string) error {
	c, err := e.read(id)
	switch {
	case errors.Is(err, fault.NotFound):
		return nil
	case err != nil:
		return e.endUnread(id)
	}
	if c.runs() {
		e.killNow(c)
	} else {
		e.nudge()
	}
	return e.awaitKeeper(id)
}

// removeFiles removes what is left of a container, the document last, so that
// a removal that was cut short can be repeated.
func (e *Engine) removeFiles(id string, c *Container, volumes bool) (failed error) {
	if err := e.unplug(id); err != nil { // it is told, and nobody can do more
		defer func() { failed = errors.Join(failed, err) }()
	}
	if c == nil {
		e.removeLinks(id)
	} else {
		e.release(id, c)
		e.disconnect(c)
		if c.IDs != "" {
			os.Remove(c.IDs)
		}
		e.freeLevel(c)
		if c.Cgroup != "" {
			removeAnyGroup(c.Cgroup)
		}
		if name := c.Name; name != "" {
			if owner, _ := os.Readlink(e.nameFile(name)); owner == id {
				os.Remove(e.nameFile(name))
			}
		}
	}
	release := e.keepVolume
	if volumes {
		release = e.removeVolume
	}
	names, err := e.volumesOf(id, c)
	for _, name := range names {
		err = errors.Join(err, release(name, id))
	}
	monitor.Ends{Dir: e.Store.Running(id)}.Release()
	if running := e.Store.Running(id); !removeKnown(running, "hosts", "hostname", "resolv.conf", "out", "err") {
		os.RemoveAll(running)
	}
	dir := e.Store.Container(id)
	work := filepath.Join(dir, "work")
	if c != nil && c.Wishes.Remove {
		unmarkVolatile(work)
	}
	removeKnown(work, "work/")
	if !removeKnown(dir, "upper/", "container.log", "config.json") {
		err = errors.Join(err, e.removeTree(dir))
	}
	if err != nil {
		return &fault.Error{Op: "remove container", On: short(id), Err: err}
	}
	return nil
}

// removeKnown removes dir with the files and directories (with a slash at the
// end) that are most likely all there is: to look first, as os.RemoveAll does,
// costs more than to remove. It stops, and is false, where there is more.
func removeKnown(dir string, names ...string) bool {
	for _, name := range names {
		remove := sys.Unlink
		if strings.HasSuffix(name, "/") {
			remove = sys.Rmdir
		}
		if err := remove(dir + "/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return sys.Rmdir(dir) == nil
}

func (e *Engine) removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err != nil && os.Geteuid() != 0 {
		return removeMapped(dir)
	}
	return err
}

func (c *Container) anonymous(target string) bool {
	for _, v := range c.Result.Volumes {
		if v.Mount.Target == target {
			return v.Anonymous
		}
	}
	return false
}

func removeAnyGroup(path string) {
	if l, err := cgroup.Detect(); err == nil {
		removeGroup(l, path)
	}
}

// removeGroup ends whatever is in the group.
func removeGroup(l cgroup.Layout, path string) {
	if cgroup.Discard(l, path) {
		return
	}
	if g, err := cgroup.Open(l, path); err == nil {
		ctx, stop := timeout(2 * time.Second)
		defer stop()
		g.End(ctx)
	}
}

// Written is how many bytes the container has written to its root.
func (e *Engine) Written(id string) int64 {
	return treeSize(filepath.Join(e.Store.Container(id), "upper"))
}
