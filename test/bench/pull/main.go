// Command pull measures how long a pull takes, unpacking included, against
// Debian's docker and podman and against pigz and tar, in one interleaved run.
//
//	takes    kiste in bin/, a number of rounds; root
//	gives    a table of seconds, and verdicts
//	touches  a temporary directory, loop devices, the page cache
//	state    none
//
// The image has 8 layers, 32,000 small files and some large ones, together 700
// MB, and comes from a registry in this process on loopback. Each pull has a file
// system of its own, made anew: on one where as much was removed just before, a
// pull takes up to twice as long, whoever makes it. Before each everything dirty is
// written and the caches are dropped; who begins changes from round to round. A
// peer that is not installed is left out. The exit code is 1 where a promise is
// broken.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
)

func main() {
	rounds := 3
	if len(os.Args) > 1 {
		rounds, _ = strconv.Atoi(os.Args[1])
	}
	if err := measure(max(rounds, 1)); err != nil {
		fmt.Fprintln(os.Stderr, "pull bench:", err)
		os.Exit(1)
	}
}

// A contender pulls the image into a directory. Start, if not nil, starts what it
// needs.
type contender struct {
	name  string
	limit float64 // how much of its time kiste may take
	start func(dir string) (stop func(), err error)
	pull  func(dir string) *exec.Cmd

	took []time.Duration
	rss  int64 // the most of any pull, in kilobytes
}

func measure(rounds int) error {
	top, err := os.MkdirTemp("", "kiste-bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(top)
	r, err := newRegistry(top)
	if err != nil {
		return err
	}
	defer r.server.Close()
	all, err := contenders(r)
	if err != nil {
		return err
	}
	fmt.Printf("%-6s", "")
	for _, c := range all {
		fmt.Printf("%10s", c.name)
	}
	for round := range rounds {
		for i := range all {
			if err := all[(round+i)%len(all)].once(top); err != nil {
				return err
			}
		}
		fmt.Printf("\n%-6d", round+1)
		for _, c := range all {
			fmt.Printf("%8.2f s", c.took[round].Seconds())
		}
	}
	fmt.Print("\n\n")
	return verdicts(all)
}

func (c *contender) median() float64 {
	sorted := slices.Clone(c.took)
	slices.Sort(sorted)
	return sorted[len(sorted)/2].Seconds()
}

func verdicts(all []*contender) error {
	kiste, broken := all[0], false
	judge := func(what string, is, limit float64) {
		word := "kept"
		if is > limit {
			word, broken = "BROKEN", true
		}
		fmt.Printf("%-46s %7.2f  at most %7.2f  %s\n", what, is, limit, word)
	}
	for _, c := range all[1:] {
		judge("kiste's median time as part of "+c.name+"'s", kiste.median()/c.median(), c.limit)
	}
	judge("kiste's peak memory in MB", float64(kiste.rss)/1024, 100)
	if broken {
		return errors.New("a promise is broken")
	}
	return nil
}

// once makes a file system, pulls, and takes the file system away.
func (c *contender) once(top string) error {
	dir := filepath.Join(top, "fs")
	unmount, err := freshFS(filepath.Join(top, "image"), dir)
	if err != nil {
		return err
	}
	defer unmount()
	if c.start != nil {
		stop, err := c.start(dir)
		if err != nil {
			return err
		}
		defer stop()
	}
	syscall.Sync()
	os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) // without it the run is still fair
	cmd := c.pull(dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", c.name, err, out.Bytes())
	}
	c.took = append(c.took, time.Since(start))
	if b, err := os.ReadFile(filepath.Join(dir, rssFile)); err == nil {
		n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		c.rss = max(c.rss, n)
	}
	return nil
}

// rssFile is where a pull's peak memory is written, in kilobytes. It is not what
// the kernel says of a child of this process: that has this one's in it.
const rssFile = "rss"

// freshFS makes an ext4 in a file and mounts it.
func freshFS(file, dir string) (unmount func(), err error) {
	for _, args := range [][]string{
		{"fallocate", "-l", "3G", file},
		{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", file},
		{"mkdir", "-p", dir},
		{"mount", "-o", "loop,noatime", file, dir},
	} {
		if b, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", args[0], err, b)
		}
	}
	return func() {
		exec.Command("umount", "-R", dir).Run()
		os.Remove(file)
	}, nil
}

