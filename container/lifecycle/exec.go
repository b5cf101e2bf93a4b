package lifecycle

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/container/plan"
	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
)

// ExecOptions say what to run in a container that is there.
type ExecOptions struct {
	// Process is what to run: what Container.Process or ReadProcess give,
	// changed as one likes.
	Process *specs.Process

	// Streams, and who wants to hear of the process: as in CreateOptions.
	Files         [3]*os.File
	ConsoleSocket string
	PidfdSocket   string
	PidFile       string
	PreserveFDs   int

	// Detach says that nobody holds the terminal, which needs a socket then.
	Detach bool

	// IgnorePaused lets the process begin in a paused container, where it
	// waits.
	IgnorePaused bool

	// Cgroups are paths below the container's cgroup in which the process is
	// to be, by controller of version 1; "" stands for all others, and for
	// version 2. Those without one get the container's.
	Cgroups map[string]string
}

// Process is a copy of what the container's spec says of its process.
func (c *Container) Process() (*specs.Process, error) {
	s, err := c.spec()
	if err != nil {
		return nil, err
	}
	c.linux.Store(s.Linux)
	return s.Process, nil
}

// readLinux is what the container's spec says of its processes, which whoever
// has asked for one of them has read already.
func (c *Container) readLinux() (*specs.Linux, error) {
	if l := c.linux.Load(); l != nil {
		return l, nil
	}
	s, err := c.spec()
	if err != nil {
		return nil, err
	}
	return s.Linux, nil
}

// spec reads the spec as it was at the creation.
func (c *Container) spec() (*specs.Spec, error) {
	s := &specs.Spec{}
	if _, err := readJSON(c.file(configFile), s); err != nil {
		return nil, err
	}
	if s.Process == nil || s.Linux == nil {
		return nil, &fault.Error{Op: "read", On: c.file(configFile), Kind: fault.Invalid, Err: errors.New("it is damaged")}
	}
	return s, nil
}

// ReadProcess reads a process.json: the specification's process object, at most
// 16 MiB of it.
func ReadProcess(path string) (*specs.Process, error) {
	p := &specs.Process{}
	_, err := readJSON(path, p)
	return p, err
}

// ParseUser reads UID or UID:GID, decimal numbers and nothing else. Without a
// group gid is what it was.
func ParseUser(s string, gid uint32) (uint32, uint32, error) {
	user, group, has := strings.Cut(s, ":")
	uid, err := parseID(user)
	if err == nil && has {
		gid, err = parseID(group)
	}
	if err != nil {
		return 0, 0, &fault.Error{Op: "take user", On: s, Kind: fault.Invalid, Err: err, Hint: "want UID or UID:GID in numbers"}
	}
	return uid, gid, nil
}

func parseID(s string) (uint32, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errors.New("parsing " + strconv.Quote(s) + " as a number failed")
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err == nil && n == 1<<32-1 {
		err = errors.New("4294967295 is nobody's number")
	}
	return uint32(n), err
}

// Exec runs one more process in the container, and returns when its program has
// begun. It is a child of this process: see Run. A program that cannot be
// executed is an *ExecError; a stopped container, or a paused one, is
// fault.Conflict.
func (c *Container) Exec(o ExecOptions) (*process.Process, error) {
	if err := checkTerminal(o.Process, o.Detach, o.ConsoleSocket); err != nil {
		return nil, err
	}
	h, err := dialAll(o.ConsoleSocket, o.PidfdSocket)
	defer h.close()
	if err != nil {
		return nil, err
	}
	h.pidFile = o.PidFile
	p, err := c.exec(o, "")
	if err != nil {
		return nil, err
	}
	if err := h.tell(p); err != nil {
		end(p)
		return nil, err
	}
	return p, nil
}

// exec is Exec of a program, in place of the first argument where it has one.
// Where a filter keeps the process from forking late it forks early.
func (c *Container) exec(o ExecOptions, program string) (*process.Process, error) {
	p, err := c.execOnce(o, plan.Options{Program: program})
	if errors.As(err, new(*process.ForkError)) {
		p, err = c.execOnce(o, plan.Options{Program: program, ForkEarly: true})
	}
	return p, err
}

func (c *Container) execOnce(o ExecOptions, po plan.Options) (*process.Process, error) {
	pidfd, err := c.enterable(o.IgnorePaused)
	if err != nil {
		return nil, err
	}
	defer pidfd.Close()
	p, move, err := c.execPlan(o, po)
	if err != nil {
		return nil, err
	}
	sys.RestoreFileLimit()
	proc, err := c.root.carryOut(p, process.Options{Files: o.Files, Container: pidfd, Scope: move, Listener: c.giveListener})
	if err != nil {
		return nil, explain(o.Process.Args[0], err)
	}
	return proc, nil
}

// enterable opens a pidfd of the container's process.
func (c *Container) enterable(ignorePaused bool) (*os.File, error) {
	no := func(why string) error {
		return &fault.Error{Op: "exec in container", On: c.doc.ID, Kind: fault.Conflict, Err: errors.New(why)}
	}
	fd, err := c.doc.process().Open()
	if errors.Is(err, fault.NotFound) {
		return nil, no("cannot exec in a stopped container")
	}
	if err != nil {
		return nil, err
	}
	if !ignorePaused && c.frozen() {
		sys.Close(fd)
		return nil, no("cannot exec in a paused container (use --ignore-paused to override)")
	}
	return os.NewFile(uintptr(fd), "container"), nil
}

// execPlan compiles o.Process, and tells how systemd moves the process into the
// container's unit.
func (c *Container) execPlan(o ExecOptions, po plan.Options) (p *plan.Plan, move func(int) (func(), error), err error) {
	t, err := c.target(o.Cgroups)
	if err != nil {
		return nil, nil, err
	}
	if t.Linux, err = c.readLinux(); err != nil {
		return nil, nil, err
	}
	if po.Filter, err = filterOf(t.Linux); err != nil {
		return nil, nil, err
	}
	scope, move := c.mover(t.Cgroup)
	if scope != "" {
		t.Cgroup = ""
	}
	po.Keep, po.Keyring, po.PlainLines, po.Streams = o.PreserveFDs, c.doc.Keyring, !o.Detach, process.Streams(o.Files)
	if needsHome(o.Process.Env) {
		po.Home = process.Home(process.RootOf(c.doc.PID), nil, o.Process.User.UID)
	}
	f := process.Facts(c.doc.Hierarchies)
	f.Scope = scope
	p, err = plan.CompileExec(o.Process, t, po, f)
	if err == nil {
		c.root.warn(p.Warnings...)
	}
	return p, move, err
}

// target is the container as the process sees it that joins.
func (c *Container) target(sub map[string]string) (plan.Target, error) {
	t, err := process.Target(c.doc.PID)
	if err != nil {
		return t, err
	}
	t.Cgroup, t.Tasks, err = c.execGroups(sub)
	t.Tasks = append(t.Tasks, c.classTasks()...)
	return t, err
}

// end kills a process that nobody has heard of yet.
func end(p *process.Process) {
	_ = p.Signal(unix.SIGKILL)
	_, _ = p.Wait()
	p.Remove()
}
