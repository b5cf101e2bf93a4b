// Package netlink speaks with the kernel in netlink messages.
//
//	takes    requests: a kind, flags and a body of attributes
//	gives    the kernel's answers, taken apart; its error, with its words
//	touches  netlink sockets of the calling thread's network namespace
//	state    none
//
// A message is a header, a fixed structure, and attributes, which are numbers
// with values and may hold attributes again: netlink(7). Several requests
// may go in one datagram; the kernel has done all of them when the sending
// returns, and tells of those that failed.
//
// The rooms above give the numbers their meaning: kernel/network of rtnetlink,
// kernel/network/nft of nf_tables. A Socket must not be used by several
// goroutines at once; what it may ask for is decided by CAP_NET_ADMIN over the
// namespace that it was opened in.
package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
)

// answerSeconds bounds the wait for the kernel's answer.
const answerSeconds = 10

// maxMessages bounds what one dump may hold.
const maxMessages = 1 << 20

// receiveSize is the largest datagram that the kernel makes of a dump.
const receiveSize = 32 << 10

// sendSize is what a socket takes without being asked for more room.
const sendSize = 128 << 10

// errShort says of a message that its numbers lie.
var errShort = errors.New("a message of the kernel is shorter than it says")

// ErrShort is the error of a message that is shorter than it says.
func ErrShort() error { return errShort }

// A Socket speaks one netlink protocol with one network namespace.
type Socket struct {
	fd     int
	seq    uint32
	buffer []byte
}

// Open opens a socket of the protocol, unix.NETLINK_ROUTE or another, in the
// calling thread's network namespace.
func Open(protocol int) (*Socket, error) {
	fd, err := sys.Netlink(protocol, answerSeconds)
	if err != nil {
		return nil, err
	}
	return &Socket{fd: fd}, nil
}

// From is a Socket of a netlink socket that somebody has opened elsewhere, new and
// not used yet; after an error it is closed.
func From(fd int) (*Socket, error) {
	if err := sys.NetlinkReady(fd, answerSeconds); err != nil {
		return nil, err
	}
	return &Socket{fd: fd}, nil
}

// Close gives the descriptor back.
func (s *Socket) Close() error { return sys.Close(s.fd) }

// A Request is one message to the kernel. Flags are unix.NLM_F_ bits.
type Request struct {
	Kind  uint16
	Flags uint16
	Body  []byte
}

// A Message is an answer without its header.
type Message struct {
	Kind uint16
	Data []byte
}

// Ask sends one request and gives the answers up to the end.
func (s *Socket) Ask(kind, flags uint16, body []byte) ([]Message, error) {
	all, _, err := s.Do([]Request{{kind, flags, body}})
	return all, err
}

// Do sends requests in one datagram and gives what the kernel answers. It
// returns with the first error; at says which request it is about. The others
// have been done by then, unless the protocol has transactions.
func (s *Socket) Do(requests []Request) (all []Message, at int, err error) {
	return s.DoUntil(requests, len(requests)-1)
}

// DoUntil is Do for protocols whose last messages are not answered: the answer
// ends with that to the request with number last.
func (s *Socket) DoUntil(requests []Request, last int) (all []Message, at int, err error) {
	if len(requests) == 0 {
		return nil, 0, nil
	}
	first := s.seq + 1
	out := s.pack(requests, last)
	if len(out) > sendSize {
		if err := sys.NetlinkRoom(s.fd, 2*len(out)); err != nil {
			return nil, 0, err
		}
	}
	if err := sys.NetlinkSend(s.fd, out); err != nil {
		return nil, 0, err
	}
	if s.buffer == nil {
		s.buffer = make([]byte, receiveSize)
	}
	for len(all) < maxMessages {
		n, err := sys.NetlinkReceive(s.fd, s.buffer)
		if err != nil {
			return nil, 0, err
		}
		got, done, at, err := parseMessages(s.buffer[:n], first, first+uint32(last))
		all = append(all, got...)
		if done || err != nil {
			return all, at, err
		}
	}
	return nil, 0, fmt.Errorf("the kernel's answer has more than %d messages", maxMessages)
}