func contenders(r *registry) ([]*contender, error) {
	image := r.server.Listener.Addr().String() + "/bench:1"
	kiste, err := filepath.Abs("bin/kiste")
	if err != nil {
		return nil, err
	}
	sh := func(format string, args ...any) func(dir string) *exec.Cmd {
		return func(dir string) *exec.Cmd {
			cmd := exec.Command("sh", "-ec", fmt.Sprintf(format, args...))
			cmd.Dir = dir
			return cmd
		}
	}
	all := []*contender{
		{name: "kiste", pull: sh("KISTE_LIB=$PWD/lib KISTE_RUN=$PWD/run exec /usr/bin/time -f %%M -o %s %s pull -q %s", rssFile, kiste, image)},
		{name: "pigz|tar", limit: 1.5, pull: sh("mkdir tar; for l in %s; do pigz -dc $l | tar -x -C tar; done", strings.Join(r.files, " "))},
	}
	if _, err := exec.LookPath("podman"); err == nil {
		all = append(all, &contender{name: "podman", limit: 0.5, pull: sh("exec podman --root $PWD/podman --runroot $PWD/podman-run --storage-driver overlay pull -q --tls-verify=false %s", image)})
	}
	if _, err := exec.LookPath("dockerd"); err == nil {
		all = append(all, &contender{name: "docker", limit: 0.5, start: startDocker, pull: sh("exec docker -H unix://$PWD/docker.sock pull -q %s", image)})
	}
	return all, nil
}

// startDocker starts a dockerd of our own, which touches no network.
func startDocker(top string) (stop func(), err error) {
	config := filepath.Join(top, "docker.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("dockerd", "--config-file", config, "--data-root", top+"/docker", "--exec-root", top+"/docker-run", "--pidfile", top+"/docker.pid",
		"-H", "unix://"+top+"/docker.sock", "--iptables=false", "--ip6tables=false", "--bridge=none")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
	for range 100 {
		if exec.Command("docker", "-H", "unix://"+top+"/docker.sock", "version").Run() == nil {
			return stop, nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	stop()
	return nil, errors.New("dockerd does not answer")
}

// A registry serves one image from files.
type registry struct {
	server   *httptest.Server
	dir      string
	manifest []byte
	files    []string // the layers, the lowest first
}

func (r *registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	_, last := filepath.Split(q.URL.Path)
	switch {
	case strings.Contains(q.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", digest(r.manifest))
		http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(r.manifest))
	case strings.Contains(q.URL.Path, "/blobs/"):
		http.ServeFile(w, q, filepath.Join(r.dir, strings.TrimPrefix(last, "sha256:")))
	default:
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	}
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func (r *registry) add(b []byte, mediaType string) (map[string]any, error) {
	d := digest(b)
	return map[string]any{"mediaType": mediaType, "digest": d, "size": len(b)}, os.WriteFile(filepath.Join(r.dir, d[7:]), b, 0o600)
}

func newRegistry(top string) (*registry, error) {
	r := &registry{dir: filepath.Join(top, "blobs")}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		return nil, err
	}
	text := words(3 << 20)
	var layers []any
	var diffIDs []string
	for i := range 8 {
		plain, err := layerTar(i, text)
		if err != nil {
			return nil, err
		}
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := w.Write(plain); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		d, err := r.add(z.Bytes(), "application/vnd.oci.image.layer.v1.tar+gzip")
		if err != nil {
			return nil, err
		}
		layers, diffIDs = append(layers, d), append(diffIDs, digest(plain))
		r.files = append(r.files, filepath.Join(r.dir, d["digest"].(string)[7:]))
	}
	config, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	if err != nil {
		return nil, err
	}
	d, err := r.add(config, "application/vnd.oci.image.config.v1+json")
	if err != nil {
		return nil, err
	}
	r.manifest, err = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": d, "layers": layers})
	r.server = httptest.NewServer(r)
	return r, err
}

// words makes text that compresses as programs' text does.
func words(n int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	var vocabulary [3000][]byte
	for i := range vocabulary {
		for range 2 + random.IntN(8) {
			vocabulary[i] = append(vocabulary[i], byte('a'+random.IntN(26)))
		}
	}
	var b []byte
	for len(b) < n {
		b = append(append(b, vocabulary[random.IntN(len(vocabulary))]...), ' ')
	}
	return b[:n]
}

// layerTar has 4,000 files of some kilobytes and 4 of 8 MB, of which a quarter
// does not compress.
func layerTar(layer int, text []byte) ([]byte, error) {
	random := rand.New(rand.NewPCG(3, uint64(layer)))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var all error
	put := func(h tar.Header, body []byte) {
		h.ModTime, h.Size = time.Unix(1700000000, 0), int64(len(body))
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = w.Write(body)
		}
		all = errors.Join(all, err)
	}
	top := fmt.Sprintf("usr/layer%d", layer)
	put(tar.Header{Name: "usr", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	put(tar.Header{Name: top, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	for d := range 40 {
		dir := fmt.Sprintf("%s/dir%d", top, d)
		put(tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
		for f := range 100 {
			n := min(int(random.ExpFloat64()*12000), len(text)/2)
			at := random.IntN(len(text) - n)
			put(tar.Header{Name: fmt.Sprintf("%s/file%d", dir, f), Typeflag: tar.TypeReg, Mode: 0o644}, text[at:at+n])
		}
	}
	for f := range 4 {
		noise := make([]byte, 2<<20)
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		put(tar.Header{Name: fmt.Sprintf("%s/big%d", top, f), Typeflag: tar.TypeReg, Mode: 0o755}, append(append(noise, text...), text...))
	}
	return b.Bytes(), errors.Join(all, w.Close())
}
