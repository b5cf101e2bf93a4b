// Command pull measures how long a pull takes, unpacking included, against
// Debian's docker and podman and against pigz and tar, in one interleaved run.
//
//	takes    kiste in bin/, a number of rounds; root, loop devices
//	gives    a table of seconds and ratios
//	touches  a temporary directory, a loop device, the page cache
//	state    none
//
// The image has 8 layers, 32,000 small files and some large ones, together 700
// MB, and comes from a registry in this process on loopback. All have the same
// conditions, which what others removed before them would spoil: ext4 looks
// past inodes that were freed in the last minutes, and blocks that the disk
// below has never seen are slow to write. So each turn has a new ext4 on a
// loop device, whose file was written once before the first turn; the caches are
// dropped before it; and the order changes with each round. That all files have
// come is counted after it. Kiste alone has them on the disk when it returns.
//
// A peer that is not installed is left out. The exit code is 1 where a promise
// is broken.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"

	"kiste/test/bench/verdict"
)

func main() {
	rounds := 3
	if len(os.Args) > 1 {
		rounds, _ = strconv.Atoi(os.Args[1])
	}
	verdict.Main("pull bench", func() (int, error) {
		if err := ownMounts(); err != nil {
			return 0, err
		}
		return measure(max(rounds, 1))
	})
}

// ownMounts gives this thread, and what it starts, a mount namespace. One that
// somebody else makes meanwhile would have copies of ours, and keep a file system
// alive that is to be made anew.
func ownMounts() error {
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_FS | syscall.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
}

// A contender pulls the image into the directory disk.
type contender struct {
	name    string
	program string                          // the peer is left out where it is missing
	ready   func() (stop func(), err error) // before the clock starts; nil: nothing is needed
	pull    string                          // of the shell
	most    float64                         // kiste may take so many times as long

	took []time.Duration
	rss  []int64 // bytes
}

const self = "kiste"

// A bench is where all is measured.
type bench struct {
	top      string // a temporary directory
	disk     string // where a turn's file system is mounted
	registry *registry
}

func measure(rounds int) (code int, err error) {
	top, err := os.MkdirTemp("", "kiste-bench-*")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(top)
	b := &bench{top: top, disk: filepath.Join(top, "disk")}
	if b.registry, err = newRegistry(top); err != nil {
		return 0, err
	}
	defer b.registry.server.Close()
	if err := errors.Join(os.Mkdir(b.disk, 0o755), b.allocate()); err != nil {
		return 0, err
	}
	all, err := b.contenders()
	if err != nil {
		return 0, err
	}
	for round := range rounds {
		for i := range all {
			c := all[(i+round)%len(all)]
			if err := b.turn(c); err != nil {
				return 0, fmt.Errorf("%s: %w", c.name, err)
			}
			fmt.Printf("%-10s %6.2f s\n", c.name, c.took[len(c.took)-1].Seconds())
		}
	}
	return report(all), nil
}

func (b *bench) contenders() ([]*contender, error) {
	image := b.registry.server.Listener.Addr().String() + "/bench:1"
	kiste, err := filepath.Abs("bin/kiste")
	if err != nil {
		return nil, err
	}
	sh := fmt.Sprintf
	var all []*contender
	for _, c := range []*contender{
		{name: self, program: kiste, pull: sh("KISTE_LIB=%s/lib KISTE_RUN=%[1]s/run exec %s pull -q %s", b.disk, kiste, image)},
		{name: "pigz|tar", program: "pigz", most: 1.5,
			pull: sh("mkdir %s/tar; for l in %s; do pigz -dc $l | tar -x -C %[1]s/tar; done", b.disk, strings.Join(b.registry.files, " "))},
		{name: "podman", program: "podman", most: 0.5,
			pull: sh("TMPDIR=%s exec podman --root %[1]s/podman --runroot %[1]s/run --storage-driver overlay pull -q --tls-verify=false %s", b.disk, image)},
		{name: "docker", program: "dockerd", most: 0.5, ready: b.dockerd, pull: sh("exec docker -H %s pull -q %s", b.socket(), image)},
	} {
		if _, err := exec.LookPath(c.program); err != nil {
			fmt.Printf("left out: %s: %v\n", c.name, err)
			continue
		}
		all = append(all, c)
	}
	if len(all) == 0 || all[0].name != self {
		return nil, errors.New("bin/kiste is not built")
	}
	return all, nil
}

const diskSize = 3 << 30 // bytes

func (b *bench) image() string { return filepath.Join(b.top, "disk.img") }

