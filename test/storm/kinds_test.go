package storm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// kinds are the processes that a container can need, and how those of a store are
// found; of the command itself it is nil.
var kinds = []struct {
	name string
	find func(f *field) []int
}{
	{"the command", nil},
	{"the monitor", func(f *field) []int { return f.monitorAlone() }},
	{"the guard", func(f *field) []int { return f.guards() }},
	{"monitor and guard", func(f *field) []int { return f.monitors() }},
	{"the holder", func(f *field) []int { return f.holders() }},
}

func isStub(pid int) bool {
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	return err == nil && strings.HasPrefix(exe, "/memfd:")
}

func (f *field) monitorAlone() (pids []int) {
	for _, pid := range f.monitors() {
		if !isStub(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (f *field) guards() (pids []int) {
	for _, pid := range f.monitors() {
		if isStub(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A killing is a verb over which somebody is killed.
type killing struct {
	before [][]string // makes the container box
	verb   []string
	after  string // the states that box may be in then, gone among them
}

func killings(root string) []killing {
	image := "rootfs:" + root
	up := [][]string{{"run", "-d", "--network", "none", "--name", "box", image, "sleep", "600"}}
	terminal := [][]string{{"run", "-dit", "--network", "none", "--name", "box", image, "sh"}}
	brief := [][]string{{"create", "--name", "box", image, "sleep", "0.1"}}
	made := [][]string{{"create", "--name", "box", image, "sleep", "600"}}
	return []killing{
		{nil, []string{"run", "-d", "--name", "box", image, "sleep", "600"}, "gone created running"},
		{nil, []string{"run", "-d", "-v", "/data", "--name", "box", image, "sleep", "0.02"}, "gone created running exited"},
		{nil, []string{"run", "-di", "--restart", "always", "--name", "box", image, "sh", "-c", "exit 1"}, "gone created running restarting exited"},
		{nil, []string{"run", "--name", "box", image, "sleep", "0.02"}, "gone created running exited"},
		{nil, []string{"run", "--rm", "--name", "box", image, "sleep", "0.02"}, "gone created running exited"},
		{nil, []string{"create", "--name", "box", image, "true"}, "gone created"},
		{made, []string{"start", "box"}, "created running"},
		{brief, []string{"start", "-a", "box"}, "created running exited"},
		{up, []string{"stop", "-t", "0", "box"}, "running exited"},
		{terminal, []string{"stop", "-t", "0", "box"}, "running exited"},
		{up, []string{"restart", "-t", "0", "box"}, "running exited"},
		{up, []string{"kill", "box"}, "running exited"},
		{up, []string{"pause", "box"}, "running paused"},
		{up, []string{"exec", "box", "sleep", "0.02"}, "running"},
		{up, []string{"rename", "box", "cox"}, "running gone"},
		{up, []string{"update", "--cpu-shares", "512", "box"}, "running"},
		{up, []string{"rm", "-f", "box"}, "gone running exited"},
		{terminal, []string{"rm", "-f", "box"}, "gone running exited"},
	}
}

// Whoever of its processes is killed with -9 over whatever verb, at whatever time:
// the container is in a state that the verb explains, and can be removed with all
// that it has.
func TestKillEachKindOverEachVerb(t *testing.T) {
	f := newField(t)
	delays := []time.Duration{4 * time.Millisecond, 0, 20 * time.Millisecond, time.Millisecond, 7 * time.Millisecond, 15 * time.Millisecond, 30 * time.Millisecond}
	switch {
	case testing.Short():
		delays = delays[:1]
	case os.Getenv("KISTE_CROWD") == "":
		delays = delays[:3]
	}
	for _, kind := range kinds {
		for _, k := range killings(f.root) {
			for _, delay := range delays {
				f.kill(fmt.Sprintf("%s killed %v after %s", kind.name, delay, strings.Join(k.verb, " ")), k, kind.find, delay)
				if t.Failed() {
					return
				}
			}
		}
	}
	f.check()
}

func (f *field) kill(what string, k killing, find func(*field) []int, delay time.Duration) {
	f.t.Helper()
	for _, args := range k.before {
		f.must(args...)
	}
	cmd := f.command(k.verb...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	time.Sleep(delay)
	if find == nil {
		_ = cmd.Process.Kill()
	} else {
		for _, pid := range find(f) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	late := time.AfterFunc(patience, func() {
		f.t.Errorf("%s: it takes %v", what, patience)
		_ = cmd.Process.Kill()
	})
	_ = cmd.Wait()
	late.Stop()
	var status string
	f.until(what+": its state is one of "+k.after, func() bool {
		status = f.status("box")
		c, ok := f.lookQuietly("box")
		return strings.Contains(k.after, status) && (!ok || c.true())
	})
	if f.t.Failed() {
		f.t.Logf("%s: it is %s; %s", what, status, said.String())
	}
	for _, name := range []string{"box", "cox"} {
		if f.status(name) != gone {
			f.must("rm", "-fv", name)
		}
	}
	if _, err := f.kiste("gc"); err != nil {
		f.t.Errorf("%s: %v", what, err)
	}
	f.nothing(what, "lib/containers", "lib/names", "lib/volumes", "run/containers", "run/ids")
}

// lookQuietly is look for a container that may be gone.
func (f *field) lookQuietly(name string) (container, bool) {
	if f.status(name) == gone {
		return container{}, false
	}
	return f.look(name)
}

// nothing wants nothing to be left of any container, in dirs or of processes. Who
// removes one may still be at it.
func (f *field) nothing(what string, dirs ...string) {
	f.t.Helper()
	var left []string
	ok := f.until(what+": nothing is left", func() bool {
		left = nil
		for _, dir := range dirs {
			entries, _ := os.ReadDir(filepath.Join(f.dir, dir))
			for _, d := range entries {
				left = append(left, dir+"/"+d.Name())
			}
		}
		for _, pid := range f.holders() {
			left = append(left, fmt.Sprint("holder ", pid))
		}
		return len(left) == 0
	})
	if !ok {
		f.t.Errorf("left behind: %q", left)
	}
}

// Who compresses a log may be killed, too: nothing of the log is lost.
func TestKillTheCompressor(t *testing.T) {
	f := newField(t)
	const lines = 40000
	script := "i=0; while [ $i -lt " + strconv.Itoa(lines) + " ]; do echo line $i of many that fill the files; i=$((i+1)); done"
	killed := 0
	for try := 0; try < 10 && killed == 0; try++ { // on a busy host none may be met
		if try > 0 {
			f.must("rm", "talks")
		}
		f.must("run", "-d", "--name", "talks", "--log-opt", "max-size=100k", "--log-opt", "max-file=100", "rootfs:"+f.root, "sh", "-c", script)
		for f.status("talks") == "running" {
			for range 10 { // they are brief, and to ask for the state takes longer
				for _, pid := range f.named("__compress") {
					if syscall.Kill(pid, syscall.SIGKILL) == nil {
						killed++
					}
				}
			}
		}
	}
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "kiste"), "logs", "talks")
	cmd.Env, cmd.Stdout = f.env, &out
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	all := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(all) != lines || all[0] != "line 0 of many that fill the files" || !strings.HasPrefix(all[len(all)-1], "line "+strconv.Itoa(lines-1)+" ") {
		t.Errorf("%d lines, from %q to %q", len(all), all[0], all[len(all)-1])
	}
	if t.Logf("%d were killed", killed); killed == 0 {
		t.Error("nobody was killed")
	}
	temps, _ := filepath.Glob(filepath.Join(f.dir, "lib/containers/*/.tmp-*"))
	if len(temps) > 0 {
		t.Errorf("left behind: %q", temps)
	}
	f.check()
}

// named are this store's processes of kisted with a hidden command.
func (f *field) named(command string) (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		line, _ := os.ReadFile(file)
		if !bytes.HasSuffix(line, []byte("kisted\x00"+command+"\x00")) {
			continue
		}
		env, _ := os.ReadFile(filepath.Dir(file) + "/environ")
		if bytes.Contains(env, []byte("KISTE_RUN="+filepath.Join(f.dir, "run")+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}
