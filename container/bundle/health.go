package bundle

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Health checks that say nothing else.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
)

// Healthcheck is what the wishes and the image say together: each field of the
// wishes that is set counts before the image's, and defaults come last. Nil:
// there is no check.
func (w *Wishes) Healthcheck(image *Healthcheck) *Healthcheck {
	var h Healthcheck
	if image != nil {
		h = *image
	}
	if len(w.Health.Test) > 0 {
		h.Test = w.Health.Test
	}
	if len(h.Test) == 0 || h.Test[0] == "NONE" || len(h.Test) == 1 {
		return nil
	}
	for _, d := range []struct {
		to              *time.Duration
		wish, otherwise time.Duration
	}{
		{&h.Interval, w.Health.Interval, healthInterval}, {&h.Timeout, w.Health.Timeout, healthTimeout},
		{&h.StartPeriod, w.Health.StartPeriod, 0}, {&h.StartInterval, w.Health.StartInterval, healthStartInterval},
	} {
		if d.wish != 0 {
			*d.to = d.wish
		}
		if *d.to <= 0 {
			*d.to = d.otherwise
		}
	}
	if w.Health.Retries != 0 {
		h.Retries = w.Health.Retries
	}
	if h.Retries <= 0 {
		h.Retries = healthRetries
	}
	return &h
}

// Command is the command of the check. Shell is the image's; none is /bin/sh -c.
func (h *Healthcheck) Command(shell []string) []string {
	if h.Test[0] == "CMD" {
		return h.Test[1:]
	}
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(append([]string(nil), shell...), h.Test[1])
}

// ParseHealthTime reads a duration of a --health option: nothing negative, and
// nothing below a millisecond but zero, which means the default.
func ParseHealthTime(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("invalid duration %q: write 30s, 1m30s", s)
	case d < 0:
		return 0, errors.New("it cannot be negative")
	case d > 0 && d < time.Millisecond:
		return 0, errors.New("it cannot be less than 1ms")
	}
	return d, nil
}

// ParseHealthAction reads what --health-on-failure says.
func ParseHealthAction(s string) (string, error) {
	switch s {
	case "none", "kill", "restart", "stop":
		return s, nil
	}
	return "", fmt.Errorf("%q is no action: none, kill, restart and stop are", s)
}

// ParseHealthRetries reads what --health-retries says; 0 is the default.
func ParseHealthRetries(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err == nil && n < 0 {
		err = errors.New("it cannot be negative")
	}
	return n, err
}
