package sys

import (
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the linker makes early the program's entry (-E kiste/internal/sys.early,
// see the Makefile), it looks for the command line
//
//	PROGRAM [--log FILE] [--log-format text|json] [--systemd-cgroup] --root DIR start ID
//
// and does what it says, if a go-ahead lies in DIR/ID: a byte into one FIFO,
// whose reader tells by another that it goes on. Go's runtime takes five times
// as long to begin, and starts of containers ask for nothing else. Whatever is
// not as usual, in the words, the files or the state of the process that waits,
// is left to the program as if nobody had looked; so this file knows no error.
// Then it makes timers late, for the runtime's monitor, and goes on as entry does.
//
// There is no runtime here: nothing below may allocate, split the stack, panic
// or wait for a goroutine. Buffers are variables, since there is little stack.

// What lies in the directory of a process that waits for its go-ahead.
const (
	StartFIFO  = "start"  // it reads one byte from there
	ReportFIFO = "report" // it closes that by its execve, or writes the errno
	GoAhead    = "ahead"  // a symbolic link to nothing: its text is there at once, and read in one call
)

// WriteGoAhead leaves a go-ahead in dir: to start the process pid nothing is
// wanted but the byte, unless the file frozen has another text than "0\n" by
// then. One that is not there, or "", says that nothing is frozen.
func WriteGoAhead(dir string, pid int, frozen string) error {
	return onPath("symlink", dir, unix.Symlink(strconv.Itoa(pid)+frozen, dir+"/"+GoAhead))
}

// EarlyErrno is what the process has written that this one has given its
// go-ahead before main; 0: it has written nothing, or nobody was given any.
func EarlyErrno() syscall.Errno { return earlyErrno }

var (
	earlyErrno  syscall.Errno
	earlyPath   [unix.PathMax]byte
	earlyText   [unix.PathMax]byte
	earlyThread [128]byte // where Go's code looks for its goroutine
)

var _ = earlyThread // by the assembler

// earlyWords are the command line's that matter, as the kernel has them.
type earlyWords struct{ root, id, log *byte }

var _ = earlyStart // by the assembler

// earlyStart returns where the program is to go on.
//
//go:norace
//go:nosplit
func earlyStart(argc int, argv *[1 << 16]*byte) {
	var w earlyWords
	if !w.take(argc, argv) || !earlyDir(w.root, w.id) || earlyNotified(argc, argv) {
		return
	}
	dir := earlyOpen(unix.AT_FDCWD, &earlyPath[0], unix.O_RDONLY|unix.O_DIRECTORY)
	if dir < 0 {
		return
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_FLOCK, uintptr(dir), unix.LOCK_EX, 0); errno == 0 && earlyLog(w.log) {
		earlyGo(dir)
	}
	earlyClose(dir)
}

// take reports whether the command line is a start.
//
//go:norace
//go:nosplit
func (w *earlyWords) take(argc int, argv *[1 << 16]*byte) bool {
	for i := 1; i+1 < argc && i+1 < len(argv); i += 2 {
		value := argv[i+1]
		switch option := argv[i]; {
		case earlyIs(option, "--root"):
			w.root = value
		case earlyIs(option, "--log"):
			w.log = value
		case earlyIs(option, "--log-format"):
			if !earlyIs(value, "json") && !earlyIs(value, "text") {
				return false
			}
		case earlyIs(option, "--systemd-cgroup"):
			i--
		case earlyIs(option, "start"):
			w.id = value
			return i+2 == argc && w.root != nil
		default:
			return false
		}
	}
	return false
}

// earlyNotified reports whether systemd wants to hear of the start.
//
//go:norace
//go:nosplit
func earlyNotified(argc int, argv *[1 << 16]*byte) bool {
	for i := argc + 1; i < len(argv) && argv[i] != nil; i++ {
		if earlyBegins(argv[i], "NOTIFY_SOCKET=") {
			return true
		}
	}
	return false
}

// earlyDir makes earlyPath root/id, where both are spelt as usual.
//
//go:norace
//go:nosplit
func earlyDir(root, id *byte) bool {
	n := earlyCopy(0, root)
	if n < 1 || earlyPath[0] == '.' {
		return false
	}
	earlyPath[n] = '/'
	for i := 1; i <= n && i < len(earlyPath); i++ {
		if earlyPath[i-1] == '/' && (earlyPath[i] == '/' || earlyPath[i] == '.') {
			return false
		}
	}
	end := earlyCopy(n+1, id)
	if end <= n+1 || earlyPath[n+1] == '.' {
		return false
	}
	for i := n + 1; i < end && i < len(earlyPath); i++ {
		switch c := earlyPath[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '+', c == '-' && i > n+1, c == '.':
		default:
			return false
		}
	}
	return true
}

// earlyCopy copies a word into earlyPath and gives its end, where it leaves room
// for a slash and a zero; -1: it is too long.
//
//go:norace
//go:nosplit
func earlyCopy(at int, word *byte) (end int) {
	for i := at; i >= 0 && i < len(earlyPath)-2; i++ {
		c := *(*byte)(unsafe.Add(unsafe.Pointer(word), i-at))
		earlyPath[i] = c
		if c == 0 {
			return i
		}
	}
	return -1
}

// earlyLog makes sure that there is a log as there would be otherwise.
//
//go:norace
//go:nosplit
func earlyLog(log *byte) bool {
	if log == nil || *log == 0 {
		return true
	}
	fd := earlyOpen(unix.AT_FDCWD, log, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND)
	earlyClose(fd)
	return fd >= 0
}

// The names, as the kernel wants them.
var (
	earlyStartName  = [...]byte{'s', 't', 'a', 'r', 't', 0}
	earlyReportName = [...]byte{'r', 'e', 'p', 'o', 'r', 't', 0}
	earlyAheadName  = [...]byte{'a', 'h', 'e', 'a', 'd', 0}
)

// earlyGo gives the go-ahead that lies in dir, which is locked.
//
//go:norace
//go:nosplit
func earlyGo(dir int) {
	pid := earlyRead(dir)
	if pid <= 0 {
		return
	}
	// Who waits is there as long as the FIFO has a reader: nobody else opens it.
	// The second descriptor is one as well, so that nobody gets a SIGPIPE where
	// that one ends now.
	start := earlyOpen(dir, &earlyStartName[0], unix.O_WRONLY|unix.O_NONBLOCK)
	reader := earlyOpen(dir, &earlyStartName[0], unix.O_RDONLY|unix.O_NONBLOCK)
	report := earlyOpen(dir, &earlyReportName[0], unix.O_RDONLY|unix.O_NONBLOCK)
	pidfd, _, errno := syscall.RawSyscall(unix.SYS_PIDFD_OPEN, uintptr(pid), 0, 0)
	if errno != 0 {
		pidfd = ^uintptr(0)
	}
	if start >= 0 && reader >= 0 && report >= 0 && errno == 0 {
		earlyByte(dir, start, report, int(pidfd))
	}
	earlyClose(start)
	earlyClose(reader)
	earlyClose(report)
	earlyClose(int(pidfd))
}

// earlyRead reads the go-ahead, and gives the number of the process: 0 where
// there is none, or the process is frozen.
//
//go:norace
//go:nosplit
func earlyRead(dir int) (pid int) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&earlyAheadName)), uintptr(unsafe.Pointer(&earlyText)), uintptr(len(earlyText)-1), 0, 0)
	if errno != 0 || n >= uintptr(len(earlyText))-1 {
		return 0
	}
	earlyText[n] = 0
	i := 0
	for ; i < 10 && earlyText[i] >= '0' && earlyText[i] <= '9'; i++ {
		pid = 10*pid + int(earlyText[i]-'0')
	}
	switch earlyText[i] {
	case 0:
		return pid
	case '/':
		if !earlyFrozen(&earlyText[i]) {
			return pid
		}
	}
	return 0
}

