package vm

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kiste/host"
	"kiste/internal/need"
)

// tested are the packages whose tests run inside, as go list patterns.
var tested = []string{"./kernel/...", "./container/bundle", "./container/hook", "./container/lifecycle", "./container/plan", "./container/process", "./test/script", "./host/...", "./store/...", "./image/layer/...", "./image/snapshot/...", "./internal/sys/...", "./internal/bus"}

// limit bounds one boot, from the firmware to the power switch.
const limit = 30 * time.Minute

// patience is how long a machine may say nothing: guest.sh says every 20 seconds
// that it lives. One that is silent has stopped as a whole, with its clock, its
// kernel or the emulator: no test inside can then end by itself. It is asked
// where it is, and started anew, once.
const patience = 4 * time.Minute

// heartbeat begins what guest.sh says every 20 seconds.
const heartbeat = "=== alive"

func TestVM(t *testing.T) {
	if testing.Short() {
		t.Skip("the virtual machine takes minutes")
	}
	need.Power(t, host.Root)
	need.Program(t, "qemu-system-x86_64", "mmdebstrap", "dpkg-deb", "apt-get", "mke2fs", "cpio", "depmod", "busybox")
	cache := disk(t)
	payload := payloadDisk(t)

	for _, lane := range lanes {
		t.Run(lane, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			code, output := boot(ctx, t, lane, cache, payload)
			if code == stopped {
				t.Logf("THE MACHINE STOPPED, and is started anew; the end of the console was:\n%s", tail(output, 150))
				code, output = boot(ctx, t, lane, cache, payload)
			}
			if told := failures(output); code == "0" && told != "" {
				t.Logf("what failed at first said:\n%s", told)
			}
			if code != "0" {
				t.Errorf("the tests inside ended with %q; what failed said:\n%s\nthe end of the console was:\n%s", code, failures(output), tail(output, 60))
			}
		})
	}
}

// lanes are functions of guest.sh, each for a machine of its own. They run side
// by side, as most tests keep one processor busy at most.
var lanes = []string{"packages", "scripts", "living", "selinux"}

// parameters of the kernel that only one lane has: Debian's starts AppArmor where nobody asks
// for another.
var parameters = map[string]string{"selinux": " security=selinux selinux=1"}

// disk makes the kernel and the root file system, or finds them where the
// files they are made by have not changed.
func disk(t *testing.T) string {
	t.Helper()
	sum := sha256.New()
	for _, name := range []string{"build", "initrd-init", "kiste-test.service", "container.cil"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(b)
	}
	cache, err := filepath.Abs(fmt.Sprintf("../cache/vm-%x", sum.Sum(nil)[:6]))
	if err != nil {
		t.Fatal(err)
	}
	run(t, "", "./build", cache)
	return cache
}

