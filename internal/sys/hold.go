package sys

import (
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A heldDir is a directory that this process has open.
type heldDir struct {
	prefix string // its path and a slash
	fd     int
}

var held atomic.Pointer[heldDir]

// Hold opens the directory dir for as long as this process lives, and lets
// calls go from there whose path leads below it. It is for a command that makes
// dozens of them below /sys/fs/cgroup: the kernel takes a lock of all sysfs for
// each part of a path in it, and whoever makes a network interface holds that
// lock again and again. A thread in another mount namespace still reaches what
// this one sees at dir. A second call does nothing, nor one that is refused.
//
// Mkdir, Rmdir, InodeOf, Look, OpenFile, OpenDir, OpenTree, Statfs, and what reads
// and writes knobs ask here.
func Hold(dir string) {
	if held.Load() != nil {
		return
	}
	fd, err := OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil && !held.CompareAndSwap(nil, &heldDir{prefix: dir + "/", fd: fd}) {
		unix.Close(fd)
	}
}

// from gives the arguments of a call "at" for path.
func from(path string) (dirfd int, name string) {
	if h := held.Load(); h != nil {
		if rest, below := strings.CutPrefix(path, h.prefix); below && rest != "" && rest[0] != '/' {
			return h.fd, rest
		}
	}
	return unix.AT_FDCWD, path
}

// at is the descriptor of path itself; -1 where it is not held.
func at(path string) int {
	if h := held.Load(); h != nil && path+"/" == h.prefix {
		return h.fd
	}
	return -1
}
