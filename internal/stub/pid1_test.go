package stub

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"kiste/host"
	"kiste/internal/need"
)

// As the first process of a pid namespace, which the kernel shields from
// signals, Init still hands them on; and it reaps what its child left.
func TestInitAsFirstProcess(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "sh", "sleep", "unshare")
	image, err := Init(runtime.GOARCH)
	if err != nil {
		t.Skip("NEEDS a processor that has an assembler: " + err.Error())
	}
	for _, tt := range []struct {
		name   string
		script string
		signal syscall.Signal
		code   int
	}{
		{"a signal that ends the child", "echo ready; exec sleep 60", syscall.SIGTERM, 128 + int(syscall.SIGTERM)},
		{"zombies of others", `(sleep 0.01 &); sleep 0.3; for s in /proc/[0-9]*/stat; do read -r line <$s; case $line in *") Z"*) exit 8;; esac; done; echo ready; exit 0`, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "init")
			if err := os.WriteFile(path, image, 0o755); err != nil {
				t.Fatal(err)
			}
			// --mount-proc, so that the script sees its own processes
			cmd := exec.Command("/bin/sh", "-c", `exec unshare --mount-proc "$0" "$@"`, path, "/bin/sh", "-c", tt.script)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			io.ReadFull(out, make([]byte, len("ready\n")))
			if b, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/status"); err == nil {
				for line := range strings.Lines(string(b)) {
					if strings.HasPrefix(line, "VmRSS") {
						t.Log(strings.TrimSpace(line))
					}
				}
			}
			if tt.signal != 0 {
				cmd.Process.Signal(tt.signal)
			}
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("code %d, want %d", code, tt.code)
			}
		})
	}
}
