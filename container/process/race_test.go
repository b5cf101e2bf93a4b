package process_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kiste/container/bundle"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/host"
	"kiste/internal/need"
)

// Two containers share a volume. One swaps a directory of it for a link, again
// and again, while the other is started with mounts, a device, a working
// directory and a part of the volume below that name: nothing of the host is
// mounted, and nothing is made there. CVE-2021-30465 and CVE-2024-45310, as
// often as the kernel likes.
func TestSwappedLinksDoNotLeadOutside(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	tries := 400
	if testing.Short() {
		tries = 15
	}
	for _, tt := range []struct {
		name   string
		to     string // OUT is a directory of the host
		wishes bundle.Wishes
	}{
		{"to an absolute path", "OUT", bundle.Wishes{}},
		{"upwards", "../../../../../../../../../..OUT", bundle.Wishes{}},
		{"through the first process", "/proc/1/rootOUT", bundle.Wishes{}},
		{"without a user namespace", "OUT", bundle.Wishes{UserNS: bundle.Namespace{Kind: bundle.HostNS}}},
		{"through a process of the host", fmt.Sprintf("/proc/%d/rootOUT", os.Getpid()), bundle.Wishes{UserNS: bundle.Namespace{Kind: bundle.HostNS}, PID: bundle.Namespace{Kind: bundle.HostNS}}},
		{"through our own root", "/proc/self/rootOUT", bundle.Wishes{Privileged: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, out, volume := newSetting(t), newStorage(t).dir, newStorage(t).dir
			marker := filepath.Join(out, "marker")
			err := errors.Join(os.WriteFile(marker, []byte("host"), 0o644), os.Mkdir(filepath.Join(volume, "swap"), 0o755),
				os.Mkdir(filepath.Join(out, "part"), 0o755), os.Mkdir(filepath.Join(volume, "swap/part"), 0o755),
				os.Symlink(strings.ReplaceAll(tt.to, "OUT", out), filepath.Join(volume, "link")))
			if err != nil {
				t.Fatal(err)
			}
			// In the container such a path leads to a directory of its own.
			if err := os.MkdirAll(filepath.Join(s.root, out), 0o777); err != nil {
				t.Fatal(err)
			}
			before := listing(t, out)
			var plans []*plan.Plan
			for _, add := range []func(w *bundle.Wishes){
				func(w *bundle.Wishes) {
					w.Mounts = append(w.Mounts, bundle.Mount{Type: "tmpfs", Target: "/vol/swap/tmpfs/deep"})
				},
				func(w *bundle.Wishes) {
					w.Mounts = append(w.Mounts, bundle.Mount{Type: "bind", Source: marker, Target: "/vol/swap/file"})
				},
				func(w *bundle.Wishes) {
					w.Mounts = append(w.Mounts, bundle.Mount{Type: "volume", Source: volume, Subpath: "swap/part", Target: "/part"})
				},
				func(w *bundle.Wishes) {
					w.Devices = []bundle.Device{{Source: "/dev/null", Target: "/vol/swap/null", Permissions: "rwm"}}
				},
				func(w *bundle.Wishes) { w.Workdir = "/vol/swap/cwd/deep" },
			} {
				w := tt.wishes
				w.Mounts = []bundle.Mount{{Type: "bind", Source: volume, Target: "/vol"}}
				add(&w)
				plans = append(plans, s.compile(t, w, 0))
			}
			calm, stop := swap(t, filepath.Join(volume, "swap"), filepath.Join(volume, "link"))
			started, why := 0, map[string]int{}
			for i := 0; i < tries || started == 0 && i < tries*patience; i++ {
				if i%tries == tries-1 && started == 0 {
					calm()
				}
				err := startAndLook(plans[i%len(plans)], process.Options{}, func(pid int) { started++; onlyInside(t, pid, out, marker) })
				var errno syscall.Errno
				if errors.As(err, &errno) {
					why[errno.Error()]++
				} else if err != nil {
					t.Fatal(err)
				}
				if t.Failed() {
					break
				}
			}
			stop()
			t.Logf("%d started; the others: %v", started, why)
			if started == 0 {
				t.Error("none started")
			}
			if after := listing(t, out); after != before {
				t.Errorf("the host's directory was\n%sand is\n%s", before, after)
			}
		})
	}
}

// patience is how many times as many starts there are where none has come
// through: how often names change during one depends on the machine.
const patience = 10

// swap exchanges two names until stop is called: renameat2(2). Each calm doubles
// how long they may stay, so that others can look them up.
func swap(t *testing.T, a, b string) (calm, stop func()) {
	t.Helper()
	var ended atomic.Bool
	var longest atomic.Int64
	longest.Store(int64(200 * time.Microsecond))
	done := make(chan error)
	go func() {
		var failed error
		for failed == nil && !ended.Load() {
			time.Sleep(time.Duration(rand.Int64N(longest.Load())))
			failed = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		}
		done <- failed
	}()
	calm = func() { longest.Store(2 * longest.Load()) }
	return calm, func() {
		ended.Store(true)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// onlyInside checks that a container has nothing of the host's directory but
// the file that it was given.
func onlyInside(t *testing.T, pid int, out, marker string) {
	t.Helper()
	for _, m := range parseMounts(proc(pid).read("mountinfo")) {
		if base := "/" + filepath.Base(out); strings.Contains(m.root, base) && !strings.HasSuffix(m.root, base+"/marker") {
			t.Errorf("%s of the host is mounted on %s", m.root, m.point)
		}
	}
	if _, err := os.Lstat(fmt.Sprintf("/proc/%d/root%s", pid, marker)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the container sees the host's %s: %v", marker, err)
	}
	if cwd := proc(pid).link("cwd"); cwd != "/" && !strings.HasSuffix(cwd, "/cwd/deep") {
		t.Errorf("the working directory is %q", cwd)
	}
}
