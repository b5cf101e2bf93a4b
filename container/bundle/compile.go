package bundle

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

// defaultPath is the PATH of a container whose image has none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Compile makes a spec of an image's config, a user's wishes and the host's
// facts. Errors name the option or the image's field that cannot be followed;
// their kinds are fault.Invalid, fault.Conflict, fault.Unsupported, and that of
// Facts.Device.
func Compile(image ImageConfig, w Wishes, host Facts) (*Result, error) {
	c := &compiler{image: &image, w: &w, host: &host, Result: &Result{
		Spec: &specs.Spec{
			Version: specs.Version,
			Root:    &specs.Root{Readonly: w.ReadOnly},
			Process: &specs.Process{Terminal: w.TTY},
			Linux:   &specs.Linux{Resources: &specs.LinuxResources{}},
		},
		Origin: map[string]string{"": "default", "root.readonly": origin(w.ReadOnly, "--read-only"), "process.terminal": origin(w.TTY, "-t")},
	}}
	for _, step := range []func() error{
		c.asSystem, c.namespaces, c.names, c.args, c.environment, c.workdir, c.user, c.privileges, c.rlimits,
		c.mounts, c.paths, c.devices, c.resources, c.sysctls, c.stop, c.labels, c.selinux,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c.Result, nil
}

// A compiler is a spec in the making.
type compiler struct {
	*Result
	image *ImageConfig
	w     *Wishes
	host  *Facts

	userNS bool   // the container has a user namespace that is not the host's
	newNS  bool   // and it is a new one
	name   string // the host name inside
}

// origin is where from a switch has its value.
func origin(given bool, option string) string {
	if given {
		return option
	}
	return "default"
}

// badOption refuses one option's value.
func badOption(option string, kind fault.Kind, err error) error {
	return &fault.Error{Op: "use option", On: option, Kind: kind, Err: err}
}

func badImage(field string, err error) error {
	return &fault.Error{Op: "use the image's", On: field, Kind: fault.Invalid, Err: err}
}

// Command is what a container runs, by Docker's rules: a given entrypoint makes
// the image's command void, and an empty one is none.
func (w *Wishes) Command(image ImageConfig) (entrypoint, cmd []string) {
	entrypoint, cmd = w.Entrypoint, w.Args
	if len(entrypoint) == 0 {
		entrypoint = image.Entrypoint
		if len(cmd) == 0 {
			cmd = image.Cmd
		}
	}
	if len(entrypoint) == 1 && entrypoint[0] == "" {
		entrypoint = nil
	}
	return entrypoint, cmd
}

// argsFrom says where Command has its words from.
func (c *compiler) argsFrom() string {
	switch {
	case len(c.w.Entrypoint) > 0:
		return "--entrypoint, command line"
	case len(c.w.Args) == 0:
		return "image: Entrypoint, image: Cmd"
	case len(c.image.Entrypoint) > 0:
		return "image: Entrypoint, command line"
	}
	return "command line"
}

func (c *compiler) args() error {
	from := c.argsFrom()
	entrypoint, cmd := c.w.Command(*c.image)
	args := slices.Concat(entrypoint, cmd)
	if len(args) == 0 || args[0] == "" {
		return &fault.Error{Op: "run a container", Kind: fault.Invalid, Err: errors.New("no command specified"),
			Hint: "the image names no command of its own: write one after the image"}
	}
	if slices.ContainsFunc(args, hasZero) {
		return badImage("command", errors.New("an argument has a zero byte"))
	}
	if c.w.Init && !c.w.PID.shared() {
		if c.host.Init == "" {
			return badOption("--init", fault.Unsupported, errors.New("this host has no program for it"))
		}
		args = slices.Concat([]string{InitPath, "--"}, args)
		from = "--init, " + from
	}
	c.Spec.Process.Args = args
	c.Origin["process.args"] = from
	return nil
}

func hasZero(s string) bool { return strings.ContainsRune(s, 0) }

// environment is Docker's: defaults, then the image's, then the user's; a bare
// name removes.
func (c *compiler) environment() error {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + c.name}
	if c.w.TTY {
		env = append(env, "TERM=xterm")
	}
	for _, e := range c.image.Env {
		if key, _, ok := strings.Cut(e, "="); key == "" || !ok || hasZero(e) {
			return badImage("Env", fmt.Errorf("invalid environment variable: %q", e))
		}
	}
	env = slices.Concat(env, c.systemEnv())
	env = MergeEnv(MergeEnv(env, c.image.Env), c.w.Env)
	c.Spec.Process.Env = env
	c.Origin["process.env"] = "default, image: Env, -e"
	c.NeedHome = !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") })
	if arg := c.Spec.Process.Args[0]; !strings.Contains(arg, "/") {
		for _, e := range env {
			if v, ok := strings.CutPrefix(e, "PATH="); ok {
				c.SearchPath = v
			}
		}
		if c.SearchPath == "" {
			c.SearchPath = defaultPath
		}
	}
	return nil
}

