package sys

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// WriteKnob writes value to the existing file path in one write(2), as the
// files of cgroupfs want it. It never creates or truncates.
func WriteKnob(path, value string) error {
	_, err := WriteKnobs(path, []string{value})
	return err
}

// WriteKnobs writes each of values to the existing file path in a write(2) of
// its own. It gives the number of those that were written.
func WriteKnobs(path string, values []string) (int, error) {
	fd, err := OpenFile(path, unix.O_WRONLY|unix.O_NOCTTY)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	for i, v := range values {
		if _, err := retryFD(func() (int, error) { return unix.Write(fd, []byte(v)) }); err != nil {
			return i, onPath("write", path, err)
		}
	}
	return len(values), nil
}

// ReadKnob is ReadFile as a string.
func ReadKnob(path string, limit int) (string, error) {
	b, err := ReadFile(path, limit)
	return string(b), err
}

// Unlink is unlink(2).
func Unlink(path string) error {
	return onPath("unlink", path, retry(func() error { return unix.Unlink(path) }))
}

// Mkdir is mkdir(2).
func Mkdir(path string, mode uint32) error {
	dir, name := from(path)
	return onPath("mkdir", path, retry(func() error { return unix.Mkdirat(dir, name, mode) }))
}

// Rmdir is rmdir(2).
func Rmdir(path string) error {
	dir, name := from(path)
	return onPath("rmdir", path, retry(func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) }))
}

// Kill is kill(2).
func Kill(pid int, signal int) error { return named("kill", unix.Kill(pid, unix.Signal(signal))) }

// Alive reports whether a process, or a zombie, has the number pid.
func Alive(pid int) bool { return unix.Kill(pid, 0) != unix.ESRCH }

// PollChange waits until the kernel announces a change of the file fd (POLLPRI,
// as cgroup.events and /proc/self/mountinfo do), or until wait has passed; a
// negative one never does.
func PollChange(fd int, wait time.Duration) error { return PollChanges([]int{fd}, nil, wait) }

// PollChanges is PollChange for several files, and for descriptors that can be
// read.
func PollChanges(changes, reads []int, wait time.Duration) error {
	var fds []unix.PollFd
	for _, fd := range changes {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLPRI})
	}
	for _, fd := range reads {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	ms := -1
	if wait >= 0 {
		ms = max(1, int(wait.Milliseconds()))
	}
	_, err := retryFD(func() (int, error) { return unix.Poll(fds, ms) })
	return named("poll", err)
}

// CgroupEvent makes an eventfd(2) that the version 1 group dir counts up when
// what file is about happens, and when the group is removed. The descriptor is
// the caller's to close. Source: cgroup-v1/memcg_test.rst, cgroup.event_control.
func CgroupEvent(dir string, file *os.File, argument string) (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, named("eventfd", err)
	}
	err = onFile(file, func(of int) error {
		return WriteKnob(dir+"/cgroup.event_control", strings.TrimSpace(strconv.Itoa(fd)+" "+strconv.Itoa(of)+" "+argument))
	})
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// DrainEvent takes what an eventfd(2) that does not block has counted.
func DrainEvent(fd int) error {
	var b [8]byte
	_, err := retryFD(func() (int, error) { return unix.Read(fd, b[:]) })
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	return named("read eventfd", err)
}

// DeviceNumber is the major and minor number of the device at path, and
// whether it is a block device.
func DeviceNumber(path string) (major, minor uint32, block bool, err error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Stat(path, &st) }); err != nil {
		return 0, 0, false, onPath("stat", path, err)
	}
	if k := st.Mode & unix.S_IFMT; k != unix.S_IFBLK && k != unix.S_IFCHR {
		return 0, 0, false, onPath("stat", path, unix.ENODEV)
	}
	return unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Mode&unix.S_IFMT == unix.S_IFBLK, nil
}

// bpfAttr is union bpf_attr. Calls always pass the whole of it: kernels 6.17
// to 7.1 write past a shorter one in BPF_PROG_QUERY. Kernels that know less
// accept the zeros behind.
type bpfAttr [256]byte

