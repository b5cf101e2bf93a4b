package process

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"kiste/container/plan"
	"kiste/internal/sys"
)

// A clock is where the child of a traced start writes the time after each of
// its steps: memory that it shares with its parent.
type clock struct {
	shared []byte // a struct timespec for each of the plan's steps
	now    func() time.Duration
}

const timespec = 16 // sizeof(struct timespec)

func newClock(steps int) (*clock, error) {
	shared, err := sys.Shared(steps * timespec)
	if err != nil {
		return nil, err
	}
	return &clock{shared: shared, now: sys.Monotonic}, nil
}

// stamp is the call with which the child writes the time for a step.
func (c *clock) stamp(step int) sys.ChildCall {
	return sys.ChildCall{Nr: unix.SYS_CLOCK_GETTIME, Args: [6]sys.ChildArg{sys.Number(unix.CLOCK_MONOTONIC), {Bytes: c.shared[step*timespec:]}}, OnErr: sys.Ignore}
}

func (c *clock) read(step int) time.Duration {
	b := c.shared[step*timespec:]
	return time.Duration(binary.NativeEndian.Uint64(b))*time.Second + time.Duration(binary.NativeEndian.Uint64(b[8:]))
}

// report tells of the child's steps; the last one ended when the child became
// its program, which is now.
func (c *clock) report(p *plan.Plan, born time.Duration, trace func(plan.Step, time.Duration)) {
	before := born
	for i, s := range p.Steps {
		if s.Side != plan.Child {
			continue
		}
		at := c.read(i)
		if at == 0 {
			at = c.now()
		}
		trace(s, at-before)
		before = at
	}
	sys.Unshared(c.shared)
}
