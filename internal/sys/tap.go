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
