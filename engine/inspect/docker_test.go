package inspect_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"kiste/container/bundle"
	"kiste/engine/inspect"
)

// What Docker 20.10 itself printed is in testdata/docker_*.json. Every key of
// it is in ours, with a value of the same kind, but for those that are listed
// as gone: most of them are gone from later versions of Docker, too.
func TestDockersOwnJSON(t *testing.T) {
	c := example()
	c.State.Health = &inspect.Health{Status: "healthy", Log: []inspect.Probe{{Start: time.Now(), End: time.Now()}}}
	c.Image.Healthcheck = &bundle.Healthcheck{Test: []string{"CMD-SHELL", "true"}, Interval: time.Second}
	j := c.JSON()
	var size int64
	j.SizeRw, j.SizeRootFs = &size, &size
	j.GraphDriver.Data = map[string]string{"LowerDir": "", "MergedDir": "", "UpperDir": "", "WorkDir": ""}
	j.HostConfig.Mounts[0].Source = "/srv" // Docker's is a bind, ours a tmpfs
	for _, m := range j.Mounts {
		if m.Type == "volume" {
			j.Mounts[0] = m // Docker's first is one
		}
	}
	i := inspect.Image{ID: "sha256:00", Tags: []string{"debian:12"}, Layers: []string{"sha256:11"}, Driver: "overlay", Config: c.Image,
		Graph: map[string]string{"UpperDir": ""}}
	for _, tt := range []struct {
		file string
		ours any
		gone []string
	}{
		{"docker_container.json", j, []string{".HostConfig.KernelMemory", ".HostConfig.KernelMemoryTCP", ".Config.OnBuild"}},
		{"docker_image.json", i.JSON(), []string{".Container", ".ContainerConfig", ".VirtualSize", ".Config.OnBuild",
			".GraphDriver.Data.MergedDir", ".GraphDriver.Data.WorkDir"}}, // places that an image's layers have no use for
	} {
		var docker, ours any
		if err := json.Unmarshal(must(os.ReadFile("testdata/"+tt.file)), &docker); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(must(json.Marshal(tt.ours)), &ours); err != nil {
			t.Fatal(err)
		}
		for _, d := range differences("", docker, ours) {
			if !slices.Contains(tt.gone, d) {
				t.Errorf("%s: %s", tt.file, d)
			}
		}
	}
}

// free are objects whose keys are the user's.
var free = []string{".Config.ExposedPorts", ".Config.Labels", ".Config.Volumes", ".HostConfig.Tmpfs", ".HostConfig.LogConfig.Config"}

// differences are the paths that docker has and ours has not, or has with a
// value of another kind. Of a list the first is compared.
func differences(path string, docker, ours any) []string {
	switch d := docker.(type) {
	case map[string]any:
		o, ok := ours.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s is %T, Docker's is an object", path, ours)}
		}
		if slices.Contains(free, path) {
			return nil
		}
		var all []string
		for key, v := range d {
			if other, has := o[key]; has {
				all = append(all, differences(path+"."+key, v, other)...)
			} else {
				all = append(all, path+"."+key)
			}
		}
		return all
	case []any:
		o, ok := ours.([]any)
		if !ok && ours != nil {
			return []string{fmt.Sprintf("%s is %T, Docker's is a list", path, ours)}
		}
		if len(d) > 0 && len(o) > 0 {
			return differences(path+"[0]", d[0], o[0])
		}
	case string, float64, bool:
		if fmt.Sprintf("%T", ours) != fmt.Sprintf("%T", docker) {
			return []string{fmt.Sprintf("%s is %T, Docker's is %T", path, ours, docker)}
		}
	}
	return nil
}
