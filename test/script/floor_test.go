package script

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
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
		// ip-netns(8) makes its directory a mount, once and for ever.
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] != "/run/netns" {
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
			all = append(all, "process "+filepath.Base(filepath.Dir(p)))
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
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		left = slices.DeleteFunc(floor(t), func(s string) bool { return slices.Contains(before, s) })
		if len(left) == 0 || time.Now().After(end) {
			return described(left)
		}
	}
}

// patience is how long what goes away by itself may take on a busy machine.
const patience = time.Minute

// described says what the processes among what is left are.
func described(left []string) []string {
	for i, thing := range left {
		if pid, ok := strings.CutPrefix(thing, "process "); ok {
			line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			left[i] = fmt.Sprintf("%s %q", thing, line)
		}
	}
	return left
}

// sweep takes away what a script has left, so that the next one does not fail
// of it. Cgroups are listed after those that they are in.
func sweep(left []string) {
	slices.Reverse(left)
	for _, thing := range left {
		kind, name, _ := strings.Cut(thing, " ")
		switch kind {
		case "process":
			var pid int
			if _, err := fmt.Sscan(name, &pid); err == nil {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		case "mount":
			syscall.Unmount(name, syscall.MNT_DETACH)
		case "link":
			exec.Command("ip", "link", "del", name).Run()
		case "table":
			exec.Command("nft", append([]string{"delete", "table"}, strings.Fields(name)...)...).Run()
		case "cgroup":
			killGroup(name)
		}
	}
}

// killGroup ends who is in a cgroup, and removes it.
func killGroup(dir string) {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		text, _ := os.ReadFile(dir + "/cgroup.procs")
		for word := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 1 && pid != os.Getpid() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if err := os.Remove(dir); !errors.Is(err, syscall.EBUSY) || time.Now().After(end) {
			return
		}
	}
}
