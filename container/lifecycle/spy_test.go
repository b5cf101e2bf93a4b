package lifecycle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"kiste/internal/need"
)

// spyVariable makes this program one that looks into each new process of its
// pid namespace, until the file that it names is gone.
const spyVariable = "KISTE_LIFECYCLE_SPY"

// spy writes down each program and each file that a new process had, as long as
// it was no program of the container's.
func spy(end string) {
	seen := map[string]bool{}
	say := func(format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !seen[s] {
			seen[s] = true
			fmt.Println(s)
		}
	}
	fmt.Println("ready")
	for next, looks := os.Getpid()+1, 0; ; looks++ {
		if looks%1000 == 0 {
			if _, err := os.Stat(end); err != nil {
				fmt.Println("end", next-os.Getpid())
				return
			}
		}
		// Whoever came and went unseen left a gap.
		for ahead := range 20 {
			if lookAt("/proc/"+strconv.Itoa(next+ahead), say) {
				next += ahead + 1
				break
			}
		}
	}
}

// lookAt reports whether there was a process, and looks at it as long as it is
// not the container's.
func lookAt(proc string, say func(string, ...any)) bool {
	there := false
	for range 1000 {
		program, err := os.Readlink(proc + "/exe")
		if os.IsNotExist(err) {
			return there
		}
		there = true
		if strings.HasPrefix(program, "/bin/") {
			return true
		}
		say("program %s %v", program, err)
		fds, _ := os.ReadDir(proc + "/fd")
		for _, fd := range fds {
			if fd.Name() <= "2" && len(fd.Name()) == 1 {
				continue // its own streams
			}
			if to, err := os.Readlink(proc + "/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "/dev/") {
				say("descriptor of %s", to)
			}
		}
		if maps, err := os.ReadFile(proc + "/maps"); err == nil && strings.Contains(string(maps), "lifecycle.test") {
			say("memory of the runtime")
		}
	}
	return there
}

// A process of the container with CAP_SYS_PTRACE and no user namespace may look
// into all that joins it: but sees neither the runtime's program nor its memory
// nor a descriptor of the host (CVE-2016-9962, CVE-2019-5736).
func TestNobodySeesTheRuntimeJoin(t *testing.T) {
	f := newFixture(t, "/bin/spy")
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.bundle, "rootfs/bin/spy"), text, 0o755); err != nil {
		t.Fatal(err)
	}
	end := filepath.Join(f.bundle, "rootfs/end")
	if err := os.WriteFile(end, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	f.spec.Process.Env = append(f.spec.Process.Env, spyVariable+"=/end")
	for _, set := range []*[]string{&f.spec.Process.Capabilities.Bounding, &f.spec.Process.Capabilities.Permitted, &f.spec.Process.Capabilities.Effective} {
		*set = append(*set, "CAP_SYS_PTRACE")
	}
	o := f.options(t)
	need.Clean(t, f.bundle)
	c, p, err := f.root.Run(name("spied"), o)
	if err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(f.output(t), "ready") {
		time.Sleep(time.Millisecond)
	}
	tries := 300
	if testing.Short() {
		tries = 50
	}
	for range tries {
		f.sh(t, c, "", nil)
	}
	os.Remove(end)
	if _, err := p.Wait(); err != nil {
		t.Error(err)
	}
	p.Release()
	if err := c.Delete(false); err != nil {
		t.Error(err)
	}
	for _, line := range strings.Split(f.output(t), "\n") {
		kind, what, _ := strings.Cut(line, " ")
		if kind == "descriptor" || kind == "memory" || kind == "program" && !strings.HasPrefix(what, "/memfd:kiste") {
			t.Error(line)
		}
	}
	t.Log(f.output(t))
}
