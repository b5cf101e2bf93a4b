package monitor

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"kiste/container/logfile"
	"kiste/fault"
	"kiste/internal/sys"
)

// A frame is eight bytes, its kind first and its length last (four bytes,
// big-endian), and so many bytes: Docker's multiplexed stream, with kinds of our
// own for what goes the other way.
type kind byte

const (
	frameInput  kind = 0 // to the container
	frameStdout kind = 1
	frameStderr kind = 2
	frameEnd    kind = 3 // of the input
	frameResize kind = 4 // rows and columns, two bytes each, big-endian
	frameQuiet  kind = 5 // to the container's keeper: send no output
	frameExit   kind = 6 // the exit code, four bytes, big-endian: the last frame
)

const frameHeader = 8

func appendFrame(to []byte, k kind, b []byte) []byte {
	to = append(to, byte(k), 0, 0, 0)
	to = binary.BigEndian.AppendUint32(to, uint32(len(b)))
	return append(to, b...)
}

// readFrame reads one into buffer, which is large enough for any.
func readFrame(r io.Reader, buffer []byte) (kind, []byte, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[4:])
	if n > uint32(len(buffer)) {
		return 0, nil, &fault.Error{Op: "read from who is attached", Kind: fault.Invalid, Err: errors.New("the frame is too long")}
	}
	_, err := io.ReadFull(r, buffer[:n])
	return kind(h[0]), buffer[:n], err
}

// output is where a container's output goes.
type output struct {
	log    Log
	failed func(error)
	took   func()

	mu      sync.Mutex
	splits  map[string]*logfile.Splitter
	lost    bool
	clients map[*client]bool
	hungUp  bool
}

func newOutput(o Options) *output {
	splits := map[string]*logfile.Splitter{}
	for _, s := range []string{logfile.Stdout, logfile.Stderr} {
		splits[s] = &logfile.Splitter{Stream: s}
	}
	took := o.Took
	if took == nil {
		took = func() {}
	}
	return &output{log: o.Log, failed: o.LogFailed, took: took, splits: splits, clients: map[*client]bool{}}
}

// take gives b away: to the log, and to whoever is attached.
func (o *output) take(stream string, b []byte) {
	o.took()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logged(stream, b)
	k := frameStdout
	if stream == logfile.Stderr {
		k = frameStderr
	}
	for c := range o.clients {
		if !c.quiet.Load() && !c.send(k, b) {
			o.drop(c)
		}
	}
}

// batch is how many entries are made at a time: lines may be empty, and an entry is
// much larger than such a line.
const batch = 256

// batches are shared by all keepers: they are needed only while bytes flow.
var batches = sync.Pool{New: func() any { return new([batch]logfile.Entry) }}

func (o *output) logged(stream string, b []byte) {
	room := batches.Get().(*[batch]logfile.Entry)
	defer batches.Put(room)
	for len(b) > 0 {
		var entries []logfile.Entry
		entries, b = o.splits[stream].Split(b, room[:])
		o.write(entries)
	}
}

func (o *output) write(entries []logfile.Entry) {
	if o.log == nil || len(entries) == 0 {
		return
	}
	err := o.log.Write(entries...)
	if lost := err != nil; lost != o.lost && o.failed != nil {
		o.failed(err)
	}
	o.lost = err != nil
}

// finish ends lines that have no newline.
func (o *output) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range []string{logfile.Stdout, logfile.Stderr} {
		o.write(o.splits[s].End())
	}
}

// hangUp lets all that are attached go, when they have got everything and the
// exit code.
func (o *output) hangUp(code int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hungUp = true
	last := binary.BigEndian.AppendUint32(nil, uint32(code))
	for c := range o.clients {
		_ = c.stream.SetWriteDeadline(time.Now().Add(lastWords))
		c.send(frameExit, last)
		o.drop(c)
		<-c.written
	}
}

// lastWords is how long a client that does not read keeps a container's end from
// being written down.
const lastWords = 5 * time.Second

func (o *output) add(c *client) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hungUp {
		return false
	}
	o.clients[c] = true
	return true
}

func (o *output) remove(c *client) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(c)
}

// drop lets a client go when what it was sent is written.
func (o *output) drop(c *client) {
	if o.clients[c] {
		delete(o.clients, c)
		close(c.queue)
	}
}

// A client is somebody who is attached.
type client struct {
	stream  *os.File
	quiet   atomic.Bool   // it wants no output
	queue   chan *[]byte  // of buffers
	gone    chan struct{} // closed when it does not read any more
	written chan struct{} // closed when it has got everything, or is gone
}

func newClient(stream *os.File) *client {
	return &client{stream: stream, queue: make(chan *[]byte, queued), gone: make(chan struct{}), written: make(chan struct{})}
}

