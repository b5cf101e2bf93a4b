package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

// maxConfig bounds config.json and process.json: the largest that anybody has
// seen are some hundred kilobytes.
const maxConfig = 16 << 20

// readJSON reads the document at path into v, and gives its text too.
func readJSON(path string, v any) ([]byte, error) {
	text, err := sys.ReadFile(path, maxConfig+1)
	switch {
	case err != nil:
		return nil, &fault.Error{Op: "read", On: path, Err: err}
	case len(text) > maxConfig:
		return nil, &fault.Error{Op: "read", On: path, Kind: fault.Invalid, Err: fmt.Errorf("it has more than %d bytes", maxConfig)}
	}
	if err := store.Decode(text, v); err != nil {
		return nil, &fault.Error{Op: "read", On: path, Kind: fault.Invalid, Err: err}
	}
	return text, nil
}

// writePID writes the file that tells a process's number, all or nothing.
func writePID(path string, pid int) error {
	if path == "" {
		return nil
	}
	err := func() error {
		temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
		f, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return err
		}
		_, err = f.WriteString(strconv.Itoa(pid))
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(temporary, path)
		}
		if err != nil {
			os.Remove(temporary)
		}
		return err
	}()
	if err != nil {
		return &fault.Error{Op: "write pid file", On: path, Err: err}
	}
	return nil
}

// hearers are who wants to hear of a new process. The sockets' peers get
// descriptors; nothing that they send is read. Whoever they are, they can
// make the start fail, and delay it by
// process.Patience.
type hearers struct {
	console, pidfd *os.File // sockets, or nil
	pidFile        string   // empty: none
}

// dialAll connects to those who listen at paths, before anything is made that a
// failure would have to remove. An empty path is nobody.
func dialAll(console, pidfd string) (h hearers, err error) {
	if console != "" {
		if h.console, err = dial(console); err != nil {
			return h, err
		}
	}
	if pidfd != "" {
		h.pidfd, err = dial(pidfd)
	}
	return h, err
}

func (h hearers) close() {
	for _, f := range []*os.File{h.console, h.pidfd} {
		if f != nil {
			f.Close()
		}
	}
}

// tell sends out what is wanted.
func (h hearers) tell(p *process.Process) error {
	if h.console != nil {
		if err := send(h.console, "/dev/ptmx", int(p.Console.Fd())); err != nil {
			return err
		}
		p.Console.Close()
		p.Console = nil
	}
	if h.pidfd != nil {
		if err := send(h.pidfd, "pidfd", p.PidFD()); err != nil {
			return err
		}
	}
	return writePID(h.pidFile, p.PID)
}

// checkTerminal refuses a terminal that nobody would hold.
func checkTerminal(p *specs.Process, detach bool, socket string) error {
	bad := func(why string) error {
		return &fault.Error{Op: "open terminal", Kind: fault.Invalid, Err: errors.New(why)}
	}
	switch {
	case p.Terminal && detach && socket == "":
		return bad("cannot allocate tty if runc will detach without setting console socket")
	case socket != "" && !(p.Terminal && detach):
		return bad("cannot use console socket if runc will not detach or allocate tty")
	}
	return nil
}

// dial connects to the Unix socket of somebody who wants a descriptor.
func dial(path string) (*os.File, error) {
	f, err := sys.ConnectUnixWithin(path, process.Patience)
	if err != nil {
		return nil, &fault.Error{Op: "connect to", On: path, Err: err}
	}
	return f, nil
}

// send sends one descriptor and its name.
func send(to *os.File, name string, fd int) error {
	if err := sys.SendFDs(to, []byte(name), fd); err != nil {
		return &fault.Error{Op: "send " + name + " to", On: to.Name(), Err: err}
	}
	return nil
}
