package sys

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CallHere makes calls in the calling thread, which the caller has locked, as
// a Child would make them. Of OnErr it knows Fail, Ignore and SkipOnErr.
func CallHere(calls []ChildCall) error {
	list := NewCallList(len(calls))
	for i := range calls {
		list.Add(&calls[i])
	}
	defer runtime.KeepAlive(list)
	for i := 0; i < list.Len(); i++ {
		c := &list.calls[i]
		r, errno := c.do()
		if errno == 0 && c.out != nil {
			*c.out = int32(r)
		}
		switch {
		case errno == 0, c.onErr == Ignore:
		case c.onErr == SkipOnErr:
			i += int(c.skip)
		default:
			return &ChildError{Index: i, Errno: errno}
		}
	}
	return nil
}

// RestoreFileLimit gives this process back the soft limit of open files that
// Go raised when it started, so that a Child inherits it. Only syscall.Exec
// knows the old one: it is asked to start the file without a name, which
// always fails, and resets the limit before.
func RestoreFileLimit() {
	if entered.limited == 0 { // else Begin has
		_ = syscall.Exec("", nil, nil)
	}
}

// ForkAgain are the calls with which a child forks a second time, with
// CLONE_PARENT and flags: the new process, whose parent is the child's, makes
// the calls that follow; the child sends its pid, four bytes, and ends. Sock is
// the one of ChildOptions.
func ForkAgain(flags uintptr, sock *int32) []ChildCall {
	pid := make([]byte, 4)
	slot := (*int32)(unsafe.Pointer(&pid[0]))
	return []ChildCall{
		{Nr: unix.SYS_CLONE, Args: [6]ChildArg{Number(flags | unix.CLONE_PARENT | uintptr(unix.SIGCHLD))}, Out: slot,
			// The new process has 0, which is less than is wanted.
			Want: 1, OnErr: SkipOnErrno, Errno: unix.EPIPE, Skip: 2},
		{Nr: unix.SYS_WRITE, Args: [6]ChildArg{{Slot: sock}, {Bytes: pid}, Number(len(pid))}},
		{Nr: unix.SYS_EXIT_GROUP},
	}
}

// Wait is wait4(2) for the child pid until it has ended: its code, or 128 and
// the number of the signal.
func Wait(pid int) (code int, err error) {
	var status unix.WaitStatus
	if _, err := retryFD(func() (int, error) { return unix.Wait4(pid, &status, 0, nil) }); err != nil {
		return 0, named("wait4", err)
	}
	return ExitCode(syscall.WaitStatus(status)), nil
}

// ExitCode is the exit code of a process that has ended so: its own, or 128 and
// the number of the signal, as shells have it.
func ExitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
