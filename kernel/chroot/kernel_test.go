package chroot_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/chroot"
)

// TestMain lets a test become a process that enters a root: entering changes a
// thread for good, so each test does it in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("KISTE_ENTER") != "" {
		enter()
	}
	os.Exit(m.Run())
}

// enter is the test's process: KISTE_ENTER is the directory, KISTE_HOW words
// of options, the arguments the command.
func enter() {
	how := os.Getenv("KISTE_HOW")
	r := chroot.Root{Dir: os.Getenv("KISTE_ENTER"), ReadOnly: strings.Contains(how, "ro"), Plain: strings.Contains(how, "plain")}
	if b := os.Getenv("KISTE_BIND"); b != "" {
		m, err := chroot.ParseBind(b)
		quit(125, err)
		r.Binds = []chroot.Mount{m}
	}
	quit(125, r.Enter())
	c := chroot.Command{Args: os.Args[1:], Env: os.Environ(), User: os.Getenv("KISTE_USER"), Workdir: os.Getenv("KISTE_WORKDIR")}
	quit(125, c.Prepare())
	err := c.Exec()
	if errors.Is(err, fault.NotFound) {
		quit(127, err)
	}
	quit(126, err)
}

func quit(code int, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(code)
	}
}

// tree makes a root of busybox.
func tree(t *testing.T) string {
	t.Helper()
	need.Program(t, "busybox")
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path, _ := exec.LookPath("busybox")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"bin", "etc"} {
		os.Mkdir(filepath.Join(dir, sub), 0o755)
	}
	os.WriteFile(filepath.Join(dir, "bin/busybox"), b, 0o755)
	os.WriteFile(filepath.Join(dir, "etc/resolv.conf"), []byte("tree\n"), 0o644)
	os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("ann:x:1000:1000::/:/bin/sh\n"), 0o644)
	os.WriteFile(filepath.Join(dir, "etc/group"), []byte("staff:x:50:ann\n"), 0o644)
	for _, name := range []string{"sh", "cat", "id", "ls", "mount", "touch", "mkdir", "test", "pwd", "grep", "echo"} {
		os.Symlink("busybox", filepath.Join(dir, "bin", name))
	}
	return dir
}

// run runs sh -c script in dir.
func run(t *testing.T, dir, script string, env ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "/bin/sh", "-c", script)
	cmd.Env = append([]string{"PATH=/bin", "KISTE_ENTER=" + dir}, env...)
	b, _ := cmd.CombinedOutput()
	return string(b), cmd.ProcessState.ExitCode()
}

func TestEnter(t *testing.T) {
	need.Power(t, host.Root)
	for _, tt := range []struct {
		name   string
		script string
		env    []string
		out    string
		code   int
	}{
		{"the root is the directory", "ls /etc", nil, "group\npasswd\nresolv.conf\n", 0},
		{"proc, sys and dev are there", "test -e /proc/self/exe && test -d /sys/kernel && test -c /dev/null && test -d /dev/pts && echo ok", nil, "ok\n", 0},
		{"sys is read-only", "mkdir /sys/fs/cgroup/kiste-x 2>/dev/null || echo refused", nil, "refused\n", 0},
		{"the old root is gone", "grep -c ' / / ' /proc/self/mountinfo; test ! -e /../home && echo gone", nil, "0\ngone\n", 0},
		{"the command's code is the code", "exit 9", nil, "", 9},
		{"the working directory is inside", "pwd", []string{"KISTE_WORKDIR=/etc"}, "/etc\n", 0},
		{"a user by name gets its groups", "id -u; id -G", []string{"KISTE_USER=ann"}, "1000\n1000 50\n", 0},
		{"plain has no mounts", "test ! -e /proc && echo bare", []string{"KISTE_HOW=plain"}, "bare\n", 0},
		{"nothing can be written into a read-only one", "touch /x 2>/dev/null || echo refused", []string{"KISTE_HOW=ro"}, "refused\n", 0},
		{"a user who is not there is an error", "", []string{"KISTE_USER=eve"}, "find user \"eve\": the tree's /etc/passwd has none\n", 125},
		{"a bind is there and its target made", "cat /made/here/passwd | grep -c ann", []string{"KISTE_BIND=@/etc:/made/here:ro"}, "1\n", 0},
		{"a read-only bind cannot be written", "touch /b/x 2>/dev/null || echo refused", []string{"KISTE_BIND=@/etc:/b:ro"}, "refused\n", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			need.Clean(t)
			dir := tree(t)
			for i := range tt.env {
				tt.env[i] = strings.ReplaceAll(tt.env[i], "@", dir)
			}
			if out, code := run(t, dir, tt.script, tt.env...); out != tt.out || code != tt.code {
				t.Errorf("code %d, output %q; want %d, %q", code, out, tt.code, tt.out)
			}
		})
	}
}

