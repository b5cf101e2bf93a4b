package cli

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"kiste/cli/option"
	"kiste/container/bundle"
	"kiste/engine"
	"kiste/fault"
)

// eachName does the same for every name. One that fails does not keep the others
// from it.
func eachName(names []string, do func(e *engine.Engine, name string) error) error {
	e, err := lookIntoStore()
	if err != nil {
		return err
	}
	var all []error
	for _, name := range names {
		if err := do(e, name); err != nil {
			all = append(all, err)
		}
	}
	return together(all)
}

// eachPrinted is eachName that prints the names for which it was done.
func eachPrinted(env *Env, args []string, do func(e *engine.Engine, name string) error) error {
	return eachName(args, func(e *engine.Engine, name string) error {
		err := do(e, name)
		if err == nil {
			fmt.Fprintln(env.Out, name)
		}
		return err
	})
}

// eachRemoved is eachPrinted of a removal. With force one that is not there is no
// error.
func eachRemoved(env *Env, args []string, force bool, remove func(e *engine.Engine, name string) error) error {
	return eachPrinted(env, args, func(e *engine.Engine, name string) error {
		err := remove(e, name)
		if force && fault.KindOf(err) == fault.NotFound {
			return nil
		}
		return err
	})
}

func stopOptions(o *engine.StopOptions) []option.Row {
	return []option.Row{
		{"-s, --signal", "SIGNAL", "in place of its own stop signal", signalVar(&o.Signal)},
		{"-t, --timeout, --time", "SECONDS", "until it is killed (10, or what it was made with); -1: never", patienceVar(&o.Timeout)},
	}
}

func signalVar(p *syscall.Signal) option.Var {
	return func(s string) error {
		n, err := bundle.SignalNumber(s)
		*p = syscall.Signal(n)
		return err
	}
}

func patienceVar(p **time.Duration) option.Var {
	return func(s string) error {
		n, err := strconv.Atoi(s)
		d := time.Duration(n) * time.Second
		*p = &d
		return err
	}
}

func stopCommand() *Command {
	var o engine.StopOptions
	var boot bool
	return &Command{
		Name: "stop", Args: "CONTAINER...", Min: 0, Max: -1,
		Short:    "end containers politely",
		Long:     `Sends each its stop signal (SIGTERM, if neither the image nor --stop-signal says another), and SIGKILL if that does not end it in time. Its restart policy leaves it stopped.`,
		Options:  append(stopOptions(&o), option.Row{"--boot", "", `stop all for the host to go down: "kiste start --boot" brings back what policies want`, option.Bool(&boot)}),
		Examples: []string{"kiste stop web", "kiste stop -t 1 web db"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			if err := bootOrNames("stop", boot, args); err != nil {
				return err
			}
			if boot {
				return atBoot(env, func(e *engine.Engine) ([]string, error) { return e.StopForBoot(o) })
			}
			return eachPrinted(env, args, func(e *engine.Engine, name string) error { return e.Stop(name, o) })
		},
	}
}

func restartCommand() *Command {
	var o engine.StopOptions
	return &Command{
		Name: "restart", Args: "CONTAINER...", Min: 1, Max: -1,
		Short:    "stop containers and start them again",
		Options:  stopOptions(&o),
		Examples: []string{"kiste restart web"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			return eachPrinted(env, args, func(e *engine.Engine, name string) error { return startFailed(e.Restart(name, o)) })
		},
	}
}

func killCommand() *Command {
	signal := syscall.SIGKILL
	return &Command{
		Name: "kill", Args: "CONTAINER...", Min: 1, Max: -1,
		Short:    "send a signal to containers",
		Options:  []option.Row{{"-s, --signal", "SIGNAL", "in place of SIGKILL", signalVar(&signal)}},
		Examples: []string{"kiste kill web", "kiste kill -s HUP web"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			return eachPrinted(env, args, func(e *engine.Engine, name string) error { return e.Kill(name, signal) })
		},
	}
}

func pauseCommand() *Command {
	return &Command{
		Name: "pause", Args: "CONTAINER...", Min: 1, Max: -1,
		Short:    "stop all processes of containers where they are",
		Examples: []string{"kiste pause web"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			return eachPrinted(env, args, (*engine.Engine).Pause)
		},
	}
}

func unpauseCommand() *Command {
	return &Command{
		Name: "unpause", Args: "CONTAINER...", Min: 1, Max: -1,
		Short:    "let the processes of paused containers go on",
		Examples: []string{"kiste unpause web"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			return eachPrinted(env, args, (*engine.Engine).Unpause)
		},
	}
}

func waitCommand() *Command {
	return &Command{
		Name: "wait", Args: "CONTAINER...", Min: 1, Max: -1,
		Short:    "wait until containers have ended, and print their exit codes",
		Examples: []string{"kiste wait job"},
		Complete: "container",
		Run: func(_ context.Context, env *Env, args []string) error {
			return eachName(args, func(e *engine.Engine, name string) error {
				code, err := e.Wait(name, false)
				if err == nil {
					fmt.Fprintln(env.Out, code)
				}
				return err
			})
		},
	}
}

func renameCommand() *Command {
	return &Command{
		Name: "rename", Args: "CONTAINER NEW-NAME", Min: 2, Max: 2,
		Short:    "give a container another name",
		Examples: []string{"kiste rename brave_barrel web"},
		Complete: "container",
		Run: func(_ context.Context, _ *Env, args []string) error {
			e, err := lookIntoStore()
			if err == nil {
				err = bundle.CheckName(args[1])
			}
			if err != nil {
				return err
			}
			return e.Rename(args[0], args[1])
		},
	}
}

// monitorCommand becomes the monitor: for its guard, and nobody else.
func monitorCommand() *Command {
	return &Command{
		Name: engine.MonitorCommand, Short: "keep the containers of a store", Hidden: true,
		Run: func(context.Context, *Env, []string) error {
			e, err := openEngine(false)
			if err != nil {
				return err
			}
			return e.Monitor()
		},
	}
}

// resolverCommand becomes the resolver: for the monitor, and nobody else.
func resolverCommand() *Command {
	return &Command{Name: engine.Resolver.Command, Short: "answer for the names of containers", Hidden: true, Heavy: engine.Resolver.Command}
}

// proxyCommand becomes the proxy, likewise.
func proxyCommand() *Command {
	return &Command{Name: engine.Proxy.Command, Short: "copy to and from ports of containers", Hidden: true, Heavy: engine.Proxy.Command}
}

// compressCommand and the one below are what the monitor has kisted do with
// logs that are full, and what "kiste logs" reads them by.
func compressCommand() *Command {
	return &Command{Name: engine.CompressCommand, Short: "compress standard input", Hidden: true, Heavy: "compress"}
}

func decompressCommand() *Command {
	return &Command{Name: engine.DecompressCommand, Short: "decompress standard input", Hidden: true, Heavy: "decompress"}
}

// connectCommand connects with a syslog server: for the monitor.
func connectCommand() *Command {
	return &Command{Name: engine.ConnectCommand, Args: "NETWORK ADDRESS", Min: 2, Max: 2, Short: "connect with a server", Hidden: true, Heavy: engine.ConnectCommand}
}