// queued is how many chunks wait for a client that is slow. Then the container
// waits too, as it does for a slow terminal.
const queued = 16

// send reports whether the client is still there.
func (c *client) send(k kind, b []byte) bool {
	frame := buffers.Get().(*[]byte)
	*frame = appendFrame((*frame)[:0], k, b)
	select {
	case c.queue <- frame:
		return true
	case <-c.gone:
		buffers.Put(frame)
		return false
	}
}

// deliver writes what is queued.
func (c *client) deliver() {
	defer close(c.written)
	for frame := range c.queue {
		_, err := c.stream.Write(*frame)
		buffers.Put(frame)
		if err != nil {
			close(c.gone)
			return
		}
	}
	// No more comes, which the other side learns before its own words end.
	_ = sys.CloseWrite(c.stream)
}

// serve takes those who want to attach.
func (k *Keeper) serve() {
	for {
		stream, uid, err := sys.Accept(k.socket)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			// Too many files are open; others may be closed soon.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if own := uint32(os.Geteuid()); uid != own && uid != 0 {
			stream.Close()
			continue
		}
		if !k.Admit(stream) {
			stream.Close()
		}
	}
}

// Admit attaches whoever is at the other end of stream, which is the keeper's
// then: see Attached. It is false when the container has ended.
func (k *Keeper) Admit(stream *os.File) bool {
	c := newClient(stream)
	if !k.out.add(c) {
		return false
	}
	k.out.took()
	go c.deliver()
	go k.obey(c)
	return true
}

// obey carries out what a client sends, until it leaves.
func (k *Keeper) obey(c *client) {
	defer k.out.took()
	defer c.stream.Close()
	defer k.out.remove(c)
	buffer := make([]byte, chunk)
	for {
		what, b, err := readFrame(c.stream, buffer)
		if err != nil {
			return
		}
		k.out.took()
		switch {
		case what == frameInput:
			_ = k.Type(b) // a container without input, or that is gone, does not hear
		case what == frameEnd:
			k.EndInput()
		case what == frameQuiet:
			c.quiet.Store(true)
		case what == frameResize && len(b) == 4:
			_ = k.Resize(binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
		default:
			return
		}
	}
}

// An Attachment is the other end: somebody who is attached.
type Attachment struct {
	stream *os.File
	mu     sync.Mutex // of writing
	code   int        // the exit code; negative: not told
}

// Attach attaches to the container with the given ends. Without a keeper it is
// fault.Unavailable.
func Attach(dir string) (*Attachment, error) {
	stream, err := sys.DialUnix(filepath.Join(dir, socketName))
	if err != nil {
		return nil, &fault.Error{Op: "attach to container", On: filepath.Base(dir), Kind: fault.Unavailable, Err: err}
	}
	return Attached(stream), nil
}

// Attached makes an attachment of a stream whose other end is one of
// Options.Clients.
func Attached(stream *os.File) *Attachment { return &Attachment{stream: stream, code: -1} }

// Copy copies output until the container has ended, or Close.
func (a *Attachment) Copy(stdout, stderr io.Writer) error {
	buffer := make([]byte, chunk)
	for {
		k, b, err := readFrame(a.stream, buffer)
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		to := stdout
		switch k {
		case frameStderr:
			to = stderr
		case frameExit:
			if len(b) == 4 {
				a.code = int(binary.BigEndian.Uint32(b))
			}
			return nil
		}
		if _, err := to.Write(b); err != nil {
			return err
		}
	}
}

// Code is the container's exit code, when Copy has returned. Known is false
// where nobody has told it: this side has left, or the keeper was killed.
func (a *Attachment) Code() (code int, known bool) { return a.code, a.code >= 0 }

// Quiet asks for no output, only for the end.
func (a *Attachment) Quiet() error { return a.send(frameQuiet, nil) }

func (a *Attachment) send(k kind, b []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err := a.stream.Write(appendFrame(nil, k, b))
	return err
}

// Write writes to the container's standard input.
func (a *Attachment) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		part := b[:min(len(b), chunk)]
		if err := a.send(frameInput, part); err != nil {
			return written, err
		}
		b, written = b[len(part):], written+len(part)
	}
	return written, nil
}

// EndInput ends the container's standard input.
func (a *Attachment) EndInput() error { return a.send(frameEnd, nil) }

// Resize gives the container's terminal a size in characters.
func (a *Attachment) Resize(rows, columns uint16) error {
	return a.send(frameResize, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, rows), columns))
}

// SetWriteDeadline bounds how long a container that does not read keeps a
// writer waiting. A frame that it cuts short is the attachment's last.
func (a *Attachment) SetWriteDeadline(t time.Time) error { return a.stream.SetWriteDeadline(t) }

// Close leaves. The container goes on.
func (a *Attachment) Close() error { return a.stream.Close() }
