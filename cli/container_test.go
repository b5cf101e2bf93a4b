package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/engine"
	"kiste/engine/inspect"
	"kiste/fault"
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
	for _, tt := range []struct {
		filters string
		want    bool
	}{
		{"name=we", true}, {"name=^we", true}, {"name=eb$", true}, {"name=^web$", true}, {"name=/web", true}, {"name=^we$", false}, {"name=^eb", false},
		{"name=x name=web", true}, {"id=0a0a", true}, {"id=a0", false}, {"status=running", true}, {"status=exited", false},
		{"ancestor=debian:12", true}, {"ancestor=docker.io/library/debian:12", true}, {"ancestor=4f4f4f4f", true}, {"ancestor=debian", false},
		{"label=tier", true}, {"label=tier=web", true}, {"label=tier=db", false}, {"label=tier label=b", false}, {"label=tier label=a", true},
		{"exited=0", false}, {"name=web status=exited", false}, {"network=none", true}, {"network=host", false},
	} {
		filters, err := parseFilters(strings.Fields(tt.filters))
		if err != nil {
			t.Fatal(err)
		}
		if got := fitsFilters(aContainer("web", "running"), filters); got != tt.want {
			t.Errorf("%s: %v", tt.filters, got)
		}
	}
	for _, bad := range []string{"name", "colour=red", "status=happy", "exited=x", ""} {
		if _, err := parseFilters([]string{bad}); !errors.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%q: %v", bad, err)
		}
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
		{"none", psOptions{last: 0}, ""},
		{"a filter by status means all", psOptions{last: -1, filters: []string{"status=exited"}}, "done"},
		{"other filters do not", psOptions{last: -1, filters: []string{"name=done"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := []*engine.Container{aContainer("new", "running"), aContainer("done", "exited"), aContainer("old", "running")}
			got, err := chooseContainers(all, tt.o)
			if err != nil {
				t.Fatal(err)
			}
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
			"0a0a0a0a0a0a   debian:12   \"sh -c echo a rather…\"   2 hours ago   Up 2 hours             web\n"},
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
