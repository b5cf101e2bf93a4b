package monitor

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kiste/container/logfile"
	"kiste/container/process"
	"kiste/internal/need"
	"kiste/internal/sys"
)

// memory is a log.
type memory struct {
	mu   sync.Mutex
	text strings.Builder
}

func (m *memory) Write(entries ...logfile.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		m.text.Write(e.Line)
		if !e.Partial {
			m.text.WriteByte('\n')
		}
	}
	return nil
}

func (m *memory) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text.String()
}

// start starts a shell script with the ends of a container.
func start(t *testing.T, e Ends, script string) process.Identity {
	t.Helper()
	files, err := Open(e)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", script)
	var master *os.File
	if e.Terminal {
		if master, err = sys.OpenPTY("/dev/ptmx"); err != nil {
			t.Fatal(err)
		}
		peer, err := sys.PTYPeer(master)
		if err != nil {
			t.Fatal(err)
		}
		files = [3]*os.File{peer, peer, peer}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	if err := e.Hold(master); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Release)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	CloseFiles(files)
	if master != nil {
		master.Close()
	}
	id, err := process.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(cmd.Process.Pid, syscall.SIGKILL) })
	return id
}

func keep(t *testing.T, e Ends, id process.Identity, log Log) *Keeper {
	t.Helper()
	k, err := Keep(Options{Ends: e, Process: id, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ends(t *testing.T) Ends {
	return Ends{Dir: t.TempDir(), UID: os.Geteuid(), GID: os.Getegid()}
}

func wantEnd(t *testing.T, k *Keeper, code int) {
	t.Helper()
	select {
	case <-k.Done():
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	if e := k.Wait(); !e.Known || e.Status.ExitStatus() != code {
		t.Errorf("it ended with %v, known: %v; want %d", e.Status.ExitStatus(), e.Known, code)
	}
}

func TestOutputAndEnd(t *testing.T) {
	var log memory
	e := ends(t)
	id := start(t, e, "echo out; echo err >&2; sleep 0.05; printf rest; exit 7")
	wantEnd(t, keep(t, e, id, &log), 7)
	got := log.String()
	for _, want := range []string{"out\n", "err\n", "rest\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("the log %q lacks %q", got, want)
		}
	}
}

func TestNothingIsLeftOfAHolder(t *testing.T) {
	e := ends(t)
	id := start(t, e, "exit 3")
	holder, ok := e.known()
	if !ok {
		t.Fatal("there is none")
	}
	wantEnd(t, keep(t, e, id, nil), 3)
	if _, err := process.Identify(holder.PID); err == nil {
		t.Error("it is still there, or nobody has waited for it")
	}
	if _, known := e.known(); known {
		t.Error("it is still written down")
	}
}

func TestNobodyKeepsAndNothingIsLost(t *testing.T) {
	e := ends(t)
	id := start(t, e, "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; done; exec >/dev/null; sleep 0.1; exit 3")
	time.Sleep(50 * time.Millisecond)
	var log memory
	wantEnd(t, keep(t, e, id, &log), 3)
	if log.String() != "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n" {
		t.Errorf("%q", log.String())
	}
}

func TestMuchOutputIsComplete(t *testing.T) {
	e := ends(t)
	id := start(t, e, "seq 1 300000; seq 1 300000 >&2")
	var log memory
	wantEnd(t, keep(t, e, id, &log), 0)
	want := 2 * 1988895
	if n := len(log.String()); n != want {
		t.Errorf("%d bytes, want %d", n, want)
	}
}

func TestInput(t *testing.T) {
	e := ends(t)
	e.Input = true
	id := start(t, e, "cat; echo end")
	var log memory
	k := keep(t, e, id, &log)
	a, err := Attach(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(a, "one\n")
	fmt.Fprint(a, "two\n")
	a.EndInput()
	var out bytes.Buffer
	if err := a.Copy(&out, io.Discard); err != nil {
		t.Error(err)
	}
	wantEnd(t, k, 0)
	if out.String() != "one\ntwo\nend\n" || log.String() != out.String() {
		t.Errorf("%q, log %q", out.String(), log.String())
	}
	if err := k.Type([]byte("x")); err == nil {
		t.Error("what has ended takes input")
	}
}

// A keeper that is killed leaves the input open and the terminal up.
func TestTheNextKeeper(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprint("terminal ", terminal), func(t *testing.T) {
			e := ends(t)
			e.Input, e.Terminal = !terminal, terminal
			id := start(t, e, "trap 'exit 99' HUP; while read line; do echo got $line; case $line in end) exit 5;; esac; done; exit 98")
			first := keepElsewhere(t, e, id)
			a, err := Attach(e.Dir)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(a, "one\n")
			first.wants(t, "got one")
			first.kill()
			a.Close()
			var log memory
			second := keep(t, e, id, &log)
			second.Type([]byte("two\n"))
			waitFor(t, &log, "got two")
			second.Type([]byte("end\n"))
			wantEnd(t, second, 5)
		})
	}
}

// A keeperProcess keeps a container in a process of its own, whose log is its
// output.
type keeperProcess struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

// toKeep has the Options of a keeperProcess.
const toKeep = "KISTE_TEST_KEEP"

func TestMain(m *testing.M) {
	text := os.Getenv(toKeep)
	if text == "" {
		os.Exit(m.Run())
	}
	var o Options
	err := json.Unmarshal([]byte(text), &o)
	o.Log = stdout{}
	if err == nil {
		_, err = Keep(o)
	}
	fmt.Println("keeping:", err)
	select {} // until it is killed
}

type stdout struct{}

func (stdout) Write(entries ...logfile.Entry) error {
	for _, e := range entries {
		fmt.Printf("%s\n", e.Line)
	}
	return nil
}

func keepElsewhere(t *testing.T, e Ends, id process.Identity) *keeperProcess {
	t.Helper()
	text, err := json.Marshal(map[string]any{"Dir": e.Dir, "Input": e.Input, "Terminal": e.Terminal, "UID": e.UID, "GID": e.GID, "Process": id})
	if err != nil {
		t.Fatal(err)
	}
	k := &keeperProcess{cmd: exec.Command("/proc/self/exe")}
	k.cmd.Env = append(os.Environ(), toKeep+"="+string(text))
	out, err := k.cmd.StdoutPipe()
	if err == nil {
		err = k.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.kill)
	k.out = bufio.NewReader(out)
	k.wants(t, "keeping: <nil>")
	return k
}

// wants waits for a line.
func (k *keeperProcess) wants(t *testing.T, line string) {
	t.Helper()
	for {
		got, err := k.out.ReadString('\n')
		if err != nil {
			t.Fatalf("no %q: %v", line, err)
		}
		if strings.TrimSpace(got) == line {
			return
		}
	}
}

func (k *keeperProcess) kill() {
	_ = k.cmd.Process.Kill()
	_ = k.cmd.Wait()
}

func waitFor(t *testing.T, log *memory, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(log.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q in %q", text, log.String())
		}
	}
}

func TestATerminalAndItsSize(t *testing.T) {
	e := ends(t)
	e.Terminal = true
	id := start(t, e, "read x; stty size; exit 0")
	var log memory
	k := keep(t, e, id, &log)
	a, err := Attach(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Resize(33, 77); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(a, "go\n")
	var out bytes.Buffer
	a.Copy(&out, io.Discard)
	wantEnd(t, k, 0)
	if !strings.Contains(out.String(), "33 77\r\n") {
		t.Errorf("%q", out.String())
	}
}

// attachedTo waits until n are attached.
func attachedTo(t *testing.T, k *Keeper, n int) {
	t.Helper()
	count := func() int {
		k.out.mu.Lock()
		defer k.out.mu.Unlock()
		return len(k.out.clients)
	}
	for end := time.Now().Add(time.Minute); count() < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d are attached", count(), n)
		}
	}
}

