package stub

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"kiste/fault"
	"kiste/internal/need"
)

// eachMachine runs check with a program for this processor and, by emulation,
// for the others.
func eachMachine(t *testing.T, make func(string) ([]byte, error), check func(t *testing.T, command []string)) {
	for _, m := range machines {
		t.Run(m.name, func(t *testing.T) {
			image, err := make(m.name)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "stub")
			if err := os.WriteFile(path, image, 0o755); err != nil {
				t.Fatal(err)
			}
			command := []string{path}
			if m.name != runtime.GOARCH {
				emulator := map[string]string{"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}[m.name]
				need.Program(t, emulator)
				command = []string{emulator, "-0", "stub", path}
			}
			t.Logf("%d bytes", len(image))
			check(t, command)
		})
	}
}

func TestInitEndsAsItsChildDoes(t *testing.T) {
	need.Program(t, "sh", "true")
	for _, tt := range []struct {
		name string
		args []string
		env  []string
		code int
		out  string
	}{
		{"its code", []string{"/bin/sh", "-c", "exit 7"}, nil, 7, ""},
		{"after a signal", []string{"/bin/sh", "-c", "kill -9 $$"}, nil, 137, ""},
		{"found on $PATH, past what is not there", []string{"sh", "-c", "echo $1 $X", "-", "a b"}, []string{"X=y", "PATH=/nonexistent::/etc/passwd:/usr/bin"}, 0, "a b y\n"},
		{"found without $PATH", []string{"sh", "-c", "exit 0"}, []string{"X=y"}, 0, ""},
		{"past two dashes", []string{"--", "sh", "-c", "exit 3"}, nil, 3, ""},
		{"not there", []string{"/nonexistent"}, nil, 127, ""},
		{"nowhere on $PATH", []string{"nonexistent"}, []string{"PATH=/bin"}, 127, ""},
		{"not executable", []string{"/etc/passwd"}, nil, 126, ""},
		{"no command", nil, nil, 127, ""},
		{"a directory longer than the buffer", []string{"sh", "-c", "exit 4"}, []string{"PATH=" + strings.Repeat("x", 20000) + ":/bin"}, 4, ""},
		{"a name longer than the buffer", []string{strings.Repeat("x", 20000)}, nil, 127, ""},
		{"signals are as they were", []string{"/bin/sh", "-c", "grep SigBlk /proc/self/status"}, nil, 0, "SigBlk:\t0000000000000000\n"},
		{"orphans are reaped", []string{"/bin/sh", "-c", "(true & true &); exit 5"}, nil, 5, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachMachine(t, Init, func(t *testing.T, command []string) {
				if len(command) > 1 && strings.HasPrefix(tt.name, "signals") {
					t.Skip("the emulator keeps signals of its own")
				}
				cmd := exec.Command(command[0], append(command[1:], tt.args...)...)
				cmd.Env = tt.env
				out, err := cmd.Output()
				if code := cmd.ProcessState.ExitCode(); code != tt.code || string(out) != tt.out {
					t.Errorf("code %d, output %q (%v); want %d and %q", code, out, err, tt.code, tt.out)
				}
			})
		})
	}
}

func TestInitHandsSignalsOn(t *testing.T) {
	need.Program(t, "sh", "sleep")
	eachMachine(t, Init, func(t *testing.T, command []string) {
		cmd := exec.Command(command[0], append(command[1:], "/bin/sh", "-c", `trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done`)...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		io.ReadFull(out, make([]byte, len("ready\n")))
		cmd.Process.Signal(syscall.SIGTERM)
		stop := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
		cmd.Wait()
		stop.Stop()
		if code := cmd.ProcessState.ExitCode(); code != 9 {
			t.Errorf("code %d, want 9", code)
		}
	})
}

// bounce lets a trampoline execute path with args; it has a pipe as descriptor 3,
// and files from 4 on. It gives what was written to the pipe; 0: nothing was.
func bounce(t *testing.T, command []string, path string, args []string, files ...*os.File) (code int, out string, said uint32) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(command[0])
	cmd.Args = append([]string{path}, args...)
	if len(command) > 1 {
		cmd.Args = append([]string{command[0], "-0", path, command[3]}, args...)
	}
	cmd.Env, cmd.ExtraFiles = []string{"X=y"}, append([]*os.File{w}, files...)
	b, _ := cmd.Output()
	w.Close()
	message, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(message) == 4 {
		said = binary.LittleEndian.Uint32(message)
	}
	return cmd.ProcessState.ExitCode(), string(b), said
}

