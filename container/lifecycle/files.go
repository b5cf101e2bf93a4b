package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"kiste/fault"
	"kiste/internal/sys"
)

// maxConfig bounds config.json and process.json: the largest that anybody has
// seen are some hundred kilobytes.
const maxConfig = 16 << 20

// readJSON reads the document at path into v, and gives its text too.
func readJSON(path string, v any) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &fault.Error{Op: "read", On: path, Err: err}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	switch {
	case err != nil:
		return nil, &fault.Error{Op: "read", On: path, Err: err}
	case len(text) > maxConfig:
		return nil, &fault.Error{Op: "read", On: path, Kind: fault.Invalid, Err: fmt.Errorf("it has more than %d bytes", maxConfig)}
	}
	if err := json.Unmarshal(text, v); err != nil {
		return nil, &fault.Error{Op: "read", On: path, Kind: fault.Invalid, Err: err}
	}
	return text, nil
}

// writePID writes the file that tells a process's number, all or nothing.
func writePID(path string, pid int) error {
	if path == "" {
		return nil
	}
	err := func() error {
		temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
		f, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return err
		}
		_, err = f.WriteString(strconv.Itoa(pid))
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(temporary, path)
		}
		if err != nil {
			os.Remove(temporary)
		}
		return err
	}()
	if err != nil {
		return &fault.Error{Op: "write pid file", On: path, Err: err}
	}
	return nil
}

// dial connects to the Unix socket of somebody who wants a descriptor.
func dial(path string) (*os.File, error) {
	f, err := sys.ConnectUnix(path, false)
	if err != nil {
		return nil, &fault.Error{Op: "connect to", On: path, Err: err}
	}
	return f, nil
}

// send sends one descriptor and its name.
func send(to *os.File, name string, fd int) error {
	if err := sys.SendFDs(to, []byte(name), fd); err != nil {
		return &fault.Error{Op: "send " + name + " to", On: to.Name(), Err: err}
	}
	return nil
}