func TestManyAttach(t *testing.T) {
	e := ends(t)
	e.Input = true
	id := start(t, e, "read go; seq 1 100000; echo bad >&2")
	k := keep(t, e, id, nil)
	var all sync.WaitGroup
	attached, left := make([]*Attachment, 5), make(chan struct{})
	for i := range attached {
		a, err := Attach(e.Dir)
		if err != nil {
			t.Fatal(err)
		}
		attached[i] = a
		all.Go(func() {
			if i == 0 {
				a.Close() // it leaves, and the others stay
				close(left)
				return
			}
			var out, bad bytes.Buffer
			if err := a.Copy(&out, &bad); err != nil {
				t.Error(err)
			}
			if out.Len() != 588895 || bad.String() != "bad\n" {
				t.Errorf("%d bytes, and %q", out.Len(), bad.String())
			}
		})
	}
	<-left
	attachedTo(t, k, len(attached)-1)
	k.Type([]byte("go\n"))
	all.Wait()
	wantEnd(t, k, 0)
	if _, err := Attach(e.Dir); err == nil {
		t.Error("one can attach to what has ended")
	}
}

// Who keeps many gives back what it needed for that when nothing happens any more.
func TestWhoAttachesAndLeavesIsHeardOf(t *testing.T) {
	e := ends(t)
	e.Input = true
	id := start(t, e, "read go; exit 3")
	heard := make(chan struct{}, 100)
	k, err := Keep(Options{Ends: e, Process: id, Took: func() { heard <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	await := func(what string) {
		t.Helper()
		select {
		case <-heard:
		case <-time.After(time.Minute):
			t.Fatal("nothing is heard of who " + what)
		}
	}
	a, err := Attach(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	await("attaches")
	a.Close()
	await("leaves")
	k.Type([]byte("go\n"))
	wantEnd(t, k, 3)
}

func TestWhoSendsNonsenseIsLetGo(t *testing.T) {
	e := ends(t)
	e.Input = true
	id := start(t, e, "read go; exit 4")
	k := keep(t, e, id, nil)
	for _, bad := range []string{"\xff\xff\xff\xff\xff\xff\xff\xff", "\x09\x00\x00\x00\x00\x00\x00\x00", "\x04\x00\x00\x00\x00\x00\x00\x01x", "\x00"} {
		a, err := Attach(e.Dir)
		if err != nil {
			t.Fatal(err)
		}
		a.stream.WriteString(bad)
		sys.CloseWrite(a.stream)
		io.Copy(io.Discard, a.stream)
		a.Close()
	}
	k.Type([]byte("go\n"))
	wantEnd(t, k, 4)
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(nil, frameInput, []byte("hello")))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, buffer := bytes.NewReader(b), make([]byte, 100)
		for {
			if _, got, err := readFrame(r, buffer); err != nil || len(got) > len(buffer) {
				return
			}
		}
	})
}

// A process looks like a zombie when its first thread has ended before the
// others: its end is still to come.
func TestTheFirstThreadEndsFirst(t *testing.T) {
	need.Program(t, "python3")
	e := ends(t)
	var log memory
	id := start(t, e, `exec python3 -c '
import ctypes, os, threading, time
def last():
    time.sleep(0.5)
    os._exit(7)
threading.Thread(target=last).start()
ctypes.CDLL(None).pthread_exit(None)'`)
	for end := time.Now().Add(time.Minute); id.Alive(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the first thread does not end")
		}
	}
	wantEnd(t, keep(t, e, id, &log), 7)
}

