package heavy

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"kiste/cli"
	"kiste/engine"
	"kiste/engine/userstack"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

// userStack is the network of one container until somebody kills it: its
// attendant does when the container has ended.
func userStack(_ context.Context, _ *cli.Env, args []string, _ any) error {
	if len(args) != 1 {
		return &fault.Error{Op: "be a network", Kind: fault.Invalid, Err: errors.New("kiste starts it where it needs one")}
	}
	var o engine.UserStack
	if err := store.Decode([]byte(args[0]), &o); err != nil {
		return err
	}
	c, err := stackConfig(&o)
	if err != nil {
		return &fault.Error{Op: "be a network", Kind: fault.Invalid, Err: err}
	}
	sys.RestoreFileLimit()
	sys.CloseOnExec(o.Tap)
	if _, err := sys.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	s, err := userstack.Start(os.NewFile(uintptr(o.Tap), "tap"), c)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := os.WriteFile(o.Ready, strconv.AppendInt(nil, int64(os.Getpid()), 10), 0o600); err != nil {
		return err
	}
	select {}
}

// stackConfig is what the engine says in the stack's words.
func stackConfig(o *engine.UserStack) (userstack.Config, error) {
	c := userstack.Config{MTU: o.MTU, HostLoopback: o.Loopback, ResolvConf: "/etc/resolv.conf"}
	var err error
	if c.V4, err = stackFamily(o.V4); err != nil {
		return c, err
	}
	if o.V6 != (engine.UserFamily{}) {
		if c.V6, err = stackFamily(o.V6); err != nil {
			return c, err
		}
	}
	for _, p := range o.Ports {
		port := userstack.Port{Protocol: p.Proto, HostPort: p.Host, Port: p.Container}
		if p.HostIP != "" {
			if port.Host, err = netip.ParseAddr(p.HostIP); err != nil {
				return c, err
			}
		}
		c.Ports = append(c.Ports, port)
	}
	return c, nil
}

func stackFamily(f engine.UserFamily) (out userstack.Family, err error) {
	var bad [3]error
	out.Address, bad[0] = netip.ParsePrefix(f.Address)
	out.Gateway, bad[1] = netip.ParseAddr(f.Gateway)
	out.DNS, bad[2] = netip.ParseAddr(f.DNS)
	return out, errors.Join(bad[:]...)
}
