package engine

import (
	"errors"
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
		{name: "out of memory, with a witness", state: inspect.State{Status: inspect.Exited, ExitCode: 137, OOMKilled: true, Victim: "java", Spent: &inspect.Spent{PeakMemory: 63 << 20}}, wishes: bundle.Wishes{Limits: bundle.Limits{Memory: 64 << 20}},
			want: []string{"its process java", "limit of 64 MiB (63 MiB at the most)", "kiste update"}},
		{name: "spent", state: inspect.State{Status: inspect.Exited, ExitCode: 1, Spent: &inspect.Spent{PeakMemory: 10 << 20, Refused: 4, PidsLimit: 7, Periods: 20, Throttled: 5, ThrottledTime: time.Second}}, wishes: bundle.Wishes{Limits: bundle.Limits{Memory: 64 << 20}},
			want: []string{"4 times it could not start", "limit is 7", "5 of 20 periods", "memory was 10 MiB at the most, of 64 MiB"}},
		{name: "a call", state: inspect.State{Status: inspect.Exited, ExitCode: 1, Denied: []inspect.Denial{{Call: "mount", Program: "/bin/mount", Times: 3}, {Call: "reboot", Times: 1}}},
			want: []string{"filter of system calls refused mount, which /bin/mount made 3 times", "--cap-add SYS_ADMIN", "refused reboot", "--cap-add SYS_BOOT"}},
		{name: "a right", state: inspect.State{Status: inspect.Exited, ExitCode: 1, Denied: []inspect.Denial{{Call: "mknod", Program: "/bin/mknod", Blockers: "fs.make_char", Times: 2}}},
			want: []string{"Landlock refused mknod (fs.make_char), which /bin/mknod made 2 times", "--security-opt landlock=off"}},
		{name: "a call of one that runs", state: inspect.State{Status: inspect.Running}, wishes: bundle.Wishes{Security: bundle.Security{Seccomp: "/p.json"}}, v: Evidence{Denied: []inspect.Denial{{Call: "bpf", Killed: true}}}, want: []string{"killed the process for bpf", "allow it in /p.json"}},
		{name: "its own words", state: inspect.State{Status: inspect.Exited, ExitCode: 1}, v: Evidence{Log: []string{"x: operation not permitted", "cannot write: Read-only file system"}}, want: []string{"cannot be seen from outside", "denials=log", "--tmpfs"}},
		{name: "its own words, though all is well", state: inspect.State{Status: inspect.Exited}, v: Evidence{Log: []string{"Permission denied"}}, want: []string{"code 0"}, not: "Permission"},
		{name: "a wrong access", state: inspect.State{Status: inspect.Exited, ExitCode: 139}, want: []string{"SIGSEGV (code 139)", "memory that it does not have"}},
		{name: "a filter", state: inspect.State{Status: inspect.Exited, ExitCode: 159}, want: []string{"SIGSYS", "seccomp"}},
		{name: "a signal that nobody knows", state: inspect.State{Status: inspect.Exited, ExitCode: 128 + 40}, want: []string{"SIGRTMIN+6", "not known"}},
		{name: "with the host", state: inspect.State{Status: inspect.Exited, ExitCode: 255, AtBoot: true}, want: []string{"when the host went down", "start --boot"}},
		{name: "restarting", state: inspect.State{Status: inspect.Restarting, ExitCode: 3, Restarts: 2, Delay: time.Second}, wishes: bundle.Wishes{Restart: bundle.Restart{Name: "always"}}, want: []string{"policy always", "2nd time", "pause of 1s", "code 3"}},
		{name: "not left", state: inspect.State{Status: inspect.Exited, Unplugged: "the pool is closed"}, want: []string{"may keep its addresses and ports: the pool is closed", "kiste gc"}},
		{name: "a network that is not as it was", state: inspect.State{Status: inspect.Running}, v: Evidence{Plugged: errors.New("no such address")}, want: []string{"not as they made it: no such address", "restart"}},
		{name: "paused", state: inspect.State{Status: inspect.Paused}, want: []string{"kiste unpause web"}},
		{name: "short of everything", state: inspect.State{Status: inspect.Running}, v: Evidence{Usage: &cgroup.Usage{Pids: &cgroup.PidsUsage{Limit: 5, Refused: 9}, CPU: &cgroup.CPUUsage{Periods: 10, Throttled: 4, ThrottledTime: time.Second}}},
			want: []string{"It runs", "9 times it could not start", "limit is 5", "--pids-limit", "4 of 10 periods", "--cpus"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &Container{Container: inspect.Container{Name: "web", State: tt.state, Wishes: tt.wishes}}
			say(t, Why(c, tt.v), tt.want, tt.not)
		})
	}
}

// say wants findings to have these words, and not those.
func say(t *testing.T, found []Finding, want []string, not string) {
	t.Helper()
	var text strings.Builder
	for _, f := range found {
		text.WriteString(f.Says + "\n" + f.Remedy + "\n")
	}
	for _, w := range want {
		if !strings.Contains(text.String(), w) {
			t.Errorf("lacks %q:\n%s", w, text.String())
		}
	}
	if not != "" && strings.Contains(text.String(), not) {
		t.Errorf("has %q:\n%s", not, text.String())
	}
}
