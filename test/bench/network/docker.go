package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"kiste/kernel/network"
)

// docker is a host like Kiste's, with a dockerd of its own and two containers on
// its bridge. It is left out where it can't be had.
func (b *bench) docker() error {
	if b.withoutDocker {
		return nil
	}
	err := b.dockerd()
	if err == nil || b.got["docker bridge"] != nil {
		return err
	}
	fmt.Printf("left out: docker: %v\n", err)
	b.withoutDocker = true
	return nil
}

func (b *bench) dockerd() error {
	host, stranger, err := b.pair()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kiste-bench")
	if err != nil {
		return err
	}
	b.ends = append(b.ends, func() { os.RemoveAll(dir) })
	socket := "unix://" + filepath.Join(dir, "sock")
	daemon := exec.Command("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"), "--host", socket)
	if err := host.Do(daemon.Start); err != nil {
		return err
	}
	ask := func(stdin []byte, args ...string) (string, error) {
		cmd := exec.Command("docker", append([]string{"--host", socket}, args...)...)
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("docker %s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
		return strings.TrimSpace(string(out)), err
	}
	b.ends = append(b.ends, func() {
		_, _ = ask(nil, "rm", "-f", "one", "two")
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
	})
	for range 100 {
		if _, err = ask(nil, "version"); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	root, err := rootTar()
	if err != nil {
		return err
	}
	if _, err := ask(root, "import", "-", "bench"); err != nil {
		return err
	}
	var nodes [2]*network.Namespace
	for i, name := range []string{"one", "two"} {
		args := []string{"run", "-d", "--name", name, "-p", fmt.Sprintf("%d:5201", 8200+i), "bench", "/bin/sleep", "100000"}
		if _, err := ask(nil, args...); err != nil {
			return err
		}
		pid, err := ask(nil, "inspect", "-f", "{{.State.Pid}}", name)
		if err != nil {
			return err
		}
		if nodes[i], err = network.Open("/proc/" + pid + "/ns/net"); err != nil {
			return err
		}
		b.ends = append(b.ends, func() { nodes[i].Close() })
	}
	address, err := ask(nil, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "two")
	if err != nil {
		return err
	}
	_ = host.Do(func() error { return os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0) })
	b.add("docker bridge", nodes[0], nodes[1], address, "5201")
	b.add("docker published", stranger, nodes[1], "192.0.2.1", "8201:5201")
	b.add("docker, from the host", host, nodes[1], "127.0.0.1", "8201:5201")
	return nil
}

// rootTar is a static busybox as sleep.
func rootTar() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/sleep", Mode: 0o755, Size: int64(len(program))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	return out.Bytes(), w.Close()
}
