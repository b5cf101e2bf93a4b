package process

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/internal/sys"
)

// maxAccounts is how much of a container's /etc/passwd is read: what is there
// may be of any size and kind (CVE-2026-47262).
const maxAccounts = 1 << 20

// Home is the home directory of a user of the container whose root is the
// directory root, which may be /proc/PID/root: by its /etc/passwd, or the one
// that is going to be mounted there. Without an entry it is "/", as in runc.
func Home(root string, mounts []specs.Mount, uid uint32) string {
	dir, name := root, "/etc/passwd"
	for _, m := range mounts {
		if path.Clean("/"+m.Destination) == "/etc/passwd" {
			dir, name = path.Dir(m.Source), path.Base(m.Source)
		}
	}
	text, err := ReadIn(dir, name)
	if err != nil {
		return "/"
	}
	return homeOf(text, uid)
}

// RootOf is the root directory of a process.
func RootOf(pid int) string { return fmt.Sprintf("/proc/%d/root", pid) }

// ReadIn reads a file of the tree below dir, and nothing outside of it: a plain
// file, at most 1 MiB of it. Anything else there is os.ErrInvalid.
func ReadIn(dir, name string) (string, error) {
	root, err := sys.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer sys.Close(root)
	fd, err := sys.OpenIn(root, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer sys.Close(fd)
	if st, err := sys.StatAt(fd, ""); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", os.ErrInvalid
	}
	text, err := sys.ReadAll(fd, maxAccounts)
	return string(text), err
}

// homeOf reads passwd(5): name, password, user, group, comment, home, shell. A
// home that is no absolute path, or has what ends a line of an environment, is
// none.
func homeOf(passwd string, uid uint32) string {
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) < 6 {
			continue
		}
		if n, err := strconv.ParseUint(f[2], 10, 32); err != nil || uint32(n) != uid {
			continue
		}
		if !path.IsAbs(f[5]) || strings.ContainsAny(f[5], "\x00\r\n") {
			return "/"
		}
		return f[5]
	}
	return "/"
}
