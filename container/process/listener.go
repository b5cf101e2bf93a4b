package process

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
	"kiste/internal/sys"
)

// Patience is how long a program that listens at a socket may take to accept.
const Patience = 10 * time.Second

// SendListener sends a listener of system calls to the socket at path, with the
// state of its container (runtime-spec, config-linux.md, "The Container Process
// State"). Whoever takes it answers the container's calls. Nothing that he sends is read; he is waited for within
// Patience.
func SendListener(path string, s specs.ContainerProcessState, fd int) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	socket, err := sys.ConnectUnixWithin(path, Patience)
	if err == nil {
		defer socket.Close()
		err = sys.SendFDs(socket, text, fd)
	}
	if err != nil {
		return &fault.Error{Op: "give the listener of system calls to", On: path, Err: err, Hint: "linux.seccomp.listenerPath names a socket at which a program has to listen"}
	}
	return nil
}
