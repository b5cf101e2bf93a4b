package engine

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"kiste/container/monitor"
	"kiste/container/process"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/internal/stub"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/store"
)

// MonitorCommand is the hidden command that becomes the monitor.
const MonitorCommand = "__monitor"

// Descriptors of the monitor, from its guard.
const (
	guardFD  = 3 // where the guard tells of whom it has inherited and seen end
	listenFD = 4
)

func (e *Engine) monitorFile(name string) string { return filepath.Join(e.Store.Run, name) }

func (e *Engine) monitorSocket() string { return e.monitorFile("monitor") }

func (e *Engine) endsFile() string { return e.monitorFile("monitor.ends") }

func (e *Engine) monitorLock() string { return e.monitorFile("monitor.lock") }

// A request is what the monitor is asked.
type request struct {
	Op            string // "start", "look", "exec", "kill"
	ID            string
	Attach        bool // the connection becomes an attachment
	Rows, Columns uint16
	Exec          *execRequest // of exec
}

// A reply is its answer.
type reply struct {
	Error    *failure
	Warnings []string
	PID      int
	Start    uint64
}

// A failure is an error that goes from one process to another.
type failure struct {
	Code int // of a StartError; 0: it is none
	Op   string
	On   string
	Kind string
	Hint string
	Text string
}

func toFailure(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Kind: string(fault.KindOf(err)), Hint: fault.HintOf(err), Text: err.Error()}
	var start *StartError
	if errors.As(err, &start) {
		f.Code, f.Text = start.Code, start.Err.Error()
	}
	var own *fault.Error
	if errors.As(err, &own) && own.Error() == f.Text {
		f.Op, f.On = own.Op, own.On
		f.Text = string(own.Kind)
		if own.Err != nil {
			f.Text = own.Err.Error()
		}
	}
	return f
}

func (f *failure) err() error {
	if f == nil {
		return nil
	}
	op := f.Op
	if op == "" {
		op = "start container"
	}
	err := error(&fault.Error{Op: op, On: f.On, Kind: fault.Kind(f.Kind), Hint: f.Hint, Err: errors.New(f.Text)})
	if f.Code != 0 {
		return &StartError{f.Code, err}
	}
	return err
}

// maxMessage bounds a request and a reply, in bytes.
const maxMessage = 1 << 20

