package engine

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/engine/inspect"
	"kiste/store"
)

func TestBriefHasWhatListingsShow(t *testing.T) {
	dir := t.TempDir()
	e := &Engine{Store: store.Store{Lib: dir + "/lib", Run: dir + "/run"}}
	if err := e.Store.Open(); err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("0a", 32)
	c := &Container{Schema: Schema, Container: inspect.Container{
		ID: id, Name: "web", Created: time.Unix(1e9, 0), State: inspect.State{Status: inspect.Exited, ExitCode: 3},
		Wishes: bundle.Wishes{Mounts: []bundle.Mount{{Type: "volume", Source: "v", Target: "/v"}}}, VolumeNames: map[string]string{"/v": "v"},
		Result: &bundle.Result{Labels: map[string]string{"a": "b"}, Origin: map[string]string{"process.env": "default"}, Files: []bundle.File{{Path: "/etc/hosts", Data: []byte("x")}},
			Spec: &specs.Spec{Process: &specs.Process{Args: []string{"sh", "-c", "true"}, Env: []string{"A=b"}}, Mounts: []specs.Mount{{Destination: "/proc"}},
				Linux: &specs.Linux{Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true}}}}}},
	}}
	if err := os.MkdirAll(e.Store.Container(id), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := e.write(c); err != nil {
		t.Fatal(err)
	}
	all, bad, err := e.Brief()
	if err != nil || len(bad) > 0 || len(all) != 1 {
		t.Fatal(all, bad, err)
	}
	got := all[0]
	if r := got.Result; r.Origin != nil || r.Files != nil || r.Spec.Mounts != nil || r.Spec.Process.Env != nil || r.Spec.Linux.Resources.Devices != nil {
		t.Error("it is not brief")
	}
	a, b := got.JSON(), c.JSON()
	if a.Path != b.Path || !reflect.DeepEqual(a.Args, b.Args) || !reflect.DeepEqual(a.Mounts, b.Mounts) || !reflect.DeepEqual(a.State, b.State) || !reflect.DeepEqual(a.NetworkSettings, b.NetworkSettings) ||
		!reflect.DeepEqual(got.Result.Labels, c.Result.Labels) || got.Name != c.Name || !got.Created.Equal(c.Created) {
		t.Errorf("got %+v", got)
	}
	if err := e.write(got); !errors.Is(err, errBrief) {
		t.Errorf("what is left out can be lost: %v", err)
	}
}
