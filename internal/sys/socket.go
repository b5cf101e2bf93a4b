package sys

import (
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what sun_path of unix(7) holds, but for the byte that ends
// it.
const maxSocketPath = 107

// ConnectUnix makes a socket that is connected with the one at path. Datagram:
// of the type SOCK_DGRAM, else SOCK_STREAM. A path that is too long for unix(7) is
// reached through its directory. A path that begins with @ is abstract.
func ConnectUnix(path string, datagram bool) (*os.File, error) {
	return unixSocket("connect", path, datagram, unix.Connect)
}

// ConnectUnixWithin is ConnectUnix to a stream whose peer is not trusted: one that
// does not accept, and one that does not read, is waited for so long at most by
// each call. After that the error is EAGAIN: SO_SNDTIMEO of socket(7).
func ConnectUnixWithin(path string, limit time.Duration) (*os.File, error) {
	within := unix.NsecToTimeval(limit.Nanoseconds())
	return unixSocket("connect", path, false, func(fd int, a unix.Sockaddr) error {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &within); err != nil {
			return err
		}
		return unix.Connect(fd, a)
	})
}

// DialUnix is ConnectUnix of a stream that the runtime's poller watches, and
// that takes deadlines.
func DialUnix(path string) (*os.File, error) { return dialUnix(path, false) }

// DialUnixPacket is DialUnix of datagrams.
func DialUnixPacket(path string) (*os.File, error) { return dialUnix(path, true) }

