package layer

import (
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"kiste/fault"
)

// maxWindow bounds the memory that a zstd frame may ask for (RFC 8878
// recommends to take 8 MiB; "zstd --long" makes 128).
const maxWindow = 128 << 20

// Decompress gives the content of r, told by its first bytes: gzip, zstd,
// bzip2, xz, or as it is. A stream that is cut off is an error and not its end.
func Decompress(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case hasMagic(head, "\x1f\x8b"):
		return gzip.NewReader(br)
	case hasMagic(head, "\x28\xb5\x2f\xfd"), isSkippable(head):
		d, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case hasMagic(head, "BZh"):
		return io.NopCloser(bzip2.NewReader(br)), nil
	case hasMagic(head, "\xfd7zXZ\x00"):
		return xz(ctx, br)
	}
	return io.NopCloser(br), nil
}

func hasMagic(head []byte, magic string) bool {
	return len(head) >= len(magic) && string(head[:len(magic)]) == magic
}

// isSkippable tells a skippable frame of zstd, which may come first (RFC 8878,
// 3.1.2).
func isSkippable(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18"
}

// xz starts the host's xz(1), never one of an image: Go's library has none.
func xz(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	cmd := exec.CommandContext(ctx, "xz", "--decompress", "--stdout", "--memlimit=256MiB")
	cmd.Stdin = r
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, &fault.Error{Op: "start xz", Kind: fault.Unsupported, Err: err, Hint: "install xz-utils, or decompress the file by other means"}
	}
	return &program{out, cmd}, nil
}

// A program is the output of a command; its failure is an error at its end.
type program struct {
	io.Reader
	cmd *exec.Cmd
}

func (p *program) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if err == io.EOF && p.cmd.ProcessState == nil {
		if failed := p.cmd.Wait(); failed != nil {
			err = fmt.Errorf("xz: %w", failed)
		}
	}
	return n, err
}

func (p *program) Close() error {
	if p.cmd.ProcessState == nil {
		return errors.Join(p.cmd.Process.Kill(), ignoreExit(p.cmd.Wait()))
	}
	return nil
}

// ignoreExit drops what a killed program's end says.
func ignoreExit(err error) error {
	if _, ok := err.(*exec.ExitError); ok {
		return nil
	}
	return err
}

// An Ahead is a reader that reads ahead of its user.
type Ahead struct {
	full chan piece
	free chan []byte
	stop chan struct{}
	done chan struct{}
	cur  piece
	rest []byte
	seen func([]byte)
}

type piece struct {
	b   []byte
	err error
}

// ReadAhead reads r in a goroutine, up to n chunks of size bytes ahead. Seen,
// if not nil, is called with every piece as it is taken, by the reader's
// goroutine. Close waits until r is not read any more.
func ReadAhead(r io.Reader, n, size int, seen func([]byte)) *Ahead {
	a := &Ahead{full: make(chan piece, n), free: make(chan []byte, n), stop: make(chan struct{}), done: make(chan struct{}), seen: seen}
	for range n {
		a.free <- make([]byte, size)
	}
	go a.fill(r)
	return a
}

func (a *Ahead) fill(r io.Reader) {
	defer close(a.done)
	for {
		var b []byte
		select {
		case b = <-a.free:
		case <-a.stop:
			return
		}
		n, err := fillHalf(r, b[:cap(b)])
		select {
		case a.full <- piece{b[:n], err}:
		case <-a.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// fillHalf reads until half of b is full. Other than for io.ReadAtLeast the end
// of r is io.EOF also behind some bytes, and only r itself can say that it was
// cut off.
func fillHalf(r io.Reader, b []byte) (n int, err error) {
	for n < len(b)/2 && err == nil {
		var more int
		more, err = r.Read(b[n:])
		n += more
	}
	return n, err
}

func (a *Ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.b != nil {
			a.free <- a.cur.b
		}
		a.cur = <-a.full
		a.rest = a.cur.b
		if a.seen != nil {
			a.seen(a.rest)
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close ends reading ahead.
func (a *Ahead) Close() error {
	close(a.stop)
	<-a.done
	return nil
}
