package sys

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A path of any length leads to its socket, and descriptors arrive.
func TestUnixSockets(t *testing.T) {
	for _, name := range []string{"s", strings.Repeat("d", 90) + "/" + strings.Repeat("s", 90)} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		server, err := BindUnix(path, true)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		client, err := ConnectUnix(path, true)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := SendFDs(client, []byte("pipe"), int(w.Fd())); err != nil {
			t.Fatal(err)
		}
		w.Close()
		data, oob := make([]byte, 16), make([]byte, 64)
		n, oobn, _, _, err := unix.Recvmsg(int(server.Fd()), data, oob, 0)
		if err != nil || string(data[:n]) != "pipe" {
			t.Fatalf("received %q, %v", data[:n], err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			t.Fatalf("%d messages, %v", len(messages), err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Fatalf("descriptors %v, %v", fds, err)
		}
		unix.Close(fds[0])
		if _, err := ConnectUnix(path+"x", true); err == nil || !strings.Contains(err.Error(), "connect "+path+"x") {
			t.Errorf("to a socket that is not there: %v", err)
		}
	}
}

func TestWaitAnyChild(t *testing.T) {
	cmd := exec.Command("/bin/true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid, err := WaitAnyChild()
	if err != nil || pid != cmd.Process.Pid {
		t.Errorf("got %d, %v; want %d", pid, err, cmd.Process.Pid)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it was reaped: %v", err)
	}
	if _, err := WaitAnyChild(); err == nil {
		t.Error("a child that is not there")
	}
}

// The kernel tells a few of 100000 receivers of the end before the last message
// where they are interrupted just then, as beside
// perf record -e cpu-clock -F 25000 -g -a.
func TestTheLastWordIsHeardBeforeTheEnd(t *testing.T) {
	const rounds = 5000
	theirs := make(chan *os.File)
	defer close(theirs)
	go func() {
		for f := range theirs {
			_, _ = f.Write([]byte("x"))
			_ = f.Close()
		}
	}()
	for i := range rounds {
		ours, other, err := SeqPair()
		if err != nil {
			t.Fatal(err)
		}
		theirs <- other
		n, _, err := ReceiveFDs(ours, make([]byte, 1))
		if err != nil || n != 1 {
			t.Fatalf("round %d: ReceiveFDs = %d, %v; want the message", i, n, err)
		}
		if n, _, err = ReceiveFDs(ours, make([]byte, 1)); err != nil || n != 0 {
			t.Fatalf("round %d: and then %d, %v; want the end", i, n, err)
		}
		_ = ours.Close()
	}
}