// However much comes, and however short its lines are, to keep it makes no
// garbage that grows with it: the collector may be late.
func TestOutputCostsNoMemory(t *testing.T) {
	for _, tt := range []struct{ name, line string }{
		{"text", strings.Repeat("x", 99) + "\n"},
		{"empty lines", "\n"},
		{"no lines", strings.Repeat("x", 100)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, err := logfile.Create(logfile.Options{Dir: t.TempDir(), Format: "json-file", MaxSize: 16 << 20, MaxFiles: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			go func() { _, _ = io.Copy(struct{ io.Writer }{io.Discard}, r) }()
			o := newOutput(Options{Log: log})
			c := newClient(w)
			o.add(c)
			piece := bytes.Repeat([]byte(tt.line), chunk/len(tt.line))
			take := func(times int) uint64 {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for range times {
					o.take(logfile.Stdout, piece)
				}
				runtime.ReadMemStats(&after)
				return after.TotalAlloc - before.TotalAlloc
			}
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it empties pools
			take(queued)                                     // as many buffers as it ever takes
			go c.deliver()
			take(queued)
			const times = 60 // a pool may miss what another processor has put last: once
			if got := take(times) / times; got > chunk/4 {
				t.Errorf("%d bytes of garbage for a chunk of %d", got, len(piece))
			}
			o.drop(c)
			<-c.written
			w.Close()
		})
	}
}

// A keeper that is killed while it starts a holder leaves an empty file.
func TestAHolderThatNobodyWroteDown(t *testing.T) {
	for _, c := range []struct {
		name string
		ends func(*Ends)
	}{
		{"outputs", func(*Ends) {}},
		{"input", func(e *Ends) { e.Input = true }},
		{"terminal", func(e *Ends) { e.Terminal = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := ends(t)
			c.ends(&e)
			start(t, e, "exec sleep 60")
			holder, ok := e.known()
			if !ok {
				t.Fatal("there is none")
			}
			if err := os.Truncate(e.Dir+"/holder", 0); err != nil {
				t.Fatal(err)
			}
			f, err := e.held()
			if err != nil {
				t.Fatalf("the next keeper does not find it: %v", err)
			}
			f.Close()
			e.Release()
			if _, err := process.Identify(holder.PID); err == nil {
				t.Error("it is still there")
			}
			if _, err := os.Stat(e.Dir + "/holder"); err == nil {
				t.Error("so is its file")
			}
		})
	}
}
