package process_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kiste/host"
	"kiste/internal/need"
)

// ways are the walls that a start can be made behind.
var ways = [][]string{{}, {"-t"}, {"--userns", "host"}, {"--pid", "host", "--userns", "host"}, {"--privileged"}}

// Links of the image do not lead what a start makes out of the image: to
// refuse is as good as to stay inside. CVE-2019-19921, 2019-18837, 2024-45310,
// 2025-31133, 2026-41579, 2026-88264 and 2026-88265.
func TestLinksOfTheImageDoNotLeadOutside(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	for i, tt := range []struct {
		name    string
		link    string   // in the image
		to      string   // OUT is a directory of the host, FILE a file there
		options []string // OUT likewise
	}{
		{"proc", "proc", "OUT", nil},
		{"proc in the image", "proc", "tmp", nil},
		{"sys", "sys", "OUT", nil},
		{"dev", "dev", "OUT", nil},
		{"etc", "etc", "OUT", nil},
		{"hosts", "etc/hosts", "FILE", nil},
		{"resolv.conf that leads nowhere", "etc/resolv.conf", "OUT/made", nil},
		{"hostname upwards", "etc/hostname", "../../../../../../../..FILE", nil},
		{"null", "dev/null", "FILE", nil},
		{"console", "dev/console", "FILE", nil},
		{"pts", "dev/pts", "OUT", nil},
		{"shm", "dev/shm", "OUT", nil},
		{"a volume below a link upwards", "data", "../../../../../../../..OUT", []string{"-v", "SHARE:/data/in"}},
		{"a volume below the first process's root", "data", "/proc/1/rootOUT", []string{"-v", "SHARE:/data/in"}},
		{"a volume below a process's root", "data", fmt.Sprintf("/proc/%d/rootOUT", os.Getpid()), []string{"-v", "SHARE:/data/in"}},
		{"a volume below our own root", "data", "/proc/self/rootOUT", []string{"-v", "SHARE:/data/in"}},
		{"a volume below a descriptor", "data", "/proc/self/fd/7", []string{"-v", "SHARE:/data/in/deep"}},
		{"a tmpfs on a link", "data", "OUT", []string{"--tmpfs", "/data"}},
		{"the working directory", "there", "/proc/1/rootOUT", []string{"-w", "/there/made"}},
		{"a null device that is a file of the host's", "dev/null", "/data/file", []string{"-v", "SHARE:/data"}},
		{"a console that is a file of the host's", "dev/console", "/data/file", []string{"-v", "SHARE:/data"}},
		{"a volume over the procfs", "data", "/proc", []string{"-v", "SHARE:/data", "--sysctl", "net.ipv4.ip_forward=1"}},
		{"a volume over what sysctls are written to", "data", "/proc", []string{"-v", "SHARE/sys:/data/sys", "--sysctl", "net.ipv4.ip_forward=1"}},
		{"a volume over what labels are written to", "data", "/proc", []string{"-v", "SHARE/attr:/data/self/attr", "-v", "SHARE/attr:/data/thread-self/attr"}},
		{"a device", "place", "/proc/1/rootOUT", []string{"--device", "/dev/null:/place/null"}},
	} {
		these := ways
		if testing.Short() {
			these = ways[i%len(ways):][:1]
		}
		for _, way := range these {
			t.Run(tt.name+" "+strings.Join(way, " "), func(t *testing.T) {
				out, share := newStorage(t).dir, newStorage(t).dir
				file := filepath.Join(out, "file")
				for _, name := range []string{file, share + "/file", share + "/sys/net/ipv4/ip_forward", share + "/attr/exec", share + "/attr/current", share + "/kcore"} {
					if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(name, []byte("host"), 0o640); err != nil {
						t.Fatal(err)
					}
				}
				s, root := newStorage(t), busybox(t)
				fill := strings.NewReplacer("OUT", out, "FILE", file, "SHARE", share).Replace
				link := filepath.Join(root, tt.link)
				if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
					t.Fatal(err)
				}
				os.Remove(link)
				if err := os.Symlink(fill(tt.to), link); err != nil {
					t.Fatal(err)
				}
				before := listing(t, out) + listing(t, share)
				args := append([]string{"run", "--rm"}, way...)
				for _, o := range tt.options {
					args = append(args, fill(o))
				}
				r := s.run(t, append(args, "rootfs:"+root, "/bin/sh", "-c", "cat "+file+" && echo SEEN; echo x 2>/dev/null >"+file+"; true")...)
				if r.code != 0 && r.code != 125 {
					t.Errorf("code %d\n%s", r.code, r.err)
				}
				if strings.Contains(r.out, "SEEN") {
					t.Errorf("the container has read the host's file: %s", r.out)
				}
				if after := listing(t, out) + listing(t, share); after != before {
					t.Errorf("the host's directories were\n%sand are\n%s", before, after)
				}
			})
		}
	}
}

