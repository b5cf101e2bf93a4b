package plan

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// plainTermios is what a new terminal has, but for ONLCR: asked of this kernel.
func TestPlainTermios(t *testing.T) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("NEEDS devpts at /dev/pts: %v", err)
	}
	defer unix.Close(master)
	termios, err := unix.IoctlGetTermios(master, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	var fresh []byte
	for _, flags := range []uint32{termios.Iflag, termios.Oflag &^ unix.ONLCR, termios.Cflag, termios.Lflag} {
		fresh = binary.NativeEndian.AppendUint32(fresh, flags)
	}
	fresh = append(append(fresh, termios.Line), termios.Cc[:]...)
	if got := plainTermios(); !bytes.Equal(got, fresh) {
		t.Errorf("got % x; a new terminal has % x", got, fresh)
	}
	if termios.Oflag&unix.ONLCR == 0 {
		t.Error("a new terminal has no ONLCR: there is nothing to take away")
	}
}
