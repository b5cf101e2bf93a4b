package process

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
	"kiste/internal/sys"
)

// SendListener sends a listener of system calls to the socket at path, with the
// state of its container (runtime-spec, config-linux.md, "The Container Process
// State"). Whoever takes it answers the container's calls.
func SendListener(path string, s specs.ContainerProcessState, fd int) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	socket, err := sys.ConnectUnix(path, false)
	if err == nil {
		defer socket.Close()
		err = sys.SendFDs(socket, text, fd)
	}
	if err != nil {
		return &fault.Error{Op: "give the listener of system calls to", On: path, Err: err, Hint: "linux.seccomp.listenerPath names a socket at which a program has to listen"}
	}
	return nil
}
