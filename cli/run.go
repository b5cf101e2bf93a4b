package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"kiste/cli/terminal"
	"kiste/container/bundle"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/engine"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/store"
)

func runCommand() *Command {
	var w bundle.Wishes
	var c runChoices
	return &Command{
		Name: "run", Args: "IMAGE [COMMAND [ARG...]]", Min: 1, Max: -1, Rest: true, Misused: 125,
		Short: "run a command in a new container",
		Long: `IMAGE is a name as Docker has it, or TRANSPORT:PATH: oci:DIR[:TAG],
oci-archive:FILE, docker-archive:FILE, dir:DIR, rootfs:PATH (a directory is
used in place, under an overlay), embedded:hello. An image that is not here is
pulled.

The exit code is the command's own; 128 and the number of the signal that ended
it; 125 when kiste failed, 126 when the command cannot be executed, 127 when it
is not there.

--plan prints what would be asked of the kernel, and does nothing.`,
		Options:  runOptions(&w, &c),
		Complete: "image",
		Run: func(ctx context.Context, env *Env, args []string) error {
			w.Args = args[1:]
			return exitAs125(run(ctx, env, args[0], w, c))
		},
	}
}

// exitAs125 gives what kiste itself failed at Docker's exit code.
func exitAs125(err error) error {
	var own *ExitError
	var start *engine.StartError
	switch {
	case err == nil || errors.As(err, &own):
		return err
	case errors.As(err, &start):
		return WithCode(start.Code, start.Err)
	}
	return WithCode(125, err)
}

func run(ctx context.Context, env *Env, image string, w bundle.Wishes, c runChoices) error {
	if err := check(env, w, c); err != nil {
		return err
	}
	e, err := openEngine(c.Plan != "")
	if err != nil {
		return err
	}
	o := makeOptions(env, image, w)
	o.DryRun, o.Lasting = c.Plan != "", c.lasts(w)
	if o.Lasting && !o.DryRun {
		return runLasting(ctx, env, e, o, c)
	}
	cgroup.Hold()
	p, err := e.Prepare(ctx, o)
	if err != nil {
		return err
	}
	switch c.Plan {
	case "steps":
		_, err = io.WriteString(env.Out, p.Plan.String())
		return err
	case "calls":
		_, err = io.WriteString(env.Out, p.Plan.Calls())
		return err
	}
	return carryOut(ctx, env, p, c.Trace)
}

// check refuses what cannot go together.
func check(env *Env, w bundle.Wishes, c runChoices) error {
	bad := func(err string) error {
		return &fault.Error{Op: "run", Kind: fault.Invalid, Err: errors.New(err)}
	}
	switch {
	case w.Restart.Set() && w.Remove:
		return bad("conflicting options: cannot specify both --restart and --rm")
	case c.Detach && len(c.Attach) > 0:
		return bad("conflicting options: cannot specify both --attach and --detach")
	case c.Plan != "" || c.Detach:
		return nil
	}
	return env.user().Check(w.Interactive, w.TTY)
}

// lasts reports whether the container is to be kept by the monitor. One that
// nobody can leave or come back to has this process alone, which costs less, as
// has one whose steps are to be shown.
func (c runChoices) lasts(w bundle.Wishes) bool {
	if c.Trace {
		return false
	}
	return c.Detach || w.TTY || c.service.given() || w.System(bundle.ImageConfig{}) || !w.Remove || len(c.Attach) > 0 || w.Kept()
}

// makeOptions are those of a container that is made for the user.
func makeOptions(env *Env, image string, w bundle.Wishes) engine.RunOptions {
	o := engine.RunOptions{
		Image: image, Wishes: w,
		Pull: func(ctx context.Context, image string, quiet bool) error {
			return pullFirst(ctx, env, image, w.Platform, quiet || w.PullQuietly)
		},
		Warn: env.note,
	}
	if w.TTY {
		o.Rows, o.Columns = env.user().Size()
	}
	return o
}

// note tells the user something that is no error.
func (e *Env) note(s string) { fmt.Fprintln(e.Err, "kiste: note: "+s) }

// openEngine opens the store; to print a plan it need not be there.
func openEngine(dry bool) (*engine.Engine, error) {
	s := store.Locate()
	if dry {
		return engineOn(s), nil
	}
	return engineOn(s), s.Open()
}