// allocate writes the file that all file systems are made in.
func (b *bench) allocate() error {
	f, err := os.Create(b.image())
	if err != nil {
		return err
	}
	defer f.Close()
	zeros := make([]byte, 1<<20)
	for range diskSize / len(zeros) {
		if _, err := f.Write(zeros); err != nil {
			return err
		}
	}
	return f.Sync()
}

// turn lets c pull once, on a disk of its own.
func (b *bench) turn(c *contender) (err error) {
	end, err := b.mount()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	if c.ready != nil {
		stop, err := c.ready()
		if err != nil {
			return err
		}
		defer stop()
	}
	syscall.Sync()
	os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) // without it the run is still fair
	// GNU time is small: what a process peaks at counts from before its
	// execve, when it still had the memory of this program
	peak := filepath.Join(b.top, "peak")
	cmd := exec.Command("time", "-f", "%M", "-o", peak, "sh", "-ec", c.pull)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	text, err := os.ReadFile(peak)
	if err != nil {
		return err
	}
	kilobytes, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return err
	}
	c.took, c.rss = append(c.took, took), append(c.rss, kilobytes<<10)
	return b.count()
}

// mount gives the turn its file system.
func (b *bench) mount() (end func() error, err error) {
	if err := run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", b.image()); err != nil {
		return nil, err
	}
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", b.image()).Output()
	if err != nil {
		return nil, fmt.Errorf("losetup: %w", err)
	}
	device := strings.TrimSpace(string(out))
	detach := func() error { return run("losetup", "--detach", device) }
	if err := run("mount", device, b.disk); err != nil {
		return nil, errors.Join(err, detach())
	}
	return func() error { return errors.Join(run("umount", "--recursive", b.disk), detach()) }, nil
}

func run(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// count fails where files are missing.
func (b *bench) count() error {
	n := 0
	err := filepath.WalkDir(b.disk, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasPrefix(d.Name(), "file") && strings.Contains(path, "/usr/layer") {
			n++
		}
		return err
	})
	if want := layers * directories * filesEach; err == nil && n != want {
		err = fmt.Errorf("%d files have come; want %d", n, want)
	}
	return err
}

func (b *bench) socket() string { return "unix://" + b.top + "/docker.sock" }

// dockerd starts a daemon of our own, which touches no network and has all its
// files on the turn's disk.
func (b *bench) dockerd() (stop func(), err error) {
	config := filepath.Join(b.top, "docker.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("dockerd", "--config-file", config, "--data-root", b.disk+"/docker", "--exec-root", b.top+"/docker-run", "--pidfile", b.top+"/docker.pid",
		"-H", b.socket(), "--iptables=false", "--ip6tables=false", "--bridge=none")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
	for range 100 {
		if exec.Command("docker", "-H", b.socket(), "version").Run() == nil {
			return stop, nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	stop()
	return nil, errors.New("dockerd does not answer")
}

const rssLimit = 100 << 20 // bytes

// report prints the table and the promises, and gives 1 where one is broken.
func report(all []*contender) (code int) {
	fmt.Printf("\n%-10s %10s %10s\n", "", "best", "median")
	for _, c := range all {
		fmt.Printf("%-10s %8.2f s %8.2f s\n", c.name, best(c.took).Seconds(), verdict.Median(c.took).Seconds())
	}
	fmt.Println()
	kiste := all[0]
	for _, c := range all[1:] {
		code = max(code, verdict.Print("kiste / "+c.name+", best", best(kiste.took).Seconds()/best(c.took).Seconds(), c.most, "%.2f"))
		code = max(code, verdict.Print("kiste / "+c.name+", median", verdict.Median(kiste.took).Seconds()/verdict.Median(c.took).Seconds(), c.most, "%.2f"))
	}
	return max(code, verdict.Print("kiste, peak RSS in MB", float64(slices.Max(kiste.rss))/(1<<20), rssLimit>>20, "%.1f"))
}

func best(d []time.Duration) time.Duration { return slices.Min(d) }

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
	var blobs []any
	var diffIDs []string
	for i := range layers {
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
		blobs, diffIDs = append(blobs, d), append(diffIDs, digest(plain))
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
	r.manifest, err = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": d, "layers": blobs})
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

const (
	layers      = 8
	directories = 40 // in each layer
	filesEach   = 100
)

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
	for d := range directories {
		dir := fmt.Sprintf("%s/dir%d", top, d)
		put(tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
		for f := range filesEach {
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