func (a *bpfAttr) u32(at int, v uint32) { binary.NativeEndian.PutUint32(a[at:], v) }
func (a *bpfAttr) u64(at int, v uint64) { binary.NativeEndian.PutUint64(a[at:], v) }

func bpf(name string, cmd int, a *bpfAttr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a))
	runtime.KeepAlive(a)
	if errno != 0 {
		return -1, os.NewSyscallError(name, errno)
	}
	return int(r), nil
}

// BPFLoad is bpf(2) BPF_PROG_LOAD of a program of type kind (unix.BPF_PROG_TYPE_)
// for the attach point expected. Instructions are 8 bytes each. The descriptor
// is the caller's to close. The verifier answers EAGAIN while a signal is
// pending, as one of Go's scheduler may be: signals are held back meanwhile,
// and it is asked again, at most 100 times.
func BPFLoad(kind, expected uint32, instructions []uint64, license string) (int, error) {
	var a bpfAttr
	l := append([]byte(license), 0)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&l[0])
	pin.Pin(&instructions[0])
	a.u32(0, kind)
	a.u32(4, uint32(len(instructions)))
	a.u64(8, uint64(uintptr(unsafe.Pointer(&instructions[0]))))
	a.u64(16, uint64(uintptr(unsafe.Pointer(&l[0]))))
	a.u32(68, expected)
	release := holdSignals()
	defer release()
	for tries := 1; ; tries++ {
		fd, err := bpf("bpf load", unix.BPF_PROG_LOAD, &a)
		if tries == 100 || !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// holdSignals keeps signals from this thread until release, as far as the
// kernel lets it.
func holdSignals() (release func()) {
	runtime.LockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before)
	return func() {
		if err == nil {
			unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
		}
		runtime.UnlockOSThread()
	}
}

// BPFAttach is bpf(2) BPF_PROG_ATTACH to the cgroup directory dirfd; with
// unix.BPF_F_REPLACE in the place of the program replace.
func BPFAttach(dirfd, prog int, kind, flags uint32, replace int) error {
	var a bpfAttr
	a.u32(0, uint32(dirfd))
	a.u32(4, uint32(prog))
	a.u32(8, kind)
	a.u32(12, flags)
	a.u32(16, uint32(replace))
	_, err := bpf("bpf attach", unix.BPF_PROG_ATTACH, &a)
	return err
}

// BPFDetach is bpf(2) BPF_PROG_DETACH.
func BPFDetach(dirfd, prog int, kind uint32) error {
	var a bpfAttr
	a.u32(0, uint32(dirfd))
	a.u32(4, uint32(prog))
	a.u32(8, kind)
	_, err := bpf("bpf detach", unix.BPF_PROG_DETACH, &a)
	return err
}

// BPFQuery is bpf(2) BPF_PROG_QUERY: the ids of at most 64 programs attached
// to the cgroup directory dirfd itself.
func BPFQuery(dirfd int, kind uint32) ([]uint32, error) {
	ids := make([]uint32, 64)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	var a bpfAttr
	a.u32(0, uint32(dirfd))
	a.u32(4, kind)
	a.u64(16, uint64(uintptr(unsafe.Pointer(&ids[0]))))
	a.u32(24, uint32(len(ids)))
	if _, err := bpf("bpf query", unix.BPF_PROG_QUERY, &a); err != nil {
		return nil, err
	}
	return ids[:min(int(binary.NativeEndian.Uint32(a[24:])), len(ids))], nil
}

// BPFByID is bpf(2) BPF_PROG_GET_FD_BY_ID. The descriptor is the caller's to
// close.
func BPFByID(id uint32) (int, error) {
	var a bpfAttr
	a.u32(0, id)
	return bpf("bpf program by id", unix.BPF_PROG_GET_FD_BY_ID, &a)
}

// OpenDir opens the directory path for use as a descriptor, as
// CLONE_INTO_CGROUP wants it.
func OpenDir(path string) (int, error) {
	return OpenFile(path, unix.O_DIRECTORY|unix.O_RDONLY)
}
