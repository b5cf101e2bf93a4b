package script

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rsc.io/script"

	"kiste/host"
	"kiste/internal/need"
)

// What is kept for the end is the whole line, of asuser too.
func TestFinallyRunsTheWholeLine(t *testing.T) {
	need.Power(t, host.Root)
	work := t.TempDir()
	for dir := work; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("script", func(t *testing.T) {
		state, err := script.NewState(t.Context(), work, environment(work))
		if err != nil {
			t.Fatal(err)
		}
		const text = "finally asuser sh -c 'id -u >$HOME/who'\n"
		if err := engine(t).Execute(state, "finally", bufio.NewReader(strings.NewReader(text)), &strings.Builder{}); err != nil {
			t.Fatal(err)
		}
	})
	if b, err := os.ReadFile(work + "/user/who"); err != nil || strings.TrimSpace(string(b)) != "20000" {
		t.Errorf("it was %q, %v", b, err)
	}
}

// failing names the script that TestFailing runs.
const failing = "KISTE_FAILING_SCRIPT"

func TestFailing(t *testing.T) {
	file := os.Getenv(failing)
	if file == "" {
		t.Skip("it is a part of TestAFailedScriptIsCleanedUpAfter")
	}
	runScript(t, file)
}

// A script that fails leaves nothing that makes the next one fail.
func TestAFailedScriptIsCleanedUpAfter(t *testing.T) {
	need.Power(t, host.Root)
	before := floor(t)
	file := filepath.Join(t.TempDir(), "fails.txt")
	const text = `mkimage image
kiste network create lab
kiste run -d --name web --network lab -m 64m oci:image:test sleep 1000
asuser kiste run -d --name mine oci:image:test sleep 1000
false
`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/proc/self/exe", "-test.run=^TestFailing$")
	c.Env = append(os.Environ(), failing+"="+file, "KISTE_BUILT="+filepath.Join(bin, "kiste"))
	out, err := c.CombinedOutput()
	if err == nil || strings.Count(string(out), "removed after the failure: containers") != 2 {
		t.Errorf("%v: %s", err, out)
	}
	if left := slices.DeleteFunc(floor(t), func(s string) bool { return slices.Contains(before, s) }); len(left) > 0 {
		t.Errorf("left behind: %q\n%s", described(left), out)
	}
}
