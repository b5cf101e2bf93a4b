package terminal

import (
	"errors"
	"io"
	"os"
	"syscall"

	"kiste/internal/sys"
)

// A Master is the side of a container whose terminal this process has the
// master of, best in non-blocking mode, as sys.OpenPTY gives it: then nothing is
// left running when Run returns.
type Master struct {
	*os.File
	Ended int // a pidfd of the process whose end is the console's: others that have the terminal are not waited for; -1: none
}

// Output copies until the other side has hung up (a master says EIO then), or
// the process has ended and nothing is left to be read.
func (m Master) Output(to io.Writer) error {
	master, err := sys.Descriptor(m.File)
	if err != nil {
		return err
	}
	process := m.Ended
	buffer := make([]byte, 32<<10)
	for {
		ready, err := sys.Poll(process >= 0 || m.Ended < 0, master, process)
		switch {
		case err != nil:
			return err
		case !ready[0] && process < 0 && m.Ended >= 0:
			return nil
		case ready[1]:
			process = -1
		}
		if !ready[0] {
			continue
		}
		n, err := m.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Resize gives the terminal a size in characters.
func (m Master) Resize(rows, columns uint16) error { return sys.SetWindowSize(m.File, rows, columns) }

// EndInput tells the other side as a person would, with ctrl-d: a terminal has
// no half that could be closed.
func (m Master) EndInput() error {
	const endOfTransmission = 4
	_, err := m.Write([]byte{endOfTransmission})
	return err
}
