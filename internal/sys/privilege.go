package sys

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Prctl is prctl(2) of the calling thread. Option is a unix.PR_ number.
func Prctl(option int, arg2, arg3, arg4, arg5 uintptr) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, uintptr(option), arg2, arg3, arg4, arg5, 0)
	if errno != 0 {
		return 0, named("prctl", errno)
	}
	return int(n), nil
}

// PrctlAll is prctl(2) of every thread of this process.
func PrctlAll(option int, arg2, arg3, arg4, arg5 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, uintptr(option), arg2, arg3, arg4, arg5, 0)
	if errno != 0 {
		return named("prctl", errno)
	}
	return nil
}

// Capset is capset(2) of the calling thread, version 3.
func Capset(effective, permitted, inheritable uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
	return named("capset", unix.Capset(&header, &data[0]))
}

// Capget is capget(2) of the calling thread, version 3.
func Capget() (effective, permitted, inheritable uint64, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err = unix.Capget(&header, &data[0])
	join := func(low, high uint32) uint64 { return uint64(high)<<32 | uint64(low) }
	return join(data[0].Effective, data[1].Effective), join(data[0].Permitted, data[1].Permitted),
		join(data[0].Inheritable, data[1].Inheritable), named("capget", err)
}

// SetIDs is setgroups(2), setresgid(2) and setresuid(2) of the calling thread
// alone; the functions of package syscall change every thread. Nil groups are
// left as they are.
func SetIDs(uid, gid int, groups []uint32) error {
	if groups != nil {
		var first unsafe.Pointer
		if len(groups) > 0 {
			first = unsafe.Pointer(&groups[0])
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
			return named("setgroups", errno)
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
		return named("setresgid", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return named("setresuid", errno)
	}
	return nil
}

// Getrlimit is prlimit(2) of this process.
func Getrlimit(resource int) (soft, hard uint64, err error) {
	var l unix.Rlimit
	err = unix.Prlimit(0, resource, nil, &l)
	return l.Cur, l.Max, named("prlimit", err)
}

// Setrlimit is prlimit(2) of this process. Resource is a unix.RLIMIT_ number.
func Setrlimit(resource int, soft, hard uint64) error {
	return named("prlimit", unix.Prlimit(0, resource, &unix.Rlimit{Cur: soft, Max: hard}, nil))
}

// SeccompFilter is seccomp(2) with SECCOMP_SET_MODE_FILTER for the calling
// thread. Program is n instructions of struct sock_filter. The number is a
// listener's descriptor when flags ask for one.
func SeccompFilter(flags uint, program unsafe.Pointer, n int) (int, error) {
	prog := unix.SockFprog{Len: uint16(n), Filter: (*unix.SockFilter)(program)}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return -1, named("seccomp", errno)
	}
	return int(fd), nil
}

// LandlockVersion is landlock_create_ruleset(2) with its version flag.
func LandlockVersion() (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, named("landlock_create_ruleset", errno)
	}
	return int(n), nil
}

// LandlockCreateRuleset is landlock_create_ruleset(2). Attr is a struct
// landlock_ruleset_attr. The descriptor is the caller's to close.
func LandlockCreateRuleset(attr []byte) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)), 0)
	if errno != 0 {
		return -1, named("landlock_create_ruleset", errno)
	}
	return int(fd), nil
}

// LandlockAddRule is landlock_add_rule(2). Kind is 1 for a struct
// landlock_path_beneath_attr, 2 for a landlock_net_port_attr.
func LandlockAddRule(ruleset, kind int, attr []byte) error {
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), uintptr(kind), uintptr(unsafe.Pointer(&attr[0])), 0, 0, 0)
	if errno != 0 {
		return named("landlock_add_rule", errno)
	}
	return nil
}

// LandlockRestrictSelf is landlock_restrict_self(2) of the calling thread.
func LandlockRestrictSelf(ruleset int) error {
	_, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0)
	if errno != 0 {
		return named("landlock_restrict_self", errno)
	}
	return nil
}

// LandlockRestrictAll is landlock_restrict_self(2) of every thread of this
// process.
func LandlockRestrictAll(ruleset int) error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0)
	if errno != 0 {
		return named("landlock_restrict_self", errno)
	}
	return nil
}

// OpenPath is open(2) with O_PATH: a place in the file system, not its
// contents. It reports whether that is a directory. The descriptor is the
// caller's to close.
func OpenPath(path string) (fd int, dir bool, err error) {
	fd, err = retryFD(func() (int, error) { return unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0) })
	if err != nil {
		return -1, false, onPath("open", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, false, onPath("fstat", path, err)
	}
	return fd, st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// Owner is the user id in what stat(2) told of a file.
func Owner(info os.FileInfo) (uint32, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Uid, true
}

// AllowLimit lets another process set its own limit as high as hard: the hard
// limit is raised where it is lower, with prlimit(2) and CAP_SYS_RESOURCE.
func AllowLimit(pid, resource int, hard uint64) error {
	var old unix.Rlimit
	if err := unix.Prlimit(pid, resource, nil, &old); err != nil || old.Max >= hard {
		return named("prlimit", err)
	}
	return named("prlimit", unix.Prlimit(pid, resource, &unix.Rlimit{Cur: old.Cur, Max: hard}, nil))
}

// ActAs lets the calling thread, which must be locked, make files as uid and
// gid with all its capabilities, until restore: setfsuid(2) under
// SECBIT_NO_SETUID_FIXUP of capabilities(7).
func ActAs(uid, gid int) (restore func(), err error) {
	bits, err := Prctl(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil {
		return nil, err
	}
	const noFixup = 1 << 2
	if _, err := Prctl(unix.PR_SET_SECUREBITS, uintptr(bits|noFixup), 0, 0, 0); err != nil {
		return nil, err
	}
	oldGID, err := unix.SetfsgidRetGid(gid)
	if err != nil {
		return nil, named("setfsgid", err)
	}
	oldUID, err := unix.SetfsuidRetUid(uid)
	if err != nil {
		return nil, named("setfsuid", err)
	}
	return func() {
		unix.SetfsuidRetUid(oldUID)
		unix.SetfsgidRetGid(oldGID)
		_, _ = Prctl(unix.PR_SET_SECUREBITS, uintptr(bits), 0, 0, 0)
	}, nil
}
