package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/container/monitor"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/privilege"
)

// ExecOptions say what to run in a container that runs. What is empty is as in
// the container's own process.
type ExecOptions struct {
	Args       []string
	Env        []string // KEY=VALUE; a bare KEY removes the container's
	Workdir    string
	User       string // USER[:GROUP], by the container's own files
	Privileged bool   // with all capabilities that there are for the container
	TTY        bool

	Files         [3]*os.File // without TTY
	Rows, Columns uint16      // of the terminal; 0: not known
	Warn          func(string)
}

// An Exec is one more process of a container, a child of this process.
type Exec struct {
	*process.Process
	e  *Engine
	c  *Container
	id string
}

// Exec runs one more process in a container, and returns when its program has
// begun. A program that cannot be executed is a *StartError; a container that
// does not run, or is paused, is fault.Conflict.
func (e *Engine) Exec(query string, o ExecOptions) (*Exec, error) {
	return e.execAs(query, newID(), o, [2]uint64{})
}

// execAs is Exec with an id for its events, and the limit of open files that the
// process gets where this process has raised its own. As in Docker a start that
// fails has been announced, and has no end.
func (e *Engine) execAs(query, id string, o ExecOptions, files [2]uint64) (*Exec, error) {
	c, err := e.Find(query)
	if err != nil {
		return nil, err
	}
	fd, err := c.enterable()
	if err != nil {
		return nil, err
	}
	pidfd := os.NewFile(uintptr(fd), "container")
	defer pidfd.Close()
	x := &Exec{e: e, c: c, id: id}
	x.emit("exec_create", o.Args, nil)
	x.emit("exec_start", o.Args, nil)
	p, err := e.joining(c, o)
	if err != nil {
		return nil, err
	}
	p.o.fileLimit = files
	x.Process, err = p.join(pidfd, o.Files)
	if p.keptOut(err) {
		x.Process, err = p.join(pidfd, o.Files)
	}
	if err != nil {
		return nil, p.explainJoin(err)
	}
	return x, nil
}

// keptOut reports whether err is that an ordinary user may not move a process
// from where he is, a session of the host's, into the container's group. Then
// this process is where he may by now, or does without.
func (j *joiner) keptOut(err error) bool {
	if j.target.Cgroup == "" || os.Geteuid() == 0 || fault.KindOf(err) != fault.Denied {
		return false
	}
	if intoScope("kiste-exec-"+strconv.Itoa(os.Getpid())+".scope", "kiste exec "+j.Name, os.Getpid()) != nil {
		j.target.Cgroup, j.target.Tasks = "", nil
		if j.o.Warn != nil {
			j.o.Warn("the limits of the container do not hold for what is executed: this user may not enter its cgroup from here")
		}
	}
	return true
}

func (x *Exec) emit(action string, args []string, more map[string]string) {
	if args != nil {
		// Docker has a space behind a command without arguments, too.
		action += ": " + args[0] + " " + strings.Join(args[1:], " ")
	}
	all := map[string]string{"execID": x.id}
	for k, v := range more {
		all[k] = v
	}
	x.e.Emit(action, x.c, all)
}

// Wait waits for the end of the process.
func (x *Exec) Wait() (syscall.WaitStatus, error) {
	s, err := x.Process.Wait()
	if err == nil {
		x.died(monitor.End{Status: s, Known: true})
	}
	return s, err
}

func (x *Exec) died(end monitor.End) {
	x.emit("exec_die", nil, map[string]string{"exitCode": strconv.Itoa(end.Code())})
}

// enterable opens a pidfd of the container's process.
func (c *Container) enterable() (int, error) {
	const op = "exec in container"
	switch c.State.Status {
	case inspect.Running:
	case inspect.Paused:
		return -1, conflict(op, c, "Container %s is paused, unpause the container before exec", c.ID)
	case inspect.Restarting:
		return -1, conflict(op, c, "Container %s is restarting, wait until the container is running", c.ID)
	default:
		return -1, conflict(op, c, "container %s is not running", c.ID)
	}
	fd, err := identity(c.State).Open()
	if errors.Is(err, fault.NotFound) {
		return -1, conflict(op, c, "container %s is not running", c.ID)
	}
	return fd, err
}

// A joiner is the container c as the process sees it that joins it: with that
// process in place of its own in the spec.
type joiner struct {
	*Prepared
	target plan.Target
}

