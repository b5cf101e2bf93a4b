package engine_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"kiste/container/process"
	"kiste/engine"
	"kiste/fault"
	"kiste/internal/need"
)

// greeter is a server that says hello, as one in a container.
func greeter(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	need.Serve(t, l, func(c net.Conn) {
		_, _ = io.WriteString(c, "hello")
		c.Close()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// proxied is the n-th container, with a free port of ::1 that leads to a server.
func proxied(t *testing.T, n int, id process.Identity, to netip.AddrPort) engine.Proxied {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	return engine.Proxied{ID: fmt.Sprintf("%064x", n), Process: id, Ports: []engine.ProxiedPort{
		{Proto: "tcp", IP: "::1", Host: l.Addr().(*net.TCPAddr).AddrPort().Port(), To: to.Addr().String(), Port: to.Port()}}}
}

// greets tells why a container is not reached by its port; nil: it is.
func greets(p engine.Proxied) error {
	c, err := net.Dial("tcp6", fmt.Sprintf("[::1]:%d", p.Ports[0].Host))
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	said, err := io.ReadAll(c)
	if err == nil && string(said) != "hello" {
		err = fmt.Errorf("it says %q", said)
	}
	return err
}

// The proxy listens when it has said so, is followed by another when it is killed,
// and lets a port go when it has been told to.
func TestTheProxyMayBeKilled(t *testing.T) {
	e, proxy := served(t, engine.Proxy)
	one := proxied(t, 1, alone(t), greeter(t))
	if err := e.AnnounceProxied(one); err != nil {
		t.Fatal(err)
	}
	if err := greets(one); err != nil {
		t.Error(err)
	}
	for range 5 {
		pid := proxy()
		if pid == 0 {
			t.Fatal("there is no proxy")
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		await(t, "another proxy listens", func() bool { return greets(one) == nil })
	}
	two := proxied(t, 2, alone(t), greeter(t))
	if err := e.AnnounceProxied(two); err != nil {
		t.Error(err)
	}
	e.Unserve(one.ID)
	if err := greets(one); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port that it was told to let go of: %v", err)
	}
	if err := greets(two); err != nil {
		t.Error(err)
	}
}

// A port that somebody else has is told; the others of the container are had, and that
// one when it is free.
func TestAPortThatTheProxyCannotHave(t *testing.T) {
	e, _ := served(t, engine.Proxy)
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	one := proxied(t, 1, alone(t), greeter(t))
	taken := one.Ports[0]
	taken.Host = l.Addr().(*net.TCPAddr).AddrPort().Port()
	one.Ports = append(one.Ports, taken)
	if err := e.AnnounceProxied(one); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a port that is taken: %v", err)
	}
	if err := greets(one); err != nil {
		t.Error(err)
	}
	l.Close()
	one.Ports[0] = taken
	await(t, "it has the port", func() bool { return greets(one) == nil })
}

// Documents of containers that have ended, whose keeper was killed, keep no port.
func TestVoidPortsAreFree(t *testing.T) {
	e, proxy := served(t, engine.Proxy)
	id := alone(t)
	one := proxied(t, 1, id, greeter(t))
	if err := e.AnnounceProxied(one); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(id.PID, syscall.SIGKILL)
	await(t, "its port is free", func() bool { return errors.Is(greets(one), syscall.ECONNREFUSED) })
	await(t, "the proxy ends", func() bool { return proxy() == 0 })
	if err := e.AnnounceProxied(one); !errors.Is(err, fault.NotFound) {
		t.Errorf("a process that has ended is served: %v", err)
	}
}

// What is no document of ours is refused, and the others go on.
func TestADamagedDocumentOfTheProxy(t *testing.T) {
	e, _ := served(t, engine.Proxy)
	one, two := proxied(t, 1, alone(t), greeter(t)), proxied(t, 2, alone(t), greeter(t))
	if err := e.AnnounceProxied(one); err != nil {
		t.Fatal(err)
	}
	two.Ports[0].IP = "nowhere"
	if err := e.AnnounceProxied(two); fault.KindOf(err) != fault.Invalid {
		t.Errorf("an address that is none: %v", err)
	}
	if err := os.WriteFile(e.Document(engine.Proxy, fmt.Sprintf("%064x", 3)), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	three := proxied(t, 4, alone(t), greeter(t))
	for _, p := range []engine.Proxied{three, one} {
		if err := e.AnnounceProxied(p); err != nil {
			t.Error(err)
		}
		if err := greets(p); err != nil {
			t.Error(err)
		}
	}
}
