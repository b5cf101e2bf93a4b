package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A CallList is a list of calls in the form in which a child reads it.
type CallList struct {
	calls []raw
	keep  []unsafe.Pointer // what arguments are addresses of
	text  []byte           // where the next strings go
}

// raw is a ChildCall without pointers to follow.
type raw struct {
	nr      uintptr
	args    [6]uintptr // numbers and addresses
	patchTo *int32     // where the value of patch goes before the call
	patch   *int32
	out     *int32
	skip    int32
	want    int32
	errno   uint32
	onErr   OnErr
	skipOK  bool
	slots   uint8 // a bit for each argument that is the address of a slot
}

// NewCallList makes a list for so many calls, or more.
func NewCallList(calls int) *CallList {
	return &CallList{calls: make([]raw, 0, calls), keep: make([]unsafe.Pointer, 0, 2*calls)}
}

// Len is how many calls there are.
func (l *CallList) Len() int { return len(l.calls) }

// Add adds a call.
func (l *CallList) Add(c *ChildCall) {
	l.calls = append(l.calls, raw{nr: c.Nr, out: c.Out, skip: c.Skip, want: c.Want, errno: uint32(c.Errno), onErr: c.OnErr, skipOK: c.SkipOnOK})
	r := &l.calls[len(l.calls)-1]
	for i := range c.Args {
		a := &c.Args[i]
		switch {
		case a.Bytes != nil:
			address := unsafe.Pointer(unsafe.SliceData(a.Bytes))
			l.keep = append(l.keep, address)
			r.args[i] = uintptr(address)
			if a.Patch != nil {
				r.patch, r.patchTo = a.Patch, (*int32)(unsafe.Pointer(&a.Bytes[a.PatchAt]))
			}
		case a.Slot != nil:
			address := unsafe.Pointer(a.Slot)
			l.keep = append(l.keep, address)
			r.args[i] = uintptr(address)
			r.slots |= 1 << i
		default:
			r.args[i] = a.Value
		}
	}
}

// AddBetween adds a call that nobody notices: whoever passes over calls up to
// here or farther passes over this one too.
func (l *CallList) AddBetween(c *ChildCall) {
	for i := range l.calls {
		if r := &l.calls[i]; i+int(r.skip) >= len(l.calls) {
			r.skip++
		}
	}
	l.Add(c)
}

// textSize is for the strings of some twenty calls.
const textSize = 1 << 10

// Bytes is the address of s as a C string, as BytesOf is; strings lie together.
func (l *CallList) Bytes(s string) ChildArg {
	if len(s)+1 > cap(l.text)-len(l.text) {
		l.text = make([]byte, 0, max(textSize, len(s)+1))
	}
	from := len(l.text)
	l.text = append(append(l.text, s...), 0)
	return ChildArg{Bytes: l.text[from:]}
}

// do makes one call, again while signals interrupt it.
//
//go:norace
//go:nosplit
func (c *raw) do() (uintptr, syscall.Errno) {
	if c.patchTo != nil {
		*c.patchTo = *c.patch
	}
	args := c.args
	for j := 0; j < 6; j++ {
		if c.slots&(1<<j) != 0 {
			args[j] = uintptr(int(**(**int32)(unsafe.Pointer(&c.args[j]))))
		}
	}
	for {
		r, _, errno := syscall.RawSyscall6(c.nr, args[0], args[1], args[2], args[3], args[4], args[5])
		if errno != unix.EINTR {
			return r, errno
		}
	}
}
