package cve

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// link replaces name in the root by a link.
func (b *box) link(t *testing.T, name, to string) {
	t.Helper()
	path := b.Root(name)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.RemoveAll(path))
	if err := errors.Join(err, os.Symlink(to, path)); err != nil {
		t.Fatal(err)
	}
}

// Links of the image lead nothing that a start makes, mounts or changes out of
// the image: to refuse is as good as to stay inside. CVE-2014-9357, 2015-3629,
// 2019-18837, 2019-19921, 2023-27561, 2023-28642, 2025-31133, 2025-52565,
// 2026-41579, 2026-47766, 2026-88264, 2026-88265.
func TestLinksOfTheImage(t *testing.T) {
	imagesDev := func(b *box, _ string) {
		pts := b.Spec.Mounts[2]
		b.noMount("/dev")
		b.Spec.Mounts = append(b.Spec.Mounts, pts)
	}
	in := func(at string) func(*box, string) {
		return func(b *box, share string) { b.bind(share, at) }
	}
	terminal := func(b *box, _ string) { b.Spec.Process.Terminal = true }
	both := func(f, g func(*box, string)) func(*box, string) {
		return func(b *box, share string) { f(b, share); g(b, share) }
	}
	each(t, func(t *testing.T, l level) {
		for _, tt := range []struct {
			name   string
			link   string                     // in the image
			to     string                     // OUT is a directory of the host, FILE a file there
			change func(b *box, share string) // share is another directory of the host; nil: nothing
			refuse bool                       // nothing may start
		}{
			{"proc", "proc", "OUT", nil, true},
			{"proc in the image", "proc", "/tmp", nil, true},
			{"sys", "sys", "OUT", nil, true},
			{"sys in the image", "sys", "/tmp", nil, true},
			{"dev", "dev", "OUT", nil, true},
			{"dev without a mount", "dev", "OUT", imagesDev, false},
			{"dev without a mount, terminal", "dev", "OUT", both(imagesDev, terminal), false},
			{"pts", "dev/pts", "OUT", func(b *box, _ string) { b.noMount("/dev/shm"); b.noMount("/dev/mqueue") }, false},
			{"shm of the image's dev", "dev/shm", "OUT", func(b *box, _ string) {
				m := b.Spec.Mounts[3]
				b.noMount("/dev")
				b.Spec.Mounts = append(b.Spec.Mounts, m)
			}, false},
			{"null", "dev/null", "FILE", imagesDev, false},
			{"null that is a knob", "dev/null", "/proc/sys/kernel/core_pattern", imagesDev, false},
			{"null that leads nowhere", "dev/null", "OUT/made", imagesDev, false},
			{"null that is a file of a volume", "dev/null", "/data/in/file", both(imagesDev, in("/data")), false},
			{"zero", "dev/zero", "FILE", imagesDev, false},
			{"console", "dev/console", "FILE", both(imagesDev, terminal), false},
			{"console that leads nowhere", "dev/console", "OUT/made", both(imagesDev, terminal), false},
			{"console that is a knob", "dev/console", "/proc/sysrq-trigger", both(imagesDev, terminal), false},
			{"console that is a file of a volume", "dev/console", "/data/in/file", both(both(imagesDev, terminal), in("/data")), false},
			{"ptmx", "dev/ptmx", "FILE", both(imagesDev, terminal), false},
			{"core", "dev/core", "FILE", imagesDev, false},
			{"a mount below a link", "data", "OUT", in("/data/in/new"), false},
			{"a mount below a link upwards", "data", "../../../../../../../../..OUT", in("/data/in/new"), false},
			{"a mount on a link upwards", "data", "../../../../../../../../..OUT", in("/data"), false},
			{"a mount below the first process's root", "data", "/proc/1/rootOUT", in("/data/new"), false},
			{"a mount below our own root", "data", "/proc/self/rootOUT", in("/data/new"), false},
			{"a mount below a process of the host's", "data", fmt.Sprintf("/proc/%d/rootOUT", os.Getpid()), both(in("/data/new"), func(b *box, _ string) {
				b.without(specs.PIDNamespace)
				b.noMount("/proc")
				b.bind("/proc", "/proc")
			}), false},
			{"a mount below a descriptor", "data", "/proc/self/fd/7", in("/data/in/new"), false},
			{"a mount below the working directory", "data", "/proc/self/cwd/..OUT", in("/data/in/new"), false},
			{"a file on a link that leads nowhere", "etc/resolv.conf", "OUT/made", func(b *box, share string) { b.bind(share+"/in/file", "/etc/resolv.conf") }, false},
			{"a file on a link", "etc/hosts", "FILE", func(b *box, share string) { b.bind(share+"/in/file", "/etc/hosts") }, false},
			{"a tmpfs on a link", "data", "OUT", func(b *box, _ string) {
				b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/data"})
			}, false},
			{"a tmpfs with a copy of a link", "data", "OUT", func(b *box, _ string) {
				b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/data", Options: []string{"tmpcopyup"}})
			}, false},
			{"a device", "place", "OUT", func(b *box, _ string) {
				b.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/place/null", Type: "c", Major: 1, Minor: 3}}
			}, false},
			{"the working directory", "place", "OUT", func(b *box, _ string) { b.Spec.Process.Cwd = "/place/made" }, false},
			{"the working directory by the first process", "place", "/proc/1/rootOUT", func(b *box, _ string) { b.Spec.Process.Cwd = "/place/made" }, false},
			{"what is masked", "place", "OUT", func(b *box, _ string) {
				b.Spec.Linux.MaskedPaths = append(b.Spec.Linux.MaskedPaths, "/place/in", "/place/in/file")
			}, false},
			{"what is read-only", "place", "OUT", func(b *box, _ string) {
				b.Spec.Linux.ReadonlyPaths = append(b.Spec.Linux.ReadonlyPaths, "/place", "/place/in")
			}, false},
			{"the user's home", "etc/passwd", "FILE", nil, false},
		} {
			t.Run(tt.name, func(t *testing.T) {
				theHostStays(t)
				out, share := newOutside(t, l), newOutside(t, l)
				b := newBox(t, l, out.look()...)
				// In the image such a path leads to a directory of its own.
				for _, name := range []string{"data", "place", out.dir + "/in"} {
					if err := os.MkdirAll(b.Root(name), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				b.link(t, tt.link, strings.NewReplacer("OUT", out.dir, "FILE", out.marker()).Replace(tt.to))
				if tt.change != nil {
					tt.change(b, share.dir)
				}
				b.give(t)
				r := b.call(t, nil, "run", b.id)
				clean(t, r.out)
				if started := strings.Contains(r.out, "done"); started && tt.refuse {
					t.Error("it was started")
				} else if !started && r.code == 0 {
					t.Errorf("code %d\n%s", r.code, r.out)
				}
				t.Logf("code %d: %.200s", r.code, r.out)
				out.untouched(t)
				share.untouched(t)
			})
		}
	})
}

// What the kernel tells and is told of in /proc and /sys is covered by nothing of
// the image's or of a volume's: CVE-2019-16884, CVE-2023-28642.
func TestNothingCoversProc(t *testing.T) {
	each(t, func(t *testing.T, l level) {
		theHostStays(t)
		for _, at := range []string{"/proc", "/proc/", "/proc/self", "/proc/self/attr", "/proc/self/attr/exec", "/proc/thread-self/attr/apparmor/exec", "/proc/1", "/proc/sys", "/proc/sys/kernel/core_pattern",
			"/tmp/../proc/self", "//proc//sys", "/proc/../proc"} {
			for _, m := range []specs.Mount{{Type: "bind", Options: []string{"rbind"}}, {Type: "tmpfs", Source: "tmpfs"}} {
				b := newBox(t, l, "/bin/attacker", "masked")
				if m.Type == "bind" {
					m.Source = newDir(t, l)
				}
				m.Destination = at
				b.Spec.Mounts = append(b.Spec.Mounts, m)
				if r := b.run(t); r.code == 0 || !strings.Contains(r.out, "proc") {
					t.Errorf("a %s on %s: code %d, %q", m.Type, at, r.code, r.out)
				}
			}
		}
	})
}

// A root that has to be read-only is, though the image has a /proc/self/fd of
// its own that leads elsewhere: CVE-2026-115521.
func TestTheRootIsReadOnlyWhateverTheImageHasAsProc(t *testing.T) {
	each(t, func(t *testing.T, l level) {
		theHostStays(t)
		for _, own := range []bool{true, false} {
			b := newBox(t, l, "/bin/attacker", "remount")
			b.Spec.Root.Readonly = true
			if own {
				b.noMount("/proc")
				if err := os.MkdirAll(b.Root("proc/self/fd"), 0o755); err != nil {
					t.Fatal(err)
				}
				for fd := range 64 {
					if err := os.Symlink("/tmp", b.Root(fmt.Sprintf("proc/self/fd/%d", fd))); err != nil {
						t.Fatal(err)
					}
				}
			}
			b.give(t)
			worked(t, b.run(t))
		}
	})
}
