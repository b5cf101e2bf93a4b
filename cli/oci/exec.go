package oci

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/cli/option"
	"kiste/container/lifecycle"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
)

// An execution is what the options of exec ask for.
type execution struct {
	o            lifecycle.ExecOptions
	file         string
	cwd          string
	env          []string
	tty, noPrivs bool
	noPrivsSet   bool
	user         string
	gids         []uint32
	label        string
	apparmor     string
	caps         []string
	cgroups      []string
}

func (e *execution) options() []option.Row {
	return []option.Row{
		{"-p, --process", "FILE", "what to run, as \"process\" in config.json", option.String(&e.file)},
		{"--cwd", "DIR", "the working directory in the container", option.String(&e.cwd)},
		{"-e, --env", "KEY=VALUE", "add a variable", option.Strings(&e.env)},
		{"-t, --tty", "", "make a terminal", option.Bool(&e.tty)},
		{"-u, --user", "UID[:GID]", "the user and group, as numbers", option.String(&e.user)},
		{"-g, --additional-gids", "GID", "one more group", gidVar(&e.gids)},
		{"-c, --cap", "CAPABILITY", "add a capability", option.Strings(&e.caps)},
		{"--no-new-privs", "", "let no program of it gain privileges", switchVar(&e.noPrivs, &e.noPrivsSet)},
		{"--process-label", "LABEL", "its SELinux label", option.String(&e.label)},
		{"--apparmor", "PROFILE", "its AppArmor profile", option.String(&e.apparmor)},
		{"--cgroup", "[CONTROLLER,...:]PATH", "put it into this group below the container's, which is there", option.Strings(&e.cgroups)},
		{"--ignore-paused", "", "also in a paused container; it waits there until that is resumed", option.Bool(&e.o.IgnorePaused)},
		{"-d, --detach", "", "do not stay", option.Bool(&e.o.Detach)},
		{"--console-socket", "SOCKET", "send the master of its terminal there", path(&e.o.ConsoleSocket)},
		{"--pidfd-socket", "SOCKET", "send a pidfd of it there", path(&e.o.PidfdSocket)},
		{"--pid-file", "FILE", "write its number there", path(&e.o.PidFile)},
		{"--preserve-fds", "N", "pass so many descriptors on, after 0, 1 and 2", count(&e.o.PreserveFDs)},
	}
}

// execFailed is exec's exit code where there was no process.
const execFailed = 255

func execVerb() *verb {
	e := &execution{}
	return &verb{
		name: "exec", args: "CONTAINER [COMMAND [ARG...]]", min: 1, max: -1, rest: true,
		short: "run one more process in a container",
		long: `It is as the container's own process but for what the options say, or as
--process says. Its exit code is that of the process, 128 and the number of
the signal that ended it, or 255 where it could not be started.`,
		options:  e.options(),
		examples: []string{"exec -t web sh", "exec --user 1000:1000 web id", "exec --process job.json --detach web"},
		run: func(s *session, args []string) error {
			err := s.exec(e, args[0], args[1:])
			var own *exitError
			if err != nil && !errors.As(err, &own) {
				return &codedError{err, execFailed}
			}
			return err
		},
	}
}

func (s *session) exec(e *execution, id string, args []string) error {
	sys.SlowMonitor()
	cgroup.Hold()
	c, err := s.containers().Load(id)
	if err != nil {
		return err
	}
	if e.o.Process, err = e.process(c, args); err != nil {
		return err
	}
	if err := checkPreserved(0, e.o.PreserveFDs); err != nil {
		return err
	}
	if e.o.Cgroups, err = subGroups(e.cgroups); err != nil {
		return err
	}
	if e.o.Detach {
		proc, err := c.Exec(e.o)
		if err != nil {
			return err
		}
		proc.Release()
		return nil
	}
	s.sizeTerminal(e.o.Process)
	a, err := s.attach()
	if err != nil {
		return err
	}
	e.o.Files = a.pipes.Files
	proc, err := c.Exec(e.o)
	if err != nil {
		a.pipes.Close()
		return err
	}
	a.pipes.Started()
	status, err := a.attend(proc)
	if err != nil {
		return err
	}
	return ended(status)
}

