package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/host"
	"kiste/image/layer"
	"kiste/internal/need"
)

// extract unpacks b into root/d, which has a link to the root.
func extract(t *testing.T, b []byte, o layer.Options) (root string, err error) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(filepath.Join(root, "d", "dir"), 0o750); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"link": "/", "up": "../../..", "self": "self"} {
		if err := os.Symlink(target, filepath.Join(root, "d", name)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = layer.Extract(context.Background(), bytes.NewReader(b), int(f.Fd()), "d", o)
	if names, _ := filepath.Glob(filepath.Dir(root) + "/*"); len(names) != 1 {
		t.Errorf("outside of the root there is %v", names)
	}
	return root, err
}

func TestExtract(t *testing.T) {
	need.Power(t, host.Root)
	root, err := extract(t, makeTar(t,
		dir("./", 0o700), file("a", "1"), file("../b", "2"), file("/c", "3"), file("link/e", "4"), file("up/f", "5"),
		link(tar.TypeLink, "hard", "a"), link(tar.TypeLink, "out", "link/e"), file(".wh.x", "6"), dir("dir", 0o711)), layer.Options{KeepKinds: true})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", "cd "+root+"; find . -type f | sort | tr '\\n' ' '; stat -c %a d d/dir | tr '\\n' ' '").CombinedOutput()
	if want := "./d/.wh.x ./d/a ./d/b ./d/c ./d/hard ./d/out ./e ./f 750 711 "; err != nil || string(out) != want {
		t.Errorf("got %s, %v; want %s", out, err, want)
	}
}

func TestExtractKeepsKinds(t *testing.T) {
	need.Power(t, host.Root)
	for _, e := range []entry{file("dir", "x"), link(tar.TypeSymlink, "dir", "/"), dir("link", 0o755), dir("self", 0o755)} {
		root, err := extract(t, makeTar(t, e), layer.Options{KeepKinds: true})
		if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "cannot overwrite") {
			t.Errorf("%s: got %v", e.Name, err)
		}
		if st, err := os.Lstat(root + "/d/dir"); err != nil || !st.IsDir() {
			t.Errorf("%s: the directory is gone", e.Name)
		}
	}
}

// What is packed unpacks to the same.
func TestPack(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "setfattr")
	from, root := t.TempDir(), filepath.Join(t.TempDir(), "root")
	script := `echo 1 >f; chown 5:6 f; chmod 4755 f; touch -d @1500000000 f; ln f hard; ln -s f l; mkfifo p; mknod n c 1 3; chmod 600 n; setfattr -n user.x -v y f; mkdir -m 1777 d; truncate -s 1M d/holes`
	for _, s := range []string{"cd " + from + "; " + script, "mkdir " + root} {
		if out, err := exec.Command("sh", "-ec", s).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	var b bytes.Buffer
	p := layer.Pack(&b)
	for _, name := range []string{"f", "hard", "l", "p", "n", "d", "d/holes"} {
		f, err := os.OpenFile(filepath.Join(from, name), unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if err := p.Add(name, int(f.Fd()), st); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := layer.Extract(context.Background(), &b, int(f.Fd()), ".", layer.Options{}); err != nil {
		t.Fatal(err)
	}
	list := `cd %; find . -mindepth 1 -printf '%p %y %m %U:%G %s %n %l\n' | sed '/ d /s/ [0-9]* [0-9]* $//' | sort; stat -c %Y f; getfattr --only-values -n user.x f`
	want, _ := exec.Command("sh", "-c", strings.Replace(list, "%", from, 1)).CombinedOutput()
	got, _ := exec.Command("sh", "-c", strings.Replace(list, "%", root, 1)).CombinedOutput()
	if string(got) != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whatever a tar holds, nothing is made outside of the root, and nothing panics
// or hangs.
func FuzzExtract(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("NEEDS root")
	}
	f.Add(makeTar(f, dir("d", 0o755), link(tar.TypeSymlink, "s", "/"), file("s/../f", "x"), file("up/x", "x"), link(tar.TypeLink, "h", "link/../f")))
	f.Add(makeTar(f, dir("dir", 0o755), file("dir", "x"), dir("self", 0o700)))
	f.Fuzz(func(t *testing.T, b []byte) {
		extract(t, b, layer.Options{MaxSize: 1 << 20, MaxEntries: 1000, KeepKinds: true})
	})
}