// A tree whose entries point outside must not lead anything there.
func TestHostileTrees(t *testing.T) {
	need.Power(t, host.Root)
	for _, tt := range []struct {
		name  string
		entry string
		bind  string
		code  int
	}{
		{"proc", "proc", "", 125},
		{"sys", "sys", "", 125},
		{"dev", "dev", "", 125},
		{"run", "run", "", 0},
		{"tmp", "tmp", "", 0},
		{"etc", "etc", "", 0},
		{"resolv.conf", "etc/resolv.conf", "", 0},
		{"a bind's target", "mnt", "/etc:/mnt/new/dir", 125},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outside := t.TempDir()
			if err := os.WriteFile(outside+"/resolv.conf", []byte("outside\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			need.Clean(t, outside)
			dir := tree(t)
			entry := filepath.Join(dir, tt.entry)
			target := outside
			if tt.entry == "etc/resolv.conf" {
				target += "/resolv.conf"
			}
			os.RemoveAll(entry)
			if err := os.Symlink(target, entry); err != nil {
				t.Fatal(err)
			}
			out, code := run(t, dir, "touch /proc/../etc/x /tmp/x /run/x 2>/dev/null; exit 0", "KISTE_BIND="+tt.bind)
			if code != tt.code {
				t.Errorf("code %d, want %d: %s", code, tt.code, out)
			}
			if b, _ := os.ReadFile(outside + "/resolv.conf"); string(b) != "outside\n" {
				t.Errorf("the file outside is now %q", b)
			}
			if link, _ := os.Readlink(entry); link != target {
				t.Errorf("the link is now %q", link)
			}
		})
	}
}

// A directory that holds no system is named as such, and stays as it is.
func TestEmptyDirectory(t *testing.T) {
	need.Power(t, host.Root)
	dir := t.TempDir()
	need.Clean(t, dir)
	if out, code := run(t, dir, ""); code != 125 || !strings.Contains(out, "the directory is empty") {
		t.Errorf("code %d, output %q", code, out)
	}
}

// A tree that another process bends all the time must not lead outside.
func TestBendingTree(t *testing.T) {
	need.Power(t, host.Root)
	outside := t.TempDir()
	need.Clean(t, outside)
	dir := tree(t)
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			os.Mkdir(dir+"/mnt", 0o755)
			os.Remove(dir + "/mnt")
			os.Symlink(outside, dir+"/mnt")
			os.Remove(dir + "/mnt")
		}
	}()
	for range 50 {
		run(t, dir, "exit 0", "KISTE_BIND=/etc:/mnt/a/b", "KISTE_HOW=plain")
	}
	close(stop)
	<-stopped
}

// What is mounted below a read-only tree is read-only too.
func TestReadOnlyReachesSubmounts(t *testing.T) {
	need.Power(t, host.Root)
	need.Clean(t)
	dir := tree(t)
	if err := os.Mkdir(dir+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	m := chroot.Mount{Type: "tmpfs", Source: "tmpfs", Target: dir + "/sub", Options: []string{"size=64k"}}
	if err := m.Do(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Undo)
	if out, _ := run(t, dir, "touch /sub/x 2>/dev/null || echo refused", "KISTE_HOW=ro"); out != "refused\n" {
		t.Errorf("output %q", out)
	}
	if err := os.WriteFile(dir+"/sub/x", nil, 0o600); err != nil {
		t.Errorf("outside it must stay writable: %v", err)
	}
}

// An overlay's layers may have any name.
func TestOverlayWithColonsAndCommas(t *testing.T) {
	need.Power(t, host.Root, host.Overlay)
	if !host.Kernel(6, 5) {
		t.Skip("NEEDS Linux 6.5 for layers one by one")
	}
	need.Clean(t)
	dir := t.TempDir()
	for _, sub := range []string{"a:b", "c,d", "up", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(dir+"/a:b/f", []byte("top"), 0o644)
	os.WriteFile(dir+"/c,d/f", []byte("bottom"), 0o644)
	m := chroot.Mount{Type: "overlay", Source: "overlay", Target: dir + "/root",
		Lower: []string{dir + "/a:b", dir + "/c,d"}, Upper: dir + "/up", Work: dir + "/work"}
	if err := m.Do(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Undo)
	if b, err := os.ReadFile(dir + "/root/f"); string(b) != "top" {
		t.Errorf("read %q, %v", b, err)
	}
}

func ExampleMount_String() {
	fmt.Println(chroot.Mount{Type: "proc", Source: "proc", Target: "/proc", Options: []string{"nosuid", "nodev"}})
	// Output: mount     proc     on /proc      nosuid,nodev
}

func ExampleParseBind() {
	m, err := chroot.ParseBind("/srv/data:/data:ro")
	fmt.Println(m, err)
	// Output: mount     bind     on /data      rbind,rro <nil>
}

func ExampleParseOptions() {
	p, err := chroot.ParseOptions([]string{"nosuid", "size=64m", "rslave"})
	fmt.Println(p.Data, len(p.Propagation), err)
	// Output: [size=64m] 1 <nil>
}
