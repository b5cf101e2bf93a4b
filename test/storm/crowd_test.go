package storm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowds says how many containers there are: with $KISTE_CROWD as many as are
// promised, else as many as a test has time for.
func crowds() (idle, short int) {
	switch {
	case os.Getenv("KISTE_CROWD") != "":
		return 500, 2000
	case testing.Short():
		return 20, 30
	}
	return 100, 300
}

// usage is what the engine's processes of a field have.
type usage struct {
	processes, threads, files, mounts int
	memory                            int64 // proportional, in bytes
}

// used looks at the monitor, its guard, and the holders.
func (f *field) used() (u usage) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	u.mounts = bytes.Count(mounts, []byte("\n"))
	for _, pid := range append(f.monitors(), f.holders()...) {
		dir := "/proc/" + strconv.Itoa(pid)
		u.processes++
		files, _ := os.ReadDir(dir + "/fd")
		threads, _ := os.ReadDir(dir + "/task")
		u.files, u.threads = u.files+len(files), u.threads+len(threads)
		text, _ := os.ReadFile(dir + "/smaps_rollup")
		for line := range strings.Lines(string(text)) {
			if w := strings.Fields(line); len(w) > 1 && w[0] == "Pss:" {
				n, _ := strconv.ParseInt(w[1], 10, 64)
				u.memory += n << 10
			}
		}
	}
	return u
}

// holders are the holders of this store's containers.
func (f *field) holders() (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		line, _ := os.ReadFile(file)
		if bytes.HasPrefix(line, []byte("kiste-holder\x00"+f.dir)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// each does something n times, several at once.
func each(n, at int, do func(i int)) {
	turns := make(chan int)
	var all sync.WaitGroup
	for range at {
		all.Go(func() {
			for i := range turns {
				do(i)
			}
		})
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	all.Wait()
}

// What an idle container may cost: bytes of memory of all processes of the
// engine, and descriptors.
const (
	mostMemory = 1 << 20
	mostFiles  = 14
)

// Many that idle at once cost little each, and leave nothing.
func TestIdleCrowd(t *testing.T) {
	n, _ := crowds()
	f := newField(t)
	start := time.Now()
	each(n, 8, func(i int) { f.must("run", "-d", "--name", fmt.Sprint("idle", i), "rootfs:"+f.root, "sleep", "600") })
	t.Logf("%d started in %v", n, time.Since(start).Round(time.Millisecond))
	if got := len(strings.Fields(f.must("ps", "-q"))); got != n {
		t.Errorf("%d run", got)
	}
	share := n
	if testing.Short() {
		share = 100 // the monitor itself is shared by few
	}
	var u usage
	f.until("that is little enough", func() bool { // what the starts have needed goes
		u = f.used()
		return u.memory <= mostMemory*int64(share) && u.files <= mostFiles*share+50 && u.threads <= u.processes+50
	})
	t.Logf("%d processes, %d threads, %d descriptors, %d KiB: for each %d KiB", u.processes, u.threads, u.files, u.memory>>10, u.memory>>10/int64(n))
	start = time.Now()
	f.must(append([]string{"rm", "-f"}, strings.Fields(f.must("ps", "-aq"))...)...)
	t.Logf("removed in %v", time.Since(start).Round(time.Millisecond))
	f.until("no process of the engine is left", func() bool { return f.used().processes == 0 })
	f.check()
}

// What may be more after many short containers than after the first of them.
const (
	moreMemory  = 4 << 20
	moreThreads = 20 // of the runtime, which starts one when others are blocked
	moreFiles   = 10 // pipes, which are kept for the next who needs some
)

// Many short ones in sequence, of each kind: nothing of them stays in the monitor,
// which lives all the while, or anywhere.
func TestShortCrowd(t *testing.T) {
	_, n := crowds()
	f := newField(t)
	f.must("run", "-d", "--name", "stays", "rootfs:"+f.root, "sleep", "3600")
	kinds := []func(name string){
		func(name string) { f.must("run", "--rm", "--name", name, "rootfs:"+f.root, "true") },
		func(name string) {
			f.must("run", "-d", "--name", name, "rootfs:"+f.root, "echo", "x")
			f.must("wait", name)
			f.must("rm", name)
		},
		func(name string) { f.must("run", "-t", "--rm", "--name", name, "rootfs:"+f.root, "true") },
		func(name string) {
			f.must("run", "-di", "--name", name, "-v", "/data", "rootfs:"+f.root, "sh")
			f.must("exec", name, "true")
			f.must("rm", "-fv", name)
		},
		func(name string) {
			f.must("run", "-d", "--rm", "--restart", "no", "--name", name, "rootfs:"+f.root, "true")
			_, _ = f.kiste("wait", name) // it may be gone
		},
	}
	var first usage
	start := time.Now()
	for i := range n {
		if i == n/10 {
			first = f.used()
		}
		kinds[i%len(kinds)](fmt.Sprint("short", i%7))
	}
	f.until("the last is gone", func() bool { return len(strings.Fields(f.must("ps", "-aq"))) == 1 })
	f.until("its holder is gone", func() bool { return len(f.holders()) == 1 })
	var last usage
	f.until("it does not grow", func() bool {
		last = f.used()
		return last.memory <= first.memory+moreMemory && last.files <= first.files+moreFiles && last.threads <= first.threads+moreThreads && last.mounts <= first.mounts
	})
	t.Logf("%d in %v; after a tenth %+v, at the end %+v", n, time.Since(start).Round(time.Millisecond), first, last)
	f.check()
}
