package storm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kiste/internal/need"
)

// The table of TestStates is Docker's: what Docker allows, where that leads, and
// what it says of the rest. Of removals 20.10 has other words than 29; every
// signal lets it go on there what is paused; and what restarts is left out, since
// its daemon is not always right about that.
func TestStatesOfDocker(t *testing.T) {
	if testing.Short() {
		t.Skip("dockerd takes its time")
	}
	need.Program(t, "dockerd", "docker", "containerd", "unshare", "tar")
	f := newField(t)
	f.dockerd()
	tar := filepath.Join(f.dir, "root.tar")
	if out, err := exec.Command("tar", "-C", f.root, "-cf", tar, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f.until("dockerd answers", func() bool { _, err := f.kiste("version"); return err == nil })
	f.must("import", tar, "image")
	f.must("create", "--name", "taken", "image", "true")
	f.older = strings.HasPrefix(f.must("version", "--format", "{{.Server.Version}}"), "20.")
	f.testStates(func(name, state string) {
		f.must(append(strings.Fields(toBe[state]), "--network", "none", "--name", name, "image", "sh", "-c", script[state])...)
	})
}

// dockerd starts a daemon whose mounts nobody sees, and has f speak to it.
func (f *field) dockerd() {
	at := func(name string) string { return filepath.Join(f.dir, name) }
	socket := "unix://" + at("docker.sock")
	config := at("daemon.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		f.t.Fatal(err)
	}
	daemon := exec.Command("unshare", "-m", "dockerd", "--config-file", config, "--data-root", at("docker"), "--exec-root", at("docker-run"), "--pidfile", at("docker.pid"),
		"--host", socket, "--iptables=false", "--ip6tables=false", "--bridge=none")
	if err := daemon.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.peer = []string{"docker", "-H", socket}
	f.t.Cleanup(func() {
		f.removeAll()
		f.peer = nil
		_ = daemon.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(patience, func() { _ = daemon.Process.Kill() })
		_ = daemon.Wait()
		late.Stop()
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/docker")
		for _, g := range append(groups, "/sys/fs/cgroup/docker") {
			_ = os.Remove(g)
		}
	})
}
