package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"kiste/cli/option"
	"kiste/cli/terminal"
	"kiste/container/bundle"
	"kiste/engine"
	"kiste/internal/sys"
)

// execChoices are what "kiste exec" is told.
type execChoices struct {
	w          bundle.Wishes // interactive, terminal, detach keys, env
	detach     bool
	privileged bool
}

func execCommand() *Command {
	var c execChoices
	return &Command{
		Name: "exec", Args: "CONTAINER COMMAND [ARG...]", Min: 2, Max: -1, Rest: true,
		Short: "run one more command in a container that runs",
		Long: `It is in the container's namespaces and cgroup, behind its filter of system
calls, with its environment and directory. Signals are passed on. The exit code
is the command's own; 126 when it cannot be executed, 127 when it is not there.`,
		Options: []option.Row{
			{"-i, --interactive", "", "keep stdin open", option.Bool(&c.w.Interactive)},
			{"-t, --tty", "", "give it a terminal", option.Bool(&c.w.TTY)},
			{"-d, --detach", "", "leave it behind", option.Bool(&c.detach)},
			{"--detach-keys", "KEYS", "typed in a row, they detach (ctrl-p,ctrl-q)", into(&c.w.DetachKeys, terminal.ParseDetachKeys)},
			{"-e, --env", "KEY[=VALUE]", "set a variable; a bare KEY takes this environment's", envVar(&c.w)},
			{"--env-file", "FILE", "read variables from a file", envFileVar(&c.w)},
			{"-w, --workdir", "DIR", "start in DIR", option.String(&c.w.Workdir)},
			{"-u, --user", "USER[:GROUP]", "by name or number", option.String(&c.w.User)},
			{"--privileged", "", "give it all capabilities", option.Bool(&c.privileged)},
		},
		Examples: []string{"kiste exec -it web sh", "kiste exec -u 0 -e A=b web env"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			err := execIn(env, args[0], args[1:], c)
			if start, ok := err.(*engine.StartError); ok {
				return WithCode(start.Code, start.Err)
			}
			return err
		},
	}
}

func execIn(env *Env, name string, args []string, c execChoices) error {
	if c.detach {
		c.w.Interactive = false
	}
	if !c.detach {
		if err := env.user().Check(c.w.Interactive, c.w.TTY); err != nil {
			return err
		}
	}
	e, err := lookIntoStore()
	if err != nil {
		return err
	}
	o := engine.ExecOptions{Args: args, Env: c.w.Env, Workdir: c.w.Workdir, User: c.w.User, Privileged: c.privileged, TTY: c.w.TTY, Warn: env.note}
	if c.w.TTY {
		o.Rows, o.Columns = env.user().Size()
	}
	if c.detach {
		return e.ExecDetached(name, o)
	}
	pipes, err := openPipes(env, c.w, e.PipeOf(name))
	if err != nil {
		return err
	}
	o.Files = pipes.Files
	signals := terminal.CatchSignals()
	x, err := e.Exec(name, o)
	pipes.Started()
	if err != nil {
		pipes.Close()
		return err
	}
	signals.To(x.PidFD())
	left, err := stayWith(env, x, c.w, pipes)
	if left || err != nil {
		return err
	}
	status, err := x.Wait()
	if err != nil {
		return err
	}
	signals.To(-1)
	return exit(sys.ExitCode(status))
}

// stayWith copies until the command has ended or the user leaves it.
func stayWith(env *Env, x *engine.Exec, w bundle.Wishes, pipes *terminal.Pipes) (left bool, err error) {
	if !w.TTY {
		return false, pipes.Attend(x.PidFD())
	}
	side := terminal.Master{File: x.Console, Ended: x.PidFD()}
	left, err = terminal.NewConsole(env.user(), side, w.Interactive, w.DetachKeys).Run()
	if left {
		fmt.Fprintln(env.Err, "read escape sequence")
		err = x.Leave()
	}
	return left, err
}

// holdCommand holds the terminal of a command that was left behind, until that
// has hung up.
func holdCommand() *Command {
	return &Command{
		Name: engine.HoldCommand, Short: "hold a terminal", Hidden: true,
		Run: func(context.Context, *Env, []string) error {
			_, _ = io.Copy(io.Discard, os.Stdin)
			return nil
		},
	}
}
