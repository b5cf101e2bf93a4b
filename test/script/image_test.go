package script

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rsc.io/script"
)

// applets are the names by which the image's one program is known.
var applets = []string{"sh", "true", "false", "ls", "cat", "echo", "id", "sleep", "ps", "mount", "hostname", "kill", "env", "pwd", "dd", "touch", "stat", "head", "tail", "wc", "ip", "sync", "yes", "tty", "stty", "grep", "mkdir", "rm", "chown", "chmod", "date", "printf", "test", "trap"}

// debianCmd makes, once, a Debian by mmdebstrap, and an image of it; one with
// systemd, which it runs, is a system.
func debianCmd(t *testing.T) script.Cmd {
	return command("write an OCI layout with a Debian image", "dir [system]", 1, func(s *script.State, args []string) (string, string, error) {
		name, packages, cmd := "debian", "procps", "bash"
		if len(args) > 1 && args[1] == "system" {
			name, packages, cmd = "debian-system", "procps,systemd-sysv,dbus", "/sbin/init"
		}
		cached, err := debianTar(name, packages)
		if err != nil {
			return "", "", err
		}
		return "", "", writeImage(s.Path(args[0]), map[string]string{"arch": "amd64", "cmd": cmd, "layer": cached})
	})
}

func debianTar(name, packages string) (string, error) {
	cached, err := filepath.Abs("../cache/" + name + ".tar")
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(cached); err == nil {
		return cached, nil
	}
	if err := os.MkdirAll(filepath.Dir(cached), 0o755); err != nil {
		return "", err
	}
	defer os.Remove(cached + ".new")
	out, err := exec.Command("mmdebstrap", "--quiet", "--variant=minbase", "--include="+packages, "--format=tar", "bookworm", cached+".new").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	return cached, os.Rename(cached+".new", cached)
}

func mkimageCmd() script.Cmd {
	return command("write an OCI layout with a busybox image", "dir [key=value...]", 1, func(s *script.State, args []string) (string, string, error) {
		o := map[string]string{"arch": "amd64", "cmd": "sh"}
		for _, a := range args[1:] {
			k, v, _ := strings.Cut(a, "=")
			o[k] = v
		}
		return "", "", writeImage(s.Path(args[0]), o)
	})
}

// writeImage writes the layout: layers, one config, one manifest, one index.
func writeImage(dir string, o map[string]string) error {
	plain, err := layersOf(o)
	if err != nil {
		return err
	}
	const kind = "application/vnd.oci.image."
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	var layers, diffIDs []any
	for _, p := range plain {
		var packed bytes.Buffer
		z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
		z.Write(p)
		z.Close()
		layer := packed.Bytes()
		diffIDs = append(diffIDs, digest(p))
		layers = append(layers, map[string]any{"mediaType": kind + "layer.v1.tar+gzip", "digest": digest(layer), "size": len(layer)})
		stored := layer
		switch o["damage"] {
		case "layer": // the same length, other bytes
			stored = bytes.Clone(layer)
			stored[len(stored)/2] ^= 0xff
		case "short":
			stored = layer[:len(layer)/2]
		}
		files[blob(digest(layer))] = stored
	}
	process := map[string]any{"Cmd": []string{o["cmd"]}, "Env": []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "WorkingDir": "/", "User": o["user"]}
	if e := o["entrypoint"]; e != "" {
		process["Entrypoint"] = strings.Split(e, ",")
	}
	if v := o["volume"]; v != "" {
		process["Volumes"] = map[string]any{v: struct{}{}}
	}
	config, err := json.Marshal(map[string]any{
		"architecture": o["arch"], "os": "linux", "config": process,
		"rootfs":  map[string]any{"type": "layers", "diff_ids": diffIDs},
		"history": []any{map[string]any{"created_by": "mkimage"}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
		"config": map[string]any{"mediaType": kind + "config.v1+json", "digest": digest(config), "size": len(config)},
		"layers": layers,
	})
	if err != nil {
		return err
	}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": kind + "index.v1+json",
		"manifests": []any{map[string]any{"mediaType": kind + "manifest.v1+json", "digest": digest(manifest), "size": len(manifest),
			"platform":    map[string]any{"os": "linux", "architecture": o["arch"]},
			"annotations": map[string]any{"org.opencontainers.image.ref.name": "test"}}},
	})
	if err != nil {
		return err
	}
	files["index.json"], files[blob(digest(config))], files[blob(digest(manifest))] = index, config, manifest
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func blob(digest string) string { return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:") }

// layersOf is the tar of the option layer, or else one with busybox; above it
// lie the directories of the option upper.
func layersOf(o map[string]string) ([][]byte, error) {
	read := layerTar
	if file := o["layer"]; file != "" {
		read = func(map[string]string) ([]byte, error) { return os.ReadFile(file) }
	}
	lowest, err := read(o)
	layers := [][]byte{lowest}
	for dir := range strings.SplitSeq(o["upper"], ",") {
		if dir == "" {
			continue
		}
		b, bad := exec.Command("tar", "--xattrs", "--xattrs-include=*", "-C", dir, "-c", ".").Output()
		layers, err = append(layers, b), errors.Join(err, bad)
	}
	return layers, err
}

// layerTar is busybox, links by the names of its applets, and the usual files.
// With bomb=SIZE it has a file of zeros as large.
func layerTar(o map[string]string) ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, data []byte) {
		if err == nil {
			h.Size, h.ModTime = int64(len(data)), time.Unix(1700000000, 0)
			if err = w.WriteHeader(&h); err == nil {
				_, err = w.Write(data)
			}
		}
	}
	for _, dir := range []string{"bin", "dev", "etc", "proc", "root", "sys", "var"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, program)
	for _, a := range applets {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n"))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nann:x:1000:\nwheel:x:10:ann\n"))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/not-a-program", Mode: 0o644}, []byte("just text\n"))
	if size := o["bomb"]; size != "" && err == nil {
		n, bad := strconv.ParseInt(size, 10, 64)
		if bad != nil {
			return nil, bad
		}
		add(tar.Header{Typeflag: tar.TypeReg, Name: "var/zeros", Mode: 0o644}, make([]byte, n))
	}
	return b.Bytes(), errors.Join(err, w.Close())
}

// registryCmd starts Debian's docker-registry with an empty store.
func registryCmd(t *testing.T) script.Cmd {
	return command("start a registry on loopback", "", 0, func(s *script.State, _ []string) (string, string, error) {
		port, err := freePort()
		if err != nil {
			return "", "", err
		}
		dir := t.TempDir()
		config := filepath.Join(dir, "config.yml")
		text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s/data\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:%d\n", dir, port)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			return "", "", err
		}
		cmd := exec.Command("docker-registry", "serve", config)
		cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
		if err := cmd.Start(); err != nil {
			return "", "", err
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if err := s.Setenv("REGISTRY", address); err != nil {
			return "", "", err
		}
		return "", "", waitFor(address)
	})
}

func freePortCmd() script.Cmd {
	return command("let $PORT be one of loopback that nobody uses", "", 0, func(s *script.State, _ []string) (string, string, error) {
		port, err := freePort()
		if err != nil {
			return "", "", err
		}
		return "", "", s.Setenv("PORT", strconv.Itoa(port))
	})
}

// freePort is none of those that the kernel gives to clients, which could have it
// before the server has.
func freePort() (int, error) {
	for {
		port := 20000 + rand.IntN(10000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return port, l.Close()
	}
}

func waitFor(address string) error {
	var last error
	for range 1200 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		last = err
		time.Sleep(50 * time.Millisecond)
	}
	return last
}
