package need

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kiste/internal/sys"
)

// settle is how long Clean waits for what goes away by itself: the kernel
// dissolves network namespaces and cgroups some time after their last process.
// A busy machine does that much later.
const settle = 30 * time.Second

// patience is how long Clean waits for its turn (see floor): where all must be
// shown, much longer than where several people work on one host.
func patience() time.Duration {
	if os.Getenv("KISTE_REQUIRE") != "" {
		return 2 * time.Minute
	}
	return 2 * time.Second
}

// Clean fails the test where it leaves behind on this host: mounts, network
// links, named network namespaces, cgroups named kiste*, processes that this
// one started (daemons too, unless they cleared their environment), threads of
// this process in another namespace, open descriptors of this process, and
// files below dirs. Call it first, so that its check runs after all other
// clean-up.
//
// Tests of several packages run at the same time, and each would see the
// others' mounts. So among processes in the same mount namespace only one at a
// time has tests between Clean and its check; the others wait.
func Clean(t testing.TB, dirs ...string) {
	t.Helper()
	wakePoller()
	taken := floor.enter()
	if !taken {
		t.Logf("another process holds the floor for more than %v: what this test leaves behind is not looked at", patience())
		t.Cleanup(floor.leave)
		return
	}
	before := look(dirs)
	t.Cleanup(func() {
		defer floor.leave()
		left := settled(before, dirs)
		if len(left) > 0 {
			t.Errorf("the test left behind:\n\t%s", strings.Join(described(left), "\n\t"))
		}
	})
}

// settled compares until nothing is new or the time is up, and returns what
// is new.
func settled(before map[string]int, dirs []string) []string {
	for end := time.Now().Add(settle); ; time.Sleep(20 * time.Millisecond) {
		left := newer(before, look(dirs))
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

// newer lists what after has more of than before.
func newer(before, after map[string]int) []string {
	var more []string
	for _, thing := range slices.Sorted(maps.Keys(after)) {
		for range after[thing] - before[thing] {
			more = append(more, thing)
		}
	}
	return more
}

// look counts everything that a test could leave behind, by a text that a
// person understands and that stays the same as long as the thing is there.
func look(dirs []string) map[string]int {
	seen := map[string]int{}
	add := func(format string, args ...any) { seen[fmt.Sprintf(format, args...)]++ }
	mounts(add)
	names("/sys/class/net", "link", add)
	names("/run/netns", "named network namespace", add)
	groups(add)
	offspring(add)
	threads(add)
	descriptors(add)
	for _, dir := range dirs {
		files(dir, add)
	}
	return seen
}

type adder func(format string, args ...any)

func mounts(add adder) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		// ID parent major:minor root target options …: proc_pid_mountinfo(5)
		if f := strings.Fields(line); len(f) > 5 {
			kind, _, _ := strings.Cut(line[strings.Index(line, " - ")+3:], " ")
			add("mount %s on %s (from %s of %s)", kind, f[4], f[3], f[2])
		}
	}
}

func names(dir, what string, add adder) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		add("%s %s", what, e.Name())
	}
}

func groups(add adder) {
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir
		}
		// The parent of all groups stays, as a directory for others.
		if d.IsDir() && strings.Contains(path, "/kiste") && filepath.Base(path) != "kiste" {
			add("cgroup %s", path)
		}
		return nil
	})
}

func files(dir string, add adder) {
	filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			add("file %s", path)
		}
		return nil
	})
}

// mark is in the environment of every process that a test starts, so that
// those that another process adopted are known too.
var mark = "KISTE_TEST_OF=" + strconv.Itoa(os.Getpid())

// offspring adds the living processes that descend from this one or carry its
// mark. Not by their names and states: those change while they live.
func offspring(add adder) {
	parents := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			_, _, parents[pid] = process(pid)
		}
	}
	self := os.Getpid()
	for pid := range parents {
		if pid != self && (descends(parents, pid, self) || marked(pid)) {
			add("process %d", pid)
		}
	}
}

// described says what the processes among what is left are now.
func described(left []string) []string {
	for i, thing := range left {
		var pid int
		if _, err := fmt.Sscanf(thing, "process %d", &pid); err == nil {
			name, state, _ := process(pid)
			left[i] = fmt.Sprintf("%s (%s, %s)", thing, name, state)
		}
	}
	return left
}

// process reads PID (NAME) STATE PPID …: proc_pid_stat(5); a name may hold
// anything. Of a process that is gone it is nothing.
func process(pid int) (name, state string, parent int) {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	open, end := strings.IndexByte(string(b), '('), strings.LastIndexByte(string(b), ')')
	f := strings.Fields(string(b[end+1:]))
	if open < 0 || len(f) < 2 {
		return "", "", 0
	}
	parent, _ = strconv.Atoi(f[1])
	return string(b[open+1 : end]), f[0], parent
}

func descends(parents map[int]int, pid, from int) bool {
	for range len(parents) {
		if pid == from {
			return true
		}
		pid = parents[pid]
	}
	return false
}

func marked(pid int) bool {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return slices.Contains(strings.Split(string(b), "\x00"), mark)
}

// home is in which namespaces this process was at its first Clean.
var home = sync.OnceValue(func() map[string]string {
	spaces := map[string]string{}
	kinds, _ := os.ReadDir("/proc/self/ns")
	for _, kind := range kinds {
		spaces[kind.Name()], _ = os.Readlink("/proc/self/ns/" + kind.Name())
	}
	return spaces
})

// threads adds the threads of this process that have left home: the next
// goroutine on such a thread is in for a surprise.
func threads(add adder) {
	tasks, _ := os.ReadDir("/proc/self/task")
	for kind, own := range home() {
		for _, task := range tasks {
			ns, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/" + kind)
			if err == nil && ns != own {
				add("thread in %s", ns)
			}
		}
	}
}

func descriptors(add adder) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		// The one of ReadDir itself is gone by now.
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			add("descriptor of %s", target)
		}
	}
}

// wakePoller makes Go's runtime open its epoll descriptors, which then stay.
var wakePoller = sync.OnceFunc(func() {
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	os.Setenv("KISTE_TEST_OF", strconv.Itoa(os.Getpid()))
})

// floor is held while any test of this process is between Clean and its
// check. It is a lock on the mount namespace itself: those who would see
// each other's mounts are those who meet there.
var floor turn

type turn struct {
	mu      sync.Mutex
	holders int
	file    *os.File
	taken   bool
}

func (f *turn) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holders++
	if f.holders > 1 {
		return f.taken
	}
	f.taken = false
	file, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	f.file = file
	for end := time.Now().Add(patience()); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if sys.Flock(file, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			f.taken = true
			break
		}
	}
	return f.taken
}

func (f *turn) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holders--
	if f.holders == 0 && f.file != nil {
		f.file.Close()
		f.file = nil
	}
}
