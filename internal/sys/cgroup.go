package sys

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

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

// OpenDir opens the directory path for use as a descriptor, as
// CLONE_INTO_CGROUP wants it.
func OpenDir(path string) (int, error) {
	return OpenFile(path, unix.O_DIRECTORY|unix.O_RDONLY)
}
