package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kiste/cli/option"
	"kiste/container/bundle"
)

func parseRun(t *testing.T, args ...string) (bundle.Wishes, runChoices, []string, error) {
	t.Helper()
	var w bundle.Wishes
	var c runChoices
	left, err := option.Parse(runOptions(&w, &c), args, option.Rest)
	return w, c, left, err
}

// Every option of the list is there, by Docker's names.
func TestRunOptionsAreDockers(t *testing.T) {
	options := runOptions(&bundle.Wishes{}, &runChoices{})
	for _, name := range strings.Fields("-i -t --rm --name --entrypoint -e --env-file -w -u --group-add -h --domainname --read-only -v --mount --tmpfs " +
		"--shm-size -m --memory-swap --memory-reservation --cpus --cpu-shares --cpuset-cpus --pids-limit --blkio-weight --device-read-bps " +
		"--device-write-bps --device-read-iops --device-write-iops --ulimit --oom-score-adj --cap-add --cap-drop --privileged --security-opt --device " +
		"--sysctl --network --net --pid --ipc --uts --userns --cgroupns --cgroup-parent --init --stop-signal --annotation -l --platform --pull --rootfs --cidfile " +
		"--interactive --tty --env --workdir --user --hostname --volume --memory --label --label-file --cpu-period --cpu-quota --cpuset-mems --memory-swappiness " +
		"--oom-kill-disable --blkio-weight-device --device-cgroup-rule --stop-timeout --add-host --dns --dns-search --dns-opt --dns-option --detach-keys --sig-proxy --plan --trace") {
		if option.Lookup(options, name) == nil {
			t.Errorf("there is no %s", name)
		}
	}
	seen := map[string]bool{}
	for _, o := range options {
		for _, n := range option.Names(o) {
			if seen[n] {
				t.Errorf("%s is there twice", n)
			}
			seen[n] = true
		}
	}
}

func TestRunOptions(t *testing.T) {
	t.Setenv("KISTE_TEST_HERE", "yes")
	for _, tt := range []struct {
		name string
		args string
		ok   func(bundle.Wishes, runChoices) bool
	}{
		{"-it together", "-it debian sh", func(w bundle.Wishes, _ runChoices) bool { return w.Interactive && w.TTY }},
		{"-h is the host name", "-h box debian", func(w bundle.Wishes, _ runChoices) bool { return w.Hostname == "box" }},
		{"an emptied entrypoint", "--entrypoint= debian", func(w bundle.Wishes, _ runChoices) bool { return len(w.Entrypoint) == 1 && w.Entrypoint[0] == "" }},
		{"a variable from here", "-e KISTE_TEST_HERE -eA=b debian", func(w bundle.Wishes, _ runChoices) bool {
			return slices.Equal(w.Env, []string{"KISTE_TEST_HERE=yes", "A=b"})
		}},
		{"memory", "-m 64m --memory-swap=-1 debian", func(w bundle.Wishes, _ runChoices) bool {
			return w.Limits.Memory == 64<<20 && w.Limits.MemorySwap == -1
		}},
		{"cpus", "--cpus .5 debian", func(w bundle.Wishes, _ runChoices) bool { return w.Limits.NanoCPUs == 5e8 }},
		{"no signals", "--sig-proxy=false debian", func(w bundle.Wishes, _ runChoices) bool { return w.NoSigProxy }},
		{"the plan", "--plan debian", func(_ bundle.Wishes, c runChoices) bool { return c.Plan == "steps" }},
		{"the plan's calls", "--plan=calls debian", func(_ bundle.Wishes, c runChoices) bool { return c.Plan == "calls" }},
		{"mounts keep their order", "-v /a:/a --tmpfs /b --mount type=bind,src=/c,dst=/c debian", func(w bundle.Wishes, _ runChoices) bool {
			return len(w.Mounts) == 3 && w.Mounts[0].Target == "/a" && w.Mounts[1].Type == "tmpfs" && w.Mounts[2].Source == "/c"
		}},
		{"swappiness as it is", "--memory-swappiness=-1 debian", func(w bundle.Wishes, _ runChoices) bool { return w.Limits.MemorySwappiness == nil }},
		{"an old name", "--net host debian", func(w bundle.Wishes, _ runChoices) bool { return w.Network.Kind == bundle.HostNS }},
		{"a signal", "--stop-signal 9 debian", func(w bundle.Wishes, _ runChoices) bool { return w.StopSignal == "SIGKILL" }},
		{"detach keys", "--detach-keys ctrl-a,x debian", func(w bundle.Wishes, _ runChoices) bool { return string(w.DetachKeys) == "\x01x" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, c, left, err := parseRun(t, strings.Fields(tt.args)...)
			if err != nil || left[0] != "debian" || !tt.ok(w, c) {
				t.Errorf("%s gave %+v, %+v, %q, %v", tt.args, w, c, left, err)
			}
		})
	}
}

func TestRunOptionsRefuse(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--name a/b x", `cannot take option "--name": "a/b": Invalid container name (a/b)`},
		{"-v : x", "empty section between colons"},
		{"-m lots x", `"lots": invalid size: 'lots'`},
		{"--pull sometimes x", "invalid pull option: 'sometimes'"},
		{"--network a/b x", `there is no network "a/b" here`},
		{"--plan=all x", "want steps or calls"},
		{"--env-file /nonexistent x", "no such file"},
		{"--bogus x", "no such option"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			_, _, _, err := parseRun(t, strings.Fields(tt.args)...)
			if err == nil || !strings.Contains("cannot "+err.Error(), tt.want) {
				t.Errorf("got %v; want %q", err, tt.want)
			}
		})
	}
}

// A single variable or label wins over a file, whichever comes first.
func TestRunFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("A=file\nB=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, _, _, err := parseRun(t, "-e", "A=one", "--env-file", file, "-l", "A=one", "--label-file", file, "x")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"A=file", "B=file", "A=one"}; !slices.Equal(w.Env, want) {
		t.Errorf("variables %q; want %q", w.Env, want)
	}
	if w.Labels["A"] != "one" || w.Labels["B"] != "file" {
		t.Errorf("labels %v", w.Labels)
	}
}
