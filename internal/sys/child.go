package sys

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ChildCall is one system call that a forked child makes.
type ChildCall struct {
	Nr   uintptr
	Args [6]ChildArg

	// Out, if not nil, gets the call's result. It must point into memory
	// that outlives the fork.
	Out *int32

	OnErr    OnErr
	Errno    syscall.Errno // for IgnoreErrno
	Skip     int32         // how many calls to pass over: for SkipOnErr and Note, and with SkipOnOK after success
	SkipOnOK bool
	Want     int32 // a smaller result is an error (EPIPE); 0: any will do
}

// A ChildArg is a number, the address of bytes, or what an earlier call left
// in a slot.
type ChildArg struct {
	Value uintptr
	Bytes []byte // its address is the argument
	Slot  *int32 // its value at the time of the call is the argument

	// Patch, if not nil, is a slot whose value is written into Bytes at
	// PatchAt before the call. A call can have one such argument.
	Patch   *int32
	PatchAt int
}

// OnErr says what a failing call means.
type OnErr uint8

// What a failing call means.
const (
	Fail        OnErr = iota // the child ends; Start's error names the call
	Ignore                   // nothing
	IgnoreErrno              // nothing if the error is Errno, else Fail
	SkipOnErr                // pass over the next Skip calls
	Note                     // remember the error for FailNoted, pass over the next Skip calls
	FailNoted                // no call at all: fail with the error remembered last
	SkipOnErrno              // pass over the next Skip calls if the error is Errno, else Fail
)

// A Child is a process forked from this one that makes the calls of a list
// and nothing else: no allocation, no lock, no Go scheduler. The list ends in
// an execve.
type Child struct {
	PID   int
	PidFD int

	// Sender is who sent what Receive gave last: this child, or one that it
	// forked, as the kernel says.
	Sender int

	sock   int // our end
	spawn  *spawn
	parted bool // the child has memory of its own, or has ended
}

// ChildOptions says how to fork.
type ChildOptions struct {
	// Flags are unix.CLONE_NEW* bits and CLONE_INTO_CGROUP.
	Flags uint64

	// CgroupFD is the directory to be born in, for CLONE_INTO_CGROUP.
	CgroupFD int

	// Sock is where the calls find the child's end of the socket, whose
	// number is at least Above.
	Sock  *int32
	Above int

	// OwnMemory gives the child a copy of this process's memory, as fork(2)
	// does and at its price. Who joins a time namespace needs it: the clock
	// is in the memory.
	OwnMemory bool
}

// A ChildError is a call of a child that failed.
type ChildError struct {
	Index int // of the call in the list
	Errno syscall.Errno
}

func (e *ChildError) Error() string { return fmt.Sprintf("call %d: %v", e.Index, e.Errno) }

func (e *ChildError) Unwrap() error { return e.Errno }

// cloneArgs is struct clone_args of clone3(2), up to cgroup.
type cloneArgs struct {
	Flags, Pidfd, ChildTID, ParentTID, ExitSignal, Stack, StackSize, TLS, SetTID, SetTIDSize, Cgroup uint64
}

// StartChild forks a child that makes calls, by clone3(2). Until its execve it
// shares this process's memory, as after vfork(2): what its calls leave in
// slots and buffers can be read here. This process's PR_SET_DUMPABLE is 0 until
// then, and what it was before after that; an ordinary user who starts two
// children at the same time may so find the files in /proc of the one that waits
// to be root's. A parent-death signal comes with the end of this process. The
// caller calls Wait and Close in the end.
func StartChild(calls []ChildCall, o ChildOptions) (*Child, error) {
	l := NewCallList(len(calls))
	for i := range calls {
		l.Add(&calls[i])
	}
	return l.Start(o)
}

