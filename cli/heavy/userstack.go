package heavy

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"kiste/cli"
	"kiste/container/bundle"
	"kiste/container/proxy"
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
	if o.Watch != "" {
		return followPorts(s, &o)
	}
	select {}
}

// followPorts publishes the ports of a file as it changes, and tells which it has.
func followPorts(s *userstack.Stack, o *engine.UserStack) error {
	w, err := sys.NewWatch()
	if err == nil {
		err = w.Add(filepath.Dir(o.Watch), unix.IN_MOVED_TO)
	}
	done := 0 // the serial of what is published
	for err == nil {
		var want engine.SharedPorts
		err = store.ReadJSON(o.Watch, &want)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err == nil && want.Serial != done {
			err, done = publish(s, &want, o.Watched), want.Serial
		}
		if err == nil {
			err = w.Wait(time.Time{})
		}
	}
	return err
}

// publish publishes the ports, and writes what has become of them to the file have.
func publish(s *userstack.Stack, want *engine.SharedPorts, file string) error {
	ports, keys := []proxy.Port{}, map[proxy.Port]string{}
	for _, p := range want.Ports {
		port, err := stackPort(p.Port)
		if err != nil {
			return err
		}
		if any, ok := anyOf[p.Version]; ok {
			port.To = netip.AddrPortFrom(any, p.Container)
		}
		ports, keys[port] = append(ports, port), p.Key()
	}
	have := engine.PublishedPorts{Serial: want.Serial, Failed: map[string]string{}}
	for port, err := range s.Publish(ports) {
		have.Failed[keys[port]] = err.Error()
	}
	b, err := store.Encode(have)
	if err != nil {
		return err
	}
	return store.WriteBriefly(file, b)
}

// anyOf are any addresses of versions of IP.
var anyOf = map[int]netip.Addr{4: netip.IPv4Unspecified(), 6: netip.IPv6Unspecified()}

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
		port, err := stackPort(p)
		if err != nil {
			return c, err
		}
		c.Ports = append(c.Ports, port)
	}
	return c, nil
}

func stackPort(p bundle.Port) (port proxy.Port, err error) {
	port = proxy.Port{Protocol: p.Proto, HostPort: p.Host, To: netip.AddrPortFrom(netip.Addr{}, p.Container)}
	if p.HostIP != "" {
		port.Host, err = netip.ParseAddr(p.HostIP)
	}
	return port, err
}

func stackFamily(f engine.UserFamily) (out userstack.Family, err error) {
	var bad [3]error
	out.Address, bad[0] = netip.ParsePrefix(f.Address)
	out.Gateway, bad[1] = netip.ParseAddr(f.Gateway)
	out.DNS, bad[2] = netip.ParseAddr(f.DNS)
	return out, errors.Join(bad[:]...)
}