// earlyFrozen reports whether the file tells of something else than "0\n".
//
//go:norace
//go:nosplit
func earlyFrozen(file *byte) bool {
	fd, _, errno := syscall.RawSyscall6(unix.SYS_OPENAT, earlyHere, uintptr(unsafe.Pointer(file)), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return errno != unix.ENOENT
	}
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&earlyPath)), 3)
	earlyClose(int(fd))
	return errno != 0 || n != 2 || earlyPath[0] != '0'
}

// earlyByte writes the byte, and ends this process where the other one goes on.
//
//go:norace
//go:nosplit
func earlyByte(dir, start, report, pidfd int) {
	earlyPath[0] = 1
	if n, _, _ := syscall.RawSyscall(unix.SYS_WRITE, uintptr(start), uintptr(unsafe.Pointer(&earlyPath)), 1); n != 1 {
		return
	}
	polled := [2]unix.PollFd{{Fd: int32(report), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
	for errno := syscall.Errno(unix.EINTR); errno != 0; { // the byte cannot be taken back
		_, _, errno = syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&polled)), 2, 0, 0, 0, 0)
	}
	// What was said is there even if the process has ended by now.
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(report), uintptr(unsafe.Pointer(&earlyPath)), 4)
	earlyUnlink(dir, &earlyStartName[0])
	earlyUnlink(dir, &earlyReportName[0])
	earlyUnlink(dir, &earlyAheadName[0])
	if errno == 0 && n == 4 {
		earlyErrno = syscall.Errno(*(*uint32)(unsafe.Pointer(&earlyPath)))
		return
	}
	syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
}

// earlyHere is AT_FDCWD as an argument.
const earlyHere = ^uintptr(99)

// earlyOpen gives a descriptor, or -1.
//
//go:norace
//go:nosplit
func earlyOpen(dir int, path *byte, flags int) int {
	fd, _, errno := syscall.RawSyscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(path)), uintptr(flags|unix.O_CLOEXEC|unix.O_NOCTTY), 0o644, 0, 0)
	if errno != 0 {
		return -1
	}
	return int(fd)
}

// earlyClose closes a descriptor, if it is one.
//
//go:norace
//go:nosplit
func earlyClose(fd int) {
	if fd >= 0 {
		syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	}
}

//go:norace
//go:nosplit
func earlyUnlink(dir int, name *byte) {
	syscall.RawSyscall(unix.SYS_UNLINKAT, uintptr(dir), uintptr(unsafe.Pointer(name)), 0)
}

// earlyIs reports whether the kernel's word is the word.
//
//go:norace
//go:nosplit
func earlyIs(p *byte, word string) bool {
	return earlyBegins(p, word) && *(*byte)(unsafe.Add(unsafe.Pointer(p), len(word))) == 0
}

//go:norace
//go:nosplit
func earlyBegins(p *byte, word string) bool {
	for i := 0; i < len(word); i++ {
		if *(*byte)(unsafe.Add(unsafe.Pointer(p), i)) != word[i] {
			return false
		}
	}
	return true
}
