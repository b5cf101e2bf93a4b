package namespace

import (
	"encoding/binary"
	"os"
	"os/signal"
	"syscall"

	"kiste/fault"
	"kiste/internal/sys"
)

// fork lets a child make the calls and stays as its parent.
func (s *script) fork(ready func(pid int) error) (code int, err error) {
	caught := catch()
	defer signal.Stop(caught)
	sys.RestoreFileLimit()
	child, err := sys.StartChild(s.calls, sys.ChildOptions{Sock: s.socket(), OwnMemory: s.clock})
	if err != nil {
		return 0, &fault.Error{Op: "start in namespaces", Err: err}
	}
	defer child.Close()
	pid, err := s.hear(child, ready)
	child.CloseSocket()
	if err != nil {
		_ = child.Kill(syscall.SIGKILL)
	}
	if err != nil || pid != child.PID {
		if _, wait := child.Wait(); err == nil && wait != nil {
			err = wait
		}
	}
	if pid != child.PID && err != nil {
		_, _ = sys.Wait(pid)
	}
	if err != nil {
		return 0, err
	}
	return attend(pid, caught)
}

// hear follows the child up to its execve, and gives the pid of the process
// that runs then.
func (s *script) hear(child *sys.Child, ready func(pid int) error) (pid int, err error) {
	pid = child.PID
	for {
		data, _, err := child.Receive()
		switch {
		case err != nil:
			return pid, s.explain(err)
		case len(data) == 0:
			return pid, nil
		case len(data) == 4:
			pid = int(binary.NativeEndian.Uint32(data))
		default:
			err = ready(child.PID)
			if err == nil {
				err = child.Send([]byte{1}, nil)
			}
			if err != nil {
				return pid, err
			}
		}
	}
}

// catch begins to collect the signals that are handed on. What this process
// ignores, as under nohup(1), stays ignored.
func catch() chan os.Signal {
	c := make(chan os.Signal, 16)
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1,
		syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGALRM} {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	return c
}

// attend waits for pid, a child of this process, and hands it signals.
func attend(pid int, caught chan os.Signal) (code int, err error) {
	p, err := os.FindProcess(pid) // holds a pidfd: no other process gets them
	if err != nil {
		return 0, &fault.Error{Op: "wait for the command", Err: err}
	}
	done := make(chan struct{})
	defer close(done)
	sys.Parallel()
	go func() {
		for {
			select {
			case s := <-caught:
				if !fromKeyboard(s) {
					_ = p.Signal(s)
				}
			case <-done:
				return
			}
		}
	}()
	state, err := p.Wait()
	if err != nil {
		return 0, &fault.Error{Op: "wait for the command", Err: err}
	}
	return sys.ExitCode(state.Sys().(syscall.WaitStatus)), nil
}

// fromKeyboard reports whether s most likely came from the terminal, which
// has then sent it to the command as well: both are in its foreground group.
func fromKeyboard(s os.Signal) bool {
	switch s {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH:
		return sys.Foreground()
	}
	return false
}