func send(to io.Writer, v any) error {
	b, err := store.Encode(v)
	if err != nil {
		return err
	}
	_, err = to.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func receive(from io.Reader, v any) error {
	var n [4]byte
	if _, err := io.ReadFull(from, n[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > maxMessage {
		return &fault.Error{Op: "read a message", Kind: fault.Invalid, Err: errors.New("it is too long")}
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(from, b); err != nil {
		return err
	}
	return store.Decode(b, v)
}

// ask sends a request to the monitor, which is started where there is none. The
// connection is the caller's to close. A monitor that ends, or is killed,
// before it has answered is asked again: what is asked can be asked twice.
func (e *Engine) ask(q request) (*os.File, reply, error) {
	sys.Parallel()
	var err error
	for range 20 {
		var stream *os.File
		if stream, err = e.dial(); err != nil {
			return nil, reply{}, err
		}
		var r reply
		if err = send(stream, q); err == nil {
			err = receive(stream, &r)
		}
		if err == nil {
			return stream, r, r.Error.err()
		}
		stream.Close()
	}
	return nil, reply{}, &fault.Error{Op: "ask the monitor", Kind: fault.Unavailable, Err: err, Hint: "it does not answer: see whether " + e.Store.Run + " is full"}
}

// nudge lets the monitor look for what has changed, and for those who have no
// keeper. It is best effort.
func (e *Engine) nudge() {
	if stream, _, err := e.ask(request{Op: "look"}); err == nil {
		stream.Close()
	}
}

func (e *Engine) dial() (*os.File, error) {
	stream, err := sys.DialUnix(e.monitorSocket())
	if err == nil || errors.Is(err, syscall.EACCES) {
		return stream, err
	}
	return e.startMonitor()
}

// startMonitor starts the monitor unless somebody has done that meanwhile. Its
// socket is there before it is, and stays when it is killed: who asks waits.
func (e *Engine) startMonitor() (*os.File, error) {
	l, err := store.LockFile(e.monitorLock(), true)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	if stream, err := sys.DialUnix(e.monitorSocket()); err == nil {
		return stream, nil
	}
	if err := e.spawnMonitor(); err != nil {
		return nil, &fault.Error{Op: "start the monitor", On: e.Store.Run, Err: err}
	}
	return sys.DialUnix(e.monitorSocket())
}

func (e *Engine) spawnMonitor() error {
	for _, path := range []string{e.monitorSocket(), e.endsFile()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := sys.Mkfifo(e.endsFile(), 0o600); err != nil {
		return err
	}
	ends, err := os.OpenFile(e.endsFile(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer ends.Close()
	listener, err := sys.ListenUnix(e.monitorSocket(), 0o600)
	if err != nil {
		return err
	}
	defer listener.Close()
	guard, err := stub.Guard(runtime.GOARCH)
	if err != nil {
		return err
	}
	memory, err := sys.Memory("kiste-guard", guard)
	if err != nil {
		return err
	}
	defer memory.Close()
	program, err := e.program()
	if err != nil {
		return err
	}
	sys.RestoreFileLimit()
	cmd := exec.Command(sys.FDPath(int(memory.Fd())))
	cmd.Args = []string{program, "kiste", MonitorCommand}
	cmd.Dir, cmd.Env = "/", e.monitorEnv()
	cmd.ExtraFiles = []*os.File{ends, listener}
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	return inGroup(layout, e.monitorGroup(layout), func(unified int) error {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: unified >= 0, CgroupFD: max(unified, 0)}
		return cmd.Start()
	})
}

// program is the kiste that becomes the monitor.
func (e *Engine) program() (string, error) {
	if e.Program != "" {
		return e.Program, nil
	}
	self, err := os.Executable()
	beside := filepath.Join(filepath.Dir(self), "kiste") // of kisted, which is larger
	if _, missing := os.Stat(beside); err == nil && missing == nil {
		return beside, nil
	}
	return self, err
}

// monitorEnv is what the monitor has to know of this process's environment.
func (e *Engine) monitorEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name != "PATH" && name != "HOME" && name != "TMPDIR" && name != "GODEBUG" && name != "DBUS_SESSION_BUS_ADDRESS" && !strings.HasPrefix(name, "XDG_")
	})
	return append(env, "KISTE_LIB="+e.Store.Lib, "KISTE_RUN="+e.Store.Run)
}

// StartOptions say how to start a container that is there.
type StartOptions struct {
	Attach        bool // the session has its streams
	Rows, Columns uint16
	Warn          func(string) // nil: silence
}

// A Session is a container that was started, and with Attach its streams.
type Session struct {
	*Container
	Attachment *monitor.Attachment // nil without Attach
	Process    process.Identity
}

// Start starts a container, which the monitor keeps. One that runs already is
// fine. Without a Session the container is as it was.
func (e *Engine) Start(query string, o StartOptions) (*Session, error) {
	c, err := e.Find(query)
	if err != nil {
		return nil, err
	}
	stream, r, err := e.ask(request{Op: "start", ID: c.ID, Attach: o.Attach, Rows: o.Rows, Columns: o.Columns})
	if o.Warn != nil {
		for _, w := range r.Warnings {
			o.Warn(w)
		}
	}
	if err != nil {
		if stream != nil {
			stream.Close()
		}
		return nil, err
	}
	s := &Session{Container: c, Process: process.Identity{PID: r.PID, Start: r.Start}}
	if !o.Attach {
		return s, stream.Close()
	}
	s.Attachment = monitor.Attached(stream)
	return s, nil
}

// Attach attaches to a container that runs.
func (e *Engine) Attach(query string) (*Session, error) {
	c, err := e.Find(query)
	if err != nil {
		return nil, err
	}
	switch c.State.Status {
	case inspect.Paused:
		return nil, conflict("attach", c, "You cannot attach to a paused container, unpause it first")
	case inspect.Restarting:
		return nil, conflict("attach", c, "You cannot attach to a restarting container, wait until it is running")
	case inspect.Running:
	default:
		return nil, conflict("attach", c, "You cannot attach to a stopped container, start it first")
	}
	if !c.Lasting {
		return nil, &fault.Error{Op: "attach", On: c.Name, Kind: fault.Unsupported, Err: errors.New("whoever started it has its streams"), Hint: "run it without --rm, or with -d"}
	}
	a, err := e.attach(c)
	if err != nil {
		return nil, err
	}
	e.Emit("attach", c, nil)
	return &Session{Container: c, Attachment: a, Process: identity(c.State)}, nil
}

// attach attaches to the container's keeper. Where that was killed a moment
// ago the next one is waited for.
func (e *Engine) attach(c *Container) (a *monitor.Attachment, err error) {
	dir := e.Store.Running(c.ID)
	for range 50 {
		if a, err = monitor.Attach(dir); err == nil || !e.lives(c) {
			break
		}
		e.nudge()
		time.Sleep(20 * time.Millisecond)
	}
	return a, err
}
