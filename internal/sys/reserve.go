package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Reserve takes a port of this network namespace, so that nobody else can listen
// on it, and gives it: one that is free where port is 0. Protocol is IPPROTO_ of
// ip(7); an address of no bytes is all of IPv6, one of zeros all of its family.
// Nothing is ever accepted or read. The file is the caller's to close.
func Reserve(protocol int, address []byte, port uint16) (*os.File, uint16, error) {
	kind := unix.SOCK_STREAM
	if protocol == unix.IPPROTO_UDP {
		kind = unix.SOCK_DGRAM
	}
	family := unix.AF_INET6
	if len(address) == 4 {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, 0, named("socket", err)
	}
	f := os.NewFile(uintptr(fd), "port")
	got, err := reserve(fd, address, port)
	if err != nil {
		f.Close()
		return nil, 0, named("bind", err)
	}
	return f, got, nil
}

func reserve(fd int, address []byte, port uint16) (uint16, error) {
	if len(address) == 4 {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte(address)}); err != nil {
			return 0, err
		}
	} else {
		a := &unix.SockaddrInet6{Port: int(port)}
		copy(a.Addr[:], address)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return 0, err
		}
		if err := unix.Bind(fd, a); err != nil {
			return 0, err
		}
	}
	bound, err := unix.Getsockname(fd)
	switch a := bound.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port), err
	case *unix.SockaddrInet6:
		return uint16(a.Port), err
	}
	return port, err
}
