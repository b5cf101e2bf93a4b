package cve

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// perStart is how many mounts of one start go below a name that is swapped: each
// is a try.
const perStart = 30

// below has one start make all that is made in a container below dir.
func (b *box) below(dir, share string) {
	at := func(name string, n int) string { return fmt.Sprintf("%s/%s%d", dir, name, n) }
	for n := range perStart / 3 {
		b.bind(share+"/in", at("dir", n)+"/deep")
		b.bind(share+"/in/file", at("file", n))
		b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: at("tmpfs", n) + "/deep"})
	}
	if !b.l.user { // who would get the host's of that name
		b.Spec.Linux.Devices = []specs.LinuxDevice{{Path: dir + "/null", Type: "c", Major: 1, Minor: 3}}
	}
	b.Spec.Linux.MaskedPaths = append(b.Spec.Linux.MaskedPaths, dir+"/in", dir+"/in/file")
	b.Spec.Linux.ReadonlyPaths = append(b.Spec.Linux.ReadonlyPaths, dir, dir+"/in")
	b.Spec.Process.Cwd = dir + "/made"
}

// usualMounts is how many a container has without those below.
const usualMounts = 8

// A race is a container that is started again and again while names that it uses
// are swapped for links.
type race struct {
	name string
	// made prepares the container, and gives pairs of names that are swapped.
	made func(t *testing.T, b *box, out, share *outside) [][2]string
	args func(out *outside) []string // nil: whatever it can see of out, and whatever has to be hidden
}

// volume makes a volume on /vol with a directory "swap" and a link of that place.
func volume(to string) func(*testing.T, *box, *outside, *outside) [][2]string {
	return func(t *testing.T, b *box, out, share *outside) [][2]string {
		dir := newDir(t, b.l)
		err := errors.Join(os.Mkdir(filepath.Join(dir, "swap"), 0o777), os.Symlink(strings.ReplaceAll(to, "OUT", out.dir), filepath.Join(dir, "link")),
			os.MkdirAll(b.Root(out.dir), 0o777)) // such a path leads in the image to a directory of its own
		if err := errors.Join(err, os.Lchown(filepath.Join(dir, "swap"), b.l.owner(), b.l.owner())); err != nil {
			t.Fatal(err)
		}
		b.bind(dir, "/vol")
		b.below("/vol/swap", share.dir)
		return [][2]string{{filepath.Join(dir, "swap"), filepath.Join(dir, "link")}}
	}
}

// file swaps a file of the image's own /dev for a link. A terminal is there, too,
// if that is wanted.
func file(name, to string, terminal bool) func(*testing.T, *box, *outside, *outside) [][2]string {
	return func(t *testing.T, b *box, out, _ *outside) [][2]string {
		pts := b.Spec.Mounts[2]
		b.noMount("/dev")
		b.Spec.Mounts = append(b.Spec.Mounts, pts)
		b.Spec.Process.Terminal = terminal
		path := b.Root("dev/" + name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.RemoveAll(path), os.WriteFile(path, nil, 0o666)); err != nil {
			t.Fatal(err)
		}
		b.link(t, "dev/link", strings.NewReplacer("OUT", out.dir, "FILE", out.marker()).Replace(to))
		return [][2]string{{path, b.Root("dev/link")}}
	}
}

// directory swaps a directory of the image for a link.
func directory(name, to string) func(*testing.T, *box, *outside, *outside) [][2]string {
	return func(t *testing.T, b *box, out, _ *outside) [][2]string {
		if err := errors.Join(os.MkdirAll(b.Root(name), 0o755), os.MkdirAll(b.Root("tmp/p"), 0o755)); err != nil {
			t.Fatal(err)
		}
		link := "link-" + filepath.Base(name)
		b.link(t, link, strings.ReplaceAll(to, "OUT", out.dir))
		return [][2]string{{b.Root(name), b.Root(link)}}
	}
}

// knob redirects what the kernel is told in /proc: a volume goes over a name that is
// sometimes a link to a part of it, and what is told must arrive.
func knob(to string) func(*testing.T, *box, *outside, *outside) [][2]string {
	return func(t *testing.T, b *box, _, share *outside) [][2]string {
		mounts := len(b.Spec.Mounts)
		pairs := volume(to)(t, b, share, share)
		b.Spec.Mounts, b.Spec.Linux.Devices, b.Spec.Process.Cwd = b.Spec.Mounts[:mounts+1], nil, "/" // the volume alone
		b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/vol/swap"})
		b.bind(share.dir, "/vol/swap")
		b.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "77", "kernel.msgmax": "7777"}
		return pairs
	}
}

func told(*outside) []string {
	return []string{"/bin/sh", "-c", `[ "$(cat /proc/sys/net/ipv4/ip_default_ttl) $(cat /proc/sys/kernel/msgmax)" = "77 7777" ] || echo GOT another kernel than told; echo done`}
}

