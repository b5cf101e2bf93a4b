package sys

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A spawn is one fork: what three threads of control share, the one that asks
// for the child, the one that forks it (see spawn_amd64.s), and the child.
//
// The child shares this process's memory until its execve, as after vfork(2):
// no page table is copied and no page is copied when it is written to. The
// forking thread is not one of Go's. It stops in clone3 until then, while the
// asking one goes on. The kernel knows such children: the OOM killer spares
// them, so that a limit too small for a start is an error (ENOMEM) and not the
// end of this process, whose memory it would have to free; and an
// oom_score_adj that is written to them does not become this process's too.
//
// The kernel looks at the fields and so does the assembler: no Go pointer of
// theirs may be to a stack.
type spawn struct {
	args    cloneArgs
	result  int   // of clone3: a pid, or a negative errno
	state   int32 // a futex: 1 when the child has begun or clone3 has failed
	release int32 // a futex: 1 when the thread may end
	thread  int32 // its id; the kernel clears it when the thread has ended
	pid     int32 // of the child, as clone3 writes it before the child runs
	pidfd   int32
	mask    uint64   // the signals that the caller blocks
	parents int      // the parent's end of the socket, which the child closes
	sock    int      // the child's end
	report  [2]int32 // the call that failed: its number and its errno
	list    *CallList
	stack   [2048]byte // of the thread, and of the child
}

// spawns are all there ever were. One whose thread has ended is used again;
// none is freed, since a thread or a child may still be on its stack.
var spawns struct {
	sync.Mutex
	all      []*spawn
	sharing  int // how many children share our memory
	dumpable int // PR_GET_DUMPABLE as it was before
}

// begin gives a spawn that is free. While children share our memory, what they
// do to PR_SET_DUMPABLE, by that call or by one that changes ids, is done to
// us, so the old value is kept.
func begin() *spawn {
	spawns.Lock()
	defer spawns.Unlock()
	if spawns.sharing == 0 {
		spawns.dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	}
	spawns.sharing++
	for _, s := range spawns.all {
		if atomic.LoadInt32(&s.release) == 1 && atomic.LoadInt32(&s.thread) == 0 {
			*s = spawn{}
			return s
		}
	}
	s := new(spawn)
	spawns.all = append(spawns.all, s)
	return s
}

// parted is for when the child has memory of its own, or has ended. Nil is that
// of a child that this process has not made.
func (s *spawn) parted() {
	if s == nil {
		return
	}
	spawns.Lock()
	defer spawns.Unlock()
	s.list = nil
	if spawns.sharing--; spawns.sharing == 0 {
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(spawns.dumpable), 0, 0, 0)
	}
}

// end lets the thread end, if there is one.
func (s *spawn) end() {
	if s == nil {
		return
	}
	atomic.StoreInt32(&s.release, 1)
	unix.RawSyscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&s.release)), futexWake, 1)
}

const (
	futexWait = 0 | 128 // FUTEX_WAIT|FUTEX_PRIVATE_FLAG of futex(2)
	futexWake = 1 | 128
)

// run forks. It returns when the child has begun to make its calls.
func (s *spawn) run() error {
	// Nobody shall look into the child before it can say so itself. To root,
	// who may look anyway, /proc is the same without.
	if os.Geteuid() == 0 {
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	if errno := s.start(); errno != 0 {
		s.release, s.thread = 1, 0
		return named("clone", errno)
	}
	for atomic.LoadInt32(&s.state) == 0 {
		unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&s.state)), futexWait, 0, 0, 0, 0)
	}
	if r := s.result; r < 0 {
		s.end()
		return named("clone3", syscall.Errno(-r))
	}
	return nil
}

// start makes the thread, with all signals blocked: Go's handlers must not run
// on it.
//
//go:norace
//go:nosplit
func (s *spawn) start() syscall.Errno {
	all := ^uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&s.mask)), 8, 0, 0)
	top := (uintptr(unsafe.Pointer(&s.stack)) + unsafe.Sizeof(s.stack)) &^ 15
	r := startThread(s, top)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&s.mask)), 0, 8, 0, 0)
	if r < 0 {
		return syscall.Errno(-r)
	}
	return 0
}

// startThread makes the thread that makes the child, and gives its id or a
// negative errno.
//
//go:noescape
func startThread(s *spawn, stack uintptr) int

var _ = begun // by the assembler

// begun is the whole life of the child, on the thread's stack. It comes from
// the assembler, and there is no goroutine: nothing below may allocate, split
// the stack, or ask Go's runtime for anything.
//
//go:norace
//go:nosplit
func begun(s *spawn) {
	atomic.StoreInt32(&s.state, 1)
	syscall.RawSyscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&s.state)), futexWake, 1)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&s.mask)), 0, 8, 0, 0)
	// Else the child would never see the end of its parent.
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(s.parents), 0, 0)
	live(s)
}