// MergeEnv puts more over env, keeping the place of what is replaced; a bare
// name removes.
func MergeEnv(env, more []string) []string {
	place := make(map[string]int, len(env)+len(more))
	out := make([]string, 0, len(env)+len(more))
	for _, e := range slices.Concat(env, more) {
		key, _, has := strings.Cut(e, "=")
		at, known := place[key]
		switch {
		case !has && known:
			out[at] = ""
			delete(place, key)
		case !has || key == "":
		case known:
			out[at] = e
		default:
			place[key] = len(out)
			out = append(out, e)
		}
	}
	return slices.DeleteFunc(out, func(e string) bool { return e == "" })
}

func (c *compiler) workdir() error {
	dir, from := c.w.Workdir, "-w"
	if dir == "" {
		dir, from = c.image.WorkingDir, "image: WorkingDir"
	}
	if dir == "" {
		dir, from = "/", "default"
	}
	if !path.IsAbs(dir) || hasZero(dir) {
		return &fault.Error{Op: "use", On: from, Kind: fault.Invalid,
			Err: fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path", dir)}
	}
	c.Spec.Process.Cwd = path.Clean(dir)
	c.Origin["process.cwd"] = from
	return nil
}

func (c *compiler) user() error {
	c.User, c.Groups = c.w.User, c.w.Groups
	c.Origin["process.user"] = origin(c.User != "", "-u")
	if c.User == "" && c.image.User != "" {
		c.User = c.image.User
		c.Origin["process.user"] = "image: User"
	}
	c.Spec.Process.User.Umask = c.w.Umask
	return nil
}

func (c *compiler) privileges() error {
	caps, err := tweakCapabilities(c.w, c.capabilities())
	if err != nil {
		return err
	}
	p := c.Spec.Process
	p.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	c.Origin["process.capabilities"] = origin(c.w.Privileged, "--privileged")
	if len(c.w.CapAdd)+len(c.w.CapDrop) > 0 && !c.w.Privileged {
		c.Origin["process.capabilities"] = "--cap-add, --cap-drop"
	}
	s := c.w.Security
	p.NoNewPrivileges = s.NoNewPrivileges
	c.Origin["process.noNewPrivileges"] = origin(s.NoNewPrivileges, "--security-opt no-new-privileges")
	c.Seccomp, c.NoLandlock = s.Seccomp, s.NoLandlock
	c.Origin["linux.seccomp"] = origin(s.Seccomp != "", "--security-opt seccomp")
	if c.w.Privileged {
		c.NoLandlock = true
		if c.Seccomp == "" {
			c.Seccomp = "unconfined"
			c.Origin["linux.seccomp"] = "--privileged"
		}
	}
	if s.AppArmor != "" && s.AppArmor != "unconfined" {
		p.ApparmorProfile = s.AppArmor
		c.Origin["process.apparmorProfile"] = "--security-opt apparmor"
	}
	if n := c.w.OOMScoreAdj; n != nil {
		if *n < -1000 || *n > 1000 {
			return badOption("--oom-score-adj", fault.Invalid, fmt.Errorf("Invalid value %d, range for oom score adj is [-1000, 1000]", *n))
		}
		p.OOMScoreAdj = n
		c.Origin["process.oomScoreAdj"] = "--oom-score-adj"
	}
	return nil
}

// rlimits of one type: the last wins, as in Docker.
func (c *compiler) rlimits() error {
	for i, r := range c.w.Rlimits {
		again := slices.ContainsFunc(c.w.Rlimits[i+1:], func(l specs.POSIXRlimit) bool { return l.Type == r.Type })
		if !again {
			c.Spec.Process.Rlimits = append(c.Spec.Process.Rlimits, r)
		}
	}
	c.Origin["process.rlimits"] = origin(len(c.w.Rlimits) > 0, "--ulimit")
	return nil
}

// stop says how the container is asked to end.
func (c *compiler) stop() error {
	signal, from := c.w.StopSignal, "--stop-signal"
	if signal == "" {
		signal, from = c.image.StopSignal, "image: StopSignal"
	}
	if signal == "" {
		signal, from = c.systemStop(), "--systemd"
	}
	if signal == "" {
		signal, from = "SIGTERM", "default"
	}
	name, err := ParseSignal(signal)
	if err != nil {
		return &fault.Error{Op: "use", On: from, Kind: fault.Invalid, Err: err}
	}
	c.StopSignal, c.StopTimeout = name, c.w.stopTimeout()
	return nil
}

// labels are the image's and, over them, the user's. An image's labels never
// become annotations, which have an effect.
func (c *compiler) labels() error {
	c.Labels = map[string]string{}
	for k, v := range c.image.Labels {
		c.Labels[k] = v
	}
	for k, v := range c.w.Labels {
		c.Labels[k] = v
	}
	c.Spec.Annotations = c.w.Annotations
	c.Origin["annotations"] = origin(len(c.w.Annotations) > 0, "--annotation")
	return nil
}
