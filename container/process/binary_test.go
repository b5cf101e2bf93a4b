package process_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kiste/internal/need"
)

// A container does not get at the host's binary, though it makes kiste execute
// a script whose interpreter is /proc/self/exe, while another process in its
// pid namespace takes hold of every /proc/PID/exe that is not its own and opens
// it for writing as soon as nobody executes it: CVE-2019-5736. The binary
// belongs to whoever runs kiste, which is the worst case: an ordinary user's is
// his container's root's. Landlock, which would keep the two apart, is off.
func TestTheHostsBinaryCannotBeWritten(t *testing.T) {
	need.Clean(t)
	root := busybox(t)
	addProbe(t, root)
	if err := os.WriteFile(filepath.Join(root, "bin/again"), []byte("#!/proc/self/exe\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range []level{
		{"default", []string{"--security-opt", "landlock=off"}, hostRoot},
		{"userns-host", []string{"--userns", "host", "--security-opt", "landlock=off"}, hostRoot},
		{"pid-host", []string{"--pid", "host"}, hostRoot},
		{"pid-userns-host", []string{"--pid", "host", "--userns", "host"}, hostRoot},
		{"privileged", []string{"--privileged"}, hostRoot},
		{"user", []string{"--security-opt", "landlock=off"}, ordinary},
		{"user-alone", []string{"--security-opt", "landlock=off"}, alone},
		{"user-privileged", []string{"--privileged"}, ordinary},
	} {
		if testing.Short() && !slices.Contains([]string{"default", "userns-host", "user", "user-privileged"}, l.name) {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			l.need(t)
			s := newStorage(t)
			own := s.ownBinary(t, l)
			before := hash(t, own)
			run := func(args ...string) *exec.Cmd { // without a network, for which an ordinary user's kiste needs kisted beside it
				return l.commandOf(t, s, own, append(append([]string{"run", "--rm", "--network", "none"}, l.options...), args...)...)
			}
			writer := run("-i", "--name", "writer", "-e", probing("overwrite"), "rootfs:"+root, "/bin/probe")
			var said bytes.Buffer
			input, err := writer.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := writer.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			writer.Stderr = &said
			if err := writer.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
				t.Errorf("no writer: %v", err)
			}
			beside := []string{"--pid", "container:writer"}
			if slices.Contains(l.options, "--pid") {
				beside = nil
			}
			rounds := 5
			if testing.Short() {
				rounds = 1
			}
			for range rounds {
				for _, program := range []string{"/bin/again", "/bin/true"} {
					r := finish(t, run(append(slices.Clone(beside), "rootfs:"+root, program)...))
					if want := l.codeOf(program); r.code != want {
						t.Errorf("%s: code %d, want %d\n%s\n%s", program, r.code, want, r.out, r.err)
					}
				}
			}
			input.Close()
			rest, _ := io.ReadAll(out)
			if err := writer.Wait(); err != nil {
				t.Errorf("the writer: %v\n%s", err, said.String())
			}
			if bytes.Contains(rest, []byte("written")) {
				t.Errorf("the writer says: %s", rest)
			}
			// Who is privileged may look into every process of the host's
			// root; and what nobody can write may be looked at.
			if bytes.Contains(rest, []byte("held "+own)) && l.name != "privileged" && l.codeOf("/bin/again") == 126 {
				t.Errorf("the writer got at the host's binary: %s", rest)
			}
			if hash(t, own) != before {
				t.Error("the host's binary has changed")
			}
		})
	}
}

// codeOf is the exit code of a container with program. Where the host's binary
// belongs to nobody in the container it is what it seems: a kiste without such
// a command. Elsewhere the trampoline is the interpreter, and ends.
func (l level) codeOf(program string) int {
	switch {
	case program == "/bin/true":
		return 0
	case l.user == hostRoot && !slices.Contains(l.options, "--userns") && !slices.Contains(l.options, "--privileged"):
		return 2
	}
	return 126
}

// ownBinary is a copy of kiste that belongs to l's user.
func (s storage) ownBinary(t *testing.T, l level) string {
	t.Helper()
	b, err := os.ReadFile(kiste)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.dir, "kiste")
	if err := os.WriteFile(file, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if l.user != hostRoot && os.Geteuid() == 0 {
		if err := os.Chown(file, need.UserID, need.UserID); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func hash(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// overwrite takes hold of other programs' files, and tries to write to them,
// until its input ends.
func overwrite() {
	fmt.Println("ready")
	end := make(chan bool)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(end)
	}()
	own, _ := os.Readlink("/proc/self/exe")
	held := map[string]int{}
	for late := (<-chan time.Time)(nil); ; {
		select {
		case <-end:
			end, late = nil, time.After(200*time.Millisecond) // what has been held is free by now
		case <-late:
			return
		default:
		}
		files, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, file := range files {
			fd, err := unix.Open(file, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			to, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			if to == own || strings.HasPrefix(to, "/bin/") || held[to] != 0 {
				unix.Close(fd)
				continue
			}
			fmt.Println("held", to)
			held[to] = fd
		}
		for to, fd := range held {
			if w, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
				if n, _ := unix.Write(w, []byte("owned")); n > 0 {
					fmt.Println("written", to)
				}
				unix.Close(w)
				unix.Close(fd)
				delete(held, to)
			}
		}
	}
}
