package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/kernel/cgroup"
)

// Processes are the processes of a container that runs, paused or not, as the
// host numbers them: those of its cgroup, or without one, of its pid namespace.
// Of one that does not run it is fault.Conflict.
func (e *Engine) Processes(query string) ([]int, error) {
	const op = "list processes of container"
	c, err := e.Find(query)
	if err != nil {
		return nil, err
	}
	switch {
	case c.State.Status == inspect.Restarting:
		return nil, conflict(op, c, "Container %s is restarting, wait until the container is running", c.ID)
	case !c.runs():
		return nil, conflict(op, c, "container %s is not running", c.ID)
	}
	return e.processes(c)
}

func (e *Engine) processes(c *Container) ([]int, error) {
	if c.Cgroup == "" {
		return besides(c.Name, c.State.PID)
	}
	l, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	g, err := cgroup.Open(l, c.Cgroup)
	if err != nil {
		return nil, err
	}
	return g.Procs()
}

// besides are the processes in the pid namespace of the process pid of the
// container name. In the host's own they cannot be told from others:
// fault.Unsupported.
func besides(name string, pid int) ([]int, error) {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	namespace := func(pid string) (string, error) { return os.Readlink(filepath.Join("/proc", pid, "ns/pid")) }
	its, err := namespace(strconv.Itoa(pid))
	switch {
	case err != nil:
		return nil, &fault.Error{Op: "list processes of container", On: name, Err: fmt.Errorf("look at its pid namespace: %w", err)}
	case its == own:
		return nil, &fault.Error{Op: "list processes of container", On: name, Kind: fault.Unsupported,
			Err: errors.New("it has neither a cgroup nor a pid namespace of its own"), Hint: `"kiste doctor" says why it has no cgroup`}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		n, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		// What has ended meanwhile, or is another user's, is not the container's.
		if at, err := namespace(entry.Name()); err == nil && at == its {
			pids = append(pids, n)
		}
	}
	return pids, nil
}
