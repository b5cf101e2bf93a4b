package monitor

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"kiste/container/logfile"
	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
)

// A Log takes entries: a logfile.Writer, or what sends them elsewhere.
type Log interface {
	Write(entries ...logfile.Entry) error
}

// Options say what to keep.
type Options struct {
	Ends
	Process process.Identity

	// Log gets the output; nil: nobody does.
	Log Log

	// LogFailed hears of the first entry that was lost, and of the first one
	// after that was written: nil. It must not block.
	LogFailed func(error)

	// Took hears that output was taken, often, and that somebody who is attached has
	// come, sent something or left. It must not block. Nil: nobody does.
	Took func()

	// Clients gives streams whose other ends are attached from the beginning:
	// see Attached. They are the keeper's. It is called when all others can
	// attach, before anything is taken. Nil: there are none.
	Clients func() []*os.File

	// Ended tells how the process ended where somebody else has waited for
	// it. Nil: nobody has.
	Ended func() (syscall.WaitStatus, bool)

	// Exit hears of the end when all output is in the log, and gives the exit
	// code that those who are attached are told. Nil: the process's own.
	Exit func(End) int
}

// An End is how a process ended.
type End struct {
	Status syscall.WaitStatus
	Known  bool // else nobody saw it
	At     time.Time
}

// Code is the exit code: of a process that a signal has ended 128 and its
// number; 255 where nobody saw the end.
func (e End) Code() int {
	if !e.Known {
		return 255
	}
	return sys.ExitCode(e.Status)
}

// A Keeper keeps one container.
type Keeper struct {
	o      Options
	pidfd  *os.File
	out    *output
	socket *os.File
	pumps  sync.WaitGroup
	flows  []*os.File

	input sync.Mutex
	stdin *os.File // nil: there is none, or it has ended

	done chan struct{}
	end  End
}

// Keep begins to keep a container whose ends are open and whose process has
// been started. A process that has ended already is fine: then what it wrote
// is taken.
func Keep(o Options) (*Keeper, error) {
	k := &Keeper{o: o, out: newOutput(o), done: make(chan struct{})}
	if err := k.open(); err != nil {
		k.closeAll()
		return nil, &fault.Error{Op: "keep container", On: filepath.Base(o.Dir), Err: err}
	}
	sys.Parallel()
	if o.Clients != nil {
		for _, stream := range o.Clients() {
			k.Admit(stream)
		}
		k.o.Clients = nil // who may hold all that was asked for
	}
	for i, f := range k.flows {
		stream := [...]string{logfile.Stdout, logfile.Stderr}[i]
		k.pumps.Go(func() { k.pump(f, stream) })
	}
	go k.serve()
	go k.wait()
	return k, nil
}

func (k *Keeper) open() (err error) {
	if fd, err := k.o.Process.Watch(); err == nil {
		if k.pidfd, err = sys.Watched(fd, "pidfd"); err != nil {
			return err
		}
	}
	switch {
	case k.o.Terminal:
		if k.stdin, err = k.o.held(); err != nil {
			return err
		}
		k.flows = []*os.File{k.stdin}
	default:
		if err := k.openFIFOs(); err != nil {
			return err
		}
	}
	path := filepath.Join(k.o.Dir, socketName)
	_ = os.Remove(path) // of a keeper that was killed
	k.socket, err = sys.ListenUnix(path, 0o600)
	return err
}

