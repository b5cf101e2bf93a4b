package cve

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Nobody in a container gets at the runtime that joins it: not its program, which
// is held until nobody executes it and then opened for writing, nor its memory,
// nor a descriptor of the host, as the script's interpreter and by exec:
// CVE-2016-9962, 2019-5736. The spy may trace and has no user namespace of his
// own.
func TestNobodyGetsAtTheRuntime(t *testing.T) {
	for _, attack := range []string{"overwrite", "spy"} {
		t.Run(attack, func(t *testing.T) {
			each(t, func(t *testing.T, l level) { getAtRuntime(t, l, attack) })
		})
	}
}

func getAtRuntime(t *testing.T, l level, attack string) {
	theHostStays(t)
	b := newBox(t, l, "/bin/attacker", attack)
	b.caps("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE")
	b.Spec.Process.NoNewPrivileges = false
	if err := os.WriteFile(b.Root("bin/again"), []byte("#!/proc/self/exe\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.give(t)
	program := filepath.Join(bin, "kiste-runtime")
	before, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	end := b.background(t)
	for n := range times(700) {
		what := []string{"/bin/busybox", "/bin/again", "/proc/self/exe"}[n%3]
		if attack == "spy" {
			what = "/bin/busybox" // the others may be the runtime, as a program that nobody here can write
		}
		if r := b.call(t, nil, "exec", b.id, what, "true"); what == "/bin/busybox" && r.code != 0 {
			t.Errorf("%s: code %d, %s", what, r.code, r.out)
		}
		if t.Failed() {
			break
		}
	}
	clean(t, end())
	for _, what := range []string{"/bin/again", "/proc/self/exe"} {
		b.Spec.Process.Args = []string{what, "overwrite"}
		clean(t, b.run(t).out)
	}
	if after, err := os.ReadFile(program); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the runtime has changed: %v", err)
	}
}

// What the kernel would execute on the host is written by nobody, and nobody makes
// groups, with and without a cgroup namespace: CVE-2022-0492, 2023-25809.
func TestNobodyWritesAReleaseAgent(t *testing.T) {
	each(t, func(t *testing.T, l level) {
		theHostStays(t)
		for _, own := range []bool{true, false} {
			b := newBox(t, l, "/bin/attacker", "release")
			if own {
				b.namespace(specs.CgroupNamespace, "")
			}
			worked(t, b.run(t))
		}
	})
}

// Nodes that a container makes are of no device that it was not given, whatever
// its rules leave out: GHSA-g54h-m393-cpwq.
func TestNoOtherDevices(t *testing.T) {
	each(t, func(t *testing.T, l level) {
		theHostStays(t)
		for _, rules := range [][]specs.LinuxDeviceCgroup{{{Access: "rwm"}}, {}, nil} {
			b := newBox(t, l, "/bin/attacker", "nodes")
			b.caps("CAP_MKNOD")
			if !l.user {
				b.Spec.Linux.Resources = &specs.LinuxResources{Devices: rules}
				if rules == nil {
					b.Spec.Linux.Resources = nil
				}
			}
			b.save(t)
			worked(t, b.run(t))
		}
	})
}

// No process has inheritable capabilities that nobody has asked for, by run or by
// exec: CVE-2022-24769, 2022-27652, 2022-29162.
func TestNothingIsInheritable(t *testing.T) {
	each(t, func(t *testing.T, l level) {
		theHostStays(t)
		const none = "CapInh:\t0000000000000000"
		b := newBox(t, l, "/bin/busybox", "grep", "CapInh", "/proc/self/status")
		if r := b.run(t); r.out != none {
			t.Errorf("run: code %d, %s", r.code, r.out)
		}
		b.Spec.Process.Args = []string{"/bin/attacker", "swap"}
		end := b.background(t)
		for _, options := range [][]string{nil, {"--cap", "CAP_NET_RAW"}, {"--user", "0", "--cap", "CAP_CHOWN", "--cap", "CAP_SYS_ADMIN"}} {
			r := b.call(t, nil, append(append([]string{"exec"}, options...), b.id, "/bin/busybox", "grep", "CapInh", "/proc/self/status")...)
			if r.out != none && !(l.user && r.code != 0) {
				t.Errorf("exec %v: code %d, %s", options, r.code, r.out)
			}
		}
		end()
	})
}

// A user is the number that was written, or none: no name of the image's, no sign
// and no zero makes another one of it: CVE-2016-3697, 2026-30892.
func TestAUserIsItsNumber(t *testing.T) {
	each(t, func(t *testing.T, l level) {
		theHostStays(t)
		b := newBox(t, l, "/bin/attacker", "swap")
		if err := os.WriteFile(b.Root("etc/passwd"), []byte("1:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\nname:x:0:0::/:/bin/sh\n+1:x:0:0::/:/bin/sh\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		b.give(t)
		end := b.background(t)
		for user, want := range map[string]string{"1": "1:0", "1:1": "1:1", "1000": "1000:0", "01": "1:0", "0": "0:0", ":1": "", "+1": "", "-1": "", "name": "", "1:": "", "1:+1": "", "0x1": "", " 1": "", "4294967296": "", "4294967295": "", "1:4294967296": ""} {
			r := b.call(t, nil, "exec", "--user", user, b.id, "/bin/sh", "-c", "echo $(/bin/busybox id -u):$(/bin/busybox id -g)")
			switch {
			case l.user && want != "" && r.code != 0: // he has but one number
			case want == "" && r.code == 0, want != "" && r.out != want:
				t.Errorf("%q: code %d, %s, want %s", user, r.code, r.out, want)
			}
		}
		end()
	})
}

// Files of the image that look like a handler's or a runtime's are nobody's:
// CVE-2025-24965, 2026-40226, 2026-84042.
func TestFilesOfTheImageAreNoConfiguration(t *testing.T) {
	each(t, func(t *testing.T, l level) {
		theHostStays(t)
		out := newOutside(t, l)
		b := newBox(t, l, out.look()...)
		for _, handler := range []string{"krun", "wasm", "wasmtime"} {
			for n, name := range []string{".krun_config.json", "usr/bin/passt", "usr/bin/newuidmap", "etc/systemd/nspawn/x.nspawn", "run/.containerenv", ".dockerenv"} {
				b.link(t, name, filepath.Join(out.dir, fmt.Sprint("made", n)))
			}
			b.give(t)
			b.Spec.Annotations = map[string]string{"run.oci.handler": handler, "module.wasm.image/variant": "compat-smart"}
			r := b.run(t)
			clean(t, r.out)
			if r.code == 0 && !strings.Contains(r.out, "done") {
				t.Errorf("something else was executed: %s", r.out)
			}
			out.untouched(t)
		}
	})
}

// More than 64 KiB of mounts are all there, and change no namespace:
// CVE-2021-43784.
func TestManyLongMounts(t *testing.T) {
	each(t, func(t *testing.T, l level) {
		theHostStays(t)
		const mounts = 300
		b := newBox(t, l, "/bin/sh", "-c", "/bin/busybox grep -c /many/ /proc/self/mountinfo; for n in pid net mnt; do /bin/busybox readlink /proc/self/ns/$n; done")
		long := filepath.Join(newDir(t, l), strings.Repeat("d", 200), strings.Repeat("e", 200))
		if err := os.MkdirAll(long, 0o755); err != nil {
			t.Fatal(err)
		}
		for n := range mounts {
			b.bind(long, fmt.Sprintf("/many/%s%d", strings.Repeat("f", 100), n))
		}
		r := b.run(t)
		said := strings.Fields(r.out)
		if r.code != 0 || len(said) != 4 || said[0] != fmt.Sprint(mounts) {
			t.Fatalf("code %d, %.300s", r.code, r.out)
		}
		for _, ns := range said[1:] {
			kind, _, _ := strings.Cut(ns, ":")
			if own, err := os.Readlink("/proc/self/ns/" + kind); err != nil || own == ns {
				t.Errorf("its %s namespace is the host's", kind)
			}
		}
	})
}