func dialUnix(path string, datagram bool) (*os.File, error) {
	f, err := ConnectUnix(path, datagram)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var fd int
	err = onFile(f, func(n int) (err error) {
		fd, err = unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, onPath("fcntl", path, err)
	}
	return Watched(fd, path)
}

// BindUnix makes a socket at path, which must not be there.
func BindUnix(path string, datagram bool) (*os.File, error) {
	return unixSocket("bind", path, datagram, unix.Bind)
}

func unixSocket(call, path string, datagram bool, do func(int, unix.Sockaddr) error) (*os.File, error) {
	kind := unix.SOCK_STREAM
	if datagram {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, named("socket", err)
	}
	name, done, err := shortened(path)
	if err == nil {
		err = retry(func() error { return do(fd, &unix.SockaddrUnix{Name: name}) })
		done()
	}
	if err != nil {
		unix.Close(fd)
		return nil, onPath(call, path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// shortened is a name for path that fits. It is good until done.
func shortened(path string) (name string, done func(), err error) {
	if len(path) <= maxSocketPath || path[0] == '@' {
		return path, func() {}, nil
	}
	dir, err := retryFD(func() (int, error) {
		return unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return "", nil, err
	}
	return FDPath(dir) + "/" + filepath.Base(path), func() { unix.Close(dir) }, nil
}

// SendFDs sends data, of at least a byte, with descriptors: SCM_RIGHTS of
// unix(7).
func SendFDs(socket *os.File, data []byte, fds ...int) error {
	err := onFile(socket, func(fd int) error {
		return unix.Sendmsg(fd, data, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
	})
	return onPath("sendmsg", socket.Name(), err)
}

// Subreaper makes this process the parent of its descendants' orphans
// (PR_SET_CHILD_SUBREAPER).
func Subreaper() error {
	return named("prctl PR_SET_CHILD_SUBREAPER", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// WaitAnyChild waits until a child of this process has ended and says which,
// leaving it to be waited for: waitid(2) with WNOWAIT.
func WaitAnyChild() (pid int, err error) {
	var info unix.Siginfo
	err = retry(func() error { return unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil) })
	const offset = 16 // of si_pid, where pointers have 64 bits
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), offset))), named("waitid", err)
}

// Reap takes away the child with pid, which has ended.
func Reap(pid int) error {
	_, err := retryFD(func() (int, error) { return unix.Wait4(pid, nil, 0, nil) })
	return onPath("wait4", strconv.Itoa(pid), err)
}

// ListenUnix listens for streams at path, which must not be there. Accept takes
// them.
func ListenUnix(path string, mode os.FileMode) (*os.File, error) {
	l, err := unixSocket("bind", path, false, func(fd int, a unix.Sockaddr) error {
		if err := unix.Bind(fd, a); err != nil {
			return err
		}
		if err := unix.Fchmodat(unix.AT_FDCWD, a.(*unix.SockaddrUnix).Name, uint32(mode.Perm()), 0); err != nil {
			return err
		}
		if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
			return err
		}
		return unix.SetNonblock(fd, true)
	})
	return l, err
}

// NewSocket is a socket of ip(7) in the network namespace of the calling thread,
// for ever, whoever uses it where. Family and kind are unix.AF_INET and
// unix.SOCK_STREAM, for instance. It is the caller's to close.
func NewSocket(family, kind int) (*os.File, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, named("socket", err)
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

// BindSocket gives a socket of NewSocket an address, of 4 or 16 bytes, and a port:
// 0 is one that is free. One of streams listens from then on.
func BindSocket(f *os.File, address []byte, port uint16) error {
	return onFile(f, func(fd int) error {
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err == nil && kind == unix.SOCK_STREAM {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if err == nil {
			err = unix.Bind(fd, inetAddress(address, int(port)))
		}
		if err == nil && kind == unix.SOCK_STREAM {
			err = unix.Listen(fd, unix.SOMAXCONN)
		}
		return named("bind", err)
	})
}

// ConnectDatagram lets a socket of NewSocket send to and hear of the address, of 4
// or 16 bytes, and port alone. It gets a port of its own that the kernel chooses
// by chance.
func ConnectDatagram(f *os.File, address []byte, port uint16) error {
	if len(address) != 4 && len(address) != 16 {
		return named("connect", unix.EINVAL)
	}
	to := inetAddress(address, int(port))
	return onFile(f, func(fd int) error { return named("connect", unix.Connect(fd, to)) })
}

// Accept waits for the next stream of a listener of ListenUnix. Its peer runs
// as user uid, says the kernel. Closing the listener ends the waiting:
// os.ErrClosed.
func Accept(listener *os.File) (stream *os.File, uid uint32, err error) {
	conn, err := listener.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	fd := -1
	var failed error
	err = conn.Read(func(l uintptr) bool {
		fd, failed = retryFD(func() (int, error) {
			n, _, err := unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return n, err
		})
		return failed != unix.EAGAIN
	})
	if err != nil {
		return nil, 0, os.ErrClosed // no deadline is ever set, so it is that
	}
	if failed != nil {
		return nil, 0, named("accept4", failed)
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		unix.Close(fd)
		return nil, 0, named("getsockopt", err)
	}
	return os.NewFile(uintptr(fd), listener.Name()), peer.Uid, nil
}

// CloseWrite ends what this side sends: shutdown(2).
func CloseWrite(stream *os.File) error {
	return onPath("shutdown", stream.Name(), onFile(stream, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) }))
}

// Watched makes a file of fd that the runtime's poller watches: a goroutine
// that waits for it costs no thread. It sets O_NONBLOCK.
func Watched(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, onPath("fcntl", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// SeqPair is socketpair(2) of type SOCK_SEQPACKET.
func SeqPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, named("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// ReceiveFDs receives one message, of at most len(b) bytes and 8 descriptors,
// which are the caller's to close.
func ReceiveFDs(socket *os.File, b []byte) (n int, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(4*8))
	var oobn int
	err = onFile(socket, func(fd int) (err error) {
		n, oobn, err = receive(fd, b, oob)
		return err
	})
	if err != nil {
		return 0, nil, onPath("recvmsg", socket.Name(), err)
	}
	_, fds, err = parseControl(oob[:oobn])
	return n, fds, err
}

// receive receives one message of a sequenced-packet socket; none is its end. The
// kernel looks for a message, and then, with no lock held, whether the other end
// is closed (__skb_wait_for_more_packets of net/core/datagram.c): where that one
// sends and closes in between, it tells of the end first. So an end is believed
// when nothing is found after it.
func receive(fd int, b, oob []byte) (n, oobn int, err error) {
	ask := func(flags int) error {
		return retry(func() (err error) {
			n, oobn, _, _, err = unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC|flags)
			return err
		})
	}
	if err = ask(0); err == nil && n == 0 {
		err = ask(unix.MSG_DONTWAIT)
	}
	return n, oobn, err
}

// CloseOnExec keeps a descriptor from the programs that this process executes.
func CloseOnExec(fd int) { _, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC) }
