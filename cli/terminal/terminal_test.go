package terminal

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kiste/internal/sys"
)

func openTestPTY(t *testing.T) (master, peer *os.File) {
	t.Helper()
	master, err := sys.OpenPTY("/dev/ptmx")
	if err != nil {
		t.Skipf("NEEDS devpts at /dev/pts: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if peer, err = sys.PTYPeer(master); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	return master, peer
}

// A screen is what the user sees: a buffer that can be waited on.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) waitFor(t *testing.T, want string) {
	t.Helper()
	for range 6000 {
		if strings.Contains(s.String(), want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the screen shows %q; want %q", s.String(), want)
}

// A session is a program on a container's terminal, a console, and a user's
// terminal.
type session struct {
	user   *os.File // the user's keyboard
	tty    *os.File // what Kiste has as stdin
	screen *screen
	ended  chan error
	away   bool // detached
}

func startSession(t *testing.T, keys []byte, program ...string) *session {
	t.Helper()
	user, tty := openTestPTY(t)
	master, peer := openTestPTY(t)
	if err := sys.SetWindowSize(user, 20, 60); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = peer, peer, peer
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s := &session{user: user, tty: tty, screen: &screen{}, ended: make(chan error, 1)}
	c := NewConsole(User{In: tty, Out: s.screen, Stdout: tty}, Master{master, -1}, true, keys)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	go func() {
		var err error
		s.away, err = c.Run()
		s.ended <- err
	}()
	return s
}

func (s *session) wait(t *testing.T) {
	t.Helper()
	select {
	case err := <-s.ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("the console does not end; the screen shows %q", s.screen)
	}
}

// echoes reports whether the terminal is in its ordinary mode, or comes to be.
func echoes(t *testing.T, user *os.File) bool {
	t.Helper()
	user.WriteString("x")
	user.SetReadDeadline(time.Now().Add(30 * time.Second))
	defer user.SetReadDeadline(time.Time{})
	n, _ := user.Read(make([]byte, 16))
	return n > 0
}

func TestConsoleCarriesBothWays(t *testing.T) {
	s := startSession(t, nil, "/bin/sh", "-c", "read line; stty size; echo got $line")
	time.Sleep(50 * time.Millisecond)
	s.user.WriteString("hello\r")
	s.wait(t)
	for _, want := range []string{"hello\r\n", "20 60\r\n", "got hello\r\n"} {
		if !strings.Contains(s.screen.String(), want) {
			t.Errorf("the screen shows %q; want %q in it", s.screen, want)
		}
	}
	if s.away {
		t.Error("detached without the keys")
	}
	if !echoes(t, s.user) {
		t.Error("the terminal was left in raw mode")
	}
}

// All that a program writes before it ends is seen.
func TestConsoleOutputIsComplete(t *testing.T) {
	s := startSession(t, nil, "/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
	s.wait(t)
	if got := strings.Count(s.screen.String(), "\n"); got != 20000 || !strings.HasSuffix(s.screen.String(), "line 19999\r\n") {
		t.Errorf("%d lines; want 20000", got)
	}
}

func TestConsoleDetach(t *testing.T) {
	s := startSession(t, nil, "/bin/cat")
	s.user.WriteString("typed\r")
	s.screen.waitFor(t, "typed\r\ntyped\r\n")
	s.user.WriteString("\x10")
	s.user.WriteString("\x11")
	s.wait(t)
	if !s.away {
		t.Error("the keys did not detach")
	}
	if !echoes(t, s.user) {
		t.Error("the terminal was left in raw mode")
	}
}

// What is typed after the container has ended is for the shell.
func TestConsoleLeavesLaterInput(t *testing.T) {
	s := startSession(t, nil, "/bin/true")
	s.wait(t)
	s.user.WriteString("later\n")
	buf := make([]byte, 16)
	if n, err := s.tty.Read(buf); err != nil || string(buf[:n]) != "later\n" {
		t.Errorf("the shell reads %q, %v; want what was typed", buf[:n], err)
	}
}

func TestConsoleFollowsTheSize(t *testing.T) {
	s := startSession(t, nil, "/bin/sh", "-c", `trap 's=$(stty size); echo $s; if [ "$s" = "40 100" ]; then exit; fi' WINCH; echo ready; while :; do read x; done`)
	s.screen.waitFor(t, "ready")
	if err := sys.SetWindowSize(s.user, 40, 100); err != nil {
		t.Fatal(err)
	}
	// The test has no terminal that would send it.
	syscall.Kill(os.Getpid(), syscall.SIGWINCH)
	s.screen.waitFor(t, "40 100")
	s.wait(t)
}

// A container that does not read does not keep the console from ending.
func TestConsoleEndsWhenNobodyReads(t *testing.T) {
	s := startSession(t, []byte{}, "/bin/sh", "-c", "stty raw -echo; echo ready; sleep 1")
	s.screen.waitFor(t, "ready")
	s.user.Write(bytes.Repeat([]byte("x"), 4000))
	go func() {
		for range 16 {
			s.user.Write(bytes.Repeat([]byte("x"), 4000))
		}
	}()
	s.wait(t)
}

// A master that came over a socket may be in blocking mode.
func TestConsoleWithABlockingMaster(t *testing.T) {
	for _, tt := range []struct{ name, typed string }{{"the program ends", "x\r"}, {"the user detaches", "\x10\x11"}} {
		t.Run(tt.name, func(t *testing.T) {
			user, tty := openTestPTY(t)
			master, peer := openTestPTY(t)
			master.Fd() // makes it block
			cmd := exec.Command("/bin/sh", "-c", "echo ready; read x; echo got $x")
			cmd.Stdin, cmd.Stdout = peer, peer
			out := &screen{}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			peer.Close()
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			ended := make(chan bool, 1)
			go func() {
				away, _ := NewConsole(User{In: tty, Out: out}, Master{master, -1}, true, nil).Run()
				ended <- away
			}()
			out.waitFor(t, "ready") // before that, ctrl-q is the terminal's own
			user.WriteString(tt.typed)
			select {
			case away := <-ended:
				if want := tt.typed[0] == 16; away != want {
					t.Errorf("detached: %t; want %t", away, want)
				}
			case <-time.After(time.Minute):
				t.Fatal("the console does not end")
			}
		})
	}
}

// Input that ends is told to the other side.
func TestConsoleEndOfInput(t *testing.T) {
	master, peer := openTestPTY(t)
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out := &screen{}
	cmd := exec.Command("/bin/cat")
	cmd.Stdin, cmd.Stdout = peer, peer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	feed.WriteString("a\n")
	feed.Close()
	if _, err := NewConsole(User{In: in, Out: out}, Master{master, -1}, true, nil).Run(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got := out.String(); got != "a\r\na\r\n" {
		t.Errorf("got %q; want the echo and cat's copy", got)
	}
}

// A process that ends is the end, whoever else has its terminal.
func TestConsoleUntilAProcessEnds(t *testing.T) {
	master, peer := openTestPTY(t)
	cmd := exec.Command("/bin/sh", "-c", "sleep 100 & echo $!; echo last")
	cmd.Stdin, cmd.Stdout = peer, peer
	pidfd := 0
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := &screen{}
	c := NewConsole(User{Out: out}, Master{master, pidfd}, false, []byte{})
	if _, err := c.Run(); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	pid, err := strconv.Atoi(strings.Split(out.String(), "\r\n")[0])
	if err != nil || !strings.HasSuffix(out.String(), "\r\nlast\r\n") {
		t.Errorf("the screen shows %q", out)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the other process was waited for: %v", err)
	}
}

func TestDetacher(t *testing.T) {
	for _, tt := range []struct {
		name, keys string
		typed      []string
		want       string
		detached   bool
	}{
		{"no keys", "", []string{"abc"}, "abc", false},
		{"nothing special", "pq", []string{"abc"}, "abc", false},
		{"at once", "pq", []string{"apqb"}, "a", true},
		{"one after the other", "pq", []string{"p", "q"}, "", true},
		{"the first alone is held back", "pq", []string{"p"}, "", false},
		{"and passed on with what follows", "pq", []string{"p", "x"}, "px", false},
		{"the first twice", "pq", []string{"ppq"}, "p", true},
		{"keys that begin within themselves", "aab", []string{"aaab"}, "a", true},
		{"one key", "x", []string{"ax"}, "a", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := detacher{keys: []byte(tt.keys)}
			var out []byte
			var detached bool
			for _, s := range tt.typed {
				var o []byte
				o, detached = d.feed([]byte(s))
				out = append(out, o...)
			}
			if string(out) != tt.want || detached != tt.detached {
				t.Errorf("passed %q on, detached %t; want %q, %t", out, detached, tt.want, tt.detached)
			}
		})
	}
}

// Nothing typed is lost, and the keys are found wherever they are.
func FuzzDetacher(f *testing.F) {
	f.Add([]byte("pq"), []byte("apppqb"), 2)
	f.Fuzz(func(t *testing.T, keys, typed []byte, cut int) {
		cut = min(max(cut, 0), len(typed))
		d := detacher{keys: keys}
		var out []byte
		detached := false
		for _, part := range [][]byte{typed[:cut], typed[cut:]} {
			if !detached {
				var o []byte
				o, detached = d.feed(part)
				out = append(out, o...)
			}
		}
		at := bytes.Index(typed, keys)
		switch found := len(keys) > 0 && at >= 0; {
		case found != detached:
			t.Errorf("keys %q in %q: detached %t", keys, typed, detached)
		case found && !bytes.Equal(out, typed[:at]):
			t.Errorf("keys %q in %q: passed %q on", keys, typed, out)
		case !found && !bytes.Equal(append(out, d.held()...), typed):
			t.Errorf("keys %q in %q: passed %q on and held %q", keys, typed, out, d.held())
		}
	})
}

func TestParseDetachKeys(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "\x10\x11"}, {"ctrl-p,ctrl-q", "\x10\x11"}, {"a", "a"}, {"ctrl-@", "\x00"}, {"ctrl-[", "\x1b"}, {"ctrl-\\,x", "\x1cx"},
		{"CTRL-A,DEL", "\x01\x7f"}, {"ctrl-_", "\x1f"},
		{"ctrl-1", "!"}, {"ab", "!"}, {"a,,b", "!"}, {"ctrl-", "!"}, {" ", "!"}, {"ctrl-ab", "!"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseDetachKeys(tt.in)
			if tt.want == "!" {
				if err == nil {
					t.Errorf("got %q; want it refused", got)
				}
			} else if err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func FuzzParseDetachKeys(f *testing.F) {
	f.Add("ctrl-p,ctrl-q")
	f.Fuzz(func(t *testing.T, s string) {
		if keys, err := ParseDetachKeys(s); err == nil && len(keys) == 0 {
			t.Errorf("%q gave no keys", s)
		}
	})
}

// What is about this process alone stays with it.
func TestForwardedSignals(t *testing.T) {
	for _, own := range []syscall.Signal{syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH, syscall.SIGPIPE, syscall.SIGTTOU} {
		if slices.Contains(forwarded(), own) {
			t.Errorf("%v is forwarded", own)
		}
	}
}

func TestCheck(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := (User{In: r}).Check(true, true); err == nil || !strings.Contains(err.Error(), "the input device is not a TTY") {
		t.Errorf("got %v", err)
	}
	if err := (User{In: r}).Check(false, true); err != nil {
		t.Error(err)
	}
	_, tty := openTestPTY(t)
	if err := (User{In: tty}).Check(true, true); err != nil {
		t.Error(err)
	}
}
