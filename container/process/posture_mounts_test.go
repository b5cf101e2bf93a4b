package process_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// maskedPaths are Docker's list of what says too much of a host.
var maskedPaths = []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
	"/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"}

// readOnlyPaths are those through which it would be changed.
var readOnlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger", "/proc/sys"}

// A mountLine is a line of proc_pid_mountinfo(5).
type mountLine struct {
	device, root, point, options, shared string
	kind, super                          string
}

func parseMounts(info string) []mountLine {
	var list []mountLine
	for line := range strings.Lines(info) {
		front, back, _ := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(front), strings.Fields(back)
		if len(f) < 6 || len(g) < 3 {
			continue
		}
		list = append(list, mountLine{f[2], f[3], f[4], f[5], strings.Join(f[6:], " "), g[0], g[2]})
	}
	return list
}

// mounts are the mount table, without what the host decides.
func (p *posture) mounts(t *testing.T) {
	t.Helper()
	p.title("mounts")
	ofHost := map[string]string{}
	for _, m := range parseMounts(p.parent.read("mountinfo")) {
		ofHost[m.device] = m.kind
	}
	masks, fixed := map[string]string{}, map[string]string{}
	var list, groups, heat, devices []string
	var shared mountLine // a /proc or /sys of the host's
	for _, m := range parseMounts(p.child.read("mountinfo")) {
		kind, isHosts := ofHost[m.device]
		text := fmt.Sprintf("%s  %s", p.what(m, kind), strings.TrimSpace(mountOptions(m.options)+" "+m.shared))
		switch {
		case slices.Contains(maskedPaths, m.point):
			masks[m.point] = text
		case slices.Contains(readOnlyPaths, m.point):
			fixed[m.point] = text
		case strings.HasPrefix(m.point, "/sys/devices/system/cpu/"):
			heat = append(heat, text)
		case isHosts && m.root == "/" && shared.point != "" && strings.HasPrefix(m.point, shared.point+"/"):
			if hasOption(shared.options, "ro") && !hasOption(m.options, "ro") {
				t.Errorf("%s is %s, but what is above it is read-only", m.point, m.options)
			}
		case m.point == "/sys/fs/cgroup" || strings.HasPrefix(m.point, "/sys/fs/cgroup/"):
			groups = append(groups, mountOptions(m.options))
		case onlyOfHost(m.point):
			devices = append(devices, mountOptions(m.options))
		default:
			list = append(list, m.point+"\t"+text)
			if isHosts && (m.point == "/proc" || m.point == "/sys") {
				shared = m
			}
		}
	}
	list = append(list, "/sys/fs/cgroup and below\t"+distinct(groups))
	if len(devices) > 0 {
		list = append(list, "/dev, the host's devices\t"+distinct(devices))
	}
	slices.Sort(list)
	for _, line := range list {
		point, text, _ := strings.Cut(line, "\t")
		p.say(point, "%s", text)
	}
	p.say("masked", "%s", covered(maskedPaths, masks))
	p.say("read-only", "%s", covered(readOnlyPaths, fixed))
	if exists("/sys/devices/system/cpu/cpu0/thermal_throttle") && len(masks) > 0 && len(heat) == 0 {
		t.Error("what the processors tell of their heat is not masked")
	}
}

func distinct(list []string) string {
	slices.Sort(list)
	return strings.Join(slices.Compact(list), "; ")
}

// covered says what lies on those paths that there are.
func covered(paths []string, on map[string]string) string {
	var all []string
	for _, path := range paths {
		text, is := on[path]
		switch {
		case is:
			all = append(all, text)
		case exists(path):
			all = append(all, "nothing")
		}
	}
	return distinct(all)
}

