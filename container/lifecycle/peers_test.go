package lifecycle_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/container/lifecycle"
	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/need"
)

// A listener is who listens at a socket that gets descriptors.
type listener struct {
	name  string
	works bool // the start does all the same; else it fails
	serve func(t *testing.T, path string)
}

// serving answers every connection, and holds them until the test ends.
func serving(answer func(c *net.UnixConn)) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		t.Cleanup(func() { l.Close(); <-ended })
		go func() {
			defer close(ended)
			for {
				c, err := l.AcceptUnix()
				if err != nil {
					return
				}
				defer c.Close()
				answer(c)
			}
		}()
	}
}

// socket makes one of a kind at path, and closes it when the test ends.
func socket(t *testing.T, path string, kind int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func made(make func(path string) error) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		if err := make(path); err != nil {
			t.Fatal(err)
		}
	}
}

var listeners = []listener{
	{"who never reads", true, serving(func(*net.UnixConn) {})},
	{"who never accepts", true, func(t *testing.T, path string) {
		if err := unix.Listen(socket(t, path, unix.SOCK_STREAM), 100); err != nil {
			t.Fatal(err)
		}
	}},
	{"who answers with garbage and descriptors", true, serving(func(c *net.UnixConn) {
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		for range 100 {
			if _, _, err := c.WriteMsgUnix([]byte(strings.Repeat("\x00\xff{\"", 1000)), unix.UnixRights(0, 1, 2), nil); err != nil {
				return
			}
		}
	})},
	{"who shuts down what he could send", true, serving(func(c *net.UnixConn) { c.CloseWrite() })},
	{"whose queue is full", false, func(t *testing.T, path string) {
		if err := unix.Listen(socket(t, path, unix.SOCK_STREAM), 0); err != nil {
			t.Fatal(err)
		}
		full := 0
		for { // until nobody more is taken
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); errors.Is(err, unix.EAGAIN) {
				return
			} else if full++; err != nil || full > 10 {
				t.Fatal(full, err)
			}
		}
	}},
	{"nobody: a socket of packets", false, func(t *testing.T, path string) {
		if err := unix.Listen(socket(t, path, unix.SOCK_SEQPACKET), 100); err != nil {
			t.Fatal(err)
		}
	}},
	{"nobody: a socket of datagrams", false, func(t *testing.T, path string) { socket(t, path, unix.SOCK_DGRAM) }},
	{"nobody: a socket that nobody listens at", false, func(t *testing.T, path string) { socket(t, path, unix.SOCK_STREAM) }},
	{"nobody: a file", false, made(func(path string) error { return os.WriteFile(path, []byte("the user's"), 0o600) })},
	{"nobody: a directory", false, made(func(path string) error { return os.Mkdir(path, 0o700) })},
	{"nobody: a FIFO", false, made(func(path string) error { return unix.Mkfifo(path, 0o600) })},
	{"nobody: a link to itself", false, made(func(path string) error { return os.Symlink(path, path) })},
	{"nobody: a device", false, made(func(path string) error { return os.Symlink("/dev/null", path) })},
}

// Whoever listens at the sockets for consoles, pidfds and listeners of system
// calls gets a descriptor, or the start fails: it does not wait longer than
// process.Patience, it reads nothing of what he sends, and nothing stays.
func TestHostilePeers(t *testing.T) {
	for _, l := range listeners {
		for _, of := range []string{"console", "pidfd", "seccomp"} {
			if l.name == "whose queue is full" && (of == "console" || testing.Short() && of == "seccomp") {
				continue // it takes process.Patience; to dial is the same for both sockets
			}
			t.Run(of+" "+l.name, func(t *testing.T) {
				f := newFixture(t, "sleep", "100")
				path := filepath.Join(filepath.Dir(f.bundle), "peer.sock")
				f.spec.Process.Terminal = of == "console"
				if of == "seccomp" {
					f.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: path,
						Syscalls: []specs.LinuxSyscall{{Names: []string{"sethostname"}, Action: specs.ActNotify}}}
				}
				o := f.options(t)
				switch of {
				case "console":
					o.ConsoleSocket, o.Detach = path, true
				case "pidfd":
					o.PidfdSocket = path
				}
				need.Clean(t, f.bundle)
				l.serve(t, path)
				began := time.Now()
				c, err := f.root.Create(name("peer"), o)
				took := time.Since(began)
				if c != nil {
					defer remove(t, f, c)
				}
				var told *fault.Error
				switch {
				case l.works && err != nil:
					t.Errorf("it was not made: %v", err)
				case !l.works && (!errors.As(err, &told) || !strings.Contains(err.Error(), path)):
					t.Errorf("%v, want an error that names the socket", err)
				case took > process.Patience+30*time.Second:
					t.Errorf("it took %v", took)
				}
				if all, bad, err := f.root.List(); c == nil && len(all)+len(bad) > 0 || err != nil {
					t.Errorf("%d are left, %v, %v", len(all), bad, err)
				}
			})
		}
	}
}

// A peer that closes at once makes the start fail or gets the descriptor, as it
// happens; many of them leave nothing.
func TestPeersThatCloseEarly(t *testing.T) {
	f := newFixture(t, "sleep", "100")
	dir := filepath.Dir(f.bundle)
	f.spec.Process.Terminal = true
	o := f.options(t)
	o.Detach, o.ConsoleSocket, o.PidfdSocket = true, filepath.Join(dir, "console.sock"), filepath.Join(dir, "pidfd.sock")
	need.Clean(t, f.bundle)
	for _, name := range []string{"console.sock", "pidfd.sock"} {
		serving(func(c *net.UnixConn) { c.Close() })(t, filepath.Join(dir, name))
	}
	for range 20 {
		c, err := f.root.Create(name("early"), o)
		if err != nil {
			if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("%v, want a broken pipe", err)
			}
			continue
		}
		remove(t, f, c)
	}
	if all, bad, err := f.root.List(); len(all)+len(bad) > 0 || err != nil {
		t.Errorf("%d are left, %v, %v", len(all), bad, err)
	}
}

// remove deletes a container with its process, which is this one's child.
func remove(t *testing.T, f *fixture, c *lifecycle.Container) {
	t.Helper()
	pid := c.PID()
	if err := f.root.Delete(c.ID(), true); err != nil {
		t.Error(err)
	}
	syscall.Wait4(pid, nil, 0, nil)
}
