package snapshot_test

import (
	"os/exec"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/host"
	"kiste/image/snapshot"
	"kiste/internal/need"
)

// shell makes files below dir.
func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestChanges(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "setfattr")
	for _, tt := range []struct {
		name         string
		lower, upper string
		want         string
	}{
		{"nothing", "mkdir a", "true", ""},
		{"a directory that was only passed through", "mkdir -m 700 a; touch -d @1 a", "mkdir -m 700 a; touch -d @1 a", ""},
		{"a file in such a directory", "mkdir a; echo 1 >a/f; touch -d @1 a", "mkdir a; echo 2 >a/f; touch -d @1 a", "C /a|C /a/f"},
		{"a directory's mode", "mkdir -m 700 a; touch -d @1 a", "mkdir -m 711 a; touch -d @1 a", "C /a"},
		{"whiteouts, also of what never was", "mkdir d; echo 1 >f; echo 1 >d/f", "mknod f c 0 0; mknod d c 0 0; mknod never c 0 0", "D /d|D /f"},
		{"an opaque directory", "mkdir -p d/sub; echo 1 >d/gone; echo 1 >d/sub/f; echo 1 >d/stays", "mkdir d; setfattr -n trusted.overlay.opaque -v y d; echo 2 >d/stays; echo 3 >d/new", "C /d|D /d/gone|A /d/new|C /d/stays|D /d/sub"},
		{"an opaque one of an ordinary user", "mkdir d; echo 1 >d/gone", "mkdir d; setfattr -n user.overlay.opaque -v y d", "C /d|D /d/gone"},
		{"below an opaque one nothing was hidden", "mkdir -p d/sub; echo 1 >d/sub/f", "mkdir -p d/sub; setfattr -n trusted.overlay.opaque -v y d; touch -d @1 d/sub", "C /d|C /d/sub|D /d/sub/f"},
		{"a file in place of a directory", "mkdir -p d; echo 1 >d/f", "echo 1 >d", "C /d"},
		{"a directory in place of a file", "echo 1 >d", "mkdir d; echo 1 >d/f", "C /d|A /d/f"},
		{"a directory in place of a link", "ln -s / d", "mkdir d; echo 1 >d/f", "C /d|A /d/f"},
		{"links and devices", "true", "ln -s /etc/passwd l; mknod z c 1 3; mkfifo p", "A /l|A /p|A /z"},
		{"names sorted, a directory before what is in it", "true", "mkdir a; echo >a.b; echo >a/f", "A /a|A /a/f|A /a.b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lower, upper := t.TempDir(), t.TempDir()
			shell(t, lower, tt.lower)
			shell(t, upper, tt.upper)
			changes, err := snapshot.Changes(upper, []string{lower})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range changes {
				got = append(got, string(c.Kind)+" "+c.Path)
			}
			if strings.Join(got, "|") != tt.want {
				t.Errorf("got %s; want %s", strings.Join(got, "|"), tt.want)
			}
		})
	}
}

// What overlayfs splits over two layers is refused, and not told wrongly.
func TestChangesRefusesHalfFiles(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "setfattr")
	upper := t.TempDir()
	shell(t, upper, "mkdir d; setfattr -n trusted.overlay.redirect -v /other d")
	if _, err := snapshot.Changes(upper, []string{t.TempDir()}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}

// Walk sees the stack as the view of single files does, which is overlayfs's.
func TestWalk(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "setfattr")
	dirs := stack(t)
	var got []string
	err := snapshot.Walk(dirs, func(f snapshot.File) error {
		info, err := snapshot.Stat(dirs, f.Path, false)
		if err != nil || info.Size != f.Stat.Size {
			t.Errorf("%s: %v, size %d and %d", f.Path, err, info.Size, f.Stat.Size)
		}
		got = append(got, f.Path)
		return nil
	})
	want := "abs bin etc etc/alias etc/group etc/passwd hidden hidden/g loop swap swap/g turned turned/f up usr usr/bin usr/bin/x"
	if err != nil || strings.Join(got, " ") != want {
		t.Errorf("got %v, %v; want %s", got, err, want)
	}
}
