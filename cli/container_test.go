package cli

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/engine"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/store"
)

func aContainer(name, status string) *engine.Container {
	return &engine.Container{Container: inspect.Container{
		ID: strings.Repeat("0a", 32), Name: name, ImageName: "debian:12", ImageID: "sha256:" + strings.Repeat("4f", 32), Created: time.Unix(1e9, 0),
		State: inspect.State{Status: status, StartedAt: time.Unix(1e9, 0)},
		Result: &bundle.Result{Labels: map[string]string{"tier": "web", "a": ""},
			Spec: &specs.Spec{Process: &specs.Process{Args: []string{"sh", "-c", "echo a rather long line"}}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}},
	}}
}

func TestStatusOf(t *testing.T) {
	start := time.Unix(1e9, 0)
	for _, tt := range []struct {
		name  string
		state inspect.State
		want  string
	}{
		{"running", inspect.State{Status: "running", StartedAt: start}, "Up 3 minutes"},
		{"created", inspect.State{Status: "created"}, "Created"},
		{"ended", inspect.State{Status: "exited", ExitCode: 2, FinishedAt: start}, "Exited (2) 3 minutes ago"},
		{"paused", inspect.State{Status: "paused", StartedAt: start}, "Up 3 minutes (Paused)"},
		{"to be started again", inspect.State{Status: "restarting", StartedAt: start, FinishedAt: start, ExitCode: 1}, "Restarting (1) 3 minutes ago"},
		{"healthy", inspect.State{Status: "running", StartedAt: start, Health: &inspect.Health{Status: "healthy"}}, "Up 3 minutes (healthy)"},
		{"not known yet", inspect.State{Status: "running", StartedAt: start, Health: &inspect.Health{Status: "starting"}}, "Up 3 minutes (health: starting)"},
		{"nobody saw the end", inspect.State{Status: "exited", ExitCode: 137}, "Exited (137)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := aContainer("web", "")
			c.State = tt.state
			if got := statusOf(c, start.Add(3*time.Minute)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestContainerFilters(t *testing.T) {
	web := aContainer("web", "running")
	web.Image.ExposedPorts = map[string]struct{}{"80/tcp": {}, "53/udp": {}}
	web.State.Health = &inspect.Health{Status: "unhealthy"}
	web.Wishes.Mounts = []bundle.Mount{{Type: "volume", Source: "data", Target: "/data"}, {Type: "bind", Source: "/srv", Target: "/mnt"}}
	web.VolumeNames = map[string]string{"/data": "data"}
	ended := aContainer("ended", "exited")
	ended.State.ExitCode = 3
	look := &lookup{e: &engine.Engine{Store: store.Store{Lib: t.TempDir(), Run: t.TempDir()}}, match: func(e, text string) bool { return regexp.MustCompile(e).MatchString(text) }}
	for _, tt := range []struct {
		filters string
		want    string
	}{
		{"name=we", "web"}, {"name=^we", "web"}, {"name=eb$", "web"}, {"name=^web$", "web"}, {"name=/web", "web"}, {"name=^/web$", "web"}, {"name=^we$", ""}, {"name=^eb", ""},
		{"name=w.b", "web"}, {"name=^(web|ended)$", "web ended"}, {"name=e+", "web ended"},
		{"name=x name=web", "web"}, {"id=0a0a", "web ended"}, {"id=a0", ""}, {"status=running", "web"}, {"status=exited", "ended"}, {"status=paused", ""},
		{"ancestor=debian:12", "web ended"}, {"ancestor=docker.io/library/debian:12", "web ended"}, {"ancestor=4f4f4f4f", "web ended"}, {"ancestor=debian", ""},
		{"label=tier", "web ended"}, {"label=tier=web", "web ended"}, {"label=tier=db", ""}, {"label=tier label=b", ""}, {"label=tier label=a", "web ended"},
		{"exited=0", ""}, {"exited=3", "ended"}, {"name=web status=exited", ""}, {"network=none", "web ended"}, {"network=host", ""},
		{"health=unhealthy", "web"}, {"health=none", "ended"}, {"health=starting health=none", "ended"}, {"is-task=false", "web ended"}, {"is-task=true", ""},
		{"expose=80", "web"}, {"expose=70-90/tcp", "web"}, {"expose=53", ""}, {"expose=53/udp", "web"}, {"publish=80", ""},
		{"volume=data", "web"}, {"volume=/data", "web"}, {"volume=/srv", "web"}, {"volume=/mnt", "web"}, {"volume=/else", ""},
	} {
		filters, err := choose(containerFilters, look, strings.Fields(tt.filters))
		if err != nil {
			t.Fatal(tt.filters, err)
		}
		var got []string
		for _, c := range []*engine.Container{web, ended} {
			if filters.fit(c) {
				got = append(got, c.Name)
			}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: %q; want %q", tt.filters, s, tt.want)
		}
	}
	for _, bad := range []string{"name", "colour=red", "status=happy", "exited=x", "", "health=good", "is-task=x", "expose=x", "expose=9-8", "publish=70000"} {
		if f, err := choose(containerFilters, look, []string{bad}); !errors.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%q: %v, %v", bad, f, err)
		}
	}
	if _, err := choose(containerFilters, look, []string{"since=nobody"}); !errors.Is(err, fault.NotFound) {
		t.Errorf("since a container that is not there: %v", err)
	}
	if _, err := choose(containerFilters, &lookup{}, []string{"name=a.b"}); err != errRegexp {
		t.Errorf("a regular expression: %v", err)
	}
}

func TestWhichContainersAreListed(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    psOptions
		want string
	}{
		{"those that run", psOptions{last: -1}, "new old"},
		{"all", psOptions{last: -1, all: true}, "new done old"},
		{"the last two", psOptions{last: 2}, "new done"},
		{"the last", psOptions{last: -1, latest: true}, "new"},
		{"the last none, which is no number", psOptions{last: 0}, "new old"},
		{"a filter by status means all", psOptions{last: -1, filters: []string{"status=exited"}}, "done"},
		{"other filters do not", psOptions{last: -1, filters: []string{"name=done"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := []*engine.Container{aContainer("new", "running"), aContainer("done", "exited"), aContainer("old", "running")}
			filters, err := choose(containerFilters, &lookup{}, tt.o.filters)
			if err != nil {
				t.Fatal(err)
			}
			got := chooseContainers(all, tt.o, filters)
			var names []string
			for _, c := range got {
				names = append(names, c.Name)
			}
			if s := strings.Join(names, " "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

func TestHowContainersAreShown(t *testing.T) {
	now := time.Unix(1e9, 0).Add(2 * time.Hour)
	for _, tt := range []struct {
		name string
		o    psOptions
		want string
	}{
		{"columns", psOptions{}, "CONTAINER ID   IMAGE       COMMAND                  CREATED       STATUS       PORTS     NAMES\n" +
			"0a0a0a0a0a0a   debian:12   \"sh -c 'echo a rathe…\"   2 hours ago   Up 2 hours             web\n"},
		{"ids", psOptions{quiet: true}, "0a0a0a0a0a0a\n"},
		{"fields", psOptions{format: `{{.Names}}\t{{ .Label "tier" }} {{.Labels}}`}, "web\tweb a=,tier=web\n"},
		{"functions of fields", psOptions{format: "{{json .Names}} {{upper .State}} {{ lower .ID }}"}, `"web" RUNNING 0a0a0a0a0a0a` + "\n"},
		{"a table of fields", psOptions{format: `table {{.Names}}\t{{.State}}`}, "NAMES     STATE\nweb       running\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			err := showContainers(&Env{Out: &out}, []any{containerFields(aContainer("web", "running"), false, now)}, tt.o)
			if err != nil || out.String() != tt.want {
				t.Errorf("%v\n got %q\nwant %q", err, out.String(), tt.want)
			}
		})
	}
}
