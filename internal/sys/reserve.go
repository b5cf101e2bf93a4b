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
	if len(address) != 4 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return 0, err
		}
	}
	if err := unix.Bind(fd, inetAddress(address, int(port))); err != nil {
		return 0, err
	}
	got, err := boundPort(fd)
	return uint16(got), err
}

// CanBind reports why this process cannot listen at a port of the host: nil, it
// can. Address has 4 or 16 bytes, or none for all addresses of both versions.
// Port 0 is one that is free, which it gives.
func CanBind(udp bool, address []byte, port int) (int, error) {
	domain, kind := unix.AF_INET6, unix.SOCK_STREAM
	if len(address) == 4 {
		domain = unix.AF_INET
	}
	if udp {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err == unix.EAFNOSUPPORT && len(address) == 0 { // a host without IPv6
		return CanBind(udp, make([]byte, 4), port)
	}
	if err != nil {
		return 0, named("socket", err)
	}
	defer unix.Close(fd)
	if domain == unix.AF_INET6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, map[bool]int{true: 1}[len(address) > 0])
	}
	if !udp { // as package net does: ends of connections that linger are no listeners
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err = unix.Bind(fd, inetAddress(address, port)); err == nil && !udp {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		return 0, named("bind", err)
	}
	port, err = boundPort(fd)
	return port, named("getsockname", err)
}

// inetAddress is one of ip(7) where address has 4 bytes, else one of ipv6(7):
// of all addresses where it has none.
func inetAddress(address []byte, port int) unix.Sockaddr {
	if len(address) == 4 {
		return &unix.SockaddrInet4{Port: port, Addr: [4]byte(address)}
	}
	six := &unix.SockaddrInet6{Port: port}
	copy(six.Addr[:], address)
	return six
}

// boundPort is the port that a socket has.
func boundPort(fd int) (int, error) {
	bound, err := unix.Getsockname(fd)
	switch a := bound.(type) {
	case *unix.SockaddrInet4:
		return a.Port, err
	case *unix.SockaddrInet6:
		return a.Port, err
	}
	return 0, err
}

// Peer is the address, of 4 bytes or 16, that a connected socket has at its other
// end: getpeername(2).
func Peer(fd int) ([]byte, error) {
	peer, err := unix.Getpeername(fd)
	switch a := peer.(type) {
	case *unix.SockaddrInet4:
		return a.Addr[:], err
	case *unix.SockaddrInet6:
		return a.Addr[:], err
	}
	return nil, named("getpeername", err)
}