// Start is StartChild for the calls of l, which are not changed while the child
// makes them.
func (l *CallList) Start(o ChildOptions) (*Child, error) {
	pair, err := pairAbove(o.Above)
	if err != nil {
		return nil, err
	}
	if o.Sock != nil {
		*o.Sock = int32(pair[1])
	}
	s := begin()
	s.parents, s.sock, s.list = pair[0], pair[1], l
	s.args = cloneArgs{
		Flags:      o.Flags | unix.CLONE_PIDFD | unix.CLONE_PARENT_SETTID | unix.CLONE_CLEAR_SIGHAND,
		Pidfd:      uint64(uintptr(unsafe.Pointer(&s.pidfd))),
		ParentTID:  uint64(uintptr(unsafe.Pointer(&s.pid))),
		ExitSignal: uint64(unix.SIGCHLD),
		Cgroup:     uint64(o.CgroupFD),
	}
	if !o.OwnMemory {
		s.args.Flags |= unix.CLONE_VM | unix.CLONE_VFORK
	}
	err = s.run()
	unix.Close(pair[1])
	if err != nil {
		s.parted()
		unix.Close(pair[0])
		return nil, err
	}
	return &Child{PID: int(s.pid), PidFD: int(s.pidfd), sock: pair[0], spawn: s}, nil
}

// pairAbove makes the socket: the second end has at least the number above.
func pairAbove(above int) ([2]int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return pair, named("socketpair", err)
	}
	if pair[1] < above {
		low := pair[1]
		pair[1], err = unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, above)
		unix.Close(low)
		if err != nil {
			unix.Close(pair[0])
			return pair, named("fcntl", err)
		}
	}
	if err := unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
		return pair, named("setsockopt", err)
	}
	return pair, nil
}

// live makes the calls and does not return.
//
//go:norace
//go:noinline
//go:nosplit
func live(s *spawn) {
	var noted syscall.Errno
	calls := s.list.calls
	for i := 0; i < len(calls); i++ {
		c := &calls[i]
		errno := noted
		if c.onErr != FailNoted {
			var r uintptr
			r, errno = c.do()
			if errno == 0 {
				if c.out != nil {
					*c.out = int32(r)
				}
				switch {
				case int32(r) < c.want:
					errno = unix.EPIPE
				case c.skipOK:
					i += int(c.skip)
				}
			}
		}
		if errno == 0 {
			continue
		}
		switch {
		case c.onErr == Ignore, c.onErr == IgnoreErrno && errno == syscall.Errno(c.errno):
		case c.onErr == SkipOnErr, c.onErr == SkipOnErrno && errno == syscall.Errno(c.errno):
			i += int(c.skip)
		case c.onErr == Note:
			// What is denied says more than what is missing elsewhere.
			if noted == 0 || noted == unix.ENOENT || noted == unix.ENOTDIR {
				noted = errno
			}
			i += int(c.skip)
		default:
			s.report[0], s.report[1] = int32(i), int32(errno)
			syscall.RawSyscall(unix.SYS_WRITE, uintptr(s.sock), uintptr(unsafe.Pointer(&s.report)), unsafe.Sizeof(s.report))
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 255, 0, 0)
		}
	}
	syscall.RawSyscall(unix.SYS_EXIT_GROUP, 254, 0, 0)
}

// Send sends data and descriptors to the child, which receives them by a
// recvmsg of its list.
func (c *Child) Send(data []byte, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return named("sendmsg", retry(func() error { return unix.Sendmsg(c.sock, data, rights, nil, unix.MSG_NOSIGNAL) }))
}

// Receive waits for news of the child: a message with descriptors, nil at the
// end of the list (the child has become its program), or a ChildError.
func (c *Child) Receive() (data []byte, fds []int, err error) {
	buf, oob := make([]byte, 64), make([]byte, 256)
	n, oobn, err := receive(c.sock, buf, oob)
	if err != nil {
		return nil, nil, named("recvmsg", err)
	}
	if c.Sender, fds, err = parseControl(oob[:oobn]); err != nil {
		return nil, nil, err
	}
	report := [2]int32{}
	switch n {
	case 0:
		// An execve changes the memory before it closes descriptors. A
		// child may have had no memory for a message.
		c.part()
		report = c.spawn.report
	case 8:
		report = *(*[2]int32)(unsafe.Pointer(&buf[0]))
	}
	if report[1] != 0 {
		c.spawn.report = [2]int32{} // it is told once
		return nil, nil, &ChildError{Index: int(report[0]), Errno: syscall.Errno(report[1])}
	}
	return buf[:n], fds, nil
}

