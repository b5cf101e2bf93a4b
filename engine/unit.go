package engine

import (
	"os"
	"path"
	"strings"

	"kiste/fault"
	"kiste/kernel/cgroup"
)

// supervisor is the group below a unit's in which its first process is, since
// one of version 2 that hands controllers on has no processes.
const supervisorGroup = "supervisor"

// Unit is the cgroup of the systemd unit that this process was started in, below
// which containers can have theirs: then systemd counts them to the unit, whose
// limits hold for them, and ends them with it. The unit must be delegated. This
// process moves to a group below. It is empty where there is no unit.
func Unit() (string, error) {
	l, err := cgroup.Detect()
	if err != nil {
		return "", err
	}
	own, err := cgroup.Of(l, 0)
	if err != nil || own == "/" || strings.HasPrefix(own, "/..") {
		return "", nil
	}
	if path.Base(own) == supervisorGroup {
		return path.Dir(own), nil
	}
	if l.Kind() != "v2" {
		return own, nil
	}
	dir := l.Unified.Dir(path.Join(own, supervisorGroup))
	if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
		return "", &fault.Error{Op: "use option", On: "--cgroups", Err: err, Hint: "the unit needs Delegate=yes"}
	}
	return own, cgroup.AttachSteps([]cgroup.Step{{Op: cgroup.Mkdir, Path: dir, V2: true, Leaf: true}}, 0)[0].Do()
}