// engineOn is the engine with the programs that belong to this one.
func engineOn(s store.Store) *engine.Engine {
	sys.SlowMonitor() // nothing of what follows keeps a processor busy
	return &engine.Engine{Store: s, Kisted: Kisted}
}

// pullFirst lets kisted pull the image.
func pullFirst(ctx context.Context, env *Env, image, platform string, quiet bool) error {
	path, err := Kisted()
	if err != nil {
		return err
	}
	args := []string{"pull"}
	if platform != "" {
		args = append(args, "--platform", platform)
	}
	if quiet {
		args = append(args, "--quiet")
	}
	cmd := exec.CommandContext(ctx, path, append(args, image)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = env.Stderr
	if !quiet {
		cmd.Stdout = env.Stderr
	}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return &ExitError{125} // it has said why
	case err != nil:
		return &fault.Error{Op: "start", On: path, Err: err, Hint: "kisted belongs beside kiste: install both"}
	}
	return nil
}

// carryOut starts p, stays with it, and ends as it does.
func carryOut(ctx context.Context, env *Env, p *engine.Prepared, trace bool) error {
	pipes, err := openPipes(env, p.Wishes, p.Pipe())
	if err != nil {
		p.Discard()
		return err
	}
	o := process.Options{Files: pipes.Files}
	if trace {
		o.Trace = func(s plan.Step, took time.Duration) {
			fmt.Fprintf(env.Err, "%10s  %-7s %s\n", took.Round(time.Microsecond), s.Side, s.Text)
		}
	}
	var signals *sys.Relay
	if !p.Wishes.NoSigProxy {
		signals = terminal.CatchSignals()
	}
	proc, err := p.Start(o)
	pipes.Started()
	if err != nil {
		pipes.Close()
		p.Discard()
		return err
	}
	if signals != nil {
		signals.To(proc.PidFD())
	}
	if err := attend(env, proc, p.Wishes, pipes); err != nil {
		proc.Signal(syscall.SIGKILL)
	}
	status, err := proc.Wait()
	if err != nil {
		return err
	}
	if signals != nil {
		signals.To(-1)
	}
	if err := p.Finish(proc, status); err != nil {
		return err
	}
	return exit(sys.ExitCode(status))
}

// exit is the error that makes kiste end with code.
func exit(code int) error {
	if code == 0 {
		return nil
	}
	return &ExitError{code}
}

// openPipes gives a container without a terminal pipes of its own. Where the
// user wants to type (-i) and has no terminal, it gets what he has.
func openPipes(env *Env, w bundle.Wishes, pipe engine.PipeFunc) (*terminal.Pipes, error) {
	want := [3]terminal.Stream{terminal.Null, terminal.Own, terminal.Own}
	switch {
	case w.TTY:
		return &terminal.Pipes{}, nil
	case w.Interactive && sys.IsTerminal(env.In):
		want[0] = terminal.Own
	case w.Interactive:
		want[0] = terminal.Same
	}
	return terminal.OpenPipes(env.user(), want, pipe)
}

// attend copies until the container has ended, and all its output is written.
func attend(env *Env, proc *process.Process, w bundle.Wishes, pipes *terminal.Pipes) error {
	if !w.TTY {
		return pipes.Attend(proc.PidFD())
	}
	noKeys := []byte{} // nobody else would keep it
	_, err := terminal.NewConsole(env.user(), terminal.Master{File: proc.Console, Ended: -1}, w.Interactive, noKeys).Run()
	return err
}

func helloCommand() *Command {
	return &Command{
		Name: "hello", Short: "tell what this process sees: the command of embedded:hello",
		Run: func(_ context.Context, env *Env, _ []string) error {
			name, _ := os.Hostname()
			fmt.Fprintf(env.Out, "Hello from a container!\n\n"+
				"  I am process %d, user %d, on a host named %s.\n"+
				"  My users on the real host are %s.\n\n"+
				"Kiste made me by a plan that you can read:\n\n  kiste run --plan embedded:hello\n",
				os.Getpid(), os.Getuid(), name, wordsOfMap(host.UserMap()))
			return nil
		},
	}
}

// wordsOfMap says where root of a user namespace is outside.
func wordsOfMap(text string) string {
	f := strings.Fields(text)
	switch {
	case len(f) < 3:
		return "not to be seen"
	case f[0] == f[1]:
		return "the same as here: there is no user namespace"
	}
	return "others: root here is user " + f[1] + " there"
}
