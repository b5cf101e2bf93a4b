package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"kiste/cli/option"
	"kiste/cli/terminal"
	"kiste/container/bundle"
	"kiste/container/monitor"
	"kiste/container/process"
	"kiste/engine"
	"kiste/fault"
	"kiste/internal/sys"
)

// A visit is a user who is attached to a container that the monitor keeps.
type visit struct {
	env     *Env
	e       *engine.Engine
	tty     bool
	input   bool
	once    bool     // the container's input ends with the user's
	streams []string // those that are attached; none: all
	keys    []byte
	proxy   bool
}

func visitOf(env *Env, e *engine.Engine, w *bundle.Wishes) *visit {
	return &visit{env: env, e: e, tty: w.TTY, input: w.Interactive, once: w.StdinOnce, keys: w.DetachKeys, proxy: !w.NoSigProxy}
}

// An attachedSide is the container at the other end.
type attachedSide struct {
	*monitor.Attachment
	err  io.Writer
	once bool
}

func (s attachedSide) Output(to io.Writer) error { return s.Copy(to, s.err) }

func (s attachedSide) EndInput() error {
	if !s.once {
		return nil
	}
	return s.Attachment.EndInput()
}

// stay stays until the container has ended or the user leaves, and ends as it
// does. When the monitor is killed meanwhile the next one is visited.
func (v *visit) stay(s *engine.Session, signals *sys.Relay) error {
	defer v.pass(signals, s.Process)()
	for {
		left, err := v.carry(s.Attachment)
		code, known := s.Attachment.Code()
		s.Attachment.Close()
		switch {
		case err != nil:
			return err
		case left:
			fmt.Fprintln(v.env.Err, "read escape sequence")
			return nil
		case known:
			return exit(code)
		}
		next, err := v.e.Attach(s.ID)
		if err != nil {
			return v.lastWord(s.ID)
		}
		s.Attachment = next.Attachment
	}
}

// lastWord ends as a container did that nobody could attach to any more.
func (v *visit) lastWord(id string) error {
	code, err := v.e.Wait(id, false)
	if err != nil {
		return err
	}
	return exit(code)
}

// pass passes signals on to the process until it returns.
func (v *visit) pass(signals *sys.Relay, id process.Identity) (stop func()) {
	if signals == nil {
		return func() {}
	}
	fd, err := id.Open()
	if err != nil { // it has ended
		return func() {}
	}
	signals.To(fd)
	return func() { signals.To(-1); sys.Close(fd) }
}

func (v *visit) carry(a *monitor.Attachment) (left bool, err error) {
	user, side := v.env.user(), attachedSide{a, v.env.Err, v.once}
	if !v.wants("stdout") {
		user.Out = io.Discard
	}
	if !v.wants("stderr") {
		side.err = io.Discard
	}
	keys := v.keys
	if v.tty {
		side.err = user.Out
	} else {
		keys = []byte{}
	}
	c := terminal.NewConsole(user, side, v.input && v.wants("stdin"), keys)
	if !v.tty {
		c.WithoutTerminal()
	}
	return c.Run()
}

func (v *visit) wants(stream string) bool {
	return len(v.streams) == 0 || slices.Contains(v.streams, stream)
}

// runLasting makes a container that the monitor keeps, starts it, and stays
// with it unless it is to be left behind.
func runLasting(ctx context.Context, env *Env, e *engine.Engine, o engine.RunOptions, choices runChoices) error {
	w := &o.Wishes
	w.StdinOnce, o.Asked = w.Interactive && !choices.Detach, choices.asked
	if err := choices.service.wish(w); err != nil {
		return err
	}
	unit, err := choices.service.unit()
	if err != nil {
		return err
	}
	start := engine.StartOptions{Attach: !choices.Detach, Rows: o.Rows, Columns: o.Columns, Unit: unit}
	var signals *sys.Relay
	if !w.NoSigProxy && !choices.Detach {
		start.Before = func() { signals = terminal.CatchSignals() }
	}
	if err := makeRoom(e, w, choices.Replace); err != nil {
		return err
	}
	id, s, err := e.Run(ctx, o, start)
	if choices.Detach && id != "" {
		fmt.Fprintln(env.Out, id)
	}
	switch {
	case err != nil:
		return err
	case choices.Detach:
		return choices.service.started(e, s, true)
	}
	choices.service.tell(env, e, s)
	v := visitOf(env, e, &s.Wishes)
	v.streams = choices.Attach
	return v.stay(s, signals)
}

