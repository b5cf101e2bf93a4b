// Package store is where Kiste keeps what must last: paths, atomic writes,
// locks and JSON documents.
//
//	takes    a root for what survives a reboot (lib) and one that need not (run)
//	gives    paths, documents, locks
//	touches  files below lib and run
//	state    the files; every process sees the same
//
// Writing is: a temporary file, fsync, rename, fsync of the directory, so a
// crash leaves the old object or the new one; without the two fsyncs only for
// what need not survive a power cut. Locks are flock(2) on files beside the
// objects, or on an object's directory: they end with the process that held
// them. No process owns the state.
//
// Layout:
//
//	lib/version                    the schema of the store
//	lib/lock                       shared by who adds, exclusive by gc
//	lib/blobs/sha256/HEX           immutable, named by content
//	lib/blobs/partial/HEX          a download under way, flocked by its writer
//	lib/images/NAME.json           names of images
//	lib/snapshots/overlay/layers/  unpacked layers, read-only
//	lib/snapshots/points/          a layer of empty mount points, on every image
//	lib/embedded/NAME/             the files of embedded:NAME
//	lib/names/NAME                 links to the ids of containers
//	lib/levels/LEVEL               the same: whose categories of SELinux these are
//	lib/containers/ID/             config.json, and upper/ and work/ of the overlay
//	lib/volumes/NAME/              _data, and marks of package engine
//	lib/networks/ID/               config.json
//	lib/network-names/NAME         links to the ids of networks
//	lib/events/                    what has happened, a line each: package event
//	run/containers/ID/             files made for a container that runs
//	run/ids/N                      links: which container has range N of ids
//	run/networks/ID/ADDRESS        links: which container has the address
//	run/names/ID                   what the resolver is told of a container that runs
//	run/proxied/ID                 what the proxy is told of a container that runs
//	run/namespaces/                pinned namespaces
//
// Safe for concurrent use, also by several processes.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kiste/fault"
	"kiste/internal/sys"
)

// Schema is the version of the store's layout that this program writes. A
// store of a later schema is refused.
const Schema = 1

// A Store is the pair of roots. The zero value is not useful: see Open.
type Store struct {
	Lib string // survives a reboot
	Run string // need not
}

const rootRun = "/run/kiste"

// First reports whether it is root's where nobody says otherwise: of others
// there may be several on a host.
func (s Store) First() bool { return s.Run == rootRun }

// Locate tells where the store is: $KISTE_LIB and $KISTE_RUN where set, else
// /var/lib/kiste and /run/kiste for root, else the XDG directories. It touches
// nothing.
func Locate() Store {
	s := Store{Lib: "/var/lib/kiste", Run: rootRun}
	if os.Geteuid() != 0 {
		home := os.Getenv("HOME")
		s.Lib = filepath.Join(first(os.Getenv("XDG_DATA_HOME"), filepath.Join(home, ".local/share")), "kiste")
		s.Run = filepath.Join(first(os.Getenv("XDG_RUNTIME_DIR"), "/tmp/kiste-run-"+strconv.Itoa(os.Geteuid())), "kiste")
	}
	s.Lib = first(os.Getenv("KISTE_LIB"), s.Lib)
	s.Run = first(os.Getenv("KISTE_RUN"), s.Run)
	return s
}

// RuntimeDir is where the OCI runtime keeps its containers' state unless it is
// told: /run/kiste-runtime, and with own, for an ordinary user and for root of a
// user namespace, below XDG_RUNTIME_DIR, which need not be set.
func RuntimeDir(own bool) string {
	if !own {
		return "/run/kiste-runtime"
	}
	return filepath.Join(first(os.Getenv("XDG_RUNTIME_DIR"), "/tmp/kiste-run-"+strconv.Itoa(os.Geteuid())), "kiste-runtime")
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// Open makes the store usable: it creates what is missing, and refuses a
// store of a later schema with fault.Unsupported.
func (s Store) Open() error {
	version := filepath.Join(s.Lib, "version")
	b, err := sys.ReadFile(version, maxVersion)
	switch {
	case err == nil:
		return s.checkVersion(strings.TrimSpace(string(b)))
	case !errors.Is(err, fs.ErrNotExist):
		return &fault.Error{Op: "open store", On: s.Lib, Err: err}
	}
	// Nobody else may reach lib: images hold set-user-ID programs, which any
	// user of the host could execute there (CVE-2021-41091).
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{{s.Lib, 0o700}, {s.Run, 0o711}} {
		err := os.MkdirAll(d.path, d.mode)
		if err == nil && d.mode == 0o700 {
			err = os.Chmod(d.path, d.mode) // one that was there before
		}
		if err != nil {
			return &fault.Error{Op: "create store", On: d.path, Err: err,
				Hint: "set KISTE_LIB and KISTE_RUN to directories that you may write"}
		}
	}
	return WriteFile(version, []byte(strconv.Itoa(Schema)+"\n"))
}

// maxVersion is more than the version file has.
const maxVersion = 64

// Check refuses a store of a later schema and creates nothing: for those who
// only look. A store that is not there yet is empty, and so fine.
func (s Store) Check() error {
	b, err := sys.ReadFile(filepath.Join(s.Lib, "version"), maxVersion)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &fault.Error{Op: "open store", On: s.Lib, Err: err}
	}
	return s.checkVersion(strings.TrimSpace(string(b)))
}

