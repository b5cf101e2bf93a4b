package layer_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"kiste/fault"
	"kiste/host"
	"kiste/image/layer"
	"kiste/internal/need"
)

func TestMain(m *testing.M) {
	syscall.Umask(0)
	os.Exit(m.Run())
}

// An entry is one of a tar to be made; its type is that of its header.
type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}, body}
}

func dir(name string, mode int64) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}, ""}
}

func link(kind byte, name, target string) entry {
	return entry{tar.Header{Name: name, Linkname: target, Typeflag: kind, Mode: 0o777}, ""}
}

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1700000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// apply unpacks into x of a new directory, beside which lies "outside".
func apply(t testing.TB, b []byte, o layer.Options) (string, layer.Result, error) {
	t.Helper()
	top := t.TempDir()
	x := filepath.Join(top, "x")
	if err := os.Mkdir(x, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(top, "outside"), []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := layer.Apply(context.Background(), bytes.NewReader(b), x, o)
	got, readErr := os.ReadFile(filepath.Join(top, "outside"))
	info, statErr := os.Stat(filepath.Join(top, "outside"))
	if readErr != nil || string(got) != "host" || statErr != nil || info.Mode() != 0o600 {
		t.Fatalf("the file outside was touched: %q %v %v", got, readErr, info.Mode())
	}
	if names, _ := os.ReadDir(top); len(names) != 2 {
		t.Fatalf("something was made outside: %v", names)
	}
	return x, r, err
}

func TestHostileNamesStayInside(t *testing.T) {
	need.Power(t, host.Root)
	for _, tt := range []struct {
		name    string
		entries []entry
		want    string // a file that must hold "evil" afterwards; empty: refused
	}{
		{"a name with dots", []entry{file("../../outside", "evil")}, "outside"},
		{"an absolute name", []entry{file("/etc/f", "evil")}, "etc/f"},
		{"dots in the middle", []entry{file("a/../../../outside", "evil")}, "outside"},
		{"a link to the root as parent (CVE-2014-9356)", []entry{link(tar.TypeSymlink, "x", "/"), file("x/etc/f", "evil")}, "etc/f"},
		{"a link upwards as parent", []entry{link(tar.TypeSymlink, "x", "../.."), file("x/outside", "evil")}, "outside"},
		{"a link to an absolute directory", []entry{dir("d", 0o755), link(tar.TypeSymlink, "x", "/d"), file("x/f", "evil")}, "d/f"},
		{"a link to nothing as parent", []entry{link(tar.TypeSymlink, "x", "/nowhere"), file("x/f", "evil")}, ""},
		{"a link in a loop", []entry{link(tar.TypeSymlink, "x", "x"), file("x/f", "evil")}, ""},
		{"a file through a link of its own name", []entry{link(tar.TypeSymlink, "f", "../outside"), file("f", "evil")}, "f"},
		{"a directory in place of a link", []entry{link(tar.TypeSymlink, "d", ".."), dir("d", 0o755), file("d/outside", "evil")}, "d/outside"},
		{"a link in place of a directory", []entry{dir("d", 0o755), file("d/g", "x"), link(tar.TypeSymlink, "d", ".."), file("d/outside", "evil")}, "outside"},
		{"a hard link to outside", []entry{link(tar.TypeLink, "l", "../outside")}, ""},
		{"a hard link through a link", []entry{link(tar.TypeSymlink, "x", ".."), link(tar.TypeLink, "l", "x/outside")}, ""},
		{"a hard link to a directory", []entry{dir("d", 0o755), link(tar.TypeLink, "l", "d")}, ""},
		{"a hard link to the root", []entry{link(tar.TypeLink, "l", "/")}, ""},
		{"a hard link to itself", []entry{file("f", "evil"), link(tar.TypeLink, "f", "f")}, "f"},
		{"a hard link to a link, then its mode (CVE-2021-32760)", []entry{link(tar.TypeSymlink, "s", "../outside"), link(tar.TypeLink, "h", "s"), file("f", "evil")}, "f"},
		{"a file as parent", []entry{file("f", "x"), file("f/g", "evil")}, ""},
		{"a directory over a file", []entry{file("f", "x"), dir("f", 0o755), file("f/g", "evil")}, "f/g"},
		{"a file over a full directory", []entry{dir("d", 0o755), file("d/e/f", "x"), file("d", "evil")}, "d"},
		{"the same file twice", []entry{file("f", "first and longer"), file("f", "evil")}, "f"},
		{"a whiteout of dots", []entry{file(".wh...", "")}, ""},
		{"a whiteout of nothing", []entry{file(".wh.", "")}, ""},
		{"a file as root", []entry{file(".", "")}, ""},
		{"a symbolic link to nothing at all", []entry{link(tar.TypeSymlink, "s", "")}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, _, err := apply(t, makeTar(t, tt.entries...), layer.Options{})
			if tt.want == "" {
				if !errors.Is(err, fault.Invalid) {
					t.Errorf("got %v; want it refused as invalid", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(filepath.Join(x, tt.want))
			if err != nil || !info.Mode().IsRegular() {
				t.Fatalf("%v, %v; want a plain file", info, err)
			}
			if b, _ := os.ReadFile(filepath.Join(x, tt.want)); string(b) != "evil" {
				t.Errorf("it holds %q", b)
			}
		})
	}
}

func TestWhiteoutsAreOverlays(t *testing.T) {
	need.Power(t, host.Root)
	x, _, err := apply(t, makeTar(t,
		dir("gone", 0o755), file("gone/.wh.f", ""),
		dir("opaque", 0o755), file("opaque/.wh..wh..opq", ""), file("opaque/new", "x"),
		file(".wh.again", ""), dir("again", 0o755),
		file("both", "stays"), file(".wh.both", ""),
		dir("tree", 0o755), file(".wh.tree", ""),
		file(".wh..wh.aufs", "")), layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(x+"/gone/f", &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFCHR || st.Rdev != 0 {
		t.Errorf("the whiteout is %o %d, %v; want a device 0:0", st.Mode, st.Rdev, err)
	}
	for _, d := range []string{"opaque", "again", "tree"} {
		if v := xattr(x+"/"+d, "trusted.overlay.opaque"); v != "y" {
			t.Errorf("%s has %q; want it opaque", d, v)
		}
	}
	if b, err := os.ReadFile(x + "/both"); err != nil || string(b) != "stays" {
		t.Errorf("a file with a whiteout of its own layer: %q, %v", b, err)
	}
	if names, _ := os.ReadDir(x); len(names) != 5 {
		t.Errorf("there are %v", names)
	}
}

func xattr(path, name string) string {
	b := make([]byte, 256)
	n, err := syscall.Getxattr(path, name, b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

func TestAttributes(t *testing.T) {
	need.Power(t, host.Root)
	when := time.Unix(1600000000, 123456789)
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep
	pax := func(e entry, uid, gid int, records map[string]string) entry {
		e.Format, e.Uid, e.Gid, e.PAXRecords, e.ModTime = tar.FormatPAX, uid, gid, records, when
		return e
	}
	suid, sticky := file("suid", "x"), dir("sticky", 0o3777)
	suid.Mode = 0o6755
	fifo := entry{tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o622}, ""}
	null := entry{tar.Header{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}
	long := strings.Repeat("d/", 100) + strings.Repeat("n", 200)
	x, r, err := apply(t, makeTar(t, pax(sticky, 7, 8, nil), pax(suid, 5, 6, map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "hi", "SCHILY.xattr.security.selinux": "a:b:c:s0", "SCHILY.xattr.trusted.overlay.redirect": "/etc"}),
		pax(file("sticky/in", "x"), 0, 0, nil), pax(fifo, 0, 0, nil), pax(null, 0, 0, nil), pax(link(tar.TypeSymlink, "s", "/nowhere"), 9, 9, nil), pax(file(long, "far"), 0, 0, nil)), layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name           string
		mode, uid, gid uint32
	}{
		{"suid", syscall.S_IFREG | 0o6755, 5, 6}, {"sticky", syscall.S_IFDIR | 0o3777, 7, 8}, {"sticky/in", syscall.S_IFREG | 0o644, 0, 0},
		{"fifo", syscall.S_IFIFO | 0o622, 0, 0}, {"null", syscall.S_IFCHR | 0o666, 0, 0}, {"s", syscall.S_IFLNK | 0o777, 9, 9},
	} {
		var st syscall.Stat_t
		if err := syscall.Lstat(x+"/"+tt.name, &st); err != nil || st.Mode != tt.mode || st.Uid != tt.uid || st.Gid != tt.gid {
			t.Errorf("%s is %o of %d:%d, %v; want %o of %d:%d", tt.name, st.Mode, st.Uid, st.Gid, err, tt.mode, tt.uid, tt.gid)
		}
		if st.Mtim.Nano() != when.UnixNano() {
			t.Errorf("%s was changed at %d; want %d", tt.name, st.Mtim.Nano(), when.UnixNano())
		}
	}
	if xattr(x+"/suid", "security.capability") != capability {
		t.Error("the file lost its capabilities")
	}
	if xattr(x+"/suid", "user.note") != "hi" || xattr(x+"/suid", "trusted.overlay.redirect") != "" || xattr(x+"/suid", "security.selinux") != "" {
		t.Error("attributes: want user.note and neither overlayfs's own nor a label")
	}
	if len(r.Implied) != 100 || r.Implied[0] != "d" {
		t.Errorf("%d directories are implied, %q first", len(r.Implied), r.Implied[:1])
	}
}

func TestHardLinksAreOneFile(t *testing.T) {
	need.Power(t, host.Root)
	x, _, err := apply(t, makeTar(t, file("a", "one"), link(tar.TypeLink, "d/b", "/a"), link(tar.TypeSymlink, "s", "a"), link(tar.TypeLink, "t", "s")), layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]string{{"a", "d/b"}, {"s", "t"}} {
		a, _ := os.Lstat(x + "/" + pair[0])
		if b, err := os.Lstat(x + "/" + pair[1]); err != nil || !os.SameFile(a, b) {
			t.Errorf("%v are two files", pair)
		}
	}
}

// GNU tar's ways to store a file with holes, and a listing to compare with.
func TestSparseFilesStaySparse(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "tar")
	src := t.TempDir()
	f, err := os.Create(src + "/holes")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, 1 << 20, 64<<20 - 5} {
		if _, err := f.WriteAt([]byte("hello"), at); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range []string{"--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1", "--format=pax --sparse-version=1.0"} {
		t.Run(format, func(t *testing.T) {
			args := append(strings.Fields(format), "-S", "-C", src, "-c", "holes")
			b, err := exec.Command("tar", args...).Output()
			if err != nil {
				t.Fatal(err)
			}
			x, r, err := apply(t, b, layer.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var st syscall.Stat_t
			if err := syscall.Stat(x+"/holes", &st); err != nil || st.Size != 64<<20 || st.Blocks*512 > 1<<20 || r.Size != 64<<20 {
				t.Errorf("%d bytes in %d blocks, %v", st.Size, st.Blocks, err)
			}
			want, _ := os.ReadFile(src + "/holes")
			if got, _ := os.ReadFile(x + "/holes"); !bytes.Equal(got, want) {
				t.Error("the content differs")
			}
		})
	}
}

func compressed(t testing.TB, how string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch how {
	case "none":
		return b
	case "gzip":
		w := gzip.NewWriter(&out)
		w.Write(b)
		w.Close()
	case "zstd":
		w, _ := zstd.NewWriter(&out)
		w.Write(b)
		w.Close()
	default:
		need.Program(t, how)
		cmd := exec.Command(how, "-c")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(b), &out
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestCompressions(t *testing.T) {
	need.Power(t, host.Root)
	plain := makeTar(t, dir("d", 0o755), file("d/f", strings.Repeat("some text of a file ", 5000)), file("e", "x"))
	diffID := fmt.Sprintf("sha256:%x", sha256.Sum256(plain))
	for _, how := range []string{"none", "gzip", "zstd", "bzip2", "xz"} {
		t.Run(how, func(t *testing.T) {
			b := compressed(t, how, plain)
			if _, r, err := apply(t, b, layer.Options{}); err != nil || r.DiffID != diffID || r.Entries != 3 {
				t.Errorf("%+v, %v; want %s", r, err, diffID)
			}
			for _, n := range []int{0, 1, 5, 20, len(b) / 2, len(b) - 9} {
				done := make(chan error, 1)
				go func() { _, _, err := apply(t, b[:n], layer.Options{}); done <- err }()
				select {
				case err := <-done:
					// a tar without its last blocks of zeros is whole
					if err == nil && n > 0 && how != "none" {
						t.Errorf("cut off after %d of %d bytes: no error", n, len(b))
					}
				case <-time.After(30 * time.Second):
					t.Fatalf("cut off after %d bytes: it hangs", n)
				}
			}
		})
	}
}

// A zeros is an endless file of a tar.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBombsAreDefused(t *testing.T) {
	need.Power(t, host.Root)
	many := make([]entry, 200)
	for i := range many {
		many[i] = file(fmt.Sprintf("f%d", i), "")
	}
	big := makeTar(t, file("big", strings.Repeat("\x00", 4<<20)))
	for _, tt := range []struct {
		name string
		b    []byte
		o    layer.Options
		text string
	}{
		{"too many bytes", compressed(t, "gzip", big), layer.Options{MaxSize: 1 << 20}, "more than the 1048576 bytes"},
		{"too many entries", makeTar(t, many...), layer.Options{MaxEntries: 100}, "more than 100 entries"},
		{"a name without end", makeTar(t, file(strings.Repeat("d/", 3000)+"f", "")), layer.Options{}, "name"},
		{"a component without end", makeTar(t, file(strings.Repeat("n", 300), "")), layer.Options{}, "name too long"},
		{"no tar at all", []byte(strings.Repeat("this is no tar ", 100)), layer.Options{}, "invalid tar header"},
		{"zeros behind the end", append(makeTar(t, file("f", "")), make([]byte, 4<<20)...), layer.Options{MaxSize: 1 << 20}, "more than the 1048576 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := apply(t, tt.b, tt.o)
			if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v; want it refused with %q", err, tt.text)
			}
		})
	}
}

func TestApplyEndsWithItsContext(t *testing.T) {
	need.Power(t, host.Root)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	h := makeTar(t, file("f", ""))[:512]
	copy(h[124:136], "77777777777\x00") // 8 GiB
	sum := 8 * int(' ')
	for i, c := range h {
		if i < 148 || i >= 156 {
			sum += int(c)
		}
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	_, err := layer.Apply(ctx, io.MultiReader(bytes.NewReader(h), zeros{}), t.TempDir(), layer.Options{MaxSize: 1 << 40})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// Whatever a tar holds, nothing is made outside, and nothing panics or hangs.
func FuzzApply(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("NEEDS root")
	}
	f.Add(makeTar(f, dir("d", 0o755), file("d/.wh.x", ""), link(tar.TypeSymlink, "s", "/"), file("s/../f", "x"), link(tar.TypeLink, "h", "f")))
	f.Add(compressed(f, "gzip", makeTar(f, file("a", "b"))))
	f.Add(compressed(f, "zstd", makeTar(f, file("a", "b"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		apply(t, b, layer.Options{MaxSize: 1 << 20, MaxEntries: 1000})
	})
}
