package cli

import (
	"context"
	"errors"
	"time"

	"kiste/kernel/cgroup"
)

// cgroupPatience bounds how long freeze, thaw and kill wait for the kernel.
const cgroupPatience = 10 * time.Second

func cgroupFreezeCommand() *Command {
	return cgroupVerb("cgroup freeze", "stop all processes of a group until it is thawed",
		"Returns when all of them stand still. They do not notice.",
		func(ctx context.Context, g *cgroup.Group) error { return g.Freeze(ctx) })
}

func cgroupThawCommand() *Command {
	return cgroupVerb("cgroup thaw", "let the processes of a frozen group go on", "",
		func(ctx context.Context, g *cgroup.Group) error { return g.Thaw(ctx) })
}

func cgroupKillCommand() *Command {
	return cgroupVerb("cgroup kill", "kill all processes of a group",
		"Sends SIGKILL to every process in the group and in the groups below it, those that fork meanwhile included, and returns when they have ended. The group itself stays.",
		func(ctx context.Context, g *cgroup.Group) error {
			if err := g.Kill(ctx); err != nil {
				return err
			}
			return g.Wait(ctx)
		})
}

func cgroupRemoveCommand() *Command {
	return cgroupVerb("cgroup remove", "remove an empty group",
		"Removes the group and those below it. A group with processes is refused; kill it first.",
		func(ctx context.Context, g *cgroup.Group) error {
			if pids, err := g.Procs(); err != nil || len(pids) > 0 {
				ended, cancel := context.WithCancel(ctx)
				cancel() // no waiting: the error names a process
				return errors.Join(err, g.Remove(ended))
			}
			if err := g.Remove(ctx); err != nil {
				return err
			}
			return sweepRates()
		})
}

// cgroupVerb is a command that does one thing to each group that is named.
func cgroupVerb(name, short, long string, do func(context.Context, *cgroup.Group) error) *Command {
	return &Command{
		Name:  name,
		Args:  "NAME|PID...",
		Short: short,
		Long:  long,
		Min:   1, Max: -1,
		Run: func(ctx context.Context, _ *Env, args []string) error {
			ctx, cancel := context.WithTimeout(ctx, cgroupPatience)
			defer cancel()
			for _, word := range args {
				g, err := groupOf(word)
				if err == nil {
					err = do(ctx, g)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}
