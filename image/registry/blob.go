package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"kiste/fault"
	"kiste/image/source"
)

// progressMade is how many bytes make failures forgotten: with fewer a hostile
// server could go on for ever.
const progressMade = 64 << 10

// A blob reads a blob and heals itself: when the connection breaks, the rest
// is asked for. It is for one goroutine.
type blob struct {
	ctx      context.Context
	endpoint *endpoint
	d        source.Descriptor
	at       int64 // the next byte
	o        Options

	body     io.ReadCloser // nil: there is no connection
	fresh    int64         // bytes since the last failure
	failures int
}

// open asks for the bytes from b.at on.
func (b *blob) open() error {
	h := http.Header{}
	if b.at > 0 {
		h.Set("Range", "bytes="+strconv.FormatInt(b.at, 10)+"-")
	}
	res, err := b.endpoint.get(b.ctx, "blobs/"+b.d.Digest, h)
	if err != nil {
		return err
	}
	if err := b.accept(res); err != nil {
		res.Body.Close()
		return err
	}
	b.body = res.Body
	return nil
}

// accept checks that a response is what was asked for. A registry that gives
// all of the blob instead of its rest has the beginning thrown away.
func (b *blob) accept(res *http.Response) error {
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
		if _, err := io.CopyN(io.Discard, res.Body, b.at); err != nil {
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
	b.body = nil
}

func (b *blob) Close() error {
	b.hangUp()
	return nil
}
