package sys

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/netfilter_ipv4/ip_tables.h; those of ip6_tables.h are the same.
const (
	xtGetInfo    = 64
	xtGetEntries = 65
	xtInfoSize   = 84
	xtHeadSize   = 40
	xtMost       = 64 << 20 // bytes of rules
)

// Xtables reads a table of iptables' older variant, which keeps its rules in tables
// of its own and not in nf_tables, in the network namespace of the calling thread:
// struct ipt_getinfo, and the entries. Family is unix.AF_INET or unix.AF_INET6. A
// table that is not there is made by the question. It needs CAP_NET_ADMIN.
func Xtables(family int, table string) (info, entries []byte, err error) {
	level := unix.IPPROTO_IP
	if family == unix.AF_INET6 {
		level = unix.IPPROTO_IPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, nil, named("socket", err)
	}
	defer unix.Close(fd)
	const tries = 10 // somebody may change the table between the questions
	for range tries {
		info = append([]byte(table), make([]byte, xtInfoSize-len(table))...)
		if err = getsockopt(fd, level, xtGetInfo, info); err != nil {
			break
		}
		size := binary.NativeEndian.Uint32(info[xtInfoSize-4:])
		if size > xtMost {
			err = unix.EFBIG
			break
		}
		entries = make([]byte, xtHeadSize+int(size))
		copy(entries, table)
		binary.NativeEndian.PutUint32(entries[32:], size)
		if err = getsockopt(fd, level, xtGetEntries, entries); err != unix.EAGAIN {
			break
		}
	}
	if err != nil {
		return nil, nil, named("getsockopt", err)
	}
	return info, entries[xtHeadSize:], nil
}

func getsockopt(fd, level, name int, buffer []byte) error {
	size := uint32(len(buffer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
