package sys

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// relay is where caught signals go: the assembler's handler looks here.
var relay = relayState{target: -1}

type relayState struct {
	waiting uint64 // signals that have come and are not passed on yet; bit 0 is signal 1
	target  int32  // a pidfd; negative: none
}

// A sigaction is struct kernel_sigaction of amd64 and arm64.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// Of sigaction(2).
const (
	saSiginfo  = 4
	saRestorer = 0x04000000
	saOnStack  = 0x08000000
	saRestart  = 0x10000000
)

// handler and restorer are where the assembler's functions are.
func handler() uintptr
func restorer() uintptr

// A Relay passes signals on to one process. There can be one at a time, for the
// rest of this process's life.
type Relay struct{ signals []syscall.Signal }

// CatchSignals keeps signals from this process and for To. It does without
// package os/signal, where each signal costs two changes of threads, and the
// first some threads: the handler is twelve instructions that make one system
// call. Signals of one number that come before To count once, as the kernel
// counts those that are blocked. Go's runtime must have no use for them:
// not SIGURG, SIGPIPE, SIGPROF, nor those that are errors.
func CatchSignals(signals []syscall.Signal) *Relay {
	atomic.StoreInt32(&relay.target, -1)
	atomic.StoreUint64(&relay.waiting, 0)
	action := sigaction{handler: handler(), flags: saSiginfo | saOnStack | saRestart | saRestorer, restorer: restorer(), mask: ^uint64(0)}
	for _, s := range signals {
		sigact(s, &action, nil)
	}
	return &Relay{signals}
}

func sigact(s syscall.Signal, action, before *sigaction) {
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(action)), uintptr(unsafe.Pointer(before)), 8, 0, 0)
}

// To passes on what has come and what comes to the process of pidfd. It stays
// open until To is called again: with -1 when the process has ended, after which
// signals do nothing.
func (r *Relay) To(pidfd int) {
	atomic.StoreInt32(&relay.target, int32(pidfd))
	waiting := atomic.SwapUint64(&relay.waiting, 0)
	for _, s := range r.signals {
		if waiting&(1<<(s-1)) != 0 && pidfd >= 0 {
			_ = PidfdSignal(pidfd, s)
		}
	}
}
