// Package compression reads what is compressed, whatever by.
//
//	takes    a stream
//	gives    its content
//	touches  nothing
//	state    none
//
// A stream is known by its first bytes, never by a name. One that is cut off is
// an error and not its end. Bounds on the content are the caller's; the memory
// for it is bounded here. A Reader is for one goroutine.
package compression

import (
	"bufio"
	"compress/bzip2"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// HeadSize is how many bytes Of looks at.
const HeadSize = 6

// maxWindow bounds the memory that a zstd frame may ask for (RFC 8878
// recommends to take 8 MiB; "zstd --long" makes 128).
const maxWindow = 128 << 20

// Of tells a compression by the first bytes: "gzip", "zstd", "bzip2", "xz", or
// "" for none of them.
func Of(head []byte) string {
	for _, c := range [...]struct{ name, magic string }{
		{"gzip", "\x1f\x8b"}, {"zstd", "\x28\xb5\x2f\xfd"}, {"bzip2", "BZh"}, {"xz", "\xfd7zXZ\x00"},
	} {
		if len(head) >= len(c.magic) && string(head[:len(c.magic)]) == c.magic {
			return c.name
		}
	}
	if isSkippable(head) {
		return "zstd"
	}
	return ""
}

// isSkippable tells a skippable frame of zstd, which may come first (RFC 8878,
// 3.1.2).
func isSkippable(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18"
}

// Decompress gives the content of r.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(HeadSize)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch Of(head) {
	case "gzip":
		return gzip.NewReader(br)
	case "zstd":
		d, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case "bzip2":
		return io.NopCloser(bzip2.NewReader(br)), nil
	case "xz":
		x, err := newXZ(br)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	}
	return io.NopCloser(br), nil
}
