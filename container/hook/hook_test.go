package hook_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/hook"
	"kiste/internal/need"
)

func sh(script string, args ...string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: append([]string{"sh", "-c", script}, args...)}
}

func within(h specs.Hook, seconds int) specs.Hook {
	h.Timeout = &seconds
	return h
}

// A hook reads the state, in the directory and with the environment that its
// launcher gives it; an environment of its own replaces that one.
func TestHookGetsTheState(t *testing.T) {
	dir := t.TempDir()
	script := sh(`{ cat; echo; pwd; echo "$A $B"; } > "$0"`, dir+"/out")
	for _, tt := range []struct{ env, want string }{{"", "a "}, {"B=b", " b"}} {
		h := script
		if tt.env != "" {
			h.Env = []string{tt.env, "PATH=/usr/bin:/bin"}
		}
		state := specs.State{Version: specs.Version, ID: "web", Status: specs.StateCreating, Pid: 7, Bundle: "/b",
			Annotations: map[string]string{"big": strings.Repeat("x", 200<<10)}}
		if err := hook.Run(hook.CreateRuntime, []specs.Hook{h}, state, hook.Here(dir, []string{"A=a", "PATH=/usr/bin:/bin"})); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(dir + "/out")
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		var got specs.State
		if err := json.Unmarshal([]byte(lines[0]), &got); err != nil || got.ID != "web" || got.Pid != 7 || len(got.Annotations["big"]) != 200<<10 {
			t.Errorf("the state was %.200s, %v", lines[0], err)
		}
		if lines[1] != dir || lines[2] != tt.want {
			t.Errorf("in %q with %q; want %q, %q", lines[1], lines[2], dir, tt.want)
		}
	}
}

// The texts are runc's.
func TestHookFailures(t *testing.T) {
	need.Clean(t)
	for _, tt := range []struct {
		name string
		hook specs.Hook
		want string
	}{
		{"exit code", sh("echo out; echo err >&2; exit 7"), "error running poststop hook #1: exit status 7, stdout: out\n, stderr: err\n"},
		{"silent", sh("exit 1"), "error running poststop hook #1: exit status 1, stdout: , stderr: "},
		{"signal", sh("kill -9 $$"), "error running poststop hook #1: signal: killed, stdout: , stderr: "},
		{"missing", specs.Hook{Path: "/no/such"}, "error running poststop hook #1: fork/exec /no/such: no such file or directory"},
		{"time", within(sh("sleep 100 & sleep 100"), 1), "error running poststop hook #1: hook ran past specified timeout of 1.0s"},
		{"no path", specs.Hook{}, "error running poststop hook #1: run hook: it has no path"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := hook.Run(hook.Poststop, []specs.Hook{sh("true"), tt.hook, sh("exit 9")}, specs.State{}, hook.Here("", os.Environ()))
			var e *hook.Error
			if !errors.As(err, &e) || e.Error() != tt.want {
				t.Errorf("Run: %v\nwant %s", err, tt.want)
			}
		})
	}
}

// Of output without end the beginning is kept, and nobody is blocked.
func TestHookOutputIsBounded(t *testing.T) {
	err := hook.Run(hook.Poststop, []specs.Hook{sh("head -c 3000000 /dev/zero; echo end >&2; exit 1")}, specs.State{}, hook.Here("", nil))
	var e *hook.Error
	if !errors.As(err, &e) || len(e.Stdout) != hook.MaxOutput || e.Stderr != "end\n" {
		t.Errorf("Run: %.100v", err)
	}
}

// What a hook leaves in the background is not waited for, though it holds the
// output open.
func TestHookMayLeaveSomethingBehind(t *testing.T) {
	began := time.Now()
	file := filepath.Join(t.TempDir(), "pid")
	if err := hook.Run(hook.Poststop, []specs.Hook{sh(`sleep 100 & echo $! > "$0"`, file)}, specs.State{}, hook.Here("", os.Environ())); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	killed := sh("kill " + strings.TrimSpace(string(b)))
	if err := hook.Run(hook.Poststop, []specs.Hook{killed}, specs.State{}, hook.Here("", os.Environ())); err != nil {
		t.Error(err)
	}
}

func TestHooksByKind(t *testing.T) {
	one := func(path string) []specs.Hook { return []specs.Hook{{Path: path}} }
	//lint:ignore SA1019 Docker has its networks made by these
	h := &specs.Hooks{Prestart: one("a"), CreateRuntime: one("b"), CreateContainer: one("c"), StartContainer: one("d"), Poststart: one("e"), Poststop: one("f")}
	var got string
	for _, kind := range []string{hook.Prestart, hook.CreateRuntime, hook.CreateContainer, hook.StartContainer, hook.Poststart, hook.Poststop} {
		got += hook.Of(h, kind)[0].Path
	}
	if got != "abcdef" || hook.Of(nil, hook.Poststop) != nil || hook.Of(h, "other") != nil {
		t.Errorf("got %q", got)
	}
}
