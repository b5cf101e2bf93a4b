package engine

import (
	"testing"

	"kiste/engine/inspect"
)

func TestJudge(t *testing.T) {
	fail, pass := inspect.Probe{ExitCode: 1}, inspect.Probe{}
	for _, tt := range []struct {
		name   string
		probes []inspect.Probe
		early  int // so many are in the start period
		want   string
		streak int
	}{
		{"well at once", []inspect.Probe{pass}, 0, "healthy", 0},
		{"not yet", []inspect.Probe{fail, fail}, 0, "starting", 2},
		{"ill", []inspect.Probe{fail, fail, fail}, 0, "unhealthy", 3},
		{"ill, and well again", []inspect.Probe{fail, fail, fail, pass}, 0, "healthy", 0},
		{"still starting", []inspect.Probe{fail, fail, fail, fail}, 4, "starting", 0},
		{"slow to start", []inspect.Probe{fail, fail, fail, pass, fail}, 3, "healthy", 1},
		{"well early, then ill", []inspect.Probe{pass, fail, fail, fail}, 4, "unhealthy", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h *inspect.Health
			for i, p := range tt.probes {
				h = judge(h, p, 3, i < tt.early)
			}
			if h.Status != tt.want || h.FailingStreak != tt.streak || len(h.Log) != min(len(tt.probes), maxProbes) {
				t.Errorf("%+v; want %s, %d", h, tt.want, tt.streak)
			}
		})
	}
}
