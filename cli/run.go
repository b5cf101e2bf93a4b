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
	if err := env.user().Check(w.Interactive, w.TTY); err != nil && c.Plan == "" {
		return err
	}
	e, err := openEngine(c.Plan != "")
	if err != nil {
		return err
	}
	var rows, columns uint16
	if w.TTY {
		rows, columns = env.user().Size()
	}
	p, err := e.Prepare(ctx, engine.RunOptions{
		Image: image, Wishes: w, DryRun: c.Plan != "", Rows: rows, Columns: columns,
		Pull: func(ctx context.Context, image string, quiet bool) error {
			return pullFirst(ctx, env, image, w.Platform, quiet)
		},
		Warn: func(s string) { fmt.Fprintln(env.Err, "kiste: note: "+s) },
	})
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

// openEngine opens the store; to print a plan it need not be there.
func openEngine(dry bool) (*engine.Engine, error) {
	s := store.Locate()
	if dry {
		return &engine.Engine{Store: s}, nil
	}
	return engine.Open(s)
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
	streams, err := openStreams(env, p.Wishes.Interactive, p.Wishes.TTY)
	if err != nil {
		p.Discard()
		return err
	}
	o := process.Options{Files: streams.files}
	if trace {
		o.Trace = func(s plan.Step, took time.Duration) {
			fmt.Fprintf(env.Err, "%10s  %-7s %s\n", took.Round(time.Microsecond), s.Side, s.Text)
		}
	}
	proc, err := p.Start(o)
	streams.started()
	if err != nil {
		streams.close()
		p.Discard()
		return err
	}
	if !p.Wishes.NoSigProxy {
		terminal.ForwardSignals(proc.Signal)
	}
	if err := streams.attend(env, proc, p.Wishes.DetachKeys); err != nil {
		proc.Signal(syscall.SIGKILL)
	}
	status, err := proc.Wait()
	if err != nil {
		return err
	}
	code := exitOf(status)
	if err := p.Finish(proc, code); err != nil {
		return err
	}
	if code == 0 {
		return nil
	}
	return &ExitError{code}
}

func exitOf(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// streams are what lies between the user's descriptors and the container's. A
// container gets pipes of its own, never the user's terminal or files: its
// root could not open those again through /dev/stdout, and may not have them.
type streams struct {
	files [3]*os.File // the container's ends; nil where there is a terminal
	ours  [3]*os.File
	input bool
	tty   bool
}

func openStreams(env *Env, interactive, tty bool) (*streams, error) {
	s := &streams{input: interactive, tty: tty}
	if tty {
		return s, nil
	}
	var err error
	switch {
	case !interactive:
		s.files[0], err = os.Open(os.DevNull)
	case !sys.IsTerminal(env.In):
		s.files[0] = env.In
	default:
		s.files[0], s.ours[0], err = sys.Pipe()
	}
	for i := 1; i <= 2 && err == nil; i++ {
		s.ours[i], s.files[i], err = sys.Pipe()
		if err == nil {
			// Any user of the container may open /dev/stdout again.
			err = s.files[i].Chmod(0o666)
		}
	}
	if err != nil {
		s.close()
		return nil, &fault.Error{Op: "make pipes", Err: err}
	}
	return s, nil
}

// started closes the container's ends, which it has by now.
func (s *streams) started() {
	for i, f := range s.files {
		if f != nil && (i > 0 || f != os.Stdin) {
			f.Close()
		}
	}
}

func (s *streams) close() {
	for _, f := range s.ours {
		if f != nil {
			f.Close()
		}
	}
}

// attend copies until the container has ended, and all its output is written.
func (s *streams) attend(env *Env, proc *process.Process, keys []byte) error {
	defer s.close()
	if s.tty {
		detached, err := terminal.NewConsole(env.user(), proc.Console, s.input, keys).Run()
		if detached {
			fmt.Fprintln(env.Err, "\nkiste: note: detached from its terminal; it ends when this kiste does")
		}
		return err
	}
	if s.ours[0] != nil {
		go func() {
			io.Copy(s.ours[0], env.In)
			s.ours[0].Close()
		}()
	}
	return s.pump(env, proc.PidFD())
}

// pump copies both outputs in one thread, which costs a short container less
// than two goroutines and the runtime's poller. When the process has ended,
// what is still in the pipes is copied, and nothing is waited for.
func (s *streams) pump(env *Env, pidfd int) error {
	from := []int{int(s.ours[1].Fd()), int(s.ours[2].Fd()), pidfd}
	to := []io.Writer{env.Out, env.Err}
	buffer := make([]byte, 64<<10)
	for {
		ended := from[2] < 0
		ready, err := sys.Poll(!ended, from...)
		if err != nil {
			return err
		}
		idle := true
		for i := range to {
			if !ready[i] {
				continue
			}
			idle = false
			n, err := s.ours[i+1].Read(buffer)
			if n > 0 {
				_, err = to[i].Write(buffer[:n])
			}
			if err != nil {
				// The end; or nobody reads any more, which the
				// container learns when it writes again.
				s.ours[i+1].Close()
				from[i] = -1
			}
		}
		switch {
		case ready[2]:
			from[2] = -1
		case ended && idle:
			return nil
		}
	}
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