func (s Store) checkVersion(v string) error {
	n, err := strconv.Atoi(v)
	switch {
	case err != nil:
		return &fault.Error{Op: "open store", On: s.Lib, Kind: fault.Invalid,
			Err: fmt.Errorf("its version file says %q", v), Hint: "write " + strconv.Itoa(Schema) + " into " + s.Lib + "/version, or move the store away"}
	case n > Schema:
		return &fault.Error{Op: "open store", On: s.Lib, Kind: fault.Unsupported,
			Err: fmt.Errorf("it has schema %d and this kiste knows %d", n, Schema), Hint: "use the newer kiste that wrote it"}
	}
	return nil
}

// Blob is the path of the blob with the given digest ("sha256:…"), which the
// caller has validated.
func (s Store) Blob(digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return filepath.Join(s.Lib, "blobs", algorithm, hex)
}

// Partial is the path of a download under way.
func (s Store) Partial(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return filepath.Join(s.Lib, "blobs", "partial", hex)
}

// Images is the directory of image names.
func (s Store) Images() string { return filepath.Join(s.Lib, "images") }

// Layers is the directory of unpacked layers of the snapshot driver.
func (s Store) Layers(driver string) string {
	return filepath.Join(s.Lib, "snapshots", driver, "layers")
}

// Container is the lasting directory of a container.
func (s Store) Container(id string) string { return filepath.Join(s.Lib, "containers", id) }

// Containers is the directory of all containers.
func (s Store) Containers() string { return filepath.Join(s.Lib, "containers") }

// Running is the directory of a container that runs.
func (s Store) Running(id string) string { return filepath.Join(s.Run, "containers", id) }

// Volume is the directory of a named volume's files.
func (s Store) Volume(name string) string { return filepath.Join(s.Lib, "volumes", name, "_data") }

// Network is the lasting directory of a network.
func (s Store) Network(id string) string { return filepath.Join(s.Networks(), id) }

// Networks is the directory of all networks.
func (s Store) Networks() string { return filepath.Join(s.Lib, "networks") }

// NetworkName is the link that has the id of the network with a name.
func (s Store) NetworkName(name string) string { return filepath.Join(s.Lib, "network-names", name) }

// Leases is the directory of a network's addresses that are in use.
func (s Store) Leases(id string) string { return filepath.Join(s.Run, "networks", id) }

// Names is the directory of what the resolver is told of containers that run.
func (s Store) Names() string { return filepath.Join(s.Run, "names") }

// Proxied is the directory of what the proxy is told of containers that run.
func (s Store) Proxied() string { return filepath.Join(s.Run, "proxied") }

// Shared is the directory of the network namespace that an ordinary user's
// containers share.
func (s Store) Shared() string { return filepath.Join(s.Run, "shared") }

// Events is the directory of what has happened.
func (s Store) Events() string { return filepath.Join(s.Lib, "events") }

