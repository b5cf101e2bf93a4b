package inspect

import "time"

// A Health is what the health check of a running container has found.
type Health struct {
	Status        string // "starting", "healthy", "unhealthy"
	FailingStreak int    // how many checks have failed since the last that did not
	Log           []Probe
}

// A Probe is one run of the check: the last five are kept.
type Probe struct {
	Start    time.Time
	End      time.Time
	ExitCode int
	Output   string
}

// Text is the health as "docker ps" shows it.
func (h *Health) Text() string {
	if h.Status == "starting" || h.Status == "" {
		return "health: starting"
	}
	return h.Status
}