func TestTrampoline(t *testing.T) {
	for _, tt := range []struct {
		name  string
		args  []string // argv[1] and so on; argv[0] is the path
		path  string
		code  int
		out   string
		errno syscall.Errno
	}{
		{"becomes the command with its own name", []string{"name", "-c", "echo $0 $X; test ! -e /proc/self/fd/3"}, "/bin/sh", 0, "name y\n", 0},
		{"says that there is none", []string{"name"}, "/nonexistent", 127, "", syscall.ENOENT},
		{"says that it may not", []string{"name"}, "/etc/passwd", 127, "", syscall.EACCES},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachMachine(t, func(arch string) ([]byte, error) { return Trampoline(arch, 3, nil) }, func(t *testing.T, command []string) {
				code, out, said := bounce(t, command, tt.path, tt.args)
				if errno := syscall.Errno(said); code != tt.code || out != tt.out || errno != tt.errno {
					t.Errorf("code %d, output %q, errno %v; want %d, %q, %v", code, out, errno, tt.code, tt.out, tt.errno)
				}
			})
		})
	}
}

// What a stub wishes for its program is in the file before that is executed, and
// the program has nothing of it. Where the wish is refused nothing is executed.
func TestLabel(t *testing.T) {
	for _, tt := range []struct {
		name  string
		there bool
		code  int
		said  uint32
	}{
		{"is asked for", true, 0, 0},
		{"cannot be asked for", false, 127, uint32(syscall.ENOENT) + Unlabelled},
	} {
		for _, wish := range []string{"exec box", "exec another-box"} { // of lengths that are not those of instructions, too
			t.Run(tt.name+": "+wish, func(t *testing.T) {
				stub := func(arch string) ([]byte, error) { return Trampoline(arch, 3, &Label{FD: 4, Wish: wish}) }
				eachMachine(t, stub, func(t *testing.T, command []string) {
					dir, file := attribute(t, tt.there)
					want := ""
					if tt.there {
						want = wish
					}
					code, out, said := bounce(t, command, "/bin/sh", []string{"name", "-c", "cat '" + file + "'; for fd in 3 4 5; do test ! -e /proc/self/fd/$fd || echo $fd; done"}, dir)
					if code != tt.code || out != want || said != tt.said {
						t.Errorf("code %d, output %q, said %d; want %d, %q, %d", code, out, said, tt.code, want, tt.said)
					}
				})
			})
		}
	}
}

// attribute is a directory like attr/apparmor of procfs, and its file exec, if
// that is to be there.
func attribute(t *testing.T, there bool) (dir *os.File, file string) {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	file = filepath.Join(dir.Name(), "exec")
	if there {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, file
}

// A script whose interpreter is /proc/self/exe makes a stub execute itself,
// once and not for ever. The emulator would be /proc/self/exe itself, so other
// processors' stubs are started as they would be by then: without descriptors.
func TestStubsThatExecuteThemselvesEnd(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/proc/self/exe\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	join := func(arch string, fd int, l *Label) ([]byte, error) { return Joiner(arch, fd, false, l) }
	for name, program := range map[string]func(string, int, *Label) ([]byte, error){"trampoline": Trampoline, "waiter": Waiter, "joiner": join} {
		t.Run(name, func(t *testing.T) {
			eachMachine(t, func(arch string) ([]byte, error) { return program(arch, 3, nil) }, func(t *testing.T, command []string) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				cmd := exec.CommandContext(ctx, command[0], append(command[1:], "name")...)
				if len(command) == 1 && name != "joiner" { // whose first process executes nothing
					start, report := fifo(t), fifo(t)
					start.Write([]byte{1})
					cmd.Args, cmd.ExtraFiles = []string{script, "name"}, []*os.File{start, report}
				}
				out, err := cmd.CombinedOutput()
				if code := cmd.ProcessState.ExitCode(); code != 126 || string(out) != itself {
					t.Errorf("code %d, %q (%v); want 126, %q", code, out, err, itself)
				}
			})
		})
	}
}

