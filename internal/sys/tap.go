package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// TapOf makes a tap device of a descriptor of /dev/net/tun, with that name, in the
// network namespace in which it was opened. It lives as long as the descriptor.
// Needs CAP_NET_ADMIN over that namespace. Source: tuntap.rst of the kernel.
func TapOf(tun *os.File, name string) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return named("tap "+name, err)
	}
	r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return onFile(tun, func(fd int) error { return named("ioctl TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, r)) })
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
	var at unix.Sockaddr
	if domain == unix.AF_INET {
		at = &unix.SockaddrInet4{Port: port, Addr: [4]byte(address)}
	} else {
		six := &unix.SockaddrInet6{Port: port}
		copy(six.Addr[:], address)
		at = six
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, map[bool]int{true: 1}[len(address) > 0])
	}
	if !udp { // as package net does: ends of connections that linger are no listeners
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err = unix.Bind(fd, at); err == nil && !udp {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		return 0, named("bind", err)
	}
	at, err = unix.Getsockname(fd)
	switch a := at.(type) {
	case *unix.SockaddrInet4:
		port = a.Port
	case *unix.SockaddrInet6:
		port = a.Port
	}
	return port, named("getsockname", err)
}
