package sys

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Number is an argument that is a number.
func Number[T ~int | ~uint64 | ~uintptr | ~uint32](n T) ChildArg { return ChildArg{Value: uintptr(n)} }

// WordOf is the 32 bits at offset in b, as they are at the time of the call: b is
// the buffer of an earlier one.
func WordOf(b []byte, offset int) ChildArg {
	return ChildArg{Slot: (*int32)(unsafe.Pointer(&b[offset]))}
}

// BytesOf is the address of s as a C string.
func BytesOf(s string) ChildArg { return ChildArg{Bytes: append([]byte(s), 0)} }

// StringsOf is the address of a vector of C strings that ends in nil, as
// execve(2) takes it.
func StringsOf(list []string) ChildArg {
	size := 0
	for _, s := range list {
		size += len(s) + 1
	}
	// One piece of memory for the strings; the vector points into it, and
	// its tail keeps it alive.
	text := make([]byte, 0, size+1)
	vector := make([]*byte, len(list)+1, len(list)+2)
	for i, s := range list {
		vector[i] = &text[:len(text)+1][len(text)]
		text = append(append(text, s...), 0)
	}
	return ChildArg{Bytes: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(vector))), len(vector)*8)}
}

// An Inbox is where a child receives descriptors: a msghdr with its buffers. The
// header is one for the collector too, so that the buffers live as long as it
// does, whether or not anybody still has the Inbox.
type Inbox struct {
	header *unix.Msghdr
	rights []byte
}

const cmsgHeader = 16 // sizeof(struct cmsghdr) on 64 bits

// NewInbox is an inbox for one message with one byte and count descriptors.
func NewInbox(count int) *Inbox { return newMessage(1, count) }

func newMessage(size, count int) *Inbox {
	m := &Inbox{header: &unix.Msghdr{Iov: &unix.Iovec{Base: &make([]byte, size)[0], Len: uint64(size)}, Iovlen: 1}}
	if count > 0 {
		m.rights = make([]byte, unix.CmsgSpace(4*count))
		m.header.Control, m.header.Controllen = &m.rights[0], uint64(len(m.rights))
	}
	return m
}

func (m *Inbox) address() ChildArg {
	return ChildArg{Bytes: unsafe.Slice((*byte)(unsafe.Pointer(m.header)), unsafe.Sizeof(*m.header))}
}

// Receive is the call that waits for the message; a parent that is gone is a
// failure.
func (m *Inbox) Receive(sock *int32) ChildCall {
	return ChildCall{Nr: unix.SYS_RECVMSG, Args: [6]ChildArg{{Slot: sock}, m.address(), Number(unix.MSG_CMSG_CLOEXEC)}, Want: 1}
}

// FD is where descriptor i of the message will stand.
func (m *Inbox) FD(i int) *int32 { return (*int32)(unsafe.Pointer(&m.rights[cmsgHeader+4*i])) }

// An Outbox is a message from the child with one descriptor.
type Outbox struct{ m *Inbox }

// NewOutbox is an outbox for one message.
func NewOutbox() *Outbox {
	o := &Outbox{newMessage(1, 1)}
	h := o.m.rights
	binary.NativeEndian.PutUint64(h, cmsgHeader+4)
	binary.NativeEndian.PutUint32(h[8:], unix.SOL_SOCKET)
	binary.NativeEndian.PutUint32(h[12:], unix.SCM_RIGHTS)
	return o
}

// FD is where the descriptor has to stand when the message is sent: the Out
// of an earlier call.
func (o *Outbox) FD() *int32 { return o.m.FD(0) }

// Send is the call that sends the message.
func (o *Outbox) Send(sock *int32) ChildCall {
	return ChildCall{Nr: unix.SYS_SENDMSG, Args: [6]ChildArg{{Slot: sock}, o.m.address(), Number(unix.MSG_NOSIGNAL)}}
}

// FilterOf is the address of a struct sock_fprog with the given program.
func FilterOf(program []byte) ChildArg {
	prog := &unix.SockFprog{Len: uint16(len(program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(program)))}
	return ChildArg{Bytes: unsafe.Slice((*byte)(unsafe.Pointer(prog)), unsafe.Sizeof(*prog))}
}

// Dup is the call that makes descriptor from known as to, open over exec.
func Dup(from, to int) ChildCall {
	if from == to {
		return ChildCall{Nr: unix.SYS_FCNTL, Args: [6]ChildArg{Number(from), Number(unix.F_SETFD), Number(0)}}
	}
	return ChildCall{Nr: unix.SYS_DUP3, Args: [6]ChildArg{Number(from), Number(to), Number(0)}}
}
