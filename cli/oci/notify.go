package oci

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/lifecycle"
	"kiste/fault"
	"kiste/internal/sys"
)

// A notifier passes on that the container's program is ready: sd_notify(3).
// The program writes to a socket in the container's directory on the host; of
// what it writes only READY= goes to systemd, since the rest would speak of
// this service's processes, which the program does not know.
type notifier struct {
	host   string   // systemd's socket; empty: nobody wants to hear
	socket *os.File // the container's
}

// Where the container finds its socket, and where it is on the host below the
// container's directory.
const (
	notifyInside = "/run/notify"
	notifyName   = "notify.sock"
	notifyDir    = "notify"
)

// offer adds the socket's directory to a container that is being made.
func (n *notifier) offer(dir string, spec *specs.Spec) error {
	if n.host == "" {
		return nil
	}
	source := filepath.Join(dir, notifyDir)
	if err := os.Mkdir(source, 0o755); err != nil {
		return &fault.Error{Op: "make socket for notifications", Err: err}
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: notifyInside, Source: source, Type: "bind",
		Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"}})
	spec.Process.Env = append(spec.Process.Env, "NOTIFY_SOCKET="+filepath.Join(notifyInside, notifyName))
	return n.listen(dir)
}

// listen makes the socket that anybody in the container may write to. Create
// makes one that start replaces: sockets end with their process.
func (n *notifier) listen(dir string) error {
	path := filepath.Join(dir, notifyDir, notifyName)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return &fault.Error{Op: "make socket for notifications", Err: err}
	}
	socket, err := sys.BindUnix(path, true)
	if err == nil {
		n.socket, err = socket, os.Chmod(path, 0o777)
	}
	if err != nil {
		return &fault.Error{Op: "make socket for notifications", Err: err}
	}
	return nil
}

// hearing is the notifier of a container that is going to be started.
func (s *session) hearing(c *lifecycle.Container) (*notifier, error) {
	n := &notifier{host: os.Getenv("NOTIFY_SOCKET")}
	if _, err := os.Stat(filepath.Join(c.Dir(), notifyDir)); n.host == "" || err != nil {
		return &notifier{}, nil
	}
	return n, n.listen(c.Dir())
}

// passOnFor is passOn for a container that has been started.
func (n *notifier) passOnFor(c *lifecycle.Container) error {
	if n.socket == nil {
		return nil
	}
	pidfd, err := c.Pidfd()
	if errors.Is(err, fault.NotFound) {
		return nil // it has ended already
	}
	if err != nil {
		return err
	}
	defer sys.Close(pidfd)
	return n.passOn(pidfd, c.PID())
}

// passOn waits until the program is ready, or the process of pidfd has ended,
// and tells systemd, with main as the process to look after.
func (n *notifier) passOn(pidfd, main int) error {
	if n.socket == nil {
		return nil
	}
	defer n.socket.Close()
	ready, err := n.wait(pidfd)
	if err != nil || ready == nil {
		return err
	}
	if err := sys.Notify(n.host, string(ready)+"\n", "MAINPID="+strconv.Itoa(main)+"\n"); err != nil {
		return &fault.Error{Op: "notify", On: n.host, Err: err}
	}
	return nil
}

// longestNotice is more than what sd_notify(3) is used for.
const longestNotice = 4096

// wait returns the line that says READY, or nil when the process has ended.
func (n *notifier) wait(pidfd int) ([]byte, error) {
	buffer := make([]byte, longestNotice)
	for {
		ready, err := sys.Poll(true, int(n.socket.Fd()), pidfd)
		if err != nil {
			return nil, &fault.Error{Op: "wait for notification", Err: err}
		}
		if !ready[0] {
			return nil, nil
		}
		size, err := n.socket.Read(buffer)
		if err != nil && err != io.EOF {
			return nil, &fault.Error{Op: "wait for notification", Err: err}
		}
		for line := range bytes.SplitSeq(buffer[:size], []byte("\n")) {
			if bytes.HasPrefix(line, []byte("READY=")) {
				return line, nil
			}
		}
	}
}