// payloadDisk makes the disk with kiste, the test binaries and the scripts.
func payloadDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "payload")
	for _, d := range []string{"bin", "tests"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := need.Build(filepath.Join(tree, "bin")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"guest.sh", "root.sh", "user.sh", "network.sh", "systemd.sh", "living.sh", "podman.sh", "quota.sh", "nfs.sh", "apparmor.sh", "selinux.sh", "../../systemd"} {
		run(t, "", "cp", "-r", name, tree)
	}
	run(t, top, "go", "test", "-c", "-o", filepath.Join(tree, "engine.test"), "./engine")
	run(t, top, "cp", "--parents", "test/criu", filepath.Join(tree, "tests"))
	run(t, "", "cp", busybox(t), filepath.Join(tree, "bin", "busybox"))
	list := run(t, top, "go", append([]string{"list", "-e", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}"}, tested...)...)
	for line := range strings.Lines(list) {
		pkg, src, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		room := filepath.Join(tree, "tests", strings.TrimPrefix(pkg, "kiste/"))
		if err := os.MkdirAll(room, 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, top, "go", "test", "-c", "-o", filepath.Join(room, "test"), pkg)
		// what the tests read of their package's directory, embedded files too
		run(t, src, "sh", "-c", `for f in *; do case $f in *.go) ;; *) [ -f "$f" ] || [ "$f" = testdata ] && cp -r "$f" "$0";; esac; done; true`, room)
	}
	image := filepath.Join(dir, "payload.img")
	run(t, "", "truncate", "-s", "1G", image)
	run(t, "", "mke2fs", "-q", "-t", "ext4", "-d", tree, image)
	return image
}

func busybox(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// stopped is the code of a machine that has said nothing for as long as patience.
const stopped = "stopped"

// boot runs the machine until it switches itself off, and returns the exit
// code that guest.sh ended with ("" where it did not come to its end) and what
// the console said.
func boot(ctx context.Context, t *testing.T, lane, cache, payload string) (code string, output []string) {
	t.Helper()
	drive := func(file string) string {
		return "if=virtio,format=raw,snapshot=on,file=" + strings.ReplaceAll(file, ",", ",,")
	}
	monitor := filepath.Join(t.TempDir(), "monitor")
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048",
		"-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio", "-monitor", "unix:"+monitor+",server=on,wait=off",
		"-kernel", filepath.Join(cache, "vmlinuz"), "-initrd", filepath.Join(cache, "initrd.gz"),
		"-append", "console=ttyS0 panic=-1 unknown_nmi_panic quiet systemd.show_status=false systemd.log_level=warning kiste.lane="+lane+parameters[lane],
		"-drive", drive(filepath.Join(cache, "root.img")), "-drive", drive(payload))
	console, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{})
	watch := time.AfterFunc(patience, func() {
		defer close(told)
		t.Logf("the machine says nothing for %v; its processors:\n%s", patience, ask(monitor))
		_ = cmd.Process.Kill()
	})
	code, output = read(t, console, func() {
		if watch.Stop() {
			watch.Reset(patience)
		}
	})
	silent := !watch.Stop()
	if silent {
		<-told
	}
	err = cmd.Wait()
	switch {
	case silent && code == "" && ctx.Err() == nil:
		return stopped, output
	case err != nil:
		t.Errorf("qemu: %v (the limit is %v)", err, limit)
	}
	return code, output
}

// ask has the emulator tell where the processors are, and the kernel where it is,
// by an interrupt that it answers with a panic.
func ask(monitor string) string {
	c, err := net.DialTimeout("unix", monitor, time.Minute)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(c, "info status\ninfo registers -a\nnmi\n")
	text, _ := io.ReadAll(c)
	return string(text)
}

var exitLine = regexp.MustCompile(`KISTE-VM-EXIT (\d+)`)

// read reads what the console says, and calls heard after each line.
func read(t *testing.T, console io.Reader, heard func()) (code string, output []string) {
	lines := bufio.NewScanner(console)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		heard()
		line := strings.TrimRight(lines.Text(), "\r")
		if strings.HasPrefix(line, heartbeat) {
			continue
		}
		output = append(output, line)
		if testing.Verbose() || strings.HasPrefix(line, "=== ") || fails(line) {
			t.Log(line)
		}
		if m := exitLine.FindStringSubmatch(line); m != nil {
			code = m[1]
		}
	}
	return code, output
}

// failures is what the parts of the tests inside said of which one failed. Each
// begins with a line "=== title".
func failures(output []string) string {
	var told []string
	for len(output) > 0 {
		end := 1 + slices.IndexFunc(output[1:], func(line string) bool { return strings.HasPrefix(line, "=== ") })
		if end == 0 {
			end = len(output)
		}
		if part := output[:end]; slices.ContainsFunc(part, fails) {
			told = append(told, tail(part, 250))
		}
		output = output[end:]
	}
	return strings.Join(told, "\n")
}

// fails says that a line tells of a test that failed.
func fails(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "--- FAIL") }

func tail(lines []string, n int) string { return strings.Join(lines[max(0, len(lines)-n):], "\n") }

// run runs a program in dir and returns what it printed.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errors.String())
	}
	return string(out)
}
