package script

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rsc.io/script"

	"kiste/internal/need"
)

// group is the parent of the cgroups of engines' containers, $GROUP: of this run
// alone.
var group = "kiste-" + strconv.Itoa(os.Getpid())

// What ends other people's engines is given this long.
const lastRites = 2 * time.Minute

// finallyCmd keeps a program for the end, which comes after success and failure.
func finallyCmd(t *testing.T) script.Cmd {
	return command("run a program when the script has ended, whether it failed or not; the last one first", "program args...", 1,
		func(s *script.State, args []string) (string, string, error) {
			kept, _, _, err := program(s, args) // which may be another's line: of asuser, runtime, pty
			if err != nil {
				return "", "", err
			}
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), lastRites)
				defer cancel()
				last := exec.CommandContext(ctx, kept.Path, kept.Args[1:]...)
				last.Dir, last.Env, last.WaitDelay = kept.Dir, kept.Env, 5*time.Second
				if out, err := last.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
				}
			})
			return "", "", nil
		})
}

// daemonCmd starts an engine's daemon, which is told to end with the script.
func daemonCmd(t *testing.T) script.Cmd {
	return command("start a program, its output in a file, that is ended with the script", "file program args...", 2,
		func(s *script.State, args []string) (string, string, error) {
			found, _, _, err := program(s, args[1:])
			if err != nil {
				return "", "", err
			}
			log, err := os.OpenFile(s.Path(args[0]), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
			if err != nil {
				return "", "", err
			}
			defer log.Close()
			// Not bound to the script's context: what it has started is taken down first.
			cmd := exec.Command(found.Path, found.Args[1:]...)
			cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = found.Dir, found.Env, log, log
			if err := cmd.Start(); err != nil {
				return "", "", err
			}
			t.Cleanup(func() {
				end(t, cmd)
				if t.Failed() {
					text, _ := os.ReadFile(log.Name())
					t.Logf("%s ends with:\n%s", log.Name(), text[max(0, len(text)-4000):])
				}
			})
			return "", "", nil
		})
}

// buildCmd builds a program of the tests' own.
func buildCmd(t *testing.T) script.Cmd {
	return command("build a Go program that tests need, into the script's directory", "directory", 1,
		func(s *script.State, args []string) (string, string, error) {
			need.Program(t, "go")
			out, err := exec.Command("go", "build", "-o", s.Path(filepath.Base(args[0])), args[0]).CombinedOutput()
			return "", string(out), err
		})
}

// end asks a daemon to end, and makes it end where it does not.
func end(t *testing.T, cmd *exec.Cmd) {
	ended := make(chan bool)
	go func() { cmd.Wait(); close(ended) }()
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(lastRites):
		t.Errorf("%s does not end when told to", cmd.Path)
		cmd.Process.Kill()
		<-ended
	}
}

// removeEngines ends what a script that failed has left of engines: the
// processes that have its directory in their environment, those in cgroups of
// its name, and mounts below its directory.
func removeEngines(work string) {
	for _, pid := range append(marked(work), members()...) {
		if pid != os.Getpid() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	settleMarked(work)
	info, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], work+"/") {
			syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
	for _, file := range groupFiles() {
		os.Remove(filepath.Dir(file))
	}
}

// marked are the processes that a script with this directory has started. Holders
// have no environment, but say whose they are.
func marked(work string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		env, _ := os.ReadFile(file)
		line, _ := os.ReadFile(filepath.Dir(file) + "/cmdline")
		if strings.Contains("\x00"+string(env), "\x00WORK="+work+"\x00") || strings.HasPrefix(string(line), "kiste-holder\x00"+work+"/") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// settleMarked waits a moment for those who are about to end, and tells who does not.
func settleMarked(work string) (left []string) {
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		left = nil
		for _, pid := range marked(work) {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			left = append(left, fmt.Sprintf("process %d %q", pid, line))
		}
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

// members are the processes in this run's cgroups.
func members() (pids []int) {
	for _, file := range groupFiles() {
		text, _ := os.ReadFile(file)
		for word := range strings.FieldsSeq(string(text)) {
			pid, _ := strconv.Atoi(word)
			pids = append(pids, pid)
		}
	}
	return pids
}

// groupFiles are the cgroup.procs of the this run's cgroups, and, before
// them, of those below.
func groupFiles() []string {
	var files []string
	for _, below := range []string{"/*/*", "/*", ""} {
		for _, hierarchy := range []string{"", "/*"} {
			found, _ := filepath.Glob("/sys/fs/cgroup" + hierarchy + "/" + group + below + "/cgroup.procs")
			files = append(files, found...)
		}
	}
	return files
}

// emptyCmd is the end of an engine's cgroup: nothing may be in it. Engines leave
// the parent of their containers' groups, and Podman that of its monitors, as
// they do with runc.
func emptyCmd() script.Cmd {
	return command("remove the cgroup of engines, $GROUP, in which nothing may be left", "", 0,
		func(*script.State, []string) (string, string, error) {
			for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
				if err := removeEnginesOwn(); err == nil || time.Now().After(end) {
					return "", "", err
				}
			}
		})
}

// removeEnginesOwn removes what engines leave, if nothing else is there. What engines
// have started to clean up after a container may still be in it.
func removeEnginesOwn() (all error) {
	for _, file := range groupFiles() {
		dir := filepath.Dir(file)
		if !enginesOwn(dir) {
			all = errors.Join(all, fmt.Errorf("left behind: %s", dir))
		}
	}
	if all != nil {
		return all
	}
	for _, file := range groupFiles() {
		if dir := filepath.Dir(file); enginesOwn(dir) {
			all = errors.Join(all, os.Remove(dir))
		}
	}
	return all
}

func enginesOwn(dir string) bool {
	name := filepath.Base(dir)
	return name == group || name == "conmon"
}
