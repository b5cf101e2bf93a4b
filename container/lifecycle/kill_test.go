package lifecycle_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kiste/container/lifecycle"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/internal/need"
)

// A deed is what a runtime in a process of its own does, and where it is killed
// while it does so. It travels in the environment.
type deed struct {
	Verb   string // create, run, start, exec, delete
	Dir    string
	ID     string
	Bundle string

	// Kind is what to die at, counted by At from 1: a point of the work, a
	// step of the parent, a call of the child. 0: none.
	Kind string
	At   int
}

const deedVariable = "KISTE_LIFECYCLE_DEED"

// TestMain is that runtime where the environment says so.
func TestMain(m *testing.M) {
	if end := os.Getenv(spyVariable); end != "" {
		spy(end)
		return
	}
	text := os.Getenv(deedVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	os.Unsetenv(deedVariable)
	var d deed
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		panic(err)
	}
	count := map[string]int{}
	if err := d.do(count); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(count)
	os.Exit(0)
}

// do does the deed, and counts what there is to die at.
func (d deed) do(count map[string]int) error {
	root := lifecycle.Root{Dir: d.Dir}
	root.Reached = func(string) {
		if count["point"]++; d.Kind == "point" && d.At == count["point"] {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	root.Prepare = func(p *plan.Plan, o *process.Options) {
		for _, s := range p.Steps {
			count["call"] += len(s.Calls)
		}
		count["step"] = len(p.Steps)
		switch d.Kind {
		case "step":
			o.DieAt = d.At
		case "call":
			o.DieCall = d.At
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	files := [3]*os.File{null, null, null}
	switch d.Verb {
	case "create":
		_, err := root.Create(d.ID, lifecycle.CreateOptions{Bundle: d.Bundle, Files: files, Edit: ownGroup})
		return err
	case "run":
		_, _, err := root.Run(d.ID, lifecycle.CreateOptions{Bundle: d.Bundle, Files: files, Edit: ownGroup})
		return err
	}
	c, err := root.Load(d.ID)
	if err != nil {
		return err
	}
	switch d.Verb {
	case "start":
		return c.Start()
	case "delete":
		return c.Delete(true)
	}
	p, err := c.Process()
	if err != nil {
		return err
	}
	_, err = c.Exec(lifecycle.ExecOptions{Process: p, Files: files})
	return err
}

// run does d in a process of its own. It is told whether that was killed.
func (d deed) run(t *testing.T) (count map[string]int, killed bool) {
	t.Helper()
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), deedVariable+"="+string(text))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := ours.start(cmd); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	err = cmd.Wait()
	if !late.Stop() {
		t.Fatalf("%+v takes too long", d)
	}
	if cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		return nil, true
	}
	if err != nil {
		t.Fatalf("%+v: %v\n%s", d, err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &count); err != nil {
		t.Fatal(err)
	}
	return count, false
}

// ours is the process that this one waits for by itself.
var ours child

type child struct {
	mu  sync.Mutex
	pid int
}

func (c *child) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := cmd.Start()
	if err == nil {
		c.pid = cmd.Process.Pid
	}
	return err
}

// bury takes away those who died and are not ours, and counts those there were.
func (c *child) bury() (others int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil && pid != c.pid {
				syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
				others++
			}
		}
	}
	return others
}

// adopt makes this process the parent of containers whose runtime is gone, as
// an engine is, so that what is left of them is seen.
func adopt(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			ours.bury()
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		close(end)
		<-ended
		for late := time.Now().Add(time.Minute); ours.bury() > 0 && time.Now().Before(late); {
			time.Sleep(5 * time.Millisecond) // the last one may not be dead yet
		}
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	})
}

// Wherever the runtime is killed, the container can be removed, and another one
// with its id be made.
func TestRuntimeIsKilled(t *testing.T) {
	f := newFixture(t, "sleep", "100")
	f.options(t)
	need.Clean(t, f.bundle)
	adopt(t)
	before := map[string]string{"create": "", "run": "", "start": "create", "exec": "run", "delete": "run"}
	for _, verb := range []string{"create", "run", "start", "exec", "delete"} {
		d := deed{Verb: verb, Dir: f.root.Dir, ID: name("killed"), Bundle: f.bundle}
		f.prepared(t, d, before[verb])
		count, killed := d.run(t)
		if killed {
			t.Fatal("killed without a reason")
		}
		f.removed(t, d)
		for _, kind := range []string{"point", "step", "call"} {
			every := 1
			if testing.Short() {
				every = 17
			}
			for at := 1; at <= count[kind]; at += every {
				d.Kind, d.At = kind, at
				f.prepared(t, d, before[verb])
				_, killed := d.run(t)
				if !killed && kind == "point" {
					t.Errorf("%+v has not died", d)
				}
				f.removed(t, d)
				if kind != "call" || at%10 == 1 {
					f.madeAgain(t, d)
				}
				if t.Failed() {
					t.Fatalf("%s, killed at %s %d", verb, kind, at)
				}
			}
		}
	}
}

// prepared does what has to be done before d.
func (f *fixture) prepared(t *testing.T, d deed, verb string) {
	t.Helper()
	if verb != "" {
		d.Verb, d.Kind = verb, ""
		d.run(t)
	}
}

// removed removes what is left of d, twice.
func (f *fixture) removed(t *testing.T, d deed) {
	t.Helper()
	if _, bad, err := f.root.List(); err != nil || len(bad) > 0 {
		t.Errorf("%+v: List: %v, %v", d, bad, err)
	}
	for range 2 {
		if err := f.root.Delete(d.ID, true); err != nil {
			t.Errorf("%+v: Delete: %v", d, err)
		}
	}
	if left, err := os.ReadDir(f.root.Dir); err != nil && !errors.Is(err, os.ErrNotExist) || len(left) > 0 {
		t.Errorf("%+v: %d left, %v", d, len(left), err)
	}
	for _, group := range groupsOf(d.ID) {
		t.Errorf("%+v: %s is left", d, group)
	}
}

func groupsOf(id string) []string {
	var left []string
	for _, dir := range []string{"unified", "memory", "pids", "cpu", "devices", "systemd", "."} {
		if _, err := os.Stat("/sys/fs/cgroup/" + dir + "/" + id); err == nil {
			left = append(left, dir+"/"+id)
		}
	}
	return left
}

// madeAgain makes, starts and removes a container with the id of d.
func (f *fixture) madeAgain(t *testing.T, d deed) {
	t.Helper()
	for _, verb := range []string{"create", "start", "delete"} {
		d.Verb, d.Kind = verb, ""
		d.run(t)
	}
}
