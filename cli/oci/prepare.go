package oci

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/lifecycle"
	"kiste/container/plan"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/store"
)

// containers is where their state is kept. An ordinary user's default is
// marked as what must not be cleaned away (XDG Base Directory Specification).
func (s *session) containers() lifecycle.Root {
	if s.root == "" {
		s.root = store.RuntimeDir(ordinary())
	}
	return lifecycle.Root{Dir: s.root, Warn: s.log.warn}
}

// ordinary reports whether the user's own directories are to be used: of an
// ordinary user, and of root in a user namespace of his, as runc has it.
func ordinary() bool {
	if os.Geteuid() != 0 {
		return true
	}
	user, known := os.LookupEnv("USER")
	return host.InUserns() && (!known || user != "root")
}

// prepare completes m for a new container: what the environment passes on to
// it, and who makes its cgroup.
func (s *session) prepare(m *making) (*notifier, error) {
	sys.SlowMonitor()
	cgroup.Hold()
	sockets, err := activated(os.Getenv, os.Getpid())
	if err != nil {
		return nil, err
	}
	if err := checkPreserved(sockets, m.o.PreserveFDs); err != nil {
		return nil, err
	}
	m.o.PreserveFDs += sockets
	m.o.Detach, m.o.Trace, m.o.Systemd = m.detach, s.trace(), s.systemd
	m.o.NoCgroup, m.o.Tolerant = s.manager == "disabled", s.tolerant()
	n := &notifier{host: os.Getenv("NOTIFY_SOCKET")}
	m.o.Edit = func(dir string, spec *specs.Spec) error {
		if !m.detach {
			s.sizeTerminal(spec.Process)
		}
		if sockets > 0 {
			spec.Process.Env = append(spec.Process.Env, "LISTEN_FDS="+strconv.Itoa(sockets), "LISTEN_PID=1")
		}
		return n.offer(dir, spec)
	}
	return n, nil
}

// trace tells the log of steps, with --debug.
func (s *session) trace() func(plan.Step, time.Duration) {
	if !s.log.debug {
		return nil
	}
	return func(step plan.Step, took time.Duration) {
		s.log.step(string(step.Side) + ": " + step.Text + " (" + took.Round(time.Microsecond).String() + ")")
	}
}

// sizeTerminal gives a terminal that has no size of its own the user's.
func (s *session) sizeTerminal(p *specs.Process) {
	if !p.Terminal || p.ConsoleSize != nil {
		return
	}
	if rows, columns := s.user().Size(); rows != 0 {
		p.ConsoleSize = &specs.Box{Height: uint(rows), Width: uint(columns)}
	}
}

// tolerant says whether cgroups that may not be made are no error: those of an
// ordinary user, and of root in a user namespace, unless --rootless says.
func (s *session) tolerant() bool {
	switch s.rootless {
	case "true":
		return true
	case "false":
		return false
	}
	return os.Geteuid() != 0 || host.InUserns()
}

// activated is how many sockets systemd has passed to this process from
// descriptor 3 on (sd_listen_fds(3)).
func activated(getenv func(string) string, pid int) (int, error) {
	if forWhom, err := strconv.Atoi(getenv("LISTEN_PID")); err != nil || forWhom != pid {
		return 0, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n <= 0 {
		return 0, nil
	}
	return n, checkPreserved(0, n)
}

// checkPreserved makes sure that what is passed on was passed to this process,
// and is none of its own descriptors: these are all close-on-exec.
func checkPreserved(before, n int) error {
	for i := range n {
		if fd := firstPreserved + before + i; !sys.Inherited(fd) {
			return &fault.Error{Op: "preserve descriptor", On: strconv.Itoa(fd), Kind: fault.Invalid,
				Err: fmt.Errorf("unable to stat preserved-fd %d (of %d): %w", i, n, errNotGiven)}
		}
	}
	return nil
}

// firstPreserved is the descriptor after standard input, output and error.
const firstPreserved = 3

var errNotGiven = errors.New("no such file or directory")
