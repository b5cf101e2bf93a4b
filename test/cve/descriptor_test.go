package cve

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// leaking gives the runtime descriptors of the host that an engine forgot to
// close: directories, from 3 on.
func leaking(t *testing.T, n int) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		for range n {
			f, err := os.Open("/")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
	}
}

// Of what the runtime or its caller has open a container gets the streams and
// what --preserve-fds names: CVE-2015-3627, CVE-2016-8649, CVE-2024-21626.
func TestOnlyTheStreamsAreOpen(t *testing.T) {
	each(t, func(t *testing.T, l level) {
		theHostStays(t)
		b := newBox(t, l, "/bin/attacker", "descriptors")
		worked(t, b.call(t, leaking(t, 5), "run", b.id))
		kept := b.call(t, leaking(t, 5), "run", "--preserve-fds", "2", b.id)
		if n := strings.Count(kept.out, "GOT"); n != 2 || !strings.Contains(kept.out, "GOT descriptor 3 ") || !strings.Contains(kept.out, "GOT descriptor 4 ") {
			t.Errorf("with two descriptors kept there are %d: %s", n, kept.out)
		}

		b.Spec.Process.Args = []string{"/bin/attacker", "swap"} // until it is told to end
		end := b.background(t)
		for range 5 {
			worked(t, b.call(t, leaking(t, 5), "exec", b.id, "/bin/attacker", "descriptors"))
		}
		end()

		b.Spec.Process.Args = []string{"/bin/sh", "-c", "exec /bin/attacker descriptors >/tmp/said"}
		b.save(t)
		if r := b.call(t, leaking(t, 5), "create", b.id); r.code != 0 {
			t.Fatal(r.out)
		}
		if r := b.call(t, leaking(t, 5), "start", b.id); r.code != 0 {
			t.Error(r.out)
		}
		said := b.awaitFile(t, "tmp/said", "done")
		clean(t, said)
		if r := b.call(t, nil, "delete", "--force", b.id); r.code != 0 {
			t.Error(r.out)
		}
	})
}

// A working directory that is a descriptor of the runtime's, or of its caller's,
// is refused, or is one in the container: CVE-2024-21626.
func TestNoDescriptorIsAWorkingDirectory(t *testing.T) {
	each(t, func(t *testing.T, l level) {
		theHostStays(t)
		b := newBox(t, l, "/bin/attacker", "cwd")
		for _, link := range [][2]string{{"/proc/self/fd", "link"}, {"/proc/self/fd/7", "seven"}, {"/proc/self/cwd", "here"}, {"/proc/1/root", "first"}} {
			if err := os.Symlink(link[0], b.Root(link[1])); err != nil {
				t.Fatal(err)
			}
		}
		b.Spec.Process.Args = []string{"/bin/attacker", "swap"}
		end := b.background(t)
		b.Spec.Process.Args = []string{"/bin/attacker", "cwd"}
		second := b.id + "-run"
		step := 1
		if testing.Short() {
			step = 7
		}
		dirs := []string{"/seven", "/here/..", "/first", "/proc/self/root/../..", "/proc/self/task/1/cwd"}
		for fd := 3; fd <= 30; fd += step {
			for _, dir := range []string{"/proc/self/fd/%d", "/proc/thread-self/fd/%d/../../..", "/proc/1/fd/%d", "/link/%d", "/proc/self/fd/../fd/%d/"} {
				dirs = append(dirs, fmt.Sprintf(dir, fd))
			}
		}
		refused := 0
		for _, dir := range dirs {
			b.Spec.Process.Cwd = dir
			b.save(t)
			for _, r := range []result{b.call(t, leaking(t, 28), "run", second), b.call(t, leaking(t, 28), "exec", "--cwd", dir, b.id, "/bin/attacker", "cwd")} {
				clean(t, r.out)
				if r.code != 0 {
					refused++
				}
			}
		}
		end()
		if refused == 0 {
			t.Error("none was refused")
		}
	})
}
