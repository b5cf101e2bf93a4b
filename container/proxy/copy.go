package proxy

import (
	"io"
	"net"
	"sync"
	"time"
)

// A Stream is a connection each side of which ends by itself.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// buffers are for copying; their size is that of a large segment, twice.
var buffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// Join copies between two streams until both sides have ended, and closes them.
func Join(a, b Stream) {
	done := make(chan struct{})
	go func() {
		pump(a, b)
		close(done)
	}()
	pump(b, a)
	<-done
	a.Close()
	b.Close()
}

// pump copies one side, and its end. Where it cannot be copied any more both
// streams are of no use.
func pump(to, from Stream) {
	err := copyAll(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		soon := time.Now()
		to.SetDeadline(soon)
		from.SetDeadline(soon)
	}
}

func copyAll(to, from Stream) error {
	_, isSocket := to.(*net.TCPConn)
	if _, both := from.(*net.TCPConn); isSocket && both {
		_, err := io.Copy(to, from) // by the kernel
		return err
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	// Without methods, so that the buffer is used.
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, *buffer)
	return err
}
