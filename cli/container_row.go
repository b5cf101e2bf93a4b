package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/engine"
	"kiste/engine/inspect"
)

// containerRow is a container in Docker's words; its JSON is that of docker ps
// --format json.
type containerRow struct {
	Command, CreatedAt, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks, Ports, RunningFor, Size, State, Status string

	labels map[string]string
}

// longestCommand is how much of a command Docker shows.
const longestCommand = 20

func containerFields(c *engine.Container, full bool, now time.Time) containerRow {
	j := c.JSON()
	r := containerRow{
		ID: c.ID, Image: c.ImageName, Names: c.Name, State: c.State.Status, Status: statusOf(c, now), Size: "0B",
		CreatedAt: c.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), RunningFor: age(c.Created, now), labels: c.Result.Labels,
		Networks: strings.Join(slices.Sorted(maps.Keys(j.NetworkSettings.Networks)), ","),
	}
	command, mounts := commandLine(j.Path, j.Args), mountNames(j.Mounts)
	if !full {
		r.ID, command = c.ID[:12], shorten(command, longestCommand)
		for i := range mounts {
			mounts[i] = shorten(mounts[i], 15)
		}
	}
	r.Command, r.Mounts, r.LocalVolumes = strconv.Quote(command), strings.Join(mounts, ","), strconv.Itoa(len(c.VolumeNames))
	r.Labels = labelText(c.Result.Labels)
	r.Ports = portsText(j.NetworkSettings.Ports)
	return r
}

// Label is the value of one of its labels.
func (r containerRow) Label(key string) string { return r.labels[key] }

// shorten cuts s to n letters, the last of them a mark that it was cut.
func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// statusOf says what a container does, and since when: State.String of moby.
func statusOf(c *engine.Container, now time.Time) string {
	s := c.State
	since := span(now.Sub(s.StartedAt))
	switch {
	case s.Status == "running" && s.Health != nil:
		return "Up " + since + " (" + s.Health.Text() + ")"
	case s.Status == "running":
		return "Up " + since
	case s.Status == "paused":
		return "Up " + since + " (Paused)"
	case s.Status == "created":
		return "Created"
	}
	word := "Exited"
	if s.Status == "restarting" {
		word = "Restarting"
	}
	if s.FinishedAt.IsZero() { // its keeper was killed, and nobody saw when
		return fmt.Sprintf("%s (%d)", word, s.ExitCode)
	}
	return fmt.Sprintf("%s (%d) %s", word, s.ExitCode, age(s.FinishedAt, now))
}

// commandLine puts quotation marks around arguments that have spaces.
func commandLine(path string, args []string) string {
	line := path
	for _, a := range args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		line += " " + a
	}
	return line
}

func mountNames(mounts []inspect.MountJSON) []string {
	var names []string
	for _, m := range mounts {
		names = append(names, cmp.Or(m.Name, m.Source, m.Destination))
	}
	return names
}

// labelText is labels as Docker's listings show them.
func labelText(labels map[string]string) string {
	var all []string
	for k, v := range labels {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}