// WriteFile replaces path by data: a reader, and a crash, sees the old content
// or the new. Mode 0600; the directory must exist.
func WriteFile(path string, data []byte) error {
	if err := replace(path, data, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// WriteBriefly is WriteFile for what need not survive a power cut: it does not
// wait for the disk. A reader, and whoever is killed, still sees all or nothing.
func WriteBriefly(path string, data []byte) error {
	return replace(path, data, func(*os.File) error { return nil })
}

func replace(path string, data []byte, sync func(*os.File) error) error {
	f, err := createTemp(filepath.Dir(path))
	if err != nil {
		return ofFile(path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = sync(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = sys.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		err = ofFile(path, err)
	}
	return err
}

// ofFile is the error of path instead of that of a temporary file beside it.
func ofFile(path string, err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return &fs.PathError{Op: "write", Path: path, Err: of.Err}
	}
	return err
}

// createTemp is os.CreateTemp for directories of ours, in which nobody guesses
// names.
func createTemp(dir string) (*os.File, error) {
	for {
		name := ".tmp-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(temps.Add(1), 10)
		f, err := sys.OpenPlain(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}

// temps counts the temporary files of this process.
var temps atomic.Uint64

// Sync makes what WriteBriefly has written last.
func Sync(path string) error {
	f, err := sys.OpenPlain(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(f.Sync(), SyncDir(filepath.Dir(path)))
}

// SyncDir makes the names in dir last.
func SyncDir(dir string) error {
	d, err := sys.OpenPlain(dir, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// WriteJSON is WriteFile of v as JSON. Documents carry their own "schema".
func WriteJSON(path string, v any) error {
	b, err := Encode(v)
	if err != nil {
		return &fault.Error{Op: "write", On: path, Kind: fault.Invalid, Err: err}
	}
	return WriteFile(path, append(b, '\n'))
}

// maxDocument bounds what ReadJSON reads: nothing of ours is as large.
const maxDocument = 16 << 20

// rooms are what documents are read into: who lists objects reads many,
// one after the other. None is kept that is larger than most documents are.
var rooms sync.Pool

const usualDocument = 64 << 10

// ReadJSON reads the document at path into v, which is zero. A damaged one is
// fault.Invalid and names the path.
func ReadJSON(path string, v any) error { return ReadJSONWithout(path, v) }

// ReadJSONWithout is ReadJSON for who has no use for some parts, which may be
// left out.
func ReadJSONWithout(path string, v any, parts ...Part) error {
	room, _ := rooms.Get().(*[]byte)
	if room == nil {
		room = new([]byte)
	}
	b, err := sys.ReadFileTo(*room, path, maxDocument+1)
	if cap(b) <= usualDocument {
		defer func() { *room = b; rooms.Put(room) }()
	}
	if err != nil {
		return err
	}
	if len(b) > maxDocument {
		return &fault.Error{Op: "read", On: path, Kind: fault.Invalid, Err: fmt.Errorf("it has more than %d bytes", maxDocument)}
	}
	if err := decodeWithout(b, v, parts); err != nil {
		return &fault.Error{Op: "read", On: path, Kind: fault.Invalid, Err: err, Hint: "the file is damaged: remove the object it belongs to"}
	}
	return nil
}

// A Lock is held until Unlock or the end of the process.
type Lock struct{ f *os.File }

const (
	lockShared    = 1 // LOCK_SH
	lockExclusive = 2 // LOCK_EX
	lockTry       = 4 // LOCK_NB
	lockNone      = 8 // LOCK_UN
)

// LockFile waits for the lock on path, a file or a directory; a missing file is
// made.
func LockFile(path string, exclusive bool) (*Lock, error) { return lock(path, exclusive, 0) }

// TryLockFile is LockFile without waiting: fault.Conflict when somebody
// else holds the lock.
func TryLockFile(path string, exclusive bool) (*Lock, error) { return lock(path, exclusive, lockTry) }

// LockSoon is TryLockFile that tries for as long as patience says.
func LockSoon(path string, exclusive bool, patience time.Duration) (*Lock, error) {
	const pause = 20 * time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		l, err := TryLockFile(path, exclusive)
		if !errors.Is(err, fault.Conflict) || time.Now().After(end) {
			return l, err
		}
	}
}

// LockDir is LockFile of a directory, which has to be there: fs.ErrNotExist.
func LockDir(path string, exclusive bool) (*Lock, error) { return lockOpen(path, exclusive, 0) }

// TryLockDir is TryLockFile of a directory, which has to be there.
func TryLockDir(path string, exclusive bool) (*Lock, error) {
	return lockOpen(path, exclusive, lockTry)
}

// Of the pauses between two looks of AwaitDir.
const (
	firstLook = 50 * time.Microsecond
	lastLook  = 10 * time.Millisecond
)

// AwaitDir waits until nobody holds the lock on path, a directory, or enough, which
// is asked again and again, says that it is. What is not there nobody holds; what
// is removed meanwhile is waited for all the same.
func AwaitDir(path string, enough func() bool) error {
	f, err := sys.OpenPlain(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock(f)
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		err := sys.Flock(f, lockShared|lockTry)
		if fault.KindOf(err) != fault.Unavailable {
			return err
		}
		if enough() {
			return nil
		}
		time.Sleep(pause)
	}
}

// lockOpen locks what is there.
func lockOpen(path string, exclusive bool, how int) (*Lock, error) {
	f, err := sys.OpenPlain(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return flock(f, exclusive, how)
}

func lock(path string, exclusive bool, how int) (*Lock, error) {
	f, err := sys.OpenPlain(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = sys.OpenPlain(path, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return flock(f, exclusive, how)
}

func flock(f *os.File, exclusive bool, how int) (*Lock, error) {
	if exclusive {
		how |= lockExclusive
	} else {
		how |= lockShared
	}
	if err := sys.Flock(f, how); err != nil {
		f.Close()
		if fault.KindOf(err) == fault.Unavailable {
			return nil, &fault.Error{Op: "lock", On: f.Name(), Kind: fault.Conflict, Err: err}
		}
		return nil, err
	}
	return &Lock{f}, nil
}

// File is what is locked: a process that inherits it holds the lock, too, and
// alone when this one has left it by Leave.
func (l *Lock) File() *os.File { return l.f }

// Unlock gives the lock back. To close the file would not do: a child that was
// forked meanwhile has it open until it executes something, and a container's waits
// before that until its network is there (flock(2): duplicates refer to one lock).
func (l *Lock) Unlock() error { return unlock(l.f) }

func unlock(f *os.File) error { return errors.Join(sys.Flock(f, lockNone), f.Close()) }

// Leave leaves the lock to who has inherited File.
func (l *Lock) Leave() error { return l.f.Close() }

// Holds reports whether path still names the file that is locked: whoever held
// the lock before may have renamed or removed it.
func (l *Lock) Holds(path string) bool {
	held, err := l.f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(held, named)
}
