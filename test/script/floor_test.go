package script

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kiste/kernel/network/nft"
)

// collect takes away what stays as long as the store does: the bridges of its
// networks, and its rules. What this cannot is told by floor.
func collect(work string) {
	if _, err := os.Stat(work + "/run/networks"); err != nil {
		return
	}
	c := exec.Command(filepath.Join(bin, "kiste"), "gc")
	c.Env = environment(work)
	_ = c.Run()
}

// floor lists what a script could leave behind: mounts, links, tables of rules,
// cgroups, and processes of our binaries.
func floor(t *testing.T) []string {
	t.Helper()
	var all []string
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			all = append(all, "mount "+fields[4])
		}
	}
	links, _ := os.ReadDir("/sys/class/net")
	for _, l := range links {
		all = append(all, "link "+l.Name())
	}
	all = append(all, tables()...)
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		// the parent of all containers' groups stays, as system.slice does
		if err == nil && d.IsDir() && strings.Contains(path, "kiste") && d.Name() != "kiste" {
			all = append(all, "cgroup "+path)
		}
		return nil
	})
	processes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, p := range processes {
		if exe, err := os.Readlink(p); err == nil && strings.HasPrefix(exe, bin+"/") {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline"))
			all = append(all, fmt.Sprintf("process %s %q", strings.TrimPrefix(filepath.Dir(p), "/proc/"), line))
		}
	}
	return all
}

// tables are ours of nf_tables.
func tables() (all []string) {
	c, err := nft.Open()
	if err != nil {
		return nil
	}
	defer c.Close()
	list, _ := c.Tables()
	for _, t := range list {
		if strings.HasPrefix(t.Name, "kiste") {
			all = append(all, "table "+t.String())
		}
	}
	return all
}

// settle waits a moment for what is on its way out, and returns what stays.
func settle(t *testing.T, before []string) []string {
	t.Helper()
	var left []string
	for range 20 {
		left = slices.DeleteFunc(floor(t), func(s string) bool { return slices.Contains(before, s) })
		if len(left) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return left
}
