package network

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
)

// answerSeconds bounds the wait for the kernel's answer.
const answerSeconds = 10

// maxMessages bounds what one dump may hold.
const maxMessages = 1 << 20

// A socket speaks rtnetlink with one network namespace: rtnetlink(7).
type socket struct {
	fd  int
	seq uint32
}

// A message is a netlink message without its header.
type message struct {
	kind uint16
	data []byte
}

// request sends one message and gives the answers up to the end. Flags are
// unix.NLM_F_ bits; an acknowledgement is always asked for.
func (s *socket) request(kind uint16, flags uint16, body []byte) ([]message, error) {
	s.seq++
	out := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	order := binary.NativeEndian
	order.PutUint32(out[0:], uint32(unix.SizeofNlMsghdr+len(body)))
	order.PutUint16(out[4:], kind)
	order.PutUint16(out[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	order.PutUint32(out[8:], s.seq)
	if err := sys.NetlinkSend(s.fd, append(out, body...)); err != nil {
		return nil, err
	}
	var all []message
	buffer := make([]byte, 64<<10)
	for len(all) < maxMessages {
		n, err := sys.NetlinkReceive(s.fd, buffer)
		if err != nil {
			return nil, err
		}
		got, done, err := parseMessages(buffer[:n], s.seq)
		all = append(all, got...)
		if done || err != nil {
			return all, err
		}
	}
	return nil, fmt.Errorf("the kernel's answer has more than %d messages", maxMessages)
}

// parseMessages takes a datagram apart. Messages with another sequence number
// than seq are passed over. Done: the answer ends here; err is what the kernel
// said about the request.
func parseMessages(b []byte, seq uint32) (all []message, done bool, err error) {
	order := binary.NativeEndian
	for len(b) > 0 {
		if len(b) < unix.SizeofNlMsghdr {
			return nil, true, errShort
		}
		length := order.Uint32(b)
		if length < unix.SizeofNlMsghdr || uint64(length) > uint64(len(b)) {
			return nil, true, errShort
		}
		kind, theirs := order.Uint16(b[4:]), order.Uint32(b[8:])
		data := b[unix.SizeofNlMsghdr:length]
		b = b[min(int(length+3)&^3, len(b)):]
		if theirs != seq {
			continue
		}
		switch kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			return all, true, errorOf(data)
		default:
			all = append(all, message{kind, append([]byte{}, data...)})
		}
	}
	return all, false, nil
}

var errShort = fmt.Errorf("a message of the kernel is shorter than it says")

// errorOf is the negative errno that ends an answer; 0 is success.
func errorOf(data []byte) error {
	if len(data) < 4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(data)); code < 0 && code > -4096 {
		return syscall.Errno(-code)
	}
	return nil
}

// An attribute is a struct rtattr: a number and a value, which may be
// attributes again.
type attribute struct {
	kind uint16
	data []byte
}

// parseAttributes takes b apart; what is cut short is an error.
func parseAttributes(b []byte) ([]attribute, error) {
	var all []attribute
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return nil, errShort
		}
		all = append(all, attribute{binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:length]})
		b = b[min((length+3)&^3, len(b)):]
	}
	return all, nil
}

// A body is a message being written: a fixed header, then attributes.
type body []byte

func (b *body) add(kind uint16, data []byte) {
	*b = binary.NativeEndian.AppendUint16(*b, uint16(unix.SizeofRtAttr+len(data)))
	*b = binary.NativeEndian.AppendUint16(*b, kind)
	*b = append(*b, data...)
	for len(*b)%4 != 0 {
		*b = append(*b, 0)
	}
}

func (b *body) text(kind uint16, s string) { b.add(kind, append([]byte(s), 0)) }
func (b *body) u32(kind uint16, v uint32)  { b.add(kind, binary.NativeEndian.AppendUint32(nil, v)) }
func (b *body) u64(kind uint16, v uint64)  { b.add(kind, binary.NativeEndian.AppendUint64(nil, v)) }

// nest adds what fill writes as the value of one attribute.
func (b *body) nest(kind uint16, fill func(*body)) {
	var inner body
	fill(&inner)
	b.add(kind, inner)
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func text(b []byte) string { return unix.ByteSliceToString(b) }
