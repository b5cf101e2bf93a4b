package cli

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"

	"kiste/cli/option"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
)

func cgroupSetCommand() *Command {
	var lim cgroup.Limits
	var rates groupRates
	var name string
	return &Command{
		Name:  "cgroup set",
		Args:  "NAME|PID",
		Short: "change the limits of a group, or limit a running process",
		Long: `With the name of a group: changes the limits that are given and leaves the others; a memory limit below what the group uses now is refused.

With the number of a process: if that process is in a group of "kiste cgroup", changes that group. Otherwise makes a new group and moves the process, with all its threads but without its groupsBelow, there. Without --name, that group is removed by a later "kiste cgroup" command once the process is gone.` + groupRatesHelp,
		Options: append(cgroupOptions(&lim), rates.row(), option.Row{"--name", "NAME", "name of the group for PID", option.String(&name)}),
		Min:     1, Max: 1,
		Run: func(_ context.Context, _ *Env, args []string) error {
			lim.Memory.CheckUsage = true
			pid, err := strconv.Atoi(args[0])
			if err != nil {
				g, l, err := groupNamed(args[0])
				if err != nil {
					return err
				}
				return limitGroup(l, g, lim, rates)
			}
			return limitProcess(pid, name, lim, rates)
		},
	}
}

// limitGroup changes the limits of a group that is there.
func limitGroup(l cgroup.Layout, g *cgroup.Group, lim cgroup.Limits, rates groupRates) error {
	if err := g.Update(lim); err != nil {
		return err
	}
	return rates.set(l, g.Path)
}

// groupNamed opens the group with the given name.
func groupNamed(name string) (*cgroup.Group, cgroup.Layout, error) {
	l, parent, err := cgroupPlace()
	if err != nil {
		return nil, l, err
	}
	group, err := namedGroup(parent, name)
	if err != nil {
		return nil, l, err
	}
	g, err := cgroup.Open(l, group)
	if fault.KindOf(err) != fault.NotFound {
		return g, l, err
	}
	// Asked from within a group, the name may be one of those beside it.
	family, bad := cgroup.Delegated(l)
	if bad != nil {
		return nil, l, err
	}
	if group, bad = namedGroup(family, name); bad == nil {
		g, err = cgroup.Open(l, group)
	}
	return g, l, err
}

// groupOf opens the group of Kiste's that a name or the number of a process
// says.
func groupOf(word string) (*cgroup.Group, error) {
	pid, err := strconv.Atoi(word)
	if err != nil {
		g, _, err := groupNamed(word)
		return g, err
	}
	l, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	own, err := processGroup(l, pid)
	if err != nil {
		return nil, err
	}
	if !cgroup.Ours(own) {
		return nil, &fault.Error{Op: "find group of process", On: word, Kind: fault.Conflict,
			Err:  fmt.Errorf("it is in %s, which is not a group of kiste's", own),
			Hint: fmt.Sprintf("\"kiste cgroup set %s\" moves it into one of its own", word)}
	}
	return cgroup.Open(l, cgroup.Outer(own))
}

// processGroup is the group of the process pid.
func processGroup(l cgroup.Layout, pid int) (string, error) {
	if pid <= 0 || !sys.Alive(pid) {
		return "", &fault.Error{Op: "find process", On: strconv.Itoa(pid), Kind: fault.NotFound}
	}
	return cgroup.Of(l, pid)
}

// limitProcess limits a running process.
func limitProcess(pid int, name string, lim cgroup.Limits, rates groupRates) error {
	l, parent, err := cgroupPlace()
	if err != nil {
		return err
	}
	own, err := processGroup(l, pid)
	if err != nil {
		return err
	}
	if cgroup.Ours(own) && name == "" {
		g, err := cgroup.Open(l, cgroup.Outer(own))
		if err != nil {
			return err
		}
		return limitGroup(l, g, lim, rates)
	}
	group := path.Join(parent, groupOfPID+"-"+strconv.Itoa(pid))
	if name != "" {
		if group, err = namedGroup(parent, name); err != nil {
			return err
		}
	}
	steps, err := cgroup.Compile(l, group, lim, cgroup.Options{})
	if err != nil {
		return err
	}
	if steps, err = withLeaf(l, group, steps); err != nil {
		return err
	}
	if err := cgroup.Do(append(steps, attachInto(l, group, steps, pid)...)); err != nil {
		return err
	}
	return rates.set(l, group)
}

// attachInto is AttachSteps, with the leaf in place of the group where
// processes belong there.
func attachInto(l cgroup.Layout, group string, steps []cgroup.Step, pid int) []cgroup.Step {
	leaf := cgroup.Leaf(l, group)
	if leaf == group {
		return cgroup.AttachSteps(steps, pid)
	}
	return cgroup.AttachSteps(slices.DeleteFunc(slices.Clone(steps), func(s cgroup.Step) bool { return s.Path == l.Unified.Dir(group) }), pid)
}
