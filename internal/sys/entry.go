package sys

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the linker makes entry the program's entry (-E kiste/internal/sys.entry,
// see the Makefile), it runs before Go's runtime does, and spares the runtime a
// third of its start:
//
//   - It ties this process to the processor that it is on. So the runtime finds
//     one, and starts no threads that would look for work on the others.
//   - It takes away the right to open files. So the runtime does not read how
//     many processors the cgroup has, for which it would have the kernel write
//     its table of mounts, as long as it may be. Where descriptor 0, 1 or 2 is
//     closed it opens something there, and entry leaves the right alone.
//   - It asks for no samples of allocations. The runtime takes the first one
//     before it finds that nobody reads them.
//
// Begin undoes the first two, first thing in main. Programs that are linked
// without start as any. What the kernel refuses stays as it is: with more than
// 1024 processors sched_getaffinity(2) does.
var entered entryState

// sampling is for the assembler, which may not name what is package runtime's.
var sampling = &runtime.MemProfileRate

var _ = sampling // by the assembler

// An entryState is what entry has found: nothing where it was not asked.
type entryState struct {
	cpus    [128]byte // as sched_getaffinity(2) gives them
	length  int       // of cpus
	limit   unix.Rlimit
	limited int // 1: the limit is taken away
	slack   int // of timers, in nanoseconds, as it was where early or SlowMonitor has changed it
	monitor int // the slack with which early has the monitor born
}

// Begin gives this process back what entry has taken: its processors and its
// limit of open files. The runtime goes on with one processor until Parallel.
// Where early has made timers late, so that the runtime's monitor was born to
// sleep long (see SlowMonitor), those of the threads that were born with it stay
// so: see Timely.
func Begin() {
	inTime()
	if entered.limited != 0 {
		// The package remembers no other limit for its children then.
		_ = syscall.Setrlimit(unix.RLIMIT_NOFILE, (*syscall.Rlimit)(&entered.limit))
	}
	if entered.length == 0 {
		return
	}
	mask := everyCPU()
	for eachThread(func(tid int) { setAffinity(tid, mask) }) {
		// Another was born meanwhile, perhaps of one that was still tied.
	}
}

// inTime makes the timers of this thread as they were before early and SlowMonitor.
func inTime() {
	if entered.slack != 0 {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(entered.slack), 0, 0, 0)
	}
}

// Timely keeps the goroutine on a thread whose timers are not late, for package
// os/exec: a child has those of the thread that makes it. A Child always has
// timers as they were. The monitor sleeps less from now on.
func Timely() {
	watchful()
	if entered.slack != 0 {
		runtime.LockOSThread()
		inTime()
	}
}

// eachThread calls do with the id of each thread of this process, and reports
// whether there may have been more afterwards.
func eachThread(do func(tid int)) (more bool) {
	// They were born soon after it, and the runtime knows how many it has made;
	// an emulator has its own, too, among them. To ask procfs makes the kernel make
	// up a directory for each.
	pid, found := unix.Getpid(), 0
	made, _ := runtime.ThreadCreateProfile(nil)
	for tid := pid; tid < pid+near; tid++ {
		ours := isOurs(pid, tid)
		if !ours && found >= made {
			break
		}
		if ours {
			do(tid)
			found++
		}
	}
	if now, _ := runtime.ThreadCreateProfile(nil); found >= now {
		return false
	}
	list, _ := os.ReadDir(threadsDir)
	for _, d := range list {
		if tid, err := strconv.Atoi(d.Name()); err == nil {
			do(tid)
		}
	}
	return threads() > len(list)
}

const (
	threadsDir = "/proc/self/task"
	near       = 64 // numbers, of which processes that are born meanwhile take some
)

// threads is how many threads this process has: proc(5) counts them as
// directories count theirs. 0: nobody knows, since it is not mounted.
func threads() int {
	var st unix.Stat_t
	if unix.Stat(threadsDir, &st) != nil {
		return 0
	}
	return int(st.Nlink) - 2
}

// isOurs reports whether tid is a thread of the process pid.
func isOurs(pid, tid int) bool { return unix.Tgkill(pid, tid, 0) == nil }

// everyCPU gives a mask of all processors where that leads to those that there
// were: the mask of who was never tied to any. Else it gives those.
func everyCPU() []byte {
	all, now := [128]byte{}, [128]byte{}
	for i := range all {
		all[i] = 0xff
	}
	setAffinity(0, all[:])
	unix.RawSyscall(unix.SYS_SCHED_GETAFFINITY, 0, uintptr(len(now)), uintptr(unsafe.Pointer(&now)))
	if now == entered.cpus {
		return all[:]
	}
	return entered.cpus[:entered.length]
}

func setAffinity(tid int, mask []byte) {
	unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(tid), uintptr(len(mask)), uintptr(unsafe.Pointer(unsafe.SliceData(mask))))
}

// CPUs is on how many processors this process may run. runtime.NumCPU knows
// only those at the start.
func CPUs() int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return runtime.NumCPU()
	}
	return max(1, set.Count())
}

// Parallel lets the runtime use all processors, for goroutines that are to run
// while others wait for the kernel; and its monitor sleeps less, which hands on those
// that wait hold.
func Parallel() {
	watchful()
	parallel()
}

var parallel = sync.OnceFunc(func() {
	if entered.length > 0 && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(CPUs())
	}
})
