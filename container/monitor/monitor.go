// Package monitor keeps a container that runs: it takes its output, lets others
// attach to it, and learns its end.
//
//	takes    a process, the directory of its ends, a log
//	gives    its output in the log and to whoever is attached; its end
//	touches  FIFOs and a socket in that directory, the process
//	state    FIFOs, which outlive a keeper that is killed; the next goes on
//
// A container's standard output and error are FIFOs that it holds open itself
// for reading and writing, so that it never gets EPIPE and what it writes waits
// for the next keeper. A keeper copies with tee(2), writes the log, and only then
// takes the bytes out: one that is killed in between leaves them to be written
// once more, and never loses one. A terminal hangs up with its last master,
// standard input ends with its last writer, and what is in a FIFO goes with the
// last who has it open: a holder, a process of two pages, keeps them open.
//
//	        Open            Keep                    the process ends
//	(no ends) ───▶ (unkept) ──────▶ (kept) ───────────────────────────▶ Wait returns
//	                   ▲               │
//	                   └── killed ─────┘
//
// One process keeps a container at a time; who, is for the caller to settle by a
// lock. A Keeper is safe for concurrent use, and costs no thread while nothing
// happens.
package monitor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/stub"
	"kiste/internal/sys"
	"kiste/kernel/privilege/selinux"
)

// The ends in a container's directory.
const (
	inName     = "in"
	outName    = "out"
	errName    = "err"
	holderName = "holder"
	socketName = "attach"
)

// waiting is how much output waits for the next keeper, in bytes.
const waiting = 1 << 20

// Ends say which ends a container has.
type Ends struct {
	Dir      string
	Input    bool   // it reads standard input
	Terminal bool   // its 0, 1 and 2 are a terminal
	UID, GID int    // on the host, of the user that may open /dev/stdout again
	Label    string // of SELinux, that the container may use; empty: none
}

// Open makes a container's ends and gives the files that are to be its
// descriptors 0, 1 and 2, the caller's to close; nil where the plan opens a
// terminal.
func Open(e Ends) (files [3]*os.File, err error) {
	if e.Terminal {
		return files, nil
	}
	defer func() {
		if err != nil {
			CloseFiles(files)
			err = &fault.Error{Op: "make streams", On: e.Dir, Err: err}
		}
	}()
	if !e.Input {
		files[0], err = os.Open(os.DevNull)
	} else {
		files[0], err = e.fifo(inName, os.O_RDONLY)
	}
	if err == nil {
		files[1], err = e.fifo(outName, os.O_RDWR)
	}
	if err == nil {
		files[2], err = e.fifo(errName, os.O_RDWR)
	}
	return files, err
}

