package heavy

import (
	"context"
	"net"
	"os"
	"time"

	"kiste/cli"
	"kiste/fault"
	"kiste/internal/sys"
)

// connectLimit is how long a server may take to answer.
const connectLimit = 5 * time.Second

// connect connects with a server for the monitor: see engine.ConnectCommand.
func connect(_ context.Context, env *cli.Env, args []string, _ any) error {
	err := handOver(env.In, args[0], args[1])
	if err != nil {
		_, _ = env.In.Write([]byte(err.Error()))
	}
	return err
}

func handOver(to *os.File, network, address string) error {
	conn, err := net.DialTimeout(network, address, connectLimit)
	if err != nil {
		return &fault.Error{Op: "connect with", On: address, Kind: fault.Unavailable, Err: err}
	}
	defer conn.Close()
	f, err := conn.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return err
	}
	defer f.Close()
	return sys.SendFDs(to, []byte{0}, int(f.Fd()))
}
