package engine

import (
	"strconv"
	"strings"

	"kiste/engine/inspect"
	"kiste/image/snapshot"
)

// Inspect gives c in Docker's shape, with what only the store knows: where its
// root file system lies and, if size is asked for, how large it is.
func (e *Engine) Inspect(c *Container, size bool) inspect.ContainerJSON {
	j := c.JSON()
	dir := e.Store.Container(c.ID)
	j.GraphDriver.Data = map[string]string{"LowerDir": strings.Join(c.Lower, ":"), "UpperDir": dir + "/upper", "WorkDir": dir + "/work"}
	if c.State.PID > 0 { // nobody but the container itself has it mounted
		j.GraphDriver.Data["MergedDir"] = "/proc/" + strconv.Itoa(c.State.PID) + "/root"
	}
	if size {
		written, all := e.Sizes(c)
		j.SizeRw, j.SizeRootFs = &written, &all
	}
	return j
}

// imageGraph is where the layers of an image lie, as Docker's driver says it.
func (e *Engine) imageGraph(layers []string) map[string]string {
	data := map[string]string{}
	l := snapshot.Open(e.Store)
	var lower []string
	for i, key := range layers {
		if i == len(layers)-1 {
			data["UpperDir"] = l.Diff(key)
		} else {
			lower = append([]string{l.Diff(key)}, lower...)
		}
	}
	if len(lower) > 0 {
		data["LowerDir"] = strings.Join(lower, ":")
	}
	return data
}
