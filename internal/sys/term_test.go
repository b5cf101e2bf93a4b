package sys_test

import (
	"os"
	"testing"

	"kiste/internal/sys"
)

// openPTY gives both sides of a pseudo-terminal of this host.
func openPTY(t *testing.T) (master, peer *os.File) {
	t.Helper()
	master, err := sys.OpenPTY("/dev/ptmx")
	if err != nil {
		t.Skipf("NEEDS devpts at /dev/pts: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	peer, err = sys.PTYPeer(master)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	return master, peer
}

func TestTerminal(t *testing.T) {
	master, peer := openPTY(t)
	if !sys.IsTerminal(peer) || !sys.IsTerminal(master) {
		t.Error("a pseudo-terminal is no terminal")
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if sys.IsTerminal(null) || sys.IsTerminal(nil) {
		t.Error("/dev/null is a terminal")
	}
	if err := sys.SetWindowSize(master, 33, 77); err != nil {
		t.Fatal(err)
	}
	if rows, columns, err := sys.WindowSize(peer); err != nil || rows != 33 || columns != 77 {
		t.Errorf("the other side's size is %d, %d, %v; want 33, 77", rows, columns, err)
	}
}

// Raw mode neither echoes nor waits for the end of a line; what puts it back
// does both again.
func TestMakeRaw(t *testing.T) {
	master, peer := openPTY(t)
	restore, err := sys.MakeRaw(peer, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := peer.Read(buf); err != nil || string(buf[:n]) != "\x03" {
		t.Errorf("read %q, %v; want ctrl-c as a byte", buf[:n], err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if _, err := master.WriteString("a\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := master.Read(buf); err != nil || string(buf[:n]) != "a\r\n" {
		t.Errorf("read %q, %v; want the echo", buf[:n], err)
	}
}

func TestWaitRead(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	other, otherW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	defer otherW.Close()
	w.Close()
	if ready, err := sys.WaitRead(other, r); err != nil || ready[0] || !ready[1] {
		t.Errorf("got %v, %v; want the one that hung up", ready, err)
	}
}