// fifo makes one and opens the container's end. It waits for nobody.
func (e Ends) fifo(name string, flags int) (*os.File, error) {
	path := filepath.Join(e.Dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := sys.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	if err := os.Chown(path, e.UID, e.GID); err != nil {
		return nil, err
	}
	both, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if e.Label != "" {
		if err := selinux.Set(int(both.Fd()), e.Label); err != nil {
			both.Close()
			return nil, err
		}
	}
	if name != inName {
		sys.SetPipeSize(int(both.Fd()), waiting)
	}
	if flags == os.O_RDWR {
		return both, nil
	}
	defer both.Close()
	return os.OpenFile(path, flags, 0)
}

// CloseFiles closes what is not nil.
func CloseFiles(files [3]*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// The first descriptor that a holder holds.
const firstHeld = 3

// holderProgram is the name of a holder, whose argument is the directory of ends.
const holderProgram = "kiste-holder"

// Strays ends the holders of directories of ends below dir, a path that ends in
// a slash, that keep does not want: those of a keeper that was killed before it
// had written down whom it started. It gives how many.
func Strays(dir string, keep func(ends string) bool) (n int) {
	for id, ends := range holders() {
		if !strings.HasPrefix(ends, dir) {
			continue
		}
		if known, ok := (Ends{Dir: ends}).known(); ok && known == id && keep(ends) {
			continue
		}
		if end(id) {
			n++
		}
	}
	return n
}

// holders are all holders of this host, with the directories of their ends.
func holders() map[process.Identity]string {
	all := map[process.Identity]string{}
	for _, id := range process.Named(holderProgram) {
		if args, err := id.Arguments(); err == nil && len(args) == 2 {
			all[id] = args[1]
		}
	}
	return all
}

func end(id process.Identity) bool {
	fd, err := id.Open()
	if err != nil {
		return false
	}
	defer sys.Close(fd)
	return sys.PidfdSignal(fd, unix.SIGKILL) == nil
}

// Hold starts a holder of the container's ends: of its terminal's master, or of
// the writer of its standard input and of its outputs. Without a terminal that is
// to be before the container starts, or its input may have ended, and while the
// files of Open are open, or it waits for them. It is known by a file in the
// directory, so that the next keeper finds it; the file is there before the
// holder is, or nobody would look for one whose keeper was killed in between.
func (e Ends) Hold(master *os.File) (err error) {
	note, err := sys.OpenPlain(filepath.Join(e.Dir, holderName), unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, note.Close()); err != nil {
			_ = os.Remove(note.Name())
		}
	}()
	held, err := e.toHold(master)
	defer func() {
		for _, f := range held {
			if f != master {
				f.Close()
			}
		}
	}()
	if err != nil {
		return err
	}
	program, err := holder()
	if err != nil {
		return err
	}
	files := slices.Repeat([]int{-1}, firstHeld)
	// The program too, or its number may be given to another file on the way.
	for _, f := range append(held, program) {
		files = append(files, int(f.Fd()))
	}
	pid, err := sys.Detach(sys.FDPath(len(files)-1), []string{holderProgram, e.Dir}, []string{}, files, -1)
	if err != nil {
		return &fault.Error{Op: "hold the terminal or input of", On: e.Dir, Err: err}
	}
	id, err := process.Identify(pid)
	if err == nil {
		_, err = note.Write(fmt.Appendln(nil, id.PID, id.Start))
	}
	if err != nil {
		_ = sys.Kill(pid, int(unix.SIGKILL))
		_ = sys.Reap(pid)
	}
	return err
}

// holder is the program of all holders, a file in memory that stays open.
var holder = sync.OnceValues(func() (*os.File, error) {
	program, err := stub.Holder(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	return sys.Memory(holderProgram, program)
})

func (e Ends) toHold(master *os.File) (held []*os.File, err error) {
	if e.Terminal {
		return []*os.File{master}, nil
	}
	names := []string{outName, errName}
	if e.Input {
		names = []string{inName, outName, errName}
	}
	for _, name := range names {
		flags := os.O_RDWR
		if name == inName {
			flags = os.O_WRONLY
		}
		f, err := os.OpenFile(filepath.Join(e.Dir, name), flags, 0)
		if err != nil {
			return held, err
		}
		held = append(held, f)
	}
	return held, nil
}

// known is the holder that was written down, or that was to be.
func (e Ends) known() (id process.Identity, ok bool) {
	b, err := sys.ReadFile(filepath.Join(e.Dir, holderName), maxHolder)
	if err != nil {
		return id, false
	}
	pid, start, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	id.PID, err = strconv.Atoi(pid)
	if err == nil {
		id.Start, err = strconv.ParseUint(start, 10, 64)
	}
	if err != nil {
		return e.unwritten()
	}
	return id, true
}

// unwritten looks for a holder whose keeper was killed before it had written
// down whom it started.
func (e Ends) unwritten() (process.Identity, bool) {
	for id, ends := range holders() {
		if ends == e.Dir {
			return id, true
		}
	}
	return process.Identity{}, false
}

// maxHolder is more than a holder's file has.
const maxHolder = 64

// openHolder opens the container's holder; nil where there is none.
func (e Ends) openHolder() *os.File {
	id, ok := e.known()
	if !ok {
		return nil
	}
	fd, err := id.Open()
	if err != nil {
		return nil
	}
	f, err := sys.Watched(fd, "holder")
	if err != nil {
		sys.Close(fd)
		return nil
	}
	return f
}

// held takes a copy of what the holder holds.
func (e Ends) held() (*os.File, error) {
	h := e.openHolder()
	if h == nil {
		return nil, &fault.Error{Op: "find the holder of", On: e.Dir, Kind: fault.NotFound}
	}
	defer h.Close()
	fd, err := sys.PidfdGetFD(int(h.Fd()), firstHeld)
	if err != nil {
		return nil, err
	}
	return sys.Watched(fd, "held")
}

// Release ends the holder: with it the container's terminal hangs up, or its
// standard input ends, unless others have it too.
func (e Ends) Release() { e.letGo()() }

// letGo kills the holder, and gives what waits for its end and, where this
// process has made it, takes it away.
func (e Ends) letGo() (wait func()) {
	id, ok := e.known()
	if !ok {
		return func() {}
	}
	fd, err := id.Open()
	if err == nil {
		_ = sys.PidfdSignal(fd, unix.SIGKILL)
	}
	_ = os.Remove(filepath.Join(e.Dir, holderName))
	return func() {
		if err != nil {
			return
		}
		defer sys.Close(fd)
		_, _ = sys.Poll(true, fd)
		_, _ = sys.TryReap(id.PID)
	}
}