// process is what is to run.
func (e *execution) process(c *lifecycle.Container, args []string) (*specs.Process, error) {
	var p *specs.Process
	var err error
	if e.file != "" {
		p, err = lifecycle.ReadProcess(e.file)
	} else if p, err = c.Process(); err == nil {
		p, err = e.changed(p, args)
	}
	if err != nil {
		return nil, err
	}
	return p, checkProcess(p)
}

func checkProcess(p *specs.Process) error {
	why := ""
	switch {
	case p.Cwd == "":
		why = "Cwd property must not be empty"
	case !filepath.IsAbs(p.Cwd):
		why = "Cwd must be an absolute path"
	case len(p.Args) == 0:
		why = "args must not be empty"
	default:
		return nil
	}
	return &fault.Error{Op: "exec", Kind: fault.Invalid, Err: errors.New(why)}
}

// changed is the container's own process with what the options say.
func (e *execution) changed(own *specs.Process, args []string) (*specs.Process, error) {
	p := *own
	if len(args) == 0 {
		return nil, &fault.Error{Op: "exec", Kind: fault.Invalid, Err: errors.New("exec args cannot be empty")}
	}
	p.Args, p.Terminal, p.ConsoleSize = args, e.tty, nil
	p.Env = slices.Concat(p.Env, e.env)
	for _, field := range []struct {
		to    *string
		value string
	}{{&p.Cwd, e.cwd}, {&p.SelinuxLabel, e.label}, {&p.ApparmorProfile, e.apparmor}} {
		if field.value != "" {
			*field.to = field.value
		}
	}
	if e.noPrivsSet {
		p.NoNewPrivileges = e.noPrivs
	}
	p.Capabilities = withCaps(p.Capabilities, e.caps)
	if e.user != "" {
		var err error
		if p.User.UID, p.User.GID, err = lifecycle.ParseUser(e.user, p.User.GID); err != nil {
			return nil, err
		}
	}
	p.User.AdditionalGids = slices.Concat(p.User.AdditionalGids, e.gids)
	return &p, nil
}

// withCaps adds caps. They become ambient only where the container's process
// has inheritable ones, without which there can be none.
func withCaps(own *specs.LinuxCapabilities, caps []string) *specs.LinuxCapabilities {
	if len(caps) == 0 {
		return own
	}
	c := specs.LinuxCapabilities{}
	if own != nil {
		c = *own
	}
	c.Bounding, c.Effective, c.Permitted = slices.Concat(c.Bounding, caps), slices.Concat(c.Effective, caps), slices.Concat(c.Permitted, caps)
	if c.Inheritable != nil {
		c.Ambient = slices.Concat(c.Ambient, caps)
	}
	return &c
}

func gidVar(p *[]uint32) option.Var {
	return func(s string) error {
		gid, err := strconv.ParseUint(s, 10, 32)
		if err != nil || gid == 1<<32-1 {
			return errors.New("want a number from 0 to 4294967294")
		}
		*p = append(*p, uint32(gid))
		return nil
	}
}

// switchVar is a switch that tells off apart from not given.
func switchVar(p, given *bool) option.Var {
	set := option.Bool(p)
	return func(s string) error {
		*given = true
		return set(s)
	}
}

// subGroups are the groups below the container's by controller; "" is all.
func subGroups(args []string) (map[string]string, error) {
	bad := func(arg, why string) error {
		return &fault.Error{Op: "take option", On: "--cgroup", Kind: fault.Invalid, Err: fmt.Errorf("%q: %s", arg, why)}
	}
	groups := map[string]string{}
	for _, arg := range args {
		controllers, path, named := strings.Cut(arg, ":")
		if !named {
			if len(args) > 1 {
				return nil, bad(arg, "missing <controller>: prefix")
			}
			return map[string]string{"": arg}, nil
		}
		for c := range strings.SplitSeq(controllers, ",") {
			if _, twice := groups[c]; twice || c == "" {
				return nil, bad(arg, "want each controller once")
			}
			groups[c] = path
		}
	}
	return groups, nil
}
