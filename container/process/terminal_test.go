package process_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"kiste/internal/need"
)

// A container cannot type on the terminal that kiste was called from, whatever
// it has of it: CVE-2016-10124. Where it has a terminal of its own it may type
// on that one. The kernel may forbid TIOCSTI by the sysctl
// dev.tty.legacy_tiocsti, but not to those with CAP_SYS_ADMIN.
func TestNoContainerTypesOnItsCallersTerminal(t *testing.T) {
	need.Clean(t)
	root := busybox(t)
	addProbe(t, root)
	if _, slave := openPty(t); !typeLine(slave) || drain(t, slave) != "owned\n" {
		t.Skip("NEEDS a kernel on which anybody can type on a terminal: TIOCSTI of ioctl_tty(2)")
	}
	for _, l := range []level{
		{"default", nil, hostRoot},
		{"input", []string{"-i"}, hostRoot},
		{"terminal", []string{"-t"}, hostRoot},
		{"both", []string{"-i", "-t"}, hostRoot},
		{"userns-host", []string{"-i", "--userns", "host", "--cap-add", "SYS_ADMIN"}, hostRoot},
		{"privileged", []string{"-i", "--privileged"}, hostRoot},
		{"privileged-both", []string{"-i", "-t", "--privileged", "--pid", "host"}, hostRoot},
		{"user", []string{"-i"}, ordinary},
		{"user-both", []string{"-i", "-t", "--privileged"}, ordinary},
	} {
		t.Run(l.name, func(t *testing.T) {
			l.need(t)
			s := newStorage(t)
			master, slave := openPty(t)
			cmd := l.command(t, s, append(append([]string{"run", "--rm", "-e", probing("type")}, l.options...), "rootfs:"+root, "/bin/probe")...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			late := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
			defer late.Stop()
			err := cmd.Wait()
			said := drain(t, master)
			if err != nil || !strings.Contains(said, "end of probe") {
				t.Errorf("%v\n%s", err, said)
			}
			if own := strings.Contains(said, "typed on /dev/"); own && !hasWord(l.options, "-t") {
				t.Errorf("there was a terminal to type on: %s", said)
			}
			if typed := drain(t, slave); typed != "" {
				t.Errorf("typed on the caller's terminal: %q", typed)
			}
		})
	}
}

func hasWord(words []string, word string) bool {
	return strings.Contains(" "+strings.Join(words, " ")+" ", " "+word+" ")
}

// openPty opens a pseudo terminal.
func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	fd, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	slave = os.NewFile(fd, "slave")
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// drain reads what is there now.
func drain(t *testing.T, f *os.File) string {
	t.Helper()
	fd := int(f.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		b.Write(buf[:max(n, 0)])
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EIO) || n == 0 {
			return b.String()
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

// typeOn types a line on every terminal that it finds.
func typeOn() {
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for _, name := range []string{"/dev/tty", "/dev/console", "/dev/pts/0", "/dev/pts/1", "/proc/1/fd/0", "/proc/1/fd/1", "/proc/1/fd/2"} {
		if f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0); err == nil {
			files = append(files, f)
		}
	}
	for _, f := range files {
		if typeLine(f) {
			fmt.Println("typed on", f.Name())
		}
	}
	io.WriteString(os.Stdout, "end of probe\n")
}

func typeLine(f *os.File) bool {
	for _, c := range []byte("owned\n") {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), unix.TIOCSTI, uintptr(unsafe.Pointer(&c))); errno != 0 {
			return false
		}
	}
	return true
}
