package validation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kiste/host"
	"kiste/internal/need"
	"kiste/test/peer"
)

var (
	peers  = flag.Bool("peers", false, "run the programs on runc and crun, too")
	update = flag.Bool("update", false, "rewrite docs/conformance.md; only with -peers")
)

const (
	module  = "github.com/opencontainers/runtime-tools"
	page    = "../../../docs/conformance.md"
	patient = 5 * time.Minute // for one program: some wait for 30 s
)

var ours = peer.Names[0]

func TestValidation(t *testing.T) {
	if testing.Short() {
		t.Skip("the validation programs take a minute")
	}
	need.Power(t, host.Root)
	if runtime.GOARCH != "amd64" {
		t.Skip("runtime-tools has a root file system for amd64 alone")
	}
	names := peer.Names[:1]
	if *peers {
		need.Program(t, peer.Names[1:]...)
		names = peer.Names
	}
	need.Clean(t)
	s := newSuite(t)
	results := map[string]map[string]verdict{}
	for _, name := range names {
		t.Run(name, func(t *testing.T) { results[name] = s.run(t, name) })
	}
	for _, program := range s.programs {
		judge(t, program, results)
	}
	for program := range known {
		if !slices.Contains(s.programs, program) {
			t.Errorf("%s: there is no such program; take its row away", program)
		}
	}
	if *update && *peers && !t.Failed() {
		if err := os.WriteFile(page, []byte(table(s.programs, results)), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// judge compares what happened with what is known.
func judge(t *testing.T, program string, results map[string]map[string]verdict) {
	t.Helper()
	got, row := results[ours][program], known[program]
	if got.why == "" {
		if row.why != "" && !row.host {
			t.Errorf("%s passes: take its row away", program)
		}
		return
	}
	if row.why != "" {
		return
	}
	t.Errorf("%s fails: %s\n%s", program, got.why, got.output)
	for _, name := range peer.Names[1:] {
		if v, ran := results[name][program]; ran && v.why == "" {
			t.Errorf("%s passes with %s", program, name)
		}
	}
}

// A verdict is how one program ended; why is empty if it passed.
type verdict struct{ why, output string }

// A suite is the programs, built, in a directory with all that they need.
type suite struct {
	dir      string
	programs []string
}

// newSuite builds the programs, or finds them where the module has not changed.
func newSuite(t *testing.T) *suite {
	t.Helper()
	sum := sha256.New()
	for _, name := range []string{"../suite/go.mod", "../suite/go.sum"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(text)
	}
	dir, err := filepath.Abs(fmt.Sprintf("../../cache/validation-%x", sum.Sum([]byte(runtime.Version()))[:16]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		build(t, dir)
	}
	s := &suite{dir: dir}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "runtimetest" && !strings.Contains(e.Name(), ".") {
			s.programs = append(s.programs, e.Name())
		}
	}
	return s
}

// build makes the directory whole or not at all.
func build(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "new-validation")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	command(t, "go", "build", "-mod=readonly", "-trimpath", "-o", work+"/", "tool")
	source := strings.TrimSpace(command(t, "go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module))
	const root = "rootfs-amd64.tar.gz"
	text, err := os.ReadFile(filepath.Join(source, root))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, root), text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(work, dir); err != nil {
		t.Fatal(err)
	}
}

// command runs the Go client on the suite's own module.
func command(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "../suite"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	var text bytes.Buffer
	cmd.Stderr = &text
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, text.String())
	}
	return string(out)
}

// lanes is how many programs run at once: most of them only wait.
const lanes = 6

// run runs all programs on the runtime name. Those that use the same cgroups
// run one after the other.
func (s *suite) run(t *testing.T, name string) map[string]verdict {
	dir := t.TempDir()
	// the parents of t.TempDir belong to root alone; root of a user namespace must pass
	for up := dir; up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r, err := peer.New(name, bin, dir)
	if err != nil {
		t.Fatal(err)
	}
	script, err := r.Script(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sweep(t, r) })

	var (
		mu       sync.Mutex
		verdicts = map[string]verdict{}
		wait     sync.WaitGroup
		queue    = make(chan string)
	)
	one := func(program string) {
		v := s.program(script, dir, program, name == "crun")
		for n := 1; n < races[program] && v.why != ""; n++ {
			v = s.program(script, dir, program, name == "crun")
		}
		mu.Lock()
		defer mu.Unlock()
		verdicts[program] = v
	}
	shared := func(p string) bool {
		return strings.HasPrefix(p, "linux_cgroups") || strings.HasPrefix(p, "delete_")
	}
	wait.Go(func() {
		for _, p := range s.programs {
			if shared(p) {
				one(p)
			}
		}
	})
	for range lanes {
		wait.Go(func() {
			for p := range queue {
				one(p)
			}
		})
	}
	for _, p := range s.programs {
		if !shared(p) {
			queue <- p
		}
	}
	close(queue)
	wait.Wait()
	return verdicts
}

var (
	notOK      = regexp.MustCompile(`(?m)^\s*not ok .*`)
	diagnostic = regexp.MustCompile(`(?m)^\s*"error": .*`)
)

// program runs one program. It prints errors into diagnostics that follow an
// "ok", where the error was asked for; only in a report without any test is an
// error a failure. It has a mount namespace of its own, where without takes
// cgroup version 2 away: crun of Debian 12 refuses hosts that leave any
// controller to that and have the others in version 1.
func (s *suite) program(script, dir, name string, without bool) verdict {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	cmd := exec.CommandContext(ctx, "./"+name)
	if without {
		cmd = exec.CommandContext(ctx, "sh", "-c", "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec ./"+name)
	}
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "RUNTIME="+script, "TMPDIR="+dir)
	// one program asks for a container without a mount namespace of its own
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	var text, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &errs
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	v := verdict{output: tail(text.String()) + tail(errs.String())}
	switch bad := notOK.FindString(text.String()); {
	case err != nil:
		v.why = err.Error()
	case bad != "":
		v.why = strings.TrimSpace(bad)
	case strings.Contains(text.String(), "\n1..0"):
		v.why = strings.TrimSpace(diagnostic.FindString(text.String()))
	}
	return v
}

func tail(text string) string {
	const most = 3000
	return text[max(0, len(text)-most):]
}

// sweep removes what the programs forget: containers, and the cgroups above
// those that they name.
func sweep(t *testing.T, r *peer.Runtime) {
	containers, _ := os.ReadDir(r.Root)
	for _, c := range containers {
		if _, err := r.Run("delete", "--force", c.Name()); err != nil {
			t.Error(err)
		}
	}
	for _, pattern := range []string{"cgrouptest", "testdir/cgrouptest", "testdir"} {
		for _, base := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			groups, _ := filepath.Glob(base + pattern)
			for _, g := range groups {
				os.Remove(g)
			}
		}
	}
}

// bin is the directory of the runtime under test.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	need.Main(m, func(dir string) error {
		bin = dir
		return peer.Build(dir)
	})
}
