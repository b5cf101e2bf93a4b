package script

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"rsc.io/script"
)

// receiverCmd listens like an engine that wants a descriptor. It takes one: the
// output of a terminal, or the number of a pidfd's process, goes to the file.
func receiverCmd(t *testing.T) script.Cmd {
	return command("take one descriptor from a socket and write what it gives to a file", "socket file", 2, func(s *script.State, args []string) (string, string, error) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.Path(args[0]), Net: "unix"})
		if err != nil {
			return "", "", err
		}
		out, err := os.Create(s.Path(args[1]))
		if err != nil {
			return "", "", err
		}
		t.Cleanup(func() { l.Close(); out.Close() })
		go func() {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			defer conn.Close()
			f, name, err := receive(conn)
			if err != nil {
				fmt.Fprintln(out, err)
				return
			}
			defer f.Close()
			if pid := pidOf(f); pid != "" {
				fmt.Fprintf(out, "%s %s\n", name, pid)
				return
			}
			fmt.Fprintln(out, name)
			io.Copy(out, f) // ends with EIO when the other side hangs up
			fmt.Fprintln(out, "hung up")
		}()
		return "", "", nil
	})
}

// receive takes a message with one descriptor.
func receive(conn *net.UnixConn) (*os.File, string, error) {
	data, oob := make([]byte, 4096), make([]byte, 4096)
	n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return nil, "", err
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, "", errors.Join(err, fmt.Errorf("%d control messages", len(messages)))
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, "", errors.Join(err, fmt.Errorf("%d descriptors", len(fds)))
	}
	return os.NewFile(uintptr(fds[0]), "received"), string(data[:n]), nil
}

// pidOf is the number of a pidfd's process, or "".
func pidOf(f *os.File) string {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(info)) {
		if pid, ok := strings.CutPrefix(line, "Pid:"); ok {
			return strings.TrimSpace(pid)
		}
	}
	return ""
}

// managerCmd listens as systemd does for notifications.
func managerCmd(t *testing.T) script.Cmd {
	return command("write the notifications that come to a socket to a file", "socket file", 2, func(s *script.State, args []string) (string, string, error) {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.Path(args[0]), Net: "unixgram"})
		if err != nil {
			return "", "", err
		}
		out, err := os.Create(s.Path(args[1]))
		if err != nil {
			return "", "", err
		}
		t.Cleanup(func() { conn.Close(); out.Close() })
		go func() {
			for {
				data, oob := make([]byte, 4096), make([]byte, 4096)
				n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
				if err != nil {
					return
				}
				fmt.Fprintln(out, strings.TrimSpace(string(data[:n])))
				closeAll(oob[:oobn])
			}
		}()
		return "", "", nil
	})
}

func notifyCmd() script.Cmd {
	return command("send a notification to a socket, which may be a while coming", "socket text", 2, func(s *script.State, args []string) (string, string, error) {
		var conn *net.UnixConn
		var err error
		for range 1200 {
			conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.Path(args[0]), Net: "unixgram"})
			if err == nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			return "", "", err
		}
		defer conn.Close()
		_, err = conn.Write([]byte(strings.ReplaceAll(args[1], ";", "\n")))
		return "", "", err
	})
}

// closeAll closes what came with a message, which is what a barrier waits for.
func closeAll(oob []byte) {
	messages, _ := syscall.ParseSocketControlMessage(oob)
	for _, m := range messages {
		fds, _ := syscall.ParseUnixRights(&m)
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}
}