// standardDevices are in every container.
var standardDevices = []string{"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "core"}

// onlyOfHost reports whether a path below /dev is one of the host's that no
// other container has.
func onlyOfHost(path string) bool {
	name, inDev := strings.CutPrefix(path, "/dev/")
	first, _, _ := strings.Cut(name, "/")
	return inDev && !slices.Contains(standardDevices, first) && exists(path)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func hasOption(list, option string) bool { return slices.Contains(strings.Split(list, ","), option) }

// what is what is mounted: the kind of file system and how it was made, or
// that it is the host's.
func (p *posture) what(m mountLine, ofHost string) string {
	if at := strings.Index(m.root, "/containers/"); at >= 0 && strings.Contains(m.root, "/"+p.store+"/") {
		return "STORE" + p.names(m.root[at:])
	}
	switch {
	case slices.Contains(readOnlyPaths, m.point) && "/proc"+m.root == m.point:
		return "itself"
	case ofHost == "devtmpfs" || ofHost == "tmpfs" && strings.HasPrefix(m.point, "/dev/"):
		return "the host's device " + m.root
	case ofHost != "":
		return "the host's " + ofHost
	}
	if m.root != "/" {
		return m.kind + " from " + m.root
	}
	return strings.TrimSpace(m.kind + " " + superOptions(m.super))
}

// mountOptions leaves out when access times are written.
func mountOptions(list string) string {
	return withoutOptions(list, func(o string) bool { return strings.HasSuffix(o, "atime") })
}

// superOptions keeps those that were asked for.
func superOptions(list string) string {
	asked := []string{"ro", "size", "nr_inodes", "mode", "uid", "gid", "ptmxmode", "hidepid", "subset"}
	list = withoutOptions(list, func(o string) bool {
		key, _, _ := strings.Cut(o, "=")
		return !slices.Contains(asked, key)
	})
	words := strings.Split(list, ",")
	for i, w := range words {
		if key, id, ok := strings.Cut(w, "="); ok && (key == "uid" || key == "gid") {
			words[i] = key + "=" + outside(id)
		}
	}
	return strings.Join(words, ",")
}

func withoutOptions(list string, drop func(string) bool) string {
	return strings.Join(slices.DeleteFunc(strings.Split(list, ","), drop), ",")
}

// inside is what the probe has said.
func (p *posture) inside(said string) {
	p.title("what it finds out itself")
	answers := map[string][]string{}
	for line := range strings.Lines(said) {
		title, text, _ := strings.Cut(strings.TrimSpace(line), "\t")
		switch title {
		case "masked", "read-only", "dev":
			answers[title] = append(answers[title], text)
		default:
			p.say(title, "%s", p.names(text))
		}
	}
	p.say("masked", "%s", whatIsToRead(answers["masked"]))
	p.say("to write, read-only", "%s", summary(answers["read-only"]))
	p.title("/dev")
	for _, entry := range answers["dev"] {
		if path, text, _ := strings.Cut(entry, " "); !onlyOfHost(path) {
			p.say(path, "%s", text)
		}
	}
}

// whatIsToRead tells of those paths that every host has, unless none tells
// anything.
func whatIsToRead(answers []string) string {
	open := slices.ContainsFunc(answers, func(a string) bool { return !strings.HasSuffix(a, " empty") && !strings.HasSuffix(a, " ENOENT") })
	if !open {
		return "all empty"
	}
	return summary(slices.DeleteFunc(answers, func(a string) bool {
		path, _, _ := strings.Cut(a, " ")
		return !slices.Contains([]string{"/proc/interrupts", "/proc/keys", "/sys/firmware"}, path)
	}))
}

// summary says which path answers how. One that is not there counts as the one
// before it.
func summary(answers []string) string {
	byAnswer := map[string][]string{}
	var order []string
	last := ""
	for _, a := range answers {
		path, answer, _ := strings.Cut(a, " ")
		if answer == "ENOENT" {
			answer = last
		}
		if byAnswer[answer] == nil {
			order = append(order, answer)
		}
		byAnswer[answer] = append(byAnswer[answer], path)
		last = answer
	}
	if len(order) == 1 {
		return "all " + order[0]
	}
	var parts []string
	for _, answer := range order {
		parts = append(parts, strings.Join(byAnswer[answer], " ")+" "+answer)
	}
	return strings.Join(parts, "; ")
}
