package sys

import (
	"golang.org/x/sys/unix"
)

// Netlink opens a netlink socket of a protocol, unix.NETLINK_ROUTE or another,
// in the network namespace of the calling thread: netlink(7). Answers that do
// not come within seconds are an error; 0 waits for ever. Errors come with the
// kernel's words where it has any. The descriptor is the caller's to close.
func Netlink(protocol int, seconds int64) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, named("socket", err)
	}
	return fd, NetlinkReady(fd, seconds)
}

// NetlinkReady makes a new netlink socket ready, which somebody else has opened;
// after an error it is closed.
func NetlinkReady(fd int, seconds int64) error {
	timeout := unix.Timeval{Sec: seconds}
	err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		unix.Close(fd)
		return named("netlink", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1) // words are welcome, not needed
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return nil
}

// NetlinkJoin makes the socket hear what the kernel tells a group.
func NetlinkJoin(fd, group int) error {
	return named("netlink join", unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group))
}

// NetlinkRoom makes room for a message of size bytes, beyond the limit of the
// host where the caller has CAP_NET_ADMIN over it.
func NetlinkRoom(fd, size int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size)
	if err != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size)
	}
	return named("netlink room", err)
}

// NetlinkSend sends message to the kernel.
func NetlinkSend(fd int, message []byte) error {
	return named("netlink send", retry(func() error {
		return unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}))
}

// NetlinkReceive receives one datagram into b. One that is larger is EMSGSIZE;
// one that is not from the kernel is passed over.
func NetlinkReceive(fd int, b []byte) (int, error) {
	for {
		n, _, flags, from, err := recvmsg(fd, b)
		switch {
		case err != nil:
			return 0, named("netlink receive", err)
		case flags&unix.MSG_TRUNC != 0:
			return 0, named("netlink receive", unix.EMSGSIZE)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 {
			return n, nil
		}
	}
}

func recvmsg(fd int, b []byte) (n, oob, flags int, from unix.Sockaddr, err error) {
	err = retry(func() (err error) {
		n, oob, flags, from, err = unix.Recvmsg(fd, b, nil, 0)
		return err
	})
	return n, oob, flags, from, err
}