func TestNoProgramForOtherProcessors(t *testing.T) {
	if _, err := Init("vax"); !errors.Is(err, fault.Unsupported) {
		t.Errorf("Init(vax): %v", err)
	}
}

// Every label that an instruction names must be there, and every call known.
func TestProgramsAreWhole(t *testing.T) {
	for _, known := range machines {
		m := known.make()
		for name, program := range map[string]func(*assembler){"init": initProgram, "trampoline": trampoline(3, nil), "waiter": waiter(3, nil), "joiner": joiner(3, true, nil),
			"labelled trampoline": trampoline(3, &Label{}), "labelled waiter": waiter(3, &Label{}), "labelled joiner": joiner(3, true, &Label{})} {
			calls := m.calls
			a := &assembler{m: m, labels: map[string]int{}}
			a.m.calls = func(call string) int32 {
				if calls(call) < 0 {
					t.Errorf("%s of %s: no call %q", name, m.name, call)
				}
				return calls(call)
			}
			program(a)
			for label, at := range a.labels {
				if m.name == "arm64" && at%4 != 0 {
					t.Errorf("%s: %q is at %d, where no instruction can be", name, label, at)
				}
			}
			for _, f := range a.fixes {
				if _, ok := a.labels[f.label]; !ok {
					t.Errorf("%s of %s: no label %q", name, m.name, f.label)
				}
			}
		}
	}
}

// Waiter executes when it has got its byte, and says why it could not.
func TestWaiter(t *testing.T) {
	for _, tt := range []struct {
		name  string
		path  string
		code  int
		out   string
		errno syscall.Errno
	}{
		{"becomes the command with its own name", "/bin/sh", 0, "name y\n", 0},
		{"says that there is none", "/nonexistent", 127, "", syscall.ENOENT},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachMachine(t, func(arch string) ([]byte, error) { return Waiter(arch, 4, nil) }, func(t *testing.T, command []string) {
				start, report := fifo(t), fifo(t)
				cmd := exec.Command(command[0])
				cmd.Args = []string{tt.path, "name", "-c", "echo $0 $X; test ! -e /proc/self/fd/4 && test ! -e /proc/self/fd/5 && test -e /proc/self/fd/3"}
				if len(command) > 1 {
					cmd.Args = append([]string{command[0], "-0", tt.path, command[3]}, cmd.Args[1:]...)
				}
				cmd.Env, cmd.ExtraFiles = []string{"X=y"}, []*os.File{start, start, report}
				var out strings.Builder
				cmd.Stdout = &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				reader, err := os.OpenFile(report.Name(), os.O_RDONLY|syscall.O_NONBLOCK, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer reader.Close()
				report.Close()
				if n, err := start.Write([]byte{1}); n != 1 {
					t.Fatal(err)
				}
				said, err := io.ReadAll(reader)
				if err != nil {
					t.Fatal(err)
				}
				cmd.Wait()
				var errno syscall.Errno
				if len(said) == 4 {
					errno = syscall.Errno(binary.LittleEndian.Uint32(said))
				}
				if code := cmd.ProcessState.ExitCode(); code != tt.code || out.String() != tt.out || errno != tt.errno {
					t.Errorf("code %d, output %q, errno %q %v; want %d, %q, %v", code, out.String(), said, errno, tt.code, tt.out, tt.errno)
				}
			})
		})
	}
}

func fifo(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
