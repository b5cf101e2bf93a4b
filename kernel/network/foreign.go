package network

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/network/netlink"
)

// A namespace that belongs to another user namespace, of which this process's
// user is the owner, is foreign: no thread of a Go program may enter it, so that
// short-lived children do, open there what is needed, and send it back. Used here
// it has the rights of who uses it: netlink_ns_capable of the kernel asks for
// those of the opener only where no address is given, and ours always is.

// none is no descriptor.
const none = -1

// openForeign is the namespace fd, which is the Namespace's from here on, also
// after an error.
func openForeign(fd int) (*Namespace, error) {
	owner, err := sys.NamespaceOwner(fd)
	if err != nil {
		_ = sys.Close(fd)
		return nil, err
	}
	n := &Namespace{FD: fd, owner: owner}
	if n.socket, err = n.Netlink(unix.NETLINK_ROUTE); err != nil {
		_ = errors.Join(sys.Close(fd), sys.Close(owner))
		return nil, err
	}
	return n, nil
}

// Foreign reports whether only children of this process may enter n: Do and
// threads must not.
func (n *Namespace) Foreign() bool { return n.owner != none }

// An opening is one call that gives a descriptor, and what it is in words.
type opening struct {
	what string
	call sys.ChildCall
}

func socketOpening(what string, family, kind, protocol int) opening {
	return opening{what, sys.ChildCall{Nr: unix.SYS_SOCKET, Args: [6]sys.ChildArg{sys.Number(family), sys.Number(kind | unix.SOCK_CLOEXEC), sys.Number(protocol)}}}
}

// enter are the calls that bring a child into n, and what they are in words.
func (n *Namespace) enter() (calls []sys.ChildCall, steps []string) {
	setns := func(fd, kind int) {
		calls = append(calls, sys.ChildCall{Nr: unix.SYS_SETNS, Args: [6]sys.ChildArg{sys.Number(fd), sys.Number(kind)}})
		steps = append(steps, "enter network namespace")
	}
	if n.Foreign() {
		setns(n.owner, unix.CLONE_NEWUSER)
	}
	setns(n.FD, unix.CLONE_NEWNET)
	return calls, steps
}

// open opens descriptors inside n, which are the caller's to close.
func (n *Namespace) open(all ...opening) (fds []int, err error) {
	var sock int32
	calls, steps := n.enter()
	for _, o := range all {
		out := sys.NewOutbox()
		o.call.Out = out.FD()
		calls = append(calls, o.call, out.Send(&sock))
		steps = append(steps, o.what, "send")
	}
	child, err := sys.StartChild(append(calls, sys.ChildCall{Nr: unix.SYS_EXIT_GROUP}), sys.ChildOptions{Sock: &sock})
	if err != nil {
		return nil, err
	}
	defer child.Close()
	defer child.Wait()
	for err == nil && len(fds) < len(all) {
		var data []byte
		var got []int
		if data, got, err = child.Receive(); err == nil && len(data) == 0 {
			err = syscall.EPIPE
		}
		fds = append(fds, got...)
	}
	if err == nil {
		return fds, nil
	}
	for _, fd := range fds {
		_ = sys.Close(fd)
	}
	return nil, stepError(steps, err)
}

// stepError says which call of a child failed.
func stepError(steps []string, err error) error {
	var at *sys.ChildError
	if errors.As(err, &at) && at.Index < len(steps) {
		return &fault.Error{Op: steps[at.Index], Err: at.Errno}
	}
	return err
}

// Netlink is a new socket of the protocol, unix.NETLINK_ROUTE or another, that
// speaks with n. It is the caller's to close.
func (n *Namespace) Netlink(protocol int) (s *netlink.Socket, err error) {
	if !n.Foreign() {
		err = n.within(func() (err error) {
			s, err = netlink.Open(protocol)
			return err
		})
		return s, err
	}
	fds, err := n.open(socketOpening("open netlink socket", unix.AF_NETLINK, unix.SOCK_RAW, protocol))
	if err != nil {
		return nil, err
	}
	return netlink.From(fds[0])
}

