package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"kiste/container/bundle"
	"kiste/container/monitor"
	"kiste/container/process"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/image/catalog"
	"kiste/image/reference"
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
	Op            string // "start", "run", "exec", "kill", "remove", "look"
	ID            string
	Again         bool // the monitor that was asked first was killed over it
	Attach        bool // the connection becomes an attachment
	Rows, Columns uint16
	Image         string         // of run
	Wishes        *bundle.Wishes // of run
	Exec          *execRequest   // of exec
	Volumes       bool           // of remove: its anonymous volumes, too
	Unit          string         // see StartOptions
	Asked         []string       // of run; see RunOptions
}

// A reply is its answer.
type reply struct {
	Declined bool // whoever asks can do it himself, or learn why not
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
	var err error
	for i := range 20 {
		q.Again = i > 0
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
	if errors.Is(err, os.ErrNotExist) { // after a boot of the host
		if err = os.MkdirAll(e.Store.Run, 0o711); err == nil {
			l, err = store.LockFile(e.monitorLock(), true)
		}
	}
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
	ends, err := sys.OpenPlain(e.endsFile(), os.O_RDWR, 0)
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
	null, err := sys.OpenPlain(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	program, err := e.program()
	if err != nil {
		return err
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	sys.RestoreFileLimit()
	files := make([]int, 0, listenFD+1)
	for _, f := range []*os.File{null, null, null, ends, listener} {
		files = append(files, int(f.Fd()))
	}
	return inGroup(layout, e.monitorGroup(layout), func(unified int) error {
		_, err := sys.Detach(sys.ProgramPath(memory), []string{program, "kiste", MonitorCommand}, e.monitorEnv(), files, unified)
		return err
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
		return name != "PATH" && name != "HOME" && name != "TMPDIR" && name != "GODEBUG" && name != "DBUS_SESSION_BUS_ADDRESS" && name != "CNI_PATH" && !strings.HasPrefix(name, "XDG_")
	})
	return append(env, "KISTE_LIB="+e.Store.Lib, "KISTE_RUN="+e.Store.Run)
}

// StartOptions say how to start a container that is there.
type StartOptions struct {
	Attach        bool // the session has its streams
	Rows, Columns uint16
	Warn          func(string) // nil: silence
	Before        func()       // what is done before it may run; nil: nothing
	Unit          string       // the cgroup below which it is to have its own: what Unit gave; empty: none
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
	if o.Attach && c.State.Status == inspect.Restarting {
		return nil, isRestarting("attach", c)
	}
	return e.begin(c, request{Op: "start", ID: c.ID}, o)
}

// begin asks the monitor to start c.
func (e *Engine) begin(c *Container, q request, o StartOptions) (*Session, error) {
	q.Attach, q.Rows, q.Columns, q.Unit = o.Attach, o.Rows, o.Columns, o.Unit
	if o.Attach {
		sys.Parallel()
	}
	stream, r, err := e.ask(q)
	if o.Warn != nil {
		for _, w := range r.Warnings {
			o.Warn(w)
		}
	}
	if err == nil && r.Declined {
		err = errDeclined
	}
	s := &Session{Container: c, Process: process.Identity{PID: r.PID, Start: r.Start}}
	switch {
	case err == nil && o.Attach:
		s.Attachment = monitor.Attached(stream)
		return s, nil
	case stream != nil:
		stream.Close()
	}
	return s, err
}

// Run makes a container and starts it, as Create and Start do. The id is also
// that of one which was made and could not be started; empty: none was.
func (e *Engine) Run(ctx context.Context, o RunOptions, start StartOptions) (id string, s *Session, err error) {
	if start.Before == nil {
		start.Before = func() {}
	}
	if start.Unit == "" && e.isHere(o, start.Attach) {
		start.Before()
		start.Before, start.Warn = func() {}, o.Warn
		c := &Container{}
		c.ID, c.Wishes = newID(), o.Wishes
		// It has done so before, and has what it needs at hand.
		s, err := e.begin(c, request{Op: "run", ID: c.ID, Image: o.Image, Wishes: &o.Wishes, Asked: o.Asked}, start)
		if !errors.Is(err, errDeclined) {
			return c.ID, s, err
		}
	}
	o.StartsNext, start.Warn = true, nil
	c, err := e.Create(ctx, o)
	if err != nil {
		return "", nil, err
	}
	start.Before()
	s, err = e.Start(c.ID, start)
	if err != nil && o.Wishes.Remove {
		_, _ = e.Remove(c.ID, true, true)
	}
	return c.ID, s, err
}

// isHere reports whether all that a container is made of is in the store, and
// its wishes mean the same to the monitor, which is in another directory. To fill
// a volume may take long: who waits for that wants to be able to interrupt it.
func (e *Engine) isHere(o RunOptions, attach bool) bool {
	w := &o.Wishes
	if w.RootFS || w.CIDFile != "" || w.Pull == "always" || w.Security.Seccomp != "" {
		return false
	}
	src, err := reference.ParseSource(o.Image)
	if err != nil || src.Transport != reference.Docker || strings.HasPrefix(o.Image, "docker://") {
		return false
	}
	entry, err := catalog.Get(e.Store, o.Image)
	if attach && (len(entry.Config.Volumes) > 0 || slices.ContainsFunc(w.Mounts, func(m bundle.Mount) bool { return m.Type == "volume" })) {
		return false
	}
	return err == nil && fits(entry, w.Platform) && !w.System(imageConfig(entry.Config))
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
		return nil, isRestarting("attach", c)
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

func isRestarting(op string, c *Container) error {
	return conflict(op, c, "You cannot attach to a restarting container, wait until it is running")
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