var races = []race{
	{"a mount below an absolute link", volume("OUT"), nil},
	{"a mount below a link upwards", volume("../../../../../../../../../..OUT"), nil},
	{"a mount below the first process's root", volume("/proc/1/rootOUT"), nil},
	{"a mount below our own root", volume("/proc/self/rootOUT"), nil},
	{"null that is a knob", file("null", "/proc/sys/kernel/core_pattern", false), nil},
	{"null that is a file of the host's", file("null", "FILE", false), nil},
	{"console that is a knob", file("console", "/proc/sysrq-trigger", true), nil},
	{"console that is nowhere", file("console", "OUT/made", true), nil},
	{"terminals that are a directory of the host's", directory("dev/pts", "OUT"), nil},
	{"proc", directory("proc", "/tmp/p"), func(*outside) []string { return []string{"/bin/attacker", "masked", "/tmp/p"} }},
	{"sys", directory("sys", "/tmp/p"), nil},
	{"sysctls", knob("/proc/sys/net/ipv4"), told},
	{"a process's own attributes", knob("/proc/self/attr"), told},
	{"all of proc", knob("/proc"), told},
}

// Names that are swapped for links while a container is made lead nothing out of
// it, and hide nothing that has to be seen: CVE-2021-30465, 2024-45310,
// 2023-27561, 2023-28642, 2025-31133, 2025-52565, 2025-52881. Every start has up
// to thirty mounts below the name.
func TestSwappedNames(t *testing.T) {
	each(t, func(t *testing.T, l level) {
		tries := 0
		for _, r := range races {
			t.Run(r.name, func(t *testing.T) { tries += r.run(t, l) })
		}
		if t.Logf("%d tries", tries); tries < 1000 && !testing.Short() {
			t.Error("they are too few")
		}
	})
}

// run gives how many mounts went below the name, and how many starts there were.
func (r race) run(t *testing.T, l level) (tries int) {
	theHostStays(t)
	out, share := newOutside(t, l), newOutside(t, l)
	args := append([]string{"/bin/attacker", "race"}, out.look()[2:]...)
	if r.args != nil {
		args = r.args(out)
	}
	b := newBox(t, l, args...)
	pairs := r.made(t, b, out, share)
	b.give(t)
	b.save(t)
	calm, stop := swapping(t, pairs)
	defer stop()
	started, why := 0, map[string]int{}
	for n := 0; n < times(40) || started == 0 && n < times(40)*patience; n++ {
		if n%times(40) == times(40)-1 && started == 0 {
			calm()
		}
		said := b.call(t, nil, "run", b.id)
		clean(t, said.out)
		if strings.Contains(said.out, "done") {
			started++
			tries += max(0, len(b.Spec.Mounts)-usualMounts)
		} else if said.code == 0 {
			t.Errorf("code 0: %s", said.out)
		} else {
			why[said.out[max(0, len(said.out)-60):]]++
		}
		tries++
		if t.Failed() {
			break
		}
	}
	stop()
	out.untouched(t)
	share.untouched(t)
	t.Logf("%d started; the others: %v", started, why)
	if started == 0 && !testing.Short() {
		t.Errorf("none was started: %v", why)
	}
	return tries
}

// patience is how many times as many starts there are where none has come
// through, with names that stay twice as long each time: how often names change
// during one depends on the machine.
const patience = 10

// pause is how long names stay as they are, so that others can look them up:
// mostly for less than one mount takes, now and then for up to longest, which a
// start may take, so that some starts get to their last mount before a name
// changes.
func pause(longest int64) time.Duration {
	if rand.IntN(50) == 0 {
		return time.Duration(rand.Int64N(longest))
	}
	return time.Duration(rand.IntN(200)) * time.Microsecond
}

// swapping exchanges pairs of names until stop is called: renameat2(2). The second
// is a link, which is made again where a start has replaced it. Each calm doubles
// how long they stay now and then.
func swapping(t *testing.T, pairs [][2]string) (calm, stop func()) {
	t.Helper()
	var longest atomic.Int64
	longest.Store(int64(20 * time.Millisecond))
	links := make([]string, len(pairs))
	for i, p := range pairs {
		to, err := os.Readlink(p[1])
		if err != nil {
			t.Fatal(err)
		}
		links[i] = to
	}
	var ended atomic.Bool
	done := make(chan error, 1)
	go func() {
		var failed error
		for failed == nil && !ended.Load() {
			for i, p := range pairs {
				err := unix.Renameat2(unix.AT_FDCWD, p[0], unix.AT_FDCWD, p[1], unix.RENAME_EXCHANGE)
				if errors.Is(err, unix.ENOENT) {
					if err = os.Symlink(links[i], p[0]); errors.Is(err, unix.EEXIST) {
						err = os.Symlink(links[i], p[1])
					}
				}
				if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EEXIST) {
					failed = err
				}
			}
			time.Sleep(pause(longest.Load()))
		}
		done <- failed
	}()
	calm = func() { longest.Store(2 * longest.Load()) }
	return calm, func() {
		if ended.Swap(true) {
			return
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