// Sockets are count new sockets of the family and the type, unix.AF_INET and
// unix.SOCK_STREAM for instance, that belong to n. They are the caller's to close.
func (n *Namespace) Sockets(family, kind, count int) ([]*os.File, error) {
	all := make([]opening, count)
	for i := range all {
		all[i] = socketOpening("open socket", family, kind|unix.SOCK_NONBLOCK, 0)
	}
	fds, err := n.open(all...)
	if err != nil {
		return nil, err
	}
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		files[i] = os.NewFile(uintptr(fd), "socket")
	}
	return files, nil
}

// A knob is a sysctl below /proc/sys/net, and what is written there. One that is
// optional may be missing.
type knob struct {
	path, value string
	optional    bool
}

// turn writes knobs of n.
func (n *Namespace) turn(op string, knobs ...knob) error {
	if n.Foreign() {
		return n.turnForeign(op, knobs)
	}
	return n.within(func() error {
		for _, k := range knobs {
			if err := sys.WriteKnob(k.path, k.value); err != nil && !(k.optional && errors.Is(err, fs.ErrNotExist)) {
				return &fault.Error{Op: op, On: k.path, Err: err}
			}
		}
		return nil
	})
}

func (n *Namespace) turnForeign(op string, knobs []knob) error {
	calls, steps := n.enter()
	for _, k := range knobs {
		fd := new(int32)
		open := sys.ChildCall{Nr: unix.SYS_OPENAT, Args: [6]sys.ChildArg{sys.Number(unix.AT_FDCWD), sys.BytesOf(k.path), sys.Number(unix.O_WRONLY | unix.O_CLOEXEC)}, Out: fd}
		if k.optional {
			open.OnErr, open.Errno, open.Skip = sys.SkipOnErrno, syscall.ENOENT, 1
		}
		write := sys.ChildCall{Nr: unix.SYS_WRITE, Args: [6]sys.ChildArg{{Slot: fd}, {Bytes: []byte(k.value)}, sys.Number(len(k.value))}}
		calls = append(calls, open, write)
		steps = append(steps, op+" "+k.path, op+" "+k.path)
	}
	child, err := sys.StartChild(append(calls, sys.ChildCall{Nr: unix.SYS_EXIT_GROUP}), sys.ChildOptions{})
	if err != nil {
		return err
	}
	defer child.Close()
	defer child.Wait()
	_, _, err = child.Receive()
	return stepError(steps, err)
}

// TunDevice is where tap devices are made.
const TunDevice = "/dev/net/tun"

// NoTun is the error where that cannot be opened.
func NoTun(err error) error {
	return &fault.Error{Op: "open", On: TunDevice, Err: err, Hint: "root may let all users make tap devices: modprobe tun; chmod 0666 " + TunDevice}
}

// openTun is the step that fails most.
const openTun = "open " + TunDevice

// Tap makes a tap device in n, with that name, down. It lives as long as the file,
// which is the caller's.
func (n *Namespace) Tap(name string) (*os.File, error) {
	fds, err := n.open(opening{openTun, sys.ChildCall{Nr: unix.SYS_OPENAT, Args: [6]sys.ChildArg{sys.Number(unix.AT_FDCWD), sys.BytesOf(TunDevice), sys.Number(unix.O_RDWR | unix.O_CLOEXEC)}}})
	var at *fault.Error
	if errors.As(err, &at) && at.Op == openTun {
		return nil, NoTun(at.Err)
	}
	if err != nil {
		return nil, err
	}
	tap := os.NewFile(uintptr(fds[0]), TunDevice)
	if err := sys.TapOf(tap, name); err != nil {
		tap.Close()
		return nil, &fault.Error{Op: "make tap device", On: name, Err: err}
	}
	return tap, nil
}

// NewOwned is a new network namespace, with its loopback link up, in a new user
// namespace of this process's user, so that no privilege is needed but leave to
// make user namespaces. It lives as New's does.
func NewOwned() (*Namespace, error) {
	var sock int32
	child, err := sys.StartChild([]sys.ChildCall{sys.NewInbox(0).Receive(&sock), {Nr: unix.SYS_EXIT_GROUP}},
		sys.ChildOptions{Flags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, Sock: &sock})
	if err != nil {
		return nil, &fault.Error{Op: "make network namespace", Err: err}
	}
	defer child.Close()
	defer child.Wait()
	defer child.HangUp()
	n, err := OpenProcess(child.PID)
	if err != nil {
		return nil, err
	}
	if err := n.SetUp("lo"); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}
