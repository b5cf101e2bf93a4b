package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"kiste/container/bundle"
	"kiste/container/process"
	"kiste/engine"
	"kiste/engine/naming"
	"kiste/engine/proxying"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/network"
	"kiste/store"
)

// The test's program is the services, too.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		m.Run()
		return
	}
	serve := map[string]func(context.Context, *engine.Engine) error{engine.Resolver.Command: naming.Serve, engine.Proxy.Command: proxying.Serve}[os.Args[1]]
	if serve == nil {
		m.Run()
		return
	}
	if err := serve(context.Background(), &engine.Engine{Store: store.Locate()}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// served is an engine whose services this process keeps, and how one of them is
// found: its pid is 0 where there is none.
func served(t *testing.T, s *engine.Service) (e *engine.Engine, pid func() int) {
	t.Helper()
	need.Power(t, host.Root)
	need.Clean(t)
	dir := t.TempDir()
	e = &engine.Engine{Store: store.Store{Lib: dir + "/lib", Run: dir + "/run"}, Kisted: os.Executable}
	if err := e.Store.Open(); err != nil {
		t.Fatal(err)
	}
	find := e.KeepServices()
	pid = func() int { return find(s) }
	t.Cleanup(func() {
		ids, _ := e.Told(s)
		for _, id := range ids {
			e.Unserve(id)
		}
		await(t, "the service ends when nobody needs it", func() bool { return pid() == 0 })
	})
	return e, pid
}

// named is an engine whose resolver this process keeps.
func named(t *testing.T) (e *engine.Engine, resolver func() int) {
	t.Helper()
	return served(t, engine.Resolver)
}

// One question is asked, and must be answered; or questions may be lost, and the
// next is asked after again.
const patience, again = 30 * time.Second, 300 * time.Millisecond

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Error("not within a minute: " + what)
			return
		}
	}
}

// alone is a process in a network namespace of its own.
func alone(t *testing.T) process.Identity {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	id, err := process.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// container is the n-th of a network.
func container(n int, id process.Identity) *engine.Named {
	return &engine.Named{ID: fmt.Sprintf("%064x", n), Process: id, Closed: true, Places: []engine.Place{{
		Network: "n", Name: "net", Subnets: []string{"10.9.0.0/16"}, Names: []string{fmt.Sprintf("c%d", n), "all"}, Addresses: []string{fmt.Sprintf("10.9.0.%d", n)}}}}
}

// ask asks from where the process is, once, and waits so long.
func ask(id process.Identity, name string, wait time.Duration) (addresses []string, err error) {
	ns, err := network.OpenProcess(id.PID)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var c net.Conn
	if err := ns.Do(func() (err error) {
		c, err = net.Dial("udp", bundle.ResolverAddress+":53")
		return err
	}); err != nil {
		return nil, err
	}
	defer c.Close()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 1, RecursionDesired: true})
	q, err := dnsmessage.NewName(name + ".")
	q1 := dnsmessage.Question{Name: q, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	if err := errors.Join(err, b.StartQuestions(), b.Question(q1)); err != nil {
		return nil, err
	}
	raw, _ := b.Finish()
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write(raw); err != nil {
		return nil, err
	}
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	if err != nil {
		return nil, err
	}
	var m dnsmessage.Message
	if err := m.Unpack(answer[:n]); err != nil {
		return nil, err
	}
	for _, a := range m.Answers {
		a := a.Body.(*dnsmessage.AResource).A
		addresses = append(addresses, net.IP(a[:]).String())
	}
	return addresses, nil
}

// The first question of a container is answered, with all who have started
// before it, whoever starts at the same time.
func TestTheFirstQuestionIsAnswered(t *testing.T) {
	e, _ := named(t)
	var all sync.WaitGroup
	for n := range 40 {
		id := alone(t)
		all.Go(func() {
			n := n + 1
			if err := e.Announce(container(n, id)); err != nil {
				t.Error(err)
				return
			}
			if got, err := ask(id, fmt.Sprintf("c%d", n), patience); err != nil || strings.Join(got, " ") != fmt.Sprintf("10.9.0.%d", n) {
				t.Errorf("container %d finds itself at %v, %v", n, got, err)
			}
		})
	}
	all.Wait()
	id := alone(t)
	if err := e.Announce(container(99, id)); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(id, "all", patience); err != nil || len(got) == 0 {
		t.Errorf("all are %v, %v", got, err)
	}
}

// A resolver that is killed is followed by another, which answers the same.
func TestTheResolverMayBeKilled(t *testing.T) {
	e, resolver := named(t)
	one, two := alone(t), alone(t)
	for n, id := range []process.Identity{one, two} {
		if err := e.Announce(container(n+1, id)); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		pid := resolver()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		await(t, "another resolver answers", func() bool {
			got, err := ask(two, "c1", again)
			return err == nil && strings.Join(got, "") == "10.9.0.1"
		})
		t.Logf("answered again after %v", time.Since(began))
		three := alone(t)
		if err := e.Announce(container(3, three)); err != nil {
			t.Errorf("a start after a kill: %v", err)
		}
	}
	// Also in the middle of a start.
	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(15 * time.Millisecond):
				if pid := resolver(); pid > 0 {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
	})
	for n := range 20 {
		if err := e.Announce(container(10+n, alone(t))); err != nil && fault.KindOf(err) != fault.Unavailable {
			t.Errorf("a start among kills: %v", err)
		}
	}
	close(stop)
	killer.Wait()
	await(t, "all is as before", func() bool {
		got, err := ask(two, "c1", again)
		return err == nil && strings.Join(got, "") == "10.9.0.1"
	})
}

// A resolver that is about to end refuses who asks it, and has its lock until it
// has ended: a start waits for that, and for the next one.
func TestAStartWaitsForTheEndOfAResolver(t *testing.T) {
	e, _ := named(t)
	ending, err := store.LockFile(e.Store.Run+"/resolver.lock", true)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	one := container(1, alone(t))
	go func() { done <- e.Announce(one) }()
	select {
	case err := <-done:
		t.Errorf("nobody can answer yet: %v", err)
		ending.Unlock()
	case <-time.After(200 * time.Millisecond):
		ending.Unlock()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Documents of containers that have ended, whose keeper was killed, keep nobody.
func TestVoidNamesAreNobodys(t *testing.T) {
	e, resolver := named(t)
	one, two := alone(t), alone(t)
	for n, id := range []process.Identity{one, two} {
		if err := e.Announce(container(n+1, id)); err != nil {
			t.Fatal(err)
		}
	}
	_ = syscall.Kill(one.PID, syscall.SIGKILL)
	await(t, "who has ended is not found", func() bool {
		got, err := ask(two, "c1", again)
		return err == nil && len(got) == 0
	})
	if err := e.Announce(container(1, one)); !errors.Is(err, fault.NotFound) {
		t.Errorf("a process that has ended is answered: %v", err)
	}
	_ = syscall.Kill(two.PID, syscall.SIGKILL)
	await(t, "the resolver ends", func() bool { return resolver() == 0 })
}
