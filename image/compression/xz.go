package compression

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz"

	"kiste/fault"
)

const (
	// maxDictionary bounds the memory that an xz stream may ask for; "xz -9"
	// makes 64 MiB. The format allows 4 GiB.
	maxDictionary = 64 << 20

	// Every block has a dictionary, which takes time to make, so that many
	// blocks of nothing would cost much more than they have: together these may
	// have so many bytes, and so many times the content. Those of xz(1) are
	// smaller than their blocks.
	freeDictionaries        = 4 << 30
	perContent       uint64 = 256
)

// newXZ reads xz, all streams that there are. Its filters besides LZMA2, for
// programs of one processor, are not read.
func newXZ(r io.Reader) (io.Reader, error) {
	return xz.NewReader(&xzGuard{r: bufio.NewReaderSize(r, 64<<10)})
}

// An xzGuard passes an xz stream on to the library, which takes as much memory
// as a block's header asks for. So it looks at every header before: it walks
// over what the stream is made of and leaves the judgement of all else to the
// library. See the .xz file format, version 1.2.1.
//
//	stream header ─▶ block header ─▶ chunk… ─▶ padding, check ─▶ block header
//	                       │                                         or
//	                       └────── index ─▶ record… ─▶ footer ─▶ stream header
type xzGuard struct {
	r    *bufio.Reader
	left int                  // bytes that may pass
	next func(*xzGuard) error // looks at what follows them; nil: a stream header

	check   int    // bytes of a block's check
	block   int64  // compressed bytes of this block, without its header
	records uint64 // of the index that are to come
	index   int64  // bytes of the index
	torn    bool   // it ends where it must not

	dictionaries, content uint64 // bytes, of all blocks
}

func (g *xzGuard) Read(p []byte) (int, error) {
	for g.left == 0 {
		if g.next == nil {
			g.next = (*xzGuard).stream
		}
		if err := g.next(g); err != nil {
			return 0, err
		}
	}
	n, err := g.r.Read(p[:min(len(p), g.left)])
	g.left -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// peek gives the next n bytes. At the end there may be fewer: those pass, and ok
// is false. The library takes some ends for whole that are not.
func (g *xzGuard) peek(n int) (b []byte, ok bool, err error) {
	b, err = g.r.Peek(n)
	switch {
	case err == nil:
		return b, true, nil
	case err == io.EOF && len(b) > 0:
		g.left, g.torn = len(b), true
		return b, false, nil
	case err == io.EOF && g.torn:
		err = io.ErrUnexpectedEOF
	}
	return nil, false, err
}

// checkSizes are the bytes of a check by its type (2.1.1.2).
var checkSizes = [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}

func (g *xzGuard) stream() error {
	const padding, header = 4, 12
	b, ok, err := g.peek(padding)
	if !ok {
		return err
	}
	if binary.LittleEndian.Uint32(b) == 0 {
		g.left = padding
		return nil
	}
	b, ok, err = g.peek(header)
	if !ok {
		return err
	}
	g.check, g.torn = checkSizes[b[7]&0xf], true
	g.left, g.next = header, (*xzGuard).blockHeader
	return nil
}

func (g *xzGuard) blockHeader() error {
	b, ok, err := g.peek(1)
	if !ok {
		return err
	}
	if b[0] == 0 {
		return g.indexHead()
	}
	b, ok, err = g.peek((int(b[0]) + 1) * 4)
	if !ok {
		return err
	}
	wanted, err := dictionaries(b)
	if err != nil {
		return err
	}
	if g.dictionaries += wanted; g.dictionaries > freeDictionaries+perContent*g.content {
		return unreadable("its blocks are too small for their dictionaries")
	}
	g.left, g.block, g.next = len(b), 0, (*xzGuard).chunk
	return nil
}

// dictionaries is what a block header (3.1) asks for, in bytes.
func dictionaries(b []byte) (wanted uint64, err error) {
	flags, rest := b[1], b[2:]
	for _, field := range [...]byte{0x40, 0x80} { // compressed, uncompressed size
		if flags&field != 0 {
			rest = rest[length(rest):]
		}
	}
	for range flags&3 + 1 {
		id, n := number(rest)
		rest = rest[n:]
		size, n := number(rest)
		rest = rest[n:]
		const lzma2 = 0x21
		switch {
		case size > uint64(len(rest)):
			return 0, errXZ
		case id != lzma2:
			return 0, unreadable("it uses the filter %#x", id)
		case size != 1 || rest[0] > 40:
			return 0, errXZ
		}
		if d := dictionary(rest[0]); d > maxDictionary {
			return 0, unreadable("it wants a dictionary of %d bytes, and may have %d", d, int64(maxDictionary))
		}
		wanted += dictionary(rest[0])
		rest = rest[size:]
	}
	return wanted, nil
}

// dictionary is the size that a property of LZMA2 stands for (5.3.1).
func dictionary(bits byte) uint64 { return (2 | uint64(bits&1)) << (bits/2 + 11) }

var errXZ = errors.New("xz: a header is damaged")

func unreadable(format string, args ...any) error {
	return &fault.Error{Op: "read xz", Kind: fault.Unsupported, Err: fmt.Errorf(format, args...), Hint: "let xz(1) decompress it: xz -dc FILE | kiste import - NAME"}
}

// number reads a multibyte integer (1.2), and length tells how long one is. Of
// one that is damaged all that there is counts.
func number(b []byte) (v uint64, n int) {
	n = length(b)
	for i, c := range b[:n] {
		v |= uint64(c&0x7f) << (7 * i)
	}
	return v, n
}

func length(b []byte) int {
	for i, c := range b {
		if c&0x80 == 0 || i == 8 {
			return i + 1
		}
	}
	return len(b)
}

// chunk is one of LZMA2, or its end with the block's padding and check.
func (g *xzGuard) chunk() error {
	b, ok, err := g.peek(1)
	if !ok {
		return err
	}
	control, n := b[0], 0
	switch {
	case control == 0:
		g.block++
		g.left, g.next = 1+padding(g.block)+g.check, (*xzGuard).blockHeader
		return nil
	case control <= 2: // not compressed
		if b, ok, err = g.peek(3); ok {
			n = 3 + int(binary.BigEndian.Uint16(b[1:])) + 1
			g.content += uint64(n - 3)
		}
	case control < 0x80:
		return errXZ
	default:
		if b, ok, err = g.peek(5); ok {
			n = 5 + int(binary.BigEndian.Uint16(b[3:])) + 1
			g.content += uint64(control&0x1f)<<16 + uint64(binary.BigEndian.Uint16(b[1:])) + 1
		}
		if control >= 0xc0 { // with new properties
			n++
		}
	}
	if !ok {
		return err
	}
	g.left = n
	g.block += int64(n)
	return nil
}

// padding makes n a multiple of four.
func padding(n int64) int { return int(-n & 3) }

// The index lists the blocks (4).
func (g *xzGuard) indexHead() error {
	b, _, err := g.peek(1 + 9)
	if len(b) == 0 {
		return err
	}
	count, n := number(b[1:])
	g.records = count
	g.left, g.index, g.next = 1+n, int64(1+n), (*xzGuard).record
	return nil
}

// record is one of the index, or its end with the footer.
func (g *xzGuard) record() error {
	const crc, footer = 4, 12
	if g.records == 0 {
		g.left, g.next, g.torn = padding(g.index)+crc+footer, (*xzGuard).stream, false
		return nil
	}
	b, _, err := g.peek(2 * 9)
	if len(b) == 0 {
		return err
	}
	n := length(b)
	n += length(b[n:])
	g.records--
	g.left = n
	g.index += int64(n)
	return nil
}