// pack numbers the requests; the last one that is answered asks for an
// acknowledgement.
func (s *Socket) pack(requests []Request, last int) []byte {
	size := 0
	for _, r := range requests {
		size += unix.SizeofNlMsghdr + align(len(r.Body))
	}
	out := make([]byte, 0, size)
	order := binary.NativeEndian
	for i, r := range requests {
		s.seq++
		flags := r.Flags | unix.NLM_F_REQUEST
		if i == last {
			flags |= unix.NLM_F_ACK
		}
		out = order.AppendUint32(out, uint32(unix.SizeofNlMsghdr+len(r.Body)))
		out = order.AppendUint16(out, r.Kind)
		out = order.AppendUint16(out, flags)
		out = order.AppendUint32(out, s.seq)
		out = order.AppendUint32(out, 0)
		out = append(out, r.Body...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return out
}

func align(n int) int { return (n + 3) &^ 3 }

// parseMessages takes a datagram apart. Messages with a sequence number outside
// of first to last are passed over. Done: the answer ends here; err is what the
// kernel said about the request with number at.
func parseMessages(b []byte, first, last uint32) (all []Message, done bool, at int, err error) {
	order := binary.NativeEndian
	for len(b) > 0 {
		if len(b) < unix.SizeofNlMsghdr {
			return nil, true, 0, errShort
		}
		length := order.Uint32(b)
		if length < unix.SizeofNlMsghdr || uint64(length) > uint64(len(b)) {
			return nil, true, 0, errShort
		}
		kind, flags, seq := order.Uint16(b[4:]), order.Uint16(b[6:]), order.Uint32(b[8:])
		data := b[unix.SizeofNlMsghdr:length]
		b = b[min(align(int(length)), len(b)):]
		if seq-first > last-first {
			continue
		}
		switch kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if err := errorOf(data, flags); err != nil || seq == last {
				return all, true, int(seq - first), err
			}
		default:
			all = append(all, Message{kind, append([]byte{}, data...)})
		}
	}
	return all, false, 0, nil
}

// Numbers of linux/netlink.h that package unix lacks.
const (
	flagCapped = 0x100 // of an error: the request is not repeated in it
	flagWords  = 0x200 // of an error: attributes follow
	wordsText  = 1
)

// errorOf is the negative errno that ends an answer; 0 is success.
func errorOf(data []byte, flags uint16) error {
	if len(data) < 4 {
		return nil
	}
	code := int32(binary.NativeEndian.Uint32(data))
	if code >= 0 || code <= -4096 {
		return nil
	}
	errno := syscall.Errno(-code)
	if text := words(data[4:], flags); text != "" {
		return &Error{errno, text}
	}
	return errno
}

// words finds the kernel's text behind the header of the request.
func words(b []byte, flags uint16) string {
	if flags&flagWords == 0 || flags&flagCapped == 0 || len(b) < unix.SizeofNlMsghdr {
		return ""
	}
	return Text(Find(b[unix.SizeofNlMsghdr:], wordsText))
}

// An Error is what the kernel says of a request, in its own words.
type Error struct {
	Errno syscall.Errno
	Words string
}

func (e *Error) Error() string { return e.Errno.Error() + ": " + e.Words }
func (e *Error) Unwrap() error { return e.Errno }

// An Attribute is a struct nlattr: a number and a value, which may be
// attributes again.
type Attribute struct {
	Kind uint16
	Data []byte
}

// Parse takes b apart; what is cut short is an error, after what came before.
func Parse(b []byte) ([]Attribute, error) {
	var all []Attribute
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return all, errShort
		}
		all = append(all, Attribute{binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:length]})
		b = b[min(align(length), len(b)):]
	}
	return all, nil
}

// Find is the value of the first attribute of the kind; nil where there is none.
func Find(b []byte, kind uint16) []byte {
	all, _ := Parse(b)
	for _, a := range all {
		if a.Kind == kind {
			return a.Data
		}
	}
	return nil
}

// A Body is a message being written: a fixed header, then attributes.
type Body []byte

// Add writes an attribute.
func (b *Body) Add(kind uint16, data []byte) {
	*b = binary.NativeEndian.AppendUint16(*b, uint16(unix.SizeofRtAttr+len(data)))
	*b = binary.NativeEndian.AppendUint16(*b, kind)
	*b = append(*b, data...)
	for len(*b)%4 != 0 {
		*b = append(*b, 0)
	}
}

// Text writes a text, with the zero that ends it.
func (b *Body) Text(kind uint16, s string) { b.Add(kind, append([]byte(s), 0)) }

// U8 to U64 write a number as this machine has it.
func (b *Body) U8(kind uint16, v uint8)   { b.Add(kind, []byte{v}) }
func (b *Body) U16(kind uint16, v uint16) { b.Add(kind, binary.NativeEndian.AppendUint16(nil, v)) }
func (b *Body) U32(kind uint16, v uint32) { b.Add(kind, binary.NativeEndian.AppendUint32(nil, v)) }
func (b *Body) U64(kind uint16, v uint64) { b.Add(kind, binary.NativeEndian.AppendUint64(nil, v)) }

// Big32 and Big64 write a number in the network's order, as nf_tables wants it.
func (b *Body) Big32(kind uint16, v uint32) { b.Add(kind, binary.BigEndian.AppendUint32(nil, v)) }
func (b *Body) Big64(kind uint16, v uint64) { b.Add(kind, binary.BigEndian.AppendUint64(nil, v)) }

// Nest adds what fill writes as the value of one attribute.
func (b *Body) Nest(kind uint16, fill func(*Body)) {
	start := len(*b)
	*b = append(*b, 0, 0, 0, 0)
	fill(b)
	binary.NativeEndian.PutUint16((*b)[start:], uint16(len(*b)-start))
	binary.NativeEndian.PutUint16((*b)[start+2:], kind|unix.NLA_F_NESTED)
}

// U32 reads a number as this machine has it; one that is cut short is 0.
func U32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

// Big32 reads a number in the network's order; one that is cut short is 0.
func Big32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// Text reads a text up to its zero.
func Text(b []byte) string { return unix.ByteSliceToString(b) }
