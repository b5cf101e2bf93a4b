package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/kernel/cgroup"
)

func cgroupShowCommand() *Command {
	return &Command{
		Name:  "cgroup show",
		Args:  "[NAME|PID]",
		Short: "show groups with their limits and what they use",
		Long:  `Without an argument shows all groups of "kiste cgroup" and of containers as a tree. With the number of a process shows that process's group, whoever made it.`,
		Max:   1,
		Run: func(_ context.Context, env *Env, args []string) error {
			l, err := cgroup.Detect()
			if err != nil {
				return err
			}
			top, err := shownGroup(l, args)
			if err != nil || top == "" {
				return err
			}
			return showTree(env.Out, l, top, "")
		},
	}
}

// shownGroup is the path of the group that args name, or of the one above all
// of ours; "" where that does not exist yet.
func shownGroup(l cgroup.Layout, args []string) (string, error) {
	if len(args) == 0 {
		parent, err := cgroup.Delegated(l)
		if err != nil {
			return "", err
		}
		cgroup.Sweep(l, parent, groupOfRun, groupOfPID)
		cgroup.Tidy(l, parent)
		if _, err := cgroup.Open(l, parent); err != nil {
			return "", nil
		}
		return parent, nil
	}
	if pid, err := strconv.Atoi(args[0]); err == nil {
		own, err := processGroup(l, pid)
		return cgroup.Outer(own), err
	}
	g, _, err := groupNamed(args[0])
	if err != nil {
		return "", err
	}
	return g.Path, nil
}

// showTree prints group and those below it. The root of the host is shown
// alone.
func showTree(out io.Writer, l cgroup.Layout, group, indent string) error {
	if group == "/" {
		fmt.Fprintln(out, "/  (the root group: no limits)")
		return nil
	}
	g, err := cgroup.Open(l, group)
	if err != nil {
		return err
	}
	if err := showGroup(out, l, g, indent); err != nil {
		return err
	}
	for _, child := range groupsBelow(g) {
		if at := path.Join(group, child); at == cgroup.Leaf(l, group) {
			continue // holds the processes of group, which are shown
		}
		// A group that vanished meanwhile is not worth an error.
		showTree(out, l, path.Join(group, child), indent+"  ")
	}
	return nil
}

func groupsBelow(g *cgroup.Group) []string {
	var names []string
	for _, dir := range g.Dirs() {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if err == nil && e.IsDir() && !slices.Contains(names, e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return names
}

func showGroup(out io.Writer, l cgroup.Layout, g *cgroup.Group, indent string) error {
	u, err := g.Usage()
	if err != nil {
		return err
	}
	name := path.Base(g.Path)
	if indent == "" {
		name = g.Path
	}
	if g.Frozen() {
		name += "  (frozen)"
	}
	fmt.Fprintf(out, "%s%s\n", indent, name)
	for _, line := range cgroupUsage(u) {
		fmt.Fprintf(out, "%s    %-8s %s\n", indent, line[0], line[1])
	}
	if rates := showRates(l, g.Path); rates != "" {
		fmt.Fprintf(out, "%s    %-8s %s\n", indent, "network", rates)
	}
	if pids, err := g.Procs(); err == nil && len(pids) > 0 {
		fmt.Fprintf(out, "%s    %-8s %s\n", indent, "procs", cgroupPids(pids))
	}
	for _, s := range g.Settings() {
		fmt.Fprintf(out, "%s    %-8s %s = %s\n", indent, "limit", s.Name, s.Value)
	}
	return nil
}

// cgroupPids names at most twelve processes.
func cgroupPids(pids []int) string {
	const most = 12
	var words []string
	for _, p := range pids[:min(len(pids), most)] {
		words = append(words, strconv.Itoa(p))
	}
	if len(pids) > most {
		words = append(words, fmt.Sprintf("and %d more", len(pids)-most))
	}
	return strings.Join(words, " ")
}

func cgroupUsage(u cgroup.Usage) [][2]string {
	var lines [][2]string
	add := func(name, format string, args ...any) {
		lines = append(lines, [2]string{name, fmt.Sprintf(format, args...)})
	}
	if m := u.Memory; m != nil {
		add("memory", "%s of %s, peak %s, killed %d", humanSize(m.Current), humanSize(m.Limit), humanSize(m.Peak), m.OOMKill)
		if m.Swap > 0 || m.SwapLimit >= 0 {
			add("swap", "%s of %s", humanSize(m.Swap), humanSize(m.SwapLimit))
		}
	}
	if c := u.CPU; c != nil {
		quota := "no limit"
		if c.Quota > 0 {
			quota = strconv.FormatFloat(c.Quota, 'g', 4, 64) + " CPUs"
		}
		add("cpu", "%s used, of %s, held back %d times for %s", c.Total.Round(time.Millisecond), quota, c.Throttled, c.ThrottledTime.Round(time.Millisecond))
	}
	if p := u.Pids; p != nil {
		limit := "no limit"
		if p.Limit >= 0 {
			limit = strconv.FormatInt(p.Limit, 10)
		}
		add("pids", "%d of %s, refused %d", p.Current, limit, p.Refused)
	}
	if io := u.IO; io != nil {
		add("io", "%s read, %s written", humanSize(io.ReadBytes), humanSize(io.WriteBytes))
	}
	return lines
}

// humanSize writes bytes in powers of 1024 as ParseSize reads them; less than
// 0 is no limit.
func humanSize(n int64) string {
	if n < 0 {
		return "no limit"
	}
	v, unit := float64(n), "B"
	for _, u := range []string{"K", "M", "G", "T", "P"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, u
	}
	return strconv.FormatFloat(float64(int64(v*10+0.5))/10, 'f', -1, 64) + unit
}
