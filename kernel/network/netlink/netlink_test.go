package netlink

import (
	"encoding/binary"
	"errors"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever comes, the parsers end and stay within it.
func FuzzParseMessages(f *testing.F) {
	f.Add([]byte{16, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		all, _, _, _ := parseMessages(data, 0, 0)
		for _, m := range append(all, Message{0, data}) {
			attributes, _ := Parse(m.Data)
			for _, a := range attributes {
				_, _ = U32(a.Data), Big32(a.Data)
				_ = Find(a.Data, 1)
			}
		}
	})
}

func TestMessagesThatLieAboutTheirLength(t *testing.T) {
	for _, b := range [][]byte{
		{1, 2, 3},
		{15, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{17, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{255, 255, 255, 255, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		if _, done, _, err := parseMessages(b, 0, 0); err == nil || !done {
			t.Errorf("parseMessages(%v) = %v, %v; want it refused", b, done, err)
		}
	}
}

// answer is a datagram with the end of request seq.
func answer(seq uint32, code int32, words string) []byte {
	data := binary.NativeEndian.AppendUint32(nil, uint32(code))
	flags := uint16(0)
	if words != "" {
		b := Body(append(data, make([]byte, unix.SizeofNlMsghdr)...))
		b.Text(wordsText, words)
		data, flags = b, flagCapped|flagWords
	}
	s := Socket{seq: seq - 1}
	b := s.pack([]Request{{unix.NLMSG_ERROR, flags, data}}, 0)
	binary.NativeEndian.PutUint16(b[6:], flags)
	return b
}

func TestTheFirstErrorSaysWhichRequestAndWhy(t *testing.T) {
	b := append(answer(3, 0, ""), answer(7, -int32(unix.EPERM), "no such thing")...)
	b = append(b, answer(9, 0, "")...)
	_, done, at, err := parseMessages(b, 5, 9)
	var e *Error
	if !done || at != 2 || !errors.Is(err, syscall.EPERM) || !errors.As(err, &e) || e.Words != "no such thing" {
		t.Errorf("got %v, request %d, done %v", err, at, done)
	}
	if _, done, at, err := parseMessages(answer(9, 0, ""), 5, 9); !done || at != 4 || err != nil {
		t.Errorf("the end: %v, request %d, done %v", err, at, done)
	}
}

func TestNest(t *testing.T) {
	var b Body
	b.Nest(3, func(b *Body) { b.U8(1, 7); b.Nest(2, func(b *Body) { b.Text(4, "x") }) })
	if got := Text(Find(Find(Find(b, 3), 2), 4)); got != "x" {
		t.Errorf("got %q", got)
	}
}
