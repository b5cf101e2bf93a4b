package sys

import "golang.org/x/sys/unix"

// PingSocket is socket(2) for echo requests without privilege: icmp(7). It is
// EACCES for a user whose groups net.ipv4.ping_group_range does not name. The
// descriptor is the caller's to close.
func PingSocket(v6 bool) (int, error) {
	domain, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if v6 {
		domain, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol)
	return fd, named("socket", err)
}
