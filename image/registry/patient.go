package registry

import (
	"context"
	"errors"
	"io"
	"time"
)

// slowest is how many bytes must come while Options.Stall is waited for.
const slowest = 4 << 10

var errStalled = errors.New("nothing came any more")

// A patient reader gives up a body from which nothing, or next to nothing,
// comes while it is waited for. Time that the consumer takes does not count.
type patient struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	limit  time.Duration

	timer  *time.Timer
	waited time.Duration
	got    int64
}

func (p *patient) Read(b []byte) (int, error) {
	if p.timer == nil {
		p.timer = time.AfterFunc(p.limit, func() { p.cancel(errStalled) })
	} else {
		p.timer.Reset(p.limit)
	}
	start := time.Now()
	n, err := p.ReadCloser.Read(b)
	p.timer.Stop()
	p.waited += time.Since(start)
	p.got += int64(n)
	if p.waited > p.limit {
		if p.got < slowest {
			p.cancel(errStalled)
			return n, errStalled
		}
		p.waited, p.got = 0, 0
	}
	if err != nil && err != io.EOF && p.ctx.Err() != nil {
		err = context.Cause(p.ctx)
	}
	return n, err
}

func (p *patient) Close() error {
	if p.timer != nil {
		p.timer.Stop()
	}
	err := p.ReadCloser.Close()
	p.cancel(nil)
	return err
}