// joining makes the spec of the process, and finds out what it joins.
func (e *Engine) joining(c *Container, o ExecOptions) (*joiner, error) {
	own := *c.Result.Spec.Process
	spec, result, copied := *c.Result.Spec, *c.Result, *c
	spec.Process, result.Spec, copied.Result = &own, &spec, &result
	j := &joiner{Prepared: &Prepared{e: e, Container: &copied, o: RunOptions{Warn: o.Warn}}}
	target, err := process.Target(c.State.PID)
	if err != nil {
		return nil, err
	}
	if target.Cgroup, target.Tasks, err = c.entrances(); err != nil {
		return nil, err
	}
	j.target = target
	for _, set := range []func(ExecOptions) error{j.setUser, j.setProcess, j.setPrivileges} {
		if err := set(o); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// setUser finds out who the process is to be, by the files that the container
// has now.
func (j *joiner) setUser(o ExecOptions) error {
	if o.User == "" {
		o.User = j.Result.User
	}
	passwd, err := j.accounts("/etc/passwd")
	if err != nil {
		return err
	}
	group, err := j.accounts("/etc/group")
	if err != nil {
		return err
	}
	u, err := bundle.ResolveUser(o.User, passwd, group, j.Result.Groups)
	if err != nil {
		return err
	}
	p := j.Result.Spec.Process
	p.User.UID, p.User.GID, p.User.AdditionalGids = u.UID, u.GID, u.Additional
	if j.Result.NeedHome {
		p.Env = append(without(p.Env, "HOME"), "HOME="+homeOr(u.Home))
	}
	return nil
}

func homeOr(home string) string {
	if home == "" {
		return "/"
	}
	return home
}

// accounts reads a file of the container; one that is not there is empty, as is
// what is no file, which would keep its owner from mending it.
func (j *joiner) accounts(name string) ([]byte, error) {
	text, err := process.ReadIn(j.target.Root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrInvalid) {
		return nil, nil
	}
	if err != nil {
		return nil, &fault.Error{Op: "read", On: name + " of " + j.Name, Err: err}
	}
	return []byte(text), nil
}

// without is env without the variable.
func without(env []string, key string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(e string) bool { return e == key || strings.HasPrefix(e, key+"=") })
}

func (j *joiner) setProcess(o ExecOptions) error {
	p := j.Result.Spec.Process
	p.Args, p.Terminal, p.ConsoleSize, p.CommandLine = o.Args, o.TTY, nil, ""
	if o.TTY && o.Rows > 0 && o.Columns > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(o.Rows), Width: uint(o.Columns)}
	}
	j.setTerm(o.TTY)
	for _, e := range o.Env {
		key, _, has := strings.Cut(e, "=")
		if p.Env = without(p.Env, key); has {
			p.Env = append(p.Env, e)
		}
	}
	if o.Workdir != "" {
		if !path.IsAbs(o.Workdir) {
			return &fault.Error{Op: "exec in container", On: o.Workdir, Kind: fault.Invalid, Err: errors.New("Cwd must be an absolute path")}
		}
		p.Cwd = path.Clean(o.Workdir)
	}
	j.Result.SearchPath = ""
	for _, e := range p.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			j.Result.SearchPath = v
		}
	}
	return nil
}

// setTerm names the kind of the terminal where there is one and nobody says
// which; a name that the container has only for its own terminal is taken away.
func (j *joiner) setTerm(tty bool) {
	p := j.Result.Spec.Process
	isTerm := func(e string) bool { return strings.HasPrefix(e, "TERM=") }
	named := slices.ContainsFunc(p.Env, isTerm)
	switch {
	case tty && !named:
		p.Env = append(slices.Clip(p.Env), "TERM=xterm")
	case !tty && named && !slices.ContainsFunc(j.Image.Env, isTerm) && !slices.ContainsFunc(j.Wishes.Env, isTerm):
		p.Env = without(p.Env, "TERM")
	}
}

// setPrivileges gives all capabilities to who is to have them. The filter of
// system calls stays the container's.
func (j *joiner) setPrivileges(o ExecOptions) error {
	if !o.Privileged {
		return nil
	}
	caps := privilege.AllCaps()
	if !slices.Contains(j.target.Namespaces, "user") && !host.InUserns() {
		held, err := privilege.Held()
		if err != nil {
			return err
		}
		caps = held
	}
	p, names := j.Result.Spec.Process, caps.Names()
	p.Capabilities = &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
	p.ApparmorProfile = ""
	return nil
}

// entrances are where one more process enters the container's cgroup: the
// directory of version 2, and the files of version 1.
func (c *Container) entrances() (unified string, tasks []string, err error) {
	if c.Cgroup == "" {
		return "", nil, nil
	}
	l, err := cgroup.Detect()
	for _, h := range l.All() {
		switch dir := h.Dir(c.Cgroup); {
		case !isDir(dir): // the container has none there
		case h.V2:
			unified = cgroup.Entrance(l, h, c.Cgroup, c.State.PID)
		default:
			tasks = append(tasks, path.Join(dir, "tasks"))
		}
	}
	return unified, tasks, err
}

// join starts the process. Where a filter keeps it from forking late it forks
// early.
func (j *joiner) join(pidfd *os.File, files [3]*os.File) (*process.Process, error) {
	filter, err := j.filter()
	if err != nil {
		return nil, err
	}
	j.target.Linux = j.Result.Spec.Linux
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	facts := process.Facts(layout)
	o := plan.Options{Search: j.Result.SearchPath, Filter: filter, Keyring: "_ses." + short(j.ID), Streams: process.Streams(files)}
	sys.RestoreFileLimit()
	for {
		pl, err := plan.CompileExec(j.limited(j.Result.Spec).Process, j.target, o, facts)
		if err != nil {
			return nil, err
		}
		proc, err := process.Start(pl, process.Options{Files: files, Container: pidfd})
		if o.ForkEarly || !errors.As(err, new(*process.ForkError)) {
			return proc, err
		}
		o.ForkEarly = true
	}
}

// explainJoin says in Docker's words why the program could not be executed.
func (j *joiner) explainJoin(err error) error {
	if !errors.As(err, new(*process.StepError)) {
		return err
	}
	err = j.explain(err)
	var start *StartError
	var f *fault.Error
	if errors.As(err, &start) && errors.As(start.Err, &f) {
		said := *f
		said.Op, said.Err = "exec", fmt.Errorf("OCI runtime exec failed: exec: %q: %w", j.Result.Spec.Process.Args[0], f.Err)
		start.Err = &said
		if errors.Is(f.Err, syscall.ESRCH) {
			return conflict("exec in container", j.Container, "container %s is not running", j.ID)
		}
	}
	return err
}