func parseControl(oob []byte) (sender int, fds []int, err error) {
	if len(oob) == 0 {
		return 0, nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	for _, m := range messages {
		if m.Header.Type == unix.SCM_CREDENTIALS {
			if who, err := unix.ParseUnixCredentials(&m); err == nil {
				sender = int(who.Pid)
			}
			continue
		}
		got, notRights := unix.ParseUnixRights(&m)
		fds = append(fds, got...)
		if notRights != nil {
			err = notRights
		}
	}
	return sender, fds, named("recvmsg", err)
}

// HangUp lets the child know that no more is sent: one that waits for a message
// ends. What it sends is still heard.
func (c *Child) HangUp() { _ = unix.Shutdown(c.sock, unix.SHUT_WR) }

// CloseSocket ends the talk with the child; one that still waits for a
// message ends.
func (c *Child) CloseSocket() {
	if c.sock >= 0 {
		unix.Close(c.sock)
		c.sock = -1
	}
}

// part is called when the child no longer shares our memory.
func (c *Child) part() {
	if !c.parted {
		c.parted = true
		c.spawn.parted()
	}
}

// Become makes c stand for the process pid, which the first one has forked
// with CLONE_PARENT (see ForkAgain), and waits for the end of that first one.
func (c *Child) Become(pid int) error {
	fd, err := PidfdOpen(pid)
	if err != nil {
		return err
	}
	if _, err := c.Wait(); err != nil {
		unix.Close(fd)
		return err
	}
	unix.Close(c.PidFD)
	c.PID, c.PidFD = pid, fd
	return nil
}

// Wait waits for the child's end and gives its wait status.
func (c *Child) Wait() (syscall.WaitStatus, error) {
	var status unix.WaitStatus
	err := retry(func() error { _, err := unix.Wait4(c.PID, &status, 0, nil); return err })
	if err == nil {
		c.part()
	}
	return syscall.WaitStatus(status), named("wait4", err)
}

// Kill sends a signal by the pidfd, so never to another process.
func (c *Child) Kill(sig syscall.Signal) error {
	return named("pidfd_send_signal", unix.PidfdSendSignal(c.PidFD, unix.Signal(sig), nil, 0))
}

// Close gives the descriptors back. A child with a parent-death signal that
// has not ended yet gets it now.
func (c *Child) Close() {
	c.CloseSocket()
	c.spawn.end()
	if c.PidFD >= 0 {
		unix.Close(c.PidFD)
		c.PidFD = -1
	}
}

// OpenNamespace opens a namespace of the child, "user" for instance.
func (c *Child) OpenNamespace(kind string) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/ns/%s", c.PID, kind))
}

// PidfdOpen is pidfd_open(2). The descriptor is the caller's to close.
func PidfdOpen(pid int) (int, error) {
	fd, err := retryFD(func() (int, error) { return unix.PidfdOpen(pid, 0) })
	if pid > 0 && err == unix.EINVAL {
		// Before 6.15 the number of a process that has ended, and whose session or
		// group is still there, is told so, as that of a thread is.
		err = unix.ESRCH
	}
	return fd, named("pidfd_open", err)
}

// PidfdSignal is pidfd_send_signal(2).
func PidfdSignal(fd int, sig syscall.Signal) error {
	return named("pidfd_send_signal", unix.PidfdSendSignal(fd, unix.Signal(sig), nil, 0))
}

// Shared is memory that a child of StartChild shares with this process.
func Shared(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	return b, named("mmap", err)
}

// Unshared gives it back.
func Unshared(b []byte) { _ = unix.Munmap(b) }

// Monotonic is CLOCK_MONOTONIC of clock_gettime(2).
func Monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return time.Duration(t.Nano())
}