func (k *Keeper) openFIFOs() error {
	for _, name := range []string{outName, errName} {
		f, err := os.OpenFile(filepath.Join(k.o.Dir, name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		k.flows = append(k.flows, f)
	}
	if !k.o.Input {
		return nil
	}
	// Without the container's end there is nobody to write to.
	in, err := os.OpenFile(filepath.Join(k.o.Dir, inName), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENXIO) {
		return nil
	}
	k.stdin = in
	return err
}

func (k *Keeper) closeAll() {
	for _, f := range append(k.flows, k.pidfd, k.socket, k.stdin) {
		if f != nil {
			f.Close()
		}
	}
}

// wait waits for the end of the process and of its output.
func (k *Keeper) wait() {
	if k.pidfd != nil {
		_ = sys.WaitPidfd(k.pidfd)
	}
	k.end.At = time.Now()
	k.end.Status, k.end.Known = k.status()
	// What is still in the pipes is taken; who else has them open is not
	// waited for.
	for _, f := range k.flows {
		_ = f.SetReadDeadline(time.Unix(1, 0))
	}
	k.pumps.Wait()
	k.out.finish()
	k.socket.Close()
	_ = os.Remove(filepath.Join(k.o.Dir, socketName))
	k.endInput()
	gone := k.o.letGo()
	code := k.end.Code()
	if k.o.Exit != nil {
		code = k.o.Exit(k.end)
	}
	gone()
	k.out.hangUp(code)
	k.closeAll()
	close(k.done)
}

// status is what the kernel knows of the end: to a parent, or by the pidfd.
func (k *Keeper) status() (syscall.WaitStatus, bool) {
	if s, ok := sys.TryReap(k.o.Process.PID); ok {
		return s, true
	}
	if s, ok := k.exit(); ok {
		return s, true
	}
	if k.o.Ended == nil {
		return 0, false
	}
	if s, ok := k.o.Ended(); ok {
		return s, true
	}
	return k.exit() // by now the host's init has waited for it
}

// exit is what the kernel tells by the pidfd when the parent, whoever that is,
// has waited for the process.
func (k *Keeper) exit() (syscall.WaitStatus, bool) {
	if k.pidfd == nil {
		return 0, false
	}
	return sys.PidfdExit(int(k.pidfd.Fd()))
}

// Mounts opens the process's mount namespace, which then ends with the
// descriptor, the caller's to close.
func (k *Keeper) Mounts() (int, error) {
	if k.pidfd == nil {
		return -1, os.ErrClosed
	}
	fd, err := sys.Descriptor(k.pidfd)
	if err != nil {
		return -1, err
	}
	return sys.PidfdMounts(fd)
}

// Wait waits until the process has ended and all its output is written.
func (k *Keeper) Wait() End {
	<-k.done
	return k.end
}

// Kill kills the process.
func (k *Keeper) Kill() error {
	if k.pidfd == nil {
		return nil
	}
	return sys.PidfdSignal(int(k.pidfd.Fd()), syscall.SIGKILL)
}

// Done is closed when Wait would not wait.
func (k *Keeper) Done() <-chan struct{} { return k.done }

// chunk is how many bytes are taken at a time.
const chunk = 64 << 10

// buffers are shared by all keepers: they are needed only while bytes flow. Each
// has room for a frame with a chunk; its length means nothing.
var buffers = sync.Pool{New: func() any { b := make([]byte, frameHeader+chunk); return &b }}

// pump takes one stream until its end.
func (k *Keeper) pump(f *os.File, stream string) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	take := k.takeFIFO
	if k.o.Terminal {
		take = k.takeTerminal
	}
	for {
		var more, ended bool
		err := conn.Read(func(fd uintptr) bool {
			more, ended = take(int(fd), stream)
			return more || ended
		})
		if ended {
			return
		}
		if err != nil {
			break // the process has ended
		}
	}
	_ = conn.Control(func(fd uintptr) {
		for more := true; more; {
			more, _ = take(int(fd), stream)
		}
	})
}

// takeTerminal takes what a terminal has. Its other side may hang up (EIO) and be
// opened again, as the console of a system is: the process alone tells the end.
func (k *Keeper) takeTerminal(fd int, stream string) (more, ended bool) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	n, err := sys.Read(fd, (*buffer)[:chunk])
	if n > 0 {
		k.out.take(stream, (*buffer)[:n])
		return true, false
	}
	return false, !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EIO)
}

// takeFIFO copies what a FIFO has, gives it away, and only then takes it out.
func (k *Keeper) takeFIFO(fd int, stream string) (more, ended bool) {
	p, err := pipes.get()
	if err != nil {
		return false, true
	}
	defer pipes.put(p)
	n, err := sys.Tee(fd, int(p.w.Fd()), chunk)
	if n == 0 {
		return false, !errors.Is(err, syscall.EAGAIN)
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	b := (*buffer)[:n]
	if _, err := io.ReadFull(p.r, b); err != nil {
		return false, true
	}
	k.out.take(stream, b)
	for n > 0 {
		got, err := sys.Read(fd, b[:n])
		if got <= 0 || err != nil {
			return false, true
		}
		n -= got
	}
	return true, false
}

// A copyPipe is where tee(2) copies to.
type copyPipe struct{ r, w *os.File }

// A pipePool has pipes that are empty.
type pipePool struct {
	mu   sync.Mutex
	free []copyPipe
}

var pipes pipePool

func (p *pipePool) get() (copyPipe, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free = p.free[:n-1]
		return c, nil
	}
	r, w, err := sys.Pipe()
	return copyPipe{r, w}, err
}

const keptPipes = 4

func (p *pipePool) put(c copyPipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < keptPipes {
		p.free = append(p.free, c)
		return
	}
	c.r.Close()
	c.w.Close()
}

// Type writes to the container's standard input. Without one it is
// fault.Conflict.
func (k *Keeper) Type(b []byte) error {
	k.input.Lock()
	defer k.input.Unlock()
	if k.stdin == nil {
		return &fault.Error{Op: "write to standard input of", On: filepath.Base(k.o.Dir), Kind: fault.Conflict, Err: errors.New("it has none, or it has ended")}
	}
	_, err := k.stdin.Write(b)
	return err
}

// EndInput ends the container's standard input. A terminal is told as a person
// would.
func (k *Keeper) EndInput() {
	if k.o.Terminal {
		_ = k.Type([]byte{4})
		return
	}
	k.endInput()
	k.o.Release()
}

func (k *Keeper) endInput() {
	if k.stdin == nil || k.o.Terminal {
		return
	}
	_ = k.stdin.SetWriteDeadline(time.Unix(1, 0)) // a container that does not read holds nobody up
	k.input.Lock()
	defer k.input.Unlock()
	if k.stdin != nil {
		k.stdin.Close()
		k.stdin = nil
	}
}

// Resize gives the container's terminal a size in characters.
func (k *Keeper) Resize(rows, columns uint16) error {
	if !k.o.Terminal {
		return nil
	}
	return sys.SetWindowSize(k.flows[0], rows, columns)
}