// makeRoom removes the container that has the name, where that is wanted.
func makeRoom(e *engine.Engine, w *bundle.Wishes, replace bool) error {
	if !replace || w.Name == "" {
		return nil
	}
	_, err := e.Remove(w.Name, true, true)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

func createCommand() *Command {
	var w bundle.Wishes
	var asked []string
	var replace bool
	return &Command{
		Name: "create", Args: "IMAGE [COMMAND [ARG...]]", Min: 1, Max: -1, Rest: true, Misused: 125,
		Short:    "make a container, to be started later",
		Long:     `Prints the ID of the new container, which "kiste start" starts. What is said here of a command, of limits and of all else is what it starts with, each time.`,
		Options:  recorded(append(createOptions(&w), replaceOption(&replace)...), &asked),
		Examples: []string{"kiste start -ai $(kiste create -it debian)"},
		Complete: "image",
		Run: func(ctx context.Context, env *Env, args []string) error {
			w.Args, w.StdinOnce = args[1:], w.Interactive
			err := create(ctx, env, args[0], w, asked, replace)
			if err != nil && fault.KindOf(err) != fault.Invalid {
				return WithCode(1, err) // as Docker's, which has 125 for what it cannot understand
			}
			return exitAs125(err)
		},
	}
}

func create(ctx context.Context, env *Env, image string, w bundle.Wishes, asked []string, replace bool) error {
	if err := check(env, w, runChoices{Detach: true}); err != nil {
		return err
	}
	e, err := openEngine(false)
	if err != nil {
		return err
	}
	o := makeOptions(env, image, w)
	o.Asked = asked
	if err := makeRoom(e, &o.Wishes, replace); err != nil {
		return err
	}
	c, err := e.Create(ctx, o)
	if err == nil {
		fmt.Fprintln(env.Out, c.ID)
	}
	return err
}

type startChoices struct {
	attach, interactive bool
	boot                bool
	keys                []byte
	noProxy             bool
	service             serviceChoices
}

func startCommand() *Command {
	var o startChoices
	return &Command{
		Name: "start", Args: "CONTAINER...", Min: 0, Max: -1,
		Short: "start containers that do not run",
		Long:  `With --attach it stays, shows the output, and ends with the container's exit code. A container that runs already stays as it is.`,
		Options: append([]option.Row{
			{"-a, --attach", "", "show its output and pass signals on", option.Bool(&o.attach)},
			{"-i, --interactive", "", "pass on what is typed", option.Bool(&o.interactive)},
			{"--boot", "", "start those that their restart policies want after a boot of the host", option.Bool(&o.boot)},
			{"--detach-keys", "KEYS", "typed in a row, they detach (ctrl-p,ctrl-q)", into(&o.keys, terminal.ParseDetachKeys)},
			{"--sig-proxy", "", "pass signals on to it (--sig-proxy=false: do not)", not(&o.noProxy)},
		}, serviceOptions(&o.service)...),
		Examples: []string{"kiste start web", "kiste start -ai shell"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			if err := bootOrNames("start", o.boot, args); err != nil {
				return err
			}
			if o.boot {
				return atBoot(env, (*engine.Engine).StartAtBoot)
			}
			if !o.attach && !o.interactive {
				return eachPrinted(env, args, func(e *engine.Engine, name string) error {
					s, err := startInUnit(e, name, engine.StartOptions{Warn: env.note}, &o.service)
					if err == nil {
						err = o.service.started(e, s, true)
					}
					return startFailed(err)
				})
			}
			if len(args) > 1 {
				return &fault.Error{Op: "start", Kind: fault.Invalid, Err: fmt.Errorf("you cannot start and attach multiple containers at once")}
			}
			return startFailed(startAttached(env, args[0], o))
		},
	}
}

// bootOrNames refuses a verb that is told both, or neither.
func bootOrNames(verb string, boot bool, names []string) error {
	switch {
	case boot && len(names) > 0:
		return &fault.Error{Op: verb, Kind: fault.Invalid, Err: errors.New("--boot names the containers itself")}
	case !boot && len(names) == 0:
		return &fault.Error{Op: "take arguments", Kind: fault.Invalid, Err: errors.New("it wants CONTAINER... and got none"), Hint: `"kiste help ` + verb + `" shows its usage`}
	}
	return nil
}

// atBoot does something for containers that it finds itself, and tells their names.
func atBoot(env *Env, do func(*engine.Engine) ([]string, error)) error {
	e, err := lookIntoStore()
	if err != nil {
		return err
	}
	names, err := do(e)
	for _, name := range names {
		fmt.Fprintln(env.Out, name)
	}
	return err
}

// startFailed has the exit code of "kiste start": the kind of the error decides,
// as everywhere but in run.
func startFailed(err error) error {
	if start, ok := err.(*engine.StartError); ok {
		return WithCode(1, start.Err)
	}
	return err
}

func startAttached(env *Env, name string, o startChoices) error {
	e, err := lookIntoStore()
	if err != nil {
		return err
	}
	c, err := e.Find(name)
	if err != nil {
		return err
	}
	v := visitOf(env, e, &c.Wishes)
	v.input, v.proxy = v.input && o.interactive, !o.noProxy && !c.Wishes.TTY
	if o.keys != nil {
		v.keys = o.keys
	}
	var signals *sys.Relay
	if v.proxy {
		signals = terminal.CatchSignals()
	}
	start := engine.StartOptions{Attach: true, Warn: env.note}
	if v.tty {
		start.Rows, start.Columns = env.user().Size()
	}
	s, err := startInUnit(e, c.ID, start, &o.service)
	if err != nil {
		return err
	}
	o.service.tell(env, e, s)
	return v.stay(s, signals)
}

func attachCommand() *Command {
	var noInput, noProxy bool
	var keys []byte
	return &Command{
		Name: "attach", Args: "CONTAINER", Min: 1, Max: 1,
		Short: "attach to a container that runs",
		Long:  `Shows what it says from now on, passes on what is typed, and ends with its exit code. A container with a terminal is left with the detach keys and goes on.`,
		Options: []option.Row{
			{"--detach-keys", "KEYS", "typed in a row, they detach (ctrl-p,ctrl-q)", into(&keys, terminal.ParseDetachKeys)},
			{"--no-stdin", "", "do not pass on what is typed", option.Bool(&noInput)},
			{"--sig-proxy", "", "pass signals on to it (--sig-proxy=false: do not)", not(&noProxy)},
		},
		Examples: []string{"kiste attach shell"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			e, err := lookIntoStore()
			if err != nil {
				return err
			}
			s, err := e.Attach(args[0])
			if err != nil {
				return err
			}
			v := visitOf(env, e, &s.Wishes)
			if v.input = v.input && !noInput; v.input && v.tty {
				if err := env.user().Check(true, true); err != nil {
					s.Attachment.Close()
					return err
				}
			}
			if keys != nil {
				v.keys = keys
			}
			var signals *sys.Relay
			if !noProxy && !v.tty {
				signals = terminal.CatchSignals()
			}
			return v.stay(s, signals)
		},
	}
}
