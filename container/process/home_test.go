package process

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestHome(t *testing.T) {
	dir := t.TempDir()
	const passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\n1000:x:7:7::/seven:/bin/sh\nann:x:1000:1000::/home/ann:\nbad:x:8:8::relative:\n"
	if err := errors.Join(os.Mkdir(dir+"/etc", 0o755), os.WriteFile(dir+"/etc/passwd", []byte(passwd), 0o644), os.WriteFile(dir+"/other", []byte("root:x:0:0::/elsewhere:"), 0o644)); err != nil {
		t.Fatal(err)
	}
	over := []specs.Mount{{Destination: "etc/passwd", Source: dir + "/other"}}
	for _, tt := range []struct {
		mounts []specs.Mount
		uid    uint32
		want   string
	}{{nil, 0, "/root"}, {nil, 1000, "/home/ann"}, {nil, 7, "/seven"}, {nil, 8, "/"}, {nil, 9, "/"}, {over, 0, "/elsewhere"}} {
		if got := Home(dir, tt.mounts, tt.uid); got != tt.want {
			t.Errorf("Home of %d: %q; want %q", tt.uid, got, tt.want)
		}
	}
}

// What lies at /etc/passwd may be anything: no link leads out of the root, and
// nothing blocks.
func TestHomeOfHostileRoots(t *testing.T) {
	for name, make := range map[string]func(file string) error{
		"a link out":  func(file string) error { return os.Symlink("/../../../../../../etc/passwd", file) },
		"a FIFO":      func(file string) error { return unix.Mkfifo(file, 0o644) },
		"a directory": func(file string) error { return os.Mkdir(file, 0o755) },
		"nothing":     func(string) error { return nil },
		"a huge entry": func(file string) error {
			return os.WriteFile(file, []byte(strings.Repeat("x", 4<<20)+":x:0:0::/huge:"), 0o644)
		},
	} {
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(dir+"/etc", 0o755), make(dir+"/etc/passwd")); err != nil {
			t.Fatal(err)
		}
		if got := Home(dir, nil, 0); got != "/" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A home is an absolute path that can stand in an environment.
func FuzzHome(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh\n", uint32(0))
	f.Add("a:b:c:d:e:f\n:::::\nx:x:4294967296:0::/:\n", uint32(0))
	f.Fuzz(func(t *testing.T, passwd string, uid uint32) {
		if home := homeOf(passwd, uid); !strings.HasPrefix(home, "/") || strings.ContainsAny(home, "\x00\n\r") {
			t.Errorf("home %q", home)
		}
	})
}
