package storm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kiste/host"
	"kiste/internal/need"
)

var bin string

func TestMain(m *testing.M) {
	need.Main(m, func(dir string) error {
		bin = dir
		return need.Build(dir)
	})
}

// A field is a store, and an image in it: a directory with busybox.
type field struct {
	t    *testing.T
	dir  string
	root string
	env  []string
	peer []string // the command line of another engine, in the place of kiste

	older bool // the peer has older words for removals
}

func newField(t *testing.T) *field {
	t.Helper()
	need.Power(t, host.Root)
	need.Program(t, "busybox")
	f := &field{t: t, dir: t.TempDir()}
	need.Clean(t)
	f.root = filepath.Join(f.dir, "root")
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(busybox)
	if err == nil {
		err = os.MkdirAll(filepath.Join(f.root, "bin"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(f.root, "bin/busybox"), b, 0o755)
	}
	for _, name := range []string{"sh", "sleep", "true", "echo", "touch"} {
		err = errors.Join(err, os.Symlink("busybox", filepath.Join(f.root, "bin", name)))
	}
	if err != nil {
		t.Fatal(err)
	}
	f.env = append(os.Environ(), "KISTE_LIB="+filepath.Join(f.dir, "lib"), "KISTE_RUN="+filepath.Join(f.dir, "run"))
	t.Cleanup(f.removeAll)
	return f
}

func (f *field) command(args ...string) *exec.Cmd {
	line := append([]string{filepath.Join(bin, "kiste")}, args...)
	if f.peer != nil {
		line = append(slices.Clone(f.peer), args...)
	}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = f.env
	return cmd
}

// patience is how long one command may take where fifty are at work on a slow
// machine, and what comes by itself.
const patience = 3 * time.Minute

// kiste runs a command, which must end in time.
func (f *field) kiste(args ...string) (out string, err error) {
	cmd := f.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return "", err
	}
	late := time.AfterFunc(patience, func() {
		f.t.Errorf("kiste %s takes %v", strings.Join(args, " "), patience)
		cmd.Process.Kill()
	})
	defer late.Stop()
	if err = cmd.Wait(); err != nil {
		err = fmt.Errorf("kiste %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), err
}

func (f *field) must(args ...string) string {
	f.t.Helper()
	out, err := f.kiste(args...)
	if err != nil {
		f.t.Error(err)
	}
	return out
}

func (f *field) removeAll() {
	for _, id := range strings.Fields(f.must("ps", "-aq")) {
		f.must("rm", "-f", id)
	}
	if f.peer == nil {
		f.must("gc") // of what stays as long as the store does: the bridges of its networks
	}
}

// monitors are the processes of this store's monitor and of its guard. A child of the
// monitor looks like it until it becomes the container's process, which is nobody's to
// kill here.
func (f *field) monitors() (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, d := range entries {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		env, _ := os.ReadFile("/proc/" + d.Name() + "/environ")
		if bytes.HasSuffix(line, []byte("kiste\x00__monitor\x00")) && bytes.Contains(env, []byte("KISTE_RUN="+filepath.Join(f.dir, "run")+"\x00")) {
			pids = append(pids, pid)
		}
	}
	return slices.DeleteFunc(slices.Clone(pids), func(pid int) bool {
		parent := parentOf(pid)
		return slices.Contains(pids, parent) && !isStub(parent)
	})
}

// parentOf is field 4 of proc_pid_stat(5); 0 of who is gone.
func parentOf(pid int) int {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// one does one random thing with one of the containers. Whoever does it may be
// killed over it, and many things are not allowed at the moment: errors count
// for nothing here.
func (f *field) one(r *rand.Rand) {
	name := fmt.Sprintf("box%d", r.IntN(20))
	image := "rootfs:" + f.root
	all := [][]string{
		{"run", "-d", "--name", name, image, "sleep", "600"},
		{"run", "-d", "--name", name, "--restart", "always", image, "sh", "-c", "echo x; exit 1"},
		{"run", "-d", "--rm", "-v", "data:/data", "--name", name, image, "sleep", "0.1"},
		{"run", "-dit", "--name", name, image, "sh"},
		{"run", "--rm", "--name", name, image, "true"},
		{"create", "--name", name, image, "true"},
		{"start", name}, {"start", name}, {"stop", "-t", "0", name}, {"restart", "-t", "0", name},
		{"kill", name}, {"pause", name}, {"unpause", name}, {"rename", name, fmt.Sprintf("box%d", r.IntN(20))},
		{"logs", name}, {"ps", "-a"}, {"inspect", name}, {"rm", name}, {"rm", "-f", name}, {"rm", "-f", name},
	}
	cmd := f.command(all[r.IntN(len(all))]...)
	if cmd.Start() != nil {
		return
	}
	if r.IntN(3) == 0 {
		time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
		cmd.Process.Kill()
	}
	late := time.AfterFunc(patience, func() {
		f.t.Errorf("%q takes %v", cmd.Args, patience)
		cmd.Process.Kill()
	})
	cmd.Wait()
	late.Stop()
}

func span(t *testing.T) time.Duration {
	if d, err := time.ParseDuration(os.Getenv("KISTE_STORM")); err == nil {
		return d
	}
	if testing.Short() {
		return 10 * time.Second
	}
	return 2 * time.Minute
}

// Whoever is killed, and whenever: afterwards every container is in a state that
// can be gone on from, and nothing is left of those that are removed.
func TestKillStorm(t *testing.T) {
	f := newField(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	end := time.Now().Add(span(t))
	var done sync.WaitGroup
	var count [4]int
	for i := range count {
		done.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for ; time.Now().Before(end); count[i]++ {
				f.one(r)
			}
		})
	}
	done.Go(func() {
		r := rand.New(rand.NewPCG(seed, 99))
		for time.Now().Before(end) {
			time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
			for _, pid := range f.monitors() {
				if r.IntN(3) > 0 {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
	})
	done.Wait()
	t.Logf("%d operations", count[0]+count[1]+count[2]+count[3])
	f.check()
}

// check looks whether what is said of every container is true, and whether it
// can still be used.
func (f *field) check() {
	f.must("gc")
	for _, id := range strings.Fields(f.must("ps", "-aq", "--no-trunc")) {
		var c container
		var ok bool
		f.until("what is said of "+id+" is true", func() bool { // it may just have ended
			c, ok = f.look(id)
			return !ok || c.true()
		})
		if !ok {
			continue // removed by itself
		}
		if c.State.Status == "paused" {
			f.must("unpause", id)
		}
		if _, err := f.kiste("stop", "-t", "0", id); err != nil && f.there(id) {
			f.t.Error(err)
		}
		if _, err := f.kiste("rm", id); err != nil && f.there(id) {
			f.t.Error(err)
		}
	}
	f.must("gc") // of starts that were killed
	f.nothing("at the end", "lib/containers", "lib/names", "run/containers", "run/ids")
}

// A container is what the test looks at of one.
type container struct {
	Name  string
	State struct {
		Status string
		Pid    int
	}
}

// true reports whether the process is there when the status says so.
func (c container) true() bool {
	alive := c.State.Pid > 0 && syscall.Kill(c.State.Pid, 0) == nil
	switch c.State.Status {
	case "running", "paused":
		return alive
	case "restarting":
		return true
	}
	return !alive
}

func (f *field) look(id string) (container, bool) {
	out, err := f.kiste("inspect", id)
	var all []container
	if err != nil || json.Unmarshal([]byte(out), &all) != nil || len(all) != 1 {
		if f.there(id) {
			f.t.Errorf("inspect %s: %v: %s", id, err, out)
		}
		return container{}, false
	}
	return all[0], true
}

func (f *field) there(id string) bool {
	_, err := os.Lstat(filepath.Join(f.dir, "lib/containers", id))
	return err == nil
}

// Fifty at once want the same: one gets it, the others are told why not.
func TestFiftyAtOnce(t *testing.T) {
	f := newField(t)
	at := func(args ...string) (won int, all []error) {
		var mu sync.Mutex
		var done sync.WaitGroup
		for range 50 {
			done.Go(func() {
				_, err := f.kiste(args...)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else {
					all = append(all, err)
				}
			})
		}
		done.Wait()
		return won, all
	}
	told := func(what string, errs []error, words ...string) {
		t.Helper()
		for _, err := range errs {
			if !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(err.Error(), w) }) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if won, errs := at("run", "-d", "--name", "web", "rootfs:"+f.root, "sleep", "600"); won != 1 {
		t.Errorf("%d have run it: %v", won, errs)
	} else {
		told("run", errs, "is already in use by container")
	}
	if won, errs := at("stop", "-t", "0", "web"); won != 50 {
		t.Errorf("%d have stopped it: %v", won, errs)
	}
	if won, errs := at("start", "web"); won != 50 {
		t.Errorf("%d have started it: %v", won, errs)
	}
	if won, errs := at("exec", "web", "true"); won != 50 {
		t.Errorf("%d have entered it: %v", won, errs)
	}
	if won, errs := at("restart", "-t", "0", "web"); won != 50 {
		t.Errorf("%d have restarted it: %v", won, errs)
	}
	if won, errs := at("pause", "web"); won != 1 {
		t.Errorf("%d have paused it: %v", won, errs)
	} else {
		told("pause", errs, "is already paused")
	}
	if won, errs := at("unpause", "web"); won != 1 {
		t.Errorf("%d have unpaused it: %v", won, errs)
	} else {
		told("unpause", errs, "is not paused")
	}
	if won, errs := at("kill", "web"); won < 1 {
		t.Errorf("nobody has killed it: %v", errs)
	} else {
		told("kill", errs, "is not running")
	}
	if won, errs := at("start", "web"); won != 50 {
		t.Errorf("%d have started it again: %v", won, errs)
	}
	if won, errs := at("rename", "web", "site"); won != 1 {
		t.Errorf("%d have renamed it: %v", won, errs)
	} else {
		told("rename", errs, "No such container", "same name")
	}
	if won, errs := at("rm", "-f", "site"); won != 50 {
		t.Errorf("%d have removed it: %v", won, errs)
	}
}
