package storm

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// The states of a container, in the order of the cells below.
var states = []string{"created", "running", "paused", "restarting", "exited"}

// gone is where a removal leads.
const gone = "gone"

// What is said of an arrow that is not there, in the words of Docker 29; @ is the
// container's id.
const (
	notRunning = "!container @ is not running"
	restarting = "!container @ is restarting, wait until the container is running"
	notPaused  = "!container @ is not paused"
	stopFirst  = ": stop the container before removing or force remove"
	hangs      = "" // it waits for what does not come
)

// arrows are all verbs with where they lead from each state: into which, or what
// is said.
var arrows = []struct {
	verb  string // $ is the container
	cells [5]string
}{
	{"start $", [5]string{"running", "running", "!cannot start a paused container, try unpause instead", "restarting", "running"}},
	{"stop -t 0 $", [5]string{"created", "exited", "exited", "exited", "exited"}},
	{"kill $", [5]string{notRunning, "exited", "exited", "exited", notRunning}},
	{"kill -s WINCH $", [5]string{notRunning, "running", "paused", "restarting", notRunning}},
	{"pause $", [5]string{notRunning, "paused", "!container @ is already paused", restarting, notRunning}},
	{"unpause $", [5]string{notPaused, notPaused, "running", notPaused, notPaused}},
	{"restart -t 0 $", [5]string{"running", "running", "running", "restarting", "running"}},
	{"rm $", [5]string{gone, "!container is running" + stopFirst, "!container is paused and must be unpaused first", "!container is restarting" + stopFirst, gone}},
	{"rm -f $", [5]string{gone, gone, gone, gone, gone}},
	{"rename $ $-renamed", states5()},
	{"rename $ $", [5]string{sameName, sameName, sameName, sameName, sameName}},
	{"rename $ taken", [5]string{taken, taken, taken, taken, taken}},
	{"exec $ true", [5]string{notRunning, "running", "!container @ is paused, unpause the container before exec", restarting, notRunning}},
	{"attach --no-stdin $", [5]string{"!You cannot attach to a stopped container, start it first", hangs, "!You cannot attach to a paused container, unpause it first", "!You cannot attach to a restarting container, wait until it is running", "!You cannot attach to a stopped container, start it first"}},
	{"wait $", [5]string{"created", hangs, hangs, hangs, "exited"}},
	{"top $", [5]string{notRunning, "running", "paused", restarting, notRunning}},
	{"update --cpu-shares 512 $", states5()},
	{"cp $:/bin/true -", states5()},
	{"logs $", states5()},
	{"inspect $", states5()},
	{"port $", states5()},
	{"diff $", states5()},
	{"export $", states5()},
}

const (
	sameName = "!Renaming a container with the same name as its current name"
	taken    = `!Conflict. The container name "/taken" is already in use by container`
)

// states5 leads from each state to itself.
func states5() (all [5]string) {
	copy(all[:], states)
	return all
}

// Every arrow of the diagram in package engine is there, and every other one is
// refused, with Docker's words.
func TestStates(t *testing.T) {
	f := newField(t)
	f.must("create", "--name", "taken", "rootfs:"+f.root, "true")
	f.testStates(func(name string, state string) {
		f.must(append(strings.Fields(toBe[state]), "--network", "none", "--name", name, "rootfs:"+f.root, "sh", "-c", script[state])...)
	})
}

// toBe makes a container that is, or soon will be, in a state; of one that is
// restarting the pause has to be long enough to do something with it.
var (
	toBe   = map[string]string{"created": "create", "running": "run -d", "paused": "run -d", "exited": "run -d", "restarting": "run -d --restart always"}
	script = map[string]string{"created": "sleep 600", "running": "sleep 600", "paused": "sleep 600", "exited": "[ -e /again ] && sleep 600; touch /again", "restarting": "exit 1"}
)

func (f *field) testStates(build func(name, state string)) {
	t := f.t
	var all sync.WaitGroup
	limit := make(chan bool, 6)
	for i, a := range arrows {
		for j, state := range states {
			if a.cells[j] == hangs || f.peer != nil && (state == "restarting" || a.verb == "kill -s WINCH $") {
				continue
			}
			name := fmt.Sprintf("%s-%d", state, i)
			all.Go(func() {
				limit <- true
				build(name, state)
				<-limit
				f.comeTo(name, state)
				limit <- true
				defer func() { <-limit }()
				f.arrow(t, a.verb, name, state, a.cells[j])
			})
		}
	}
	all.Wait()
}

// status is the state of a container, gone if it is not there.
func (f *field) status(name string) string {
	out, err := f.kiste("inspect", "--type", "container", "--format", "{{.State.Status}}", name)
	if err != nil {
		return gone
	}
	return strings.TrimSpace(out)
}

// comeTo waits until a container is in a state, and of one that restarts for a
// long pause.
func (f *field) comeTo(name, state string) {
	if state == "paused" {
		f.must("pause", name)
	}
	f.until(name+" is in its state", func() bool {
		out, err := f.kiste("inspect", "--format", "{{.State.Status}} {{.RestartCount}}", name)
		w := strings.Fields(out)
		return err == nil && len(w) == 2 && w[0] == state && (state != "restarting" || len(w[1]) > 1 || w[1] >= "6")
	})
}

func (f *field) arrow(t *testing.T, verb, name, from, to string) {
	id, err := f.kiste("inspect", "--format", "{{.Id}}", name)
	if err != nil {
		t.Error(err)
		return
	}
	_, err = f.kiste(strings.Fields(strings.ReplaceAll(verb, "$", name))...)
	what := fmt.Sprintf("%s when %s", strings.ReplaceAll(verb, "$", "X"), from)
	want := to
	if text, refused := strings.CutPrefix(to, "!"); refused {
		want = from
		if f.peer != nil && strings.Contains(text, "before exec") {
			id = name // as it was asked for
		}
		text = strings.ReplaceAll(text, "@", strings.TrimSpace(id))
		if f.older && verb == "rm $" {
			text = "You cannot remove a " + from + " container"
		}
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(text)) {
			t.Errorf("%s: %v\nwant %q", what, err, text)
		}
	} else if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if strings.HasSuffix(verb, "-renamed") {
		name += "-renamed"
	}
	if want == "restarting" { // or it has just been started anew, and ends at once
		return
	}
	var got string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = f.status(name); got == want || want == "" {
			return
		}
	}
	t.Errorf("%s: it is %s, want %s", what, got, want)
}

// What is being removed, by somebody who was killed over it, is not used any more:
// it can only be removed.
func TestRemoving(t *testing.T) {
	f := newField(t)
	removing := regexp.MustCompile(`"Removing":false`)
	for verb, to := range map[string]string{"start $": "!container is marked for removal and cannot be started", "rm $": gone, "rm -f $": gone, "stop $": "exited", "logs $": "exited",
		"update --cpu-shares 512 $": "!Container is marked for removal and cannot be"} {
		f.must("run", "--name", "half", "rootfs:"+f.root, "true")
		id := strings.TrimSpace(f.must("inspect", "--format", "{{.Id}}", "half"))
		file := filepath.Join(f.dir, "lib/containers", id, "config.json")
		text, err := os.ReadFile(file)
		if err != nil || !removing.Match(text) {
			t.Fatalf("%v: %s", err, text)
		}
		if err := os.WriteFile(file, removing.ReplaceAll(text, []byte(`"Removing":true`)), 0o600); err != nil {
			t.Fatal(err)
		}
		f.arrow(t, verb, "half", "exited", to)
		f.must("rm", "-f", "half")
	}
}
