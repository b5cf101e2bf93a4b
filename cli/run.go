package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"kiste/container/bundle"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/engine"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

func runCommand() *Command {
	var w bundle.Wishes
	var c runChoices
	return &Command{
		Name: "run", Args: "IMAGE [COMMAND [ARG...]]", Min: 1, Max: -1, Rest: true,
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
	if err := checkTerminal(env, w.Interactive, w.TTY); err != nil && c.Plan == "" {
		return err
	}
	e, err := openEngine(c.Plan != "")
	if err != nil {
		return err
	}
	p, err := e.Prepare(ctx, engine.RunOptions{
		Image: image, Wishes: w, DryRun: c.Plan != "",
		Pull: func(ctx context.Context, image string) error { return pullFirst(ctx, env, image, w.Platform) },
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
func pullFirst(ctx context.Context, env *Env, image, platform string) error {
	path, err := Kisted()
	if err != nil {
		return err
	}
	args := []string{"pull", "--status"}
	if platform != "" {
		args = append(args, "--platform", platform)
	}
	cmd := exec.CommandContext(ctx, path, append(args, image)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, env.Stderr, env.Stderr
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
		defer forwardSignals(proc.Signal)()
	}
	stop := context.AfterFunc(ctx, func() { proc.Signal(syscall.SIGTERM) })
	defer stop()
	finish := streams.attend(env, proc.Console, p.Wishes.DetachKeys)
	status, err := proc.Wait()
	proc.Gone()
	finish()
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
	if interactive && !sys.IsTerminal(env.In) {
		s.files[0] = env.In
	} else if interactive {
		s.files[0], s.ours[0], err = os.Pipe()
	} else {
		s.files[0], err = os.Open(os.DevNull)
	}
	for i := 1; i <= 2 && err == nil; i++ {
		s.ours[i], s.files[i], err = os.Pipe()
		if err == nil {
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

// attend copies until the container has ended; finish waits for the last of
// its output.
func (s *streams) attend(env *Env, master *os.File, keys []byte) (finish func()) {
	if s.tty {
		done := make(chan struct{})
		go func() {
			defer close(done)
			newConsole(env, master, s.input, keys).run()
		}()
		return func() { <-done }
	}
	if s.ours[0] != nil {
		go func() {
			io.Copy(s.ours[0], env.In)
			s.ours[0].Close()
		}()
	}
	var wg sync.WaitGroup
	for i, to := range map[int]io.Writer{1: env.Out, 2: env.Err} {
		wg.Go(func() {
			if _, err := io.Copy(to, s.ours[i]); err != nil {
				// Nobody reads any more: so shall the container learn it.
				s.ours[i].Close()
			}
		})
	}
	return func() { wg.Wait(); s.close() }
}

func helloCommand() *Command {
	return &Command{
		Name: "hello", Short: "tell what this process sees: the command of embedded:hello",
		Run: func(_ context.Context, env *Env, _ []string) error {
			name, _ := os.Hostname()
			maps, _ := os.ReadFile("/proc/self/uid_map")
			fmt.Fprintf(env.Out, "Hello from a container!\n\n"+
				"  I am process %d, user %d, on a host named %s.\n"+
				"  My users on the real host are %s.\n\n"+
				"Kiste made me by a plan that you can read:\n\n  kiste run --plan embedded:hello\n",
				os.Getpid(), os.Getuid(), name, wordsOfMap(string(maps)))
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
