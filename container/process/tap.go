package process

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/network"
)

// TunDevice is where tap devices are made.
const TunDevice = "/dev/net/tun"

// NoTun is the error where that cannot be opened.
func NoTun(err error) error {
	return &fault.Error{Op: "open", On: TunDevice, Err: err, Hint: "root may let all users make tap devices: modprobe tun; chmod 0666 " + TunDevice}
}

// Tap makes a tap device in the network namespace of the process pid, which
// belongs to that one's user namespace, and gives the device and the namespace,
// both the caller's to close. This process must own that user namespace; as a Go
// program it cannot enter it, so that a child does.
func Tap(pid int, name string) (tap *os.File, there *network.Namespace, err error) {
	fds, err := openInside(pid)
	if err != nil {
		return nil, nil, err
	}
	tap = os.NewFile(uintptr(fds[1]), TunDevice)
	if there, err = network.Over(fds[0]); err != nil {
		tap.Close()
		return nil, nil, err
	}
	if err = sys.TapOf(tap, name); err != nil {
		tap.Close()
		there.Close()
		return nil, nil, &fault.Error{Op: "make tap device", On: name, Err: err}
	}
	return tap, there, nil
}

// openTun is the step that fails most.
const openTun = "open " + TunDevice

// openInside opens a netlink socket and the device in the namespaces of pid.
func openInside(pid int) (fds []int, err error) {
	target, err := sys.PidfdOpen(pid)
	if err != nil {
		return nil, err
	}
	defer sys.Close(target)
	var sock int32
	link, device := sys.NewOutbox(), sys.NewOutbox()
	steps := []string{"enter the namespaces of the container", "open netlink socket", "send", openTun, "send"}
	calls := []sys.ChildCall{
		{Nr: unix.SYS_SETNS, Args: [6]sys.ChildArg{sys.Number(target), sys.Number(unix.CLONE_NEWUSER | unix.CLONE_NEWNET)}},
		{Nr: unix.SYS_SOCKET, Args: [6]sys.ChildArg{sys.Number(unix.AF_NETLINK), sys.Number(unix.SOCK_RAW | unix.SOCK_CLOEXEC), sys.Number(unix.NETLINK_ROUTE)}, Out: link.FD()},
		link.Send(&sock),
		{Nr: unix.SYS_OPENAT, Args: [6]sys.ChildArg{sys.Number(unix.AT_FDCWD), sys.BytesOf(TunDevice), sys.Number(unix.O_RDWR | unix.O_CLOEXEC)}, Out: device.FD()},
		device.Send(&sock),
		{Nr: unix.SYS_EXIT_GROUP},
	}
	child, err := sys.StartChild(calls, sys.ChildOptions{Sock: &sock})
	if err != nil {
		return nil, err
	}
	defer child.Close()
	defer child.Wait()
	for err == nil && len(fds) < 2 {
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
		sys.Close(fd)
	}
	return nil, explainInside(steps, err)
}

func explainInside(steps []string, err error) error {
	var at *sys.ChildError
	switch {
	case !errors.As(err, &at) || at.Index >= len(steps):
		return err
	case steps[at.Index] == openTun:
		return NoTun(at.Errno)
	}
	return &fault.Error{Op: steps[at.Index], Err: at.Errno}
}
