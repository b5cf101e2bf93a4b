package engine

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"kiste/container/bundle"
	"kiste/engine/inspect"
	"kiste/kernel/cgroup"
)

func TestWhy(t *testing.T) {
	kill, term := syscall.SIGKILL, syscall.SIGTERM
	for _, tt := range []struct {
		name   string
		state  inspect.State
		wishes bundle.Wishes
		v      Evidence
		want   []string // in its findings
		not    string
	}{
		{name: "never started", state: inspect.State{Status: inspect.Created}, want: []string{"never started", "kiste start web"}},
		{name: "no program", state: inspect.State{Status: inspect.Created, Error: `run "x": executable file not found in $PATH`, ExitCode: 127}, want: []string{"could not be started", "executable file not found", "interpreter"}},
		{name: "done", state: inspect.State{Status: inspect.Exited}, want: []string{"by itself with code 0"}},
		{name: "an error", state: inspect.State{Status: inspect.Exited, ExitCode: 1}, want: []string{"code 1", "error of its own"}},
		{name: "its own code", state: inspect.State{Status: inspect.Exited, ExitCode: 42}, want: []string{"code 42", "only its program knows"}},
		{name: "stopped in time", state: inspect.State{Status: inspect.Exited, ExitCode: 143, Stopped: true}, v: Evidence{Signals: []syscall.Signal{term}}, want: []string{"SIGTERM (code 143)", "kiste sent"}},
		{name: "stopped, and did not end", state: inspect.State{Status: inspect.Exited, ExitCode: 137, Stopped: true}, v: Evidence{Signals: []syscall.Signal{term, kill}}, want: []string{"SIGKILL", "sent SIGTERM first", "--stop-timeout"}},
		{name: "killed by somebody", state: inspect.State{Status: inspect.Exited, ExitCode: 137}, want: []string{"Kiste has not sent it", "dmesg"}},
		{name: "out of memory", state: inspect.State{Status: inspect.Exited, ExitCode: 137, OOMKilled: true}, wishes: bundle.Wishes{Limits: bundle.Limits{Memory: 64 << 20}}, want: []string{"SIGKILL", "limit of 64 MiB", "--memory"}, not: "has not sent it"},
		{name: "a wrong access", state: inspect.State{Status: inspect.Exited, ExitCode: 139}, want: []string{"SIGSEGV (code 139)", "memory that it does not have"}},
		{name: "a filter", state: inspect.State{Status: inspect.Exited, ExitCode: 159}, want: []string{"SIGSYS", "seccomp"}},
		{name: "a signal that nobody knows", state: inspect.State{Status: inspect.Exited, ExitCode: 128 + 40}, want: []string{"SIGRTMIN+6", "not known"}},
		{name: "with the host", state: inspect.State{Status: inspect.Exited, ExitCode: 255, AtBoot: true}, want: []string{"when the host went down", "start --boot"}},
		{name: "restarting", state: inspect.State{Status: inspect.Restarting, ExitCode: 3, Restarts: 2, Delay: time.Second}, wishes: bundle.Wishes{Restart: bundle.Restart{Name: "always"}}, want: []string{"policy always", "2nd time", "pause of 1s", "code 3"}},
		{name: "paused", state: inspect.State{Status: inspect.Paused}, want: []string{"kiste unpause web"}},
		{name: "short of everything", state: inspect.State{Status: inspect.Running}, v: Evidence{Usage: &cgroup.Usage{Pids: &cgroup.PidsUsage{Limit: 5, Refused: 9}, CPU: &cgroup.CPUUsage{Periods: 10, Throttled: 4, ThrottledTime: time.Second}}},
			want: []string{"It runs", "9 times it could not start", "limit is 5", "--pids-limit", "4 of 10 periods", "--cpus"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &Container{Container: inspect.Container{Name: "web", State: tt.state, Wishes: tt.wishes}}
			var text strings.Builder
			for _, f := range Why(c, tt.v) {
				text.WriteString(f.Says + "\n" + f.Remedy + "\n")
			}
			for _, w := range tt.want {
				if !strings.Contains(text.String(), w) {
					t.Errorf("lacks %q:\n%s", w, text.String())
				}
			}
			if tt.not != "" && strings.Contains(text.String(), tt.not) {
				t.Errorf("has %q:\n%s", tt.not, text.String())
			}
		})
	}
}