// listing is all that a directory tells.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v %d %v\n", path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A working directory that is one of our descriptors is refused: CVE-2024-21626.
func TestNoDescriptorIsAWorkingDirectory(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	root, s := busybox(t), newStorage(t)
	if err := os.Symlink("/proc/self/fd", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = 9
	}
	for fd := 3; fd <= 30; fd += step {
		for _, dir := range []string{"/proc/self/fd/%d", "/proc/1/fd/%d", "/proc/thread-self/fd/%d/../..", "/link/%d"} {
			r := s.run(t, "run", "--rm", "-w", fmt.Sprintf(dir, fd), "rootfs:"+root, "/bin/pwd")
			if r.code != 125 && !(r.code == 0 && strings.HasPrefix(r.out, "/") && !strings.Contains(r.out, "unreachable")) {
				t.Errorf(dir+": code %d, %q, %q", fd, r.code, r.out, r.err)
			}
		}
	}
}

// What a process may not do in a default container. CVE-2022-0492,
// GHSA-g54h-m393-cpwq, 2022-24769, 2016-3697, 2022-36109.
func TestADefaultContainerMayNot(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	root, s := busybox(t), newStorage(t)
	if err := os.WriteFile(root+"/etc/passwd", []byte("root:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\nann:x:7:8::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/etc/group", []byte("root:x:0:\nstaff:x:50:ann\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, script, want string
		options            []string
	}{
		{"make namespaces", "unshare -U true 2>/dev/null || unshare -m true 2>/dev/null || echo no", "no", nil},
		{"mount", "mount -t tmpfs x /tmp 2>/dev/null || echo no", "no", nil},
		{"mount a cgroup", "mount -t cgroup -o rdma x /tmp 2>/dev/null || echo no", "no", nil},
		{"unmount what is masked", "umount /proc/keys 2>/dev/null || echo no", "no", nil},
		{"make a node of memory", "mknod /tmp/mem c 1 1 2>/dev/null && cat /tmp/mem 2>/dev/null || echo no", "no", nil},
		{"write sysctls of the host", "{ echo 1 >/proc/sys/kernel/core_pattern; } 2>/dev/null || echo no", "no", nil},
		{"write sysrq", "{ echo h >/proc/sysrq-trigger; } 2>/dev/null || echo no", "no", nil},
		{"write its cgroup", "{ mkdir /sys/fs/cgroup/x || mkdir /sys/fs/cgroup/unified/x; } 2>/dev/null || echo no", "no", nil},
		{"read keys", "cat /proc/keys /proc/timer_list | wc -c", "0", nil},
		{"have inheritable capabilities", "grep CapInh /proc/self/status", "CapInh:\t0000000000000000", nil},
		{"have capabilities as a user", "grep CapEff /proc/self/status", "CapEff:\t0000000000000000", []string{"-u", "1"}},
		{"have more descriptors", "exec ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3", nil}, // 3 is the directory itself
		{"be root by a user's name that is a number", "id -u", "1000", []string{"-u", "1000"}},
		{"lack its groups", "id -G", "8 50", []string{"-u", "ann"}},
		{"lack added groups", "id -G", "0 77", []string{"--group-add", "77"}},
		{"write a read-only root", "touch /x 2>/dev/null || echo no", "no", []string{"--read-only"}},
		{"gain privileges when told not to", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1", []string{"--security-opt", "no-new-privileges"}},
		{"signal the host in its pid namespace", "kill -0 1 2>/dev/null || echo no", "no", []string{"--pid", "host"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := s.sh(t, root, tt.script, tt.options...); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// What the kernel tells is not covered by anything else: CVE-2019-16884.
func TestNothingIsMountedOnProc(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	root, s, share := busybox(t), newStorage(t), newStorage(t).dir
	for _, dir := range []string{"/proc", "/proc/self", "/proc/self/attr", "/proc/self/attr/exec", "/proc/1/attr", "/proc/sys", "/proc/sys/kernel", "/proc/../proc/self/attr", "/tmp/../proc/thread-self"} {
		for _, options := range [][]string{
			{"-v", share + ":" + dir}, {"--tmpfs", dir}, {"-v", "named:" + dir}, {"-v", dir},
			{"--mount", "type=bind,source=" + share + ",target=" + dir}, {"--mount", "type=tmpfs,target=" + dir},
		} {
			if r := s.run(t, append(append([]string{"run", "--rm"}, options...), "rootfs:"+root, "/bin/true")...); r.code != 125 || !strings.Contains(r.err, "/proc") {
				t.Errorf("%v: code %d, %q; want it refused", options, r.code, r.err)
			}
		}
	}
}

// What an image says about its users is read within bounds: CVE-2026-47262.
func TestHugeAccountsAreRefused(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	for _, file := range []string{"etc/passwd", "etc/group"} {
		t.Run(file, func(t *testing.T) {
			root, s := busybox(t), newStorage(t)
			path := filepath.Join(root, file)
			if err := errors.Join(os.WriteFile(path, []byte("ann:x:7:8::/:/bin/sh\n"), 0o644), os.Truncate(path, 1<<30)); err != nil {
				t.Fatal(err)
			}
			cmd := s.command("run", "--rm", "-u", "ann:ann", "rootfs:"+root, "/bin/true")
			began := time.Now()
			r := finish(t, cmd)
			used := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss // in KiB
			if r.code != 125 || !strings.Contains(r.err, "more than 8388608 bytes") || used > 64<<10 {
				t.Errorf("code %d, %q, with %d KiB in %v; want it refused", r.code, r.err, used, time.Since(began))
			}
		})
	}
}

// A release agent would be run by the host's root: CVE-2022-0492. Not even a
// process with a user namespace of its own, which Docker's filter and Landlock
// keep it from, writes one.
func TestNobodyWritesAReleaseAgent(t *testing.T) {
	need.Clean(t)
	root := busybox(t)
	addProbe(t, root)
	for _, l := range []level{
		{"default", nil, hostRoot},
		{"no filter", []string{"--security-opt", "seccomp=unconfined"}, hostRoot},
		{"no filter, no Landlock", []string{"--security-opt", "seccomp=unconfined", "--security-opt", "landlock=off"}, hostRoot},
		{"may mount", []string{"--cap-add", "SYS_ADMIN"}, hostRoot},
		{"no user namespace", []string{"--userns", "host", "--security-opt", "seccomp=unconfined", "--security-opt", "landlock=off"}, hostRoot},
		{"user, privileged", []string{"--privileged"}, ordinary},
		{"host's cgroups", []string{"--cgroupns", "host", "--cap-add", "SYS_ADMIN"}, hostRoot},
	} {
		t.Run(l.name, func(t *testing.T) {
			l.need(t)
			s := newStorage(t)
			r := finish(t, l.command(t, s, append(append([]string{"run", "--rm", "--tmpfs", "/tmp", "-e", probing("release agent")}, l.options...), "rootfs:"+root, "/bin/probe")...))
			if r.code != 0 || strings.Contains(r.out, "written") {
				t.Errorf("code %d\n%s\n%s", r.code, r.out, r.err)
			}
		})
	}
}

// writeReleaseAgent makes namespaces of its own, mounts every kind of cgroup,
// and writes wherever it can.
func writeReleaseAgent() {
	for _, flags := range []int{unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP, unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP, unix.CLONE_NEWNS, 0} {
		done := make(chan bool)
		go func() {
			defer close(done)
			runtime.LockOSThread()
			// Who is not alone cannot make a user namespace: a process can.
			if flags&unix.CLONE_NEWUSER != 0 {
				again := exec.Command("/proc/self/exe")
				again.Env, again.Stdout, again.Stderr = []string{probing("release agent, mount")}, os.Stdout, os.Stdout
				again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: uintptr(flags)}
				fmt.Println("namespaces:", again.Run())
				return
			}
			fmt.Println("namespaces:", unix.Unshare(flags|unix.CLONE_FS))
			mountAndWrite()
		}()
		<-done
	}
}

func mountAndWrite() {
	places := []string{"/sys/fs/cgroup"}
	for i, what := range []string{"rdma", "memory", "pids", "cpu", "devices", "freezer", "none,name=kiste"} {
		at := fmt.Sprintf("/tmp/%d", i)
		os.Mkdir(at, 0o755)
		err := unix.Mount("cgroup", at, "cgroup", 0, what)
		fmt.Printf("cgroup %s: %v\n", what, err)
		if err == nil {
			defer unix.Unmount(at, unix.MNT_DETACH)
			places = append(places, at)
		}
	}
	for _, place := range places {
		filepath.WalkDir(place, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && filepath.Base(path) == "release_agent" {
				f, err := os.OpenFile(path, os.O_WRONLY, 0)
				if err == nil {
					_, err = f.WriteString("/owned")
					f.Close()
				}
				if err == nil {
					fmt.Println("written", path)
				}
			}
			return nil
		})
	}
}

// The host's groups can be seen where they are asked for, and not be changed:
// CVE-2023-25809.
func TestTheHostsGroupsAreReadOnly(t *testing.T) {
	need.Clean(t)
	root := busybox(t)
	for _, l := range []level{
		{"root", []string{"--cgroupns", "host"}, hostRoot},
		{"root without a user namespace", []string{"--cgroupns", "host", "--userns", "host"}, hostRoot},
		{"user", []string{"--cgroupns", "host"}, ordinary},
		{"user alone", []string{"--cgroupns", "host"}, alone},
	} {
		t.Run(l.name, func(t *testing.T) {
			l.need(t)
			s := newStorage(t)
			script := `mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo REMOUNTED
				for d in $(busybox find /sys/fs/cgroup -maxdepth 2 -type d); do mkdir $d/kiste-owned 2>/dev/null && echo MADE $d; { echo 0 >$d/cgroup.procs; } 2>/dev/null && echo WROTE $d; done
				grep ' /sys/fs/cgroup' /proc/self/mountinfo`
			r := finish(t, l.command(t, s, append(append([]string{"run", "--rm"}, l.options...), "rootfs:"+root, "/bin/sh", "-c", script)...))
			for line := range strings.Lines(r.out) {
				if f := strings.Fields(line); len(f) < 6 || !hasOption(f[5], "ro") {
					t.Errorf("%s", line)
				}
			}
			if r.code != 0 || r.out == "" {
				t.Errorf("code %d\n%s\n%s", r.code, r.out, r.err)
			}
		})
	}
}

// More than 64 KiB of mounts are all there: CVE-2021-43784.
func TestManyMounts(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	root, s, source := busybox(t), newStorage(t), newStorage(t).dir
	long := filepath.Join(source, strings.Repeat("d", 200), strings.Repeat("e", 200))
	if err := os.MkdirAll(long, 0o755); err != nil {
		t.Fatal(err)
	}
	var options []string
	for i := range 180 {
		options = append(options, "-v", fmt.Sprintf("%s:/m/%s%d:ro", long, strings.Repeat("f", 100), i))
	}
	if got := s.sh(t, root, "grep -c /m/ffff /proc/self/mountinfo; readlink /proc/self/ns/pid", options...); !strings.HasPrefix(got, "180\n") {
		t.Errorf("%q mounts, want 180", got)
	}
}

// Limits are enforced.
func TestLimitsAreEnforced(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	root, s := busybox(t), newStorage(t)
	r := s.run(t, "run", "--rm", "-m", "16m", "rootfs:"+root, "/bin/sh", "-c", "head -c 64m /dev/zero | tail -n 1 | wc -c; echo end")
	if r.code == 0 && strings.Contains(r.out, "67108864") {
		t.Errorf("64 MiB in 16: %q", r.out)
	}
	if got := s.sh(t, root, "for i in $(seq 30); do sleep 2 & done 2>/dev/null; true", "--pids-limit", "100"); got != "" {
		t.Errorf("%q", got)
	}
	r = s.run(t, "run", "--rm", "--pids-limit", "10", "rootfs:"+root, "/bin/sh", "-c", "for i in $(seq 30); do sleep 1 & done; wait")
	if !strings.Contains(r.err, "fork") {
		t.Errorf("30 processes of 10: code %d, %q", r.code, r.err)
	}
}
