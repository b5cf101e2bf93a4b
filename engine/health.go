package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"kiste/container/bundle"
	"kiste/container/monitor"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/internal/sys"
)

// Of a health check, as Docker has them.
const (
	maxProbes = 5
	maxOutput = 4096 // bytes
)

// probe asks the container once whether it is well. Ok is false where it could
// not be asked: it is paused, or has ended.
func (e *Engine) probe(id string, h bundle.Healthcheck, shell []string) (p inspect.Probe, ok bool) {
	p.Start = time.Now()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return p, false
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return p, false
	}
	defer r.Close()
	x, err := e.Exec(id, ExecOptions{Args: h.Command(shell), Files: [3]*os.File{null, w, w}})
	w.Close()
	if errors.Is(err, fault.Conflict) || errors.Is(err, fault.NotFound) && !e.running(id) {
		return p, false
	}
	if err != nil {
		p.End, p.ExitCode, p.Output = time.Now(), -1, err.Error()
		return p, true
	}
	output := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(r, maxOutput))
		output <- string(b)
		_, _ = io.Copy(io.Discard, r)
	}()
	late := time.AfterFunc(h.Timeout, func() { _ = x.Signal(syscall.SIGKILL) })
	status, err := x.Wait()
	x.Remove()
	p.End = time.Now()
	// What it left in the background may still have the pipe.
	_ = r.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	p.Output, p.ExitCode = <-output, monitor.End{Status: status, Known: err == nil}.Code()
	if !late.Stop() {
		p.ExitCode, p.Output = -1, fmt.Sprintf("Health check exceeded timeout (%s)", h.Timeout)
	}
	return p, true
}

// judge takes a probe into the account of a container's health. Early: the
// container may still be starting, so that a failure does not count yet.
func judge(was *inspect.Health, p inspect.Probe, retries int, early bool) *inspect.Health {
	h := inspect.Health{Status: "starting"}
	if was != nil {
		h = *was
	}
	h.Log = append(append([]inspect.Probe(nil), h.Log...), p)
	if n := len(h.Log); n > maxProbes {
		h.Log = h.Log[n-maxProbes:]
	}
	switch {
	case p.ExitCode == 0:
		h.Status, h.FailingStreak = "healthy", 0
	case early && h.Status == "starting":
	default:
		if h.FailingStreak++; h.FailingStreak >= retries {
			h.Status = "unhealthy"
		}
	}
	return &h
}

// watchHealth asks a container again and again, until it has ended.
func (s *supervisor) watchHealth(c *Container, h bundle.Healthcheck, ended <-chan struct{}) {
	id, starts := c.ID, c.State.StartedAt.Add(h.StartPeriod)
	status := "starting"
	for {
		pause := h.Interval
		if early := time.Now().Before(starts); early && status == "starting" {
			pause = h.StartInterval
		}
		select {
		case <-ended:
			return
		case <-time.After(pause):
		}
		p, ok := s.e.probe(id, h, c.Image.Shell)
		if !ok {
			s.flow()
			continue
		}
		now, err := s.recordHealth(id, h, p, p.Start.Before(starts))
		if err != nil {
			return
		}
		if now != status && now == "unhealthy" {
			go s.actOnHealth(id, c.Wishes.HealthAction)
		}
		status = now
		s.flow()
	}
}

// recordHealth writes down what a probe has found, and gives the status now.
func (s *supervisor) recordHealth(id string, h bundle.Healthcheck, p inspect.Probe, early bool) (status string, err error) {
	err = s.e.change(id, func(c *Container) error {
		if !c.runs() {
			return conflict("check health", c, "it has ended")
		}
		was := c.State.Health
		c.State.Health, c.passing = judge(was, p, h.Retries, early), true
		status = c.State.Health.Status
		if was == nil || was.Status != status {
			s.e.Emit("health_status: "+status, c, nil)
		}
		return nil
	})
	return status, err
}

// actOnHealth does what --health-on-failure says.
func (s *supervisor) actOnHealth(id, action string) {
	switch action {
	case "kill":
		_ = s.e.Kill(id, syscall.SIGKILL)
	case "stop":
		_ = s.e.Stop(id, StopOptions{})
	case "restart":
		_ = s.e.Restart(id, StopOptions{})
	}
}

// AwaitHealthy waits until the container's health check is content. Without one
// that is fault.Invalid; one that has ended meanwhile is fault.Conflict.
func (e *Engine) AwaitHealthy(id string) error {
	w, err := sys.NewWatch()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Add(e.Store.Container(id), syscall.IN_MOVED_TO|syscall.IN_DELETE_SELF); err != nil {
		return err
	}
	for {
		c, err := e.load(id)
		switch {
		case err != nil:
			return err
		case c.State.Health == nil:
			return &fault.Error{Op: "wait for health of", On: c.Name, Kind: fault.Invalid, Err: errors.New("sdnotify policy healthy requires a healthcheck to be set")}
		case c.State.Health.Status == "healthy":
			return nil
		case !c.runs():
			return conflict("wait for health of", c, "it has ended")
		}
		if err := w.Wait(time.Time{}); err != nil {
			return err
		}
	}
}
