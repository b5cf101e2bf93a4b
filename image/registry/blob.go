package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"kiste/fault"
	"kiste/image/source"
)

const (
	progressMade = 64 << 10 // bytes after which failures are forgotten: fewer, and a hostile server could go on for ever
	slowest      = 4 << 10  // bytes that must come while Options.Stall is waited for
)

var errStalled = errors.New("nothing came any more")

// A blob reads a blob and heals itself: when the connection breaks, the rest
// is asked for. It is for one goroutine.
type blob struct {
	ctx      context.Context
	endpoint *endpoint
	d        source.Descriptor
	at       int64 // the next byte
	o        Options

	body     io.ReadCloser // nil: there is no connection
	cancel   context.CancelCauseFunc
	fresh    int64 // bytes since the last failure
	failures int
}

// open asks for the bytes from b.at on.
func (b *blob) open() error {
	ctx, cancel := context.WithCancelCause(b.ctx)
	h := http.Header{}
	if b.at > 0 {
		h.Set("Range", "bytes="+strconv.FormatInt(b.at, 10)+"-")
	}
	res, err := b.endpoint.get(ctx, "blobs/"+b.d.Digest, h)
	if err != nil {
		cancel(nil)
		return err
	}
	body := &patient{ReadCloser: res.Body, ctx: ctx, cancel: cancel, limit: b.o.Stall}
	if err := b.accept(res, body); err != nil {
		cancel(nil)
		res.Body.Close()
		return err
	}
	b.body, b.cancel = body, cancel
	return nil
}

// accept checks that a response is what was asked for. A registry that gives
// all of the blob instead of its rest has the beginning thrown away.
func (b *blob) accept(res *http.Response, body io.Reader) error {
	switch res.StatusCode {
	case http.StatusPartialContent:
		from, size, ok := contentRange(res.Header.Get("Content-Range"))
		if !ok || from != b.at || size >= 0 && size != b.d.Size {
			return b.invalid(fmt.Errorf("byte %d of %d was asked for and the registry gives %.80q", b.at, b.d.Size, res.Header.Get("Content-Range")))
		}
		return nil
	case http.StatusOK:
		if res.ContentLength >= 0 && res.ContentLength != b.d.Size {
			return b.invalid(fmt.Errorf("the registry has %d bytes of it and the manifest says %d", res.ContentLength, b.d.Size))
		}
		if _, err := io.CopyN(io.Discard, body, b.at); err != nil {
			return b.endpoint.unavailable(err)
		}
		return nil
	}
	return b.endpoint.failure(res, "blob "+b.d.Digest)
}

func (b *blob) invalid(err error) error {
	return &fault.Error{Op: "fetch blob", On: b.d.Digest, Kind: fault.Invalid, Err: err, Hint: "the image is damaged in the registry: push it again"}
}

func (b *blob) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if b.at == b.d.Size {
			return 0, b.finish()
		}
		n, err := b.read(p[:min(int64(len(p)), b.d.Size-b.at)])
		b.at += int64(n)
		if b.fresh += int64(n); b.fresh >= progressMade {
			b.failures = 0
		}
		if n > 0 {
			return n, nil // an error will come again
		}
		if err := b.heal(err); err != nil {
			return 0, err
		}
	}
}

// read reads from the connection, and opens one where there is none.
func (b *blob) read(p []byte) (int, error) {
	if b.body == nil {
		if err := b.open(); err != nil {
			return 0, err
		}
	}
	n, err := b.body.Read(p)
	if n == 0 && err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// heal decides whether to go on after err, and waits before it does.
func (b *blob) heal(err error) error {
	if err == nil {
		return nil
	}
	b.hangUp()
	switch kind := fault.KindOf(err); {
	case b.ctx.Err() != nil:
		return context.Cause(b.ctx)
	case kind == fault.Invalid, kind == fault.NotFound, kind == fault.Denied:
		return err
	}
	if b.failures++; b.failures >= b.o.Attempts {
		if fault.KindOf(err) == fault.Unavailable {
			return err
		}
		return b.endpoint.unavailable(err)
	}
	b.fresh = 0
	return sleep(b.ctx, b.o.pause(b.failures))
}

// finish is called when all bytes are here. More of them would be a lie.
func (b *blob) finish() error {
	if b.body == nil {
		return io.EOF
	}
	var one [1]byte
	n, _ := b.body.Read(one[:])
	b.hangUp()
	if n > 0 {
		return b.invalid(fmt.Errorf("the registry has more of it than the %d bytes that the manifest says", b.d.Size))
	}
	return io.EOF
}

func (b *blob) hangUp() {
	if b.body == nil {
		return
	}
	b.body.Close()
	b.cancel(nil)
	b.body = nil
}

func (b *blob) Close() error {
	b.hangUp()
	return nil
}

// A patient reader gives up a body from which nothing, or next to nothing,
// comes while it is waited for. Time that the consumer takes does not count.
type patient struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	limit  time.Duration

	timer  *time.Timer
	waited time.Duration
	got    int64
}

func (p *patient) Read(b []byte) (int, error) {
	if p.timer == nil {
		p.timer = time.AfterFunc(p.limit, func() { p.cancel(errStalled) })
	} else {
		p.timer.Reset(p.limit)
	}
	start := time.Now()
	n, err := p.ReadCloser.Read(b)
	p.timer.Stop()
	p.waited += time.Since(start)
	p.got += int64(n)
	if p.waited > p.limit {
		if p.got < slowest {
			p.cancel(errStalled)
			return n, errStalled
		}
		p.waited, p.got = 0, 0
	}
	if err != nil && err != io.EOF && p.ctx.Err() != nil {
		err = context.Cause(p.ctx)
	}
	return n, err
}

func (p *patient) Close() error {
	if p.timer != nil {
		p.timer.Stop()
	}
	return p.ReadCloser.Close()
}
