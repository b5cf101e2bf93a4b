package cve

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/host"
	"kiste/internal/need"
	"kiste/test/peer"
)

var bin string // has kiste-runtime and the attacker

func TestMain(m *testing.M) {
	need.Main(m, func(dir string) error {
		bin = dir
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "attacker"), "kiste/test/cve/attacker")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build the attacker: %w\n%s", err, out)
		}
		return peer.Build(dir)
	})
}

// A level is who starts a container, and how far its root is the host's.
type level struct {
	name   string
	mapped bool // it has a user namespace
	user   bool // an ordinary user starts it
}

var levels = []level{{"root", false, false}, {"mapped", true, false}, {"user", true, true}}

// firstID is the host's number of root in a mapped container of root's.
const firstID = 1<<30 + 1<<28

// owner is the user of the host that is root in the container.
func (l level) owner() int {
	switch {
	case l.user:
		return need.UserID
	case l.mapped:
		return firstID
	}
	return 0
}

// each runs do for every level.
func each(t *testing.T, do func(t *testing.T, l level)) {
	need.Power(t, host.Root)
	for _, l := range levels {
		t.Run(l.name, func(t *testing.T) {
			if l.mapped {
				need.Power(t, host.UsernsTry)
			}
			do(t, l)
		})
	}
}

// A box is a container that has the attacker in its root, which is writable,
// and what starts it.
type box struct {
	*peer.Bundle
	rt *peer.Runtime
	l  level
	id string
}

var boxes atomic.Int32

// newBox runs args, "/bin/attacker" or busybox. The document is that of
// "kiste-runtime spec", with --rootless for an ordinary user.
func newBox(t *testing.T, l level, args ...string) *box {
	t.Helper()
	need.Program(t, "busybox")
	dir := newDir(t, l)
	rt, err := peer.New(peer.Names[0], bin, dir)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{rt: rt, l: l, id: fmt.Sprintf("kiste-cve-%d-%d", os.Getpid(), boxes.Add(1))}
	if b.Bundle, err = peer.NewBundle(filepath.Join(dir, "bundle"), args...); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(bin, "attacker"))
	if err == nil {
		err = os.WriteFile(b.Root("bin/attacker"), program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.Spec.Root.Readonly = false
	if l.user {
		rt.Attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: need.UserID, Gid: need.UserID}}
		rt.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir}
		b.rootless()
	} else if l.mapped {
		b.mapped()
	}
	b.give(t)
	return b
}

// newDir is a directory that the container's root owns on the host.
func newDir(t *testing.T, l level) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kiste-cve")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, l.owner(), l.owner())); err != nil {
		t.Fatal(err)
	}
	return dir
}

// give makes the container's root the owner of the bundle and of the state. The
// document is written before.
func (b *box) give(t *testing.T) {
	t.Helper()
	err := b.Save()
	for _, dir := range []string{b.Dir, b.rt.Root} {
		if dir == b.rt.Root && !b.l.user {
			continue
		}
		err = errors.Join(err, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, b.l.owner(), b.l.owner()))
		}))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (b *box) mapped() {
	maps := []specs.LinuxIDMapping{{HostID: firstID, Size: 65536}}
	b.Spec.Linux.UIDMappings, b.Spec.Linux.GIDMappings = maps, maps
	b.namespace(specs.UserNamespace, "")
}

func (b *box) rootless() {
	maps := []specs.LinuxIDMapping{{HostID: need.UserID, Size: 1}}
	b.Spec.Linux.UIDMappings, b.Spec.Linux.GIDMappings = maps, maps
	b.namespace(specs.UserNamespace, "")
	b.Spec.Linux.Resources = nil
	for i := range b.Spec.Mounts {
		m := &b.Spec.Mounts[i]
		m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "gid=") })
	}
}

// namespace sets the path of a kind of namespaces; "": a new one.
func (b *box) namespace(kind specs.LinuxNamespaceType, path string) {
	b.without(kind)
	b.Spec.Linux.Namespaces = append(b.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
}

func (b *box) without(kind specs.LinuxNamespaceType) {
	b.Spec.Linux.Namespaces = slices.DeleteFunc(b.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

func (b *box) bind(source, destination string, options ...string) {
	b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Type: "bind", Source: source, Destination: destination, Options: append([]string{"rbind"}, options...)})
}

// noMount takes away what the document mounts at a path and below.
func (b *box) noMount(at string) {
	b.Spec.Mounts = slices.DeleteFunc(b.Spec.Mounts, func(m specs.Mount) bool {
		return m.Destination == at || strings.HasPrefix(m.Destination, at+"/")
	})
}

// caps gives the process more capabilities.
func (b *box) caps(names ...string) {
	c := b.Spec.Process.Capabilities
	for _, set := range []*[]string{&c.Bounding, &c.Permitted, &c.Effective} {
		*set = append(slices.Clone(*set), names...)
	}
}

// times is how often a race is tried by each kind of user.
func times(n int) int {
	if testing.Short() {
		return max(1, n/10)
	}
	return n
}

// A result is what a call of the runtime and the container said together.
type result struct {
	out  string
	code int
}

// limit is how long one call of the runtime may take.
const limit = 30 * time.Second

// call calls the runtime. change may change the call; nil: nobody does.
func (b *box) call(t *testing.T, change func(*exec.Cmd), args ...string) result {
	t.Helper()
	// Not a pipe, whose end would be that of a container that goes on.
	out, err := os.CreateTemp("", "kiste-cve")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	os.Remove(out.Name())
	cmd := b.rt.Command(args...)
	cmd.Dir = b.Dir
	cmd.Stdout, cmd.Stderr = out, out
	if change != nil {
		change(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	err = cmd.Wait()
	if !late.Stop() {
		t.Errorf("%v took more than %v", args, limit)
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	text, err := io.ReadAll(io.NewSectionReader(out, 0, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return result{strings.TrimSpace(string(text)), cmd.ProcessState.ExitCode()}
}

// run writes the document and runs the container to its end.
func (b *box) run(t *testing.T) result {
	t.Helper()
	b.save(t)
	return b.call(t, nil, "run", b.id)
}

func (b *box) save(t *testing.T) {
	t.Helper()
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
}

// background runs the container until end is called, which gives what it said.
// It returns when the attacker is at work.
func (b *box) background(t *testing.T) (end func() string) {
	t.Helper()
	b.save(t)
	out, err := os.Create(filepath.Join(b.Dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := b.rt.Command("run", "--bundle", b.Dir, b.id)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	said := func() string {
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	ended := false
	end = func() string {
		if ended {
			return said()
		}
		ended = true
		if err := os.WriteFile(b.Root("tmp/stop"), nil, 0o644); err != nil {
			t.Error(err)
		}
		select {
		case <-done:
		case <-time.After(limit):
			t.Errorf("the container does not end: %s", said())
			b.call(t, nil, "delete", "--force", b.id)
			cmd.Process.Kill()
			<-done
		}
		out.Close()
		return said()
	}
	t.Cleanup(func() { end() })
	for late := time.Now().Add(limit); !strings.Contains(said(), "ready"); time.Sleep(5 * time.Millisecond) {
		select {
		case <-done:
			t.Fatalf("it has ended: %s", said())
		default:
		}
		if time.Now().After(late) {
			t.Fatalf("it does not begin: %s", said())
		}
	}
	return end
}

// clean is an error for each line in which an attacker says what it got.
func clean(t *testing.T, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "GOT") {
			t.Error(strings.TrimSpace(line))
		}
	}
}

// worked is clean, of an attacker that must have done what it can.
func worked(t *testing.T, r result) {
	t.Helper()
	clean(t, r.out)
	if r.code != 0 || !strings.Contains(r.out, "done") {
		t.Errorf("code %d\n%s", r.code, r.out)
	}
}

// An outside is a directory of the host that no container may see or change.
type outside struct {
	dir    string
	before string
}

// newOutside makes one that the container's root could write to if it got there:
// with a directory "in", too.
func newOutside(t *testing.T, l level) *outside {
	t.Helper()
	dir := newDir(t, l)
	for _, name := range []string{"marker-" + filepath.Base(dir), "in/file"} {
		path := filepath.Join(dir, name)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, []byte("the host's\n"), 0o666),
			os.Lchown(filepath.Dir(path), l.owner(), l.owner()), os.Lchown(path, l.owner(), l.owner()))
		if err != nil {
			t.Fatal(err)
		}
	}
	o := &outside{dir: dir}
	o.before = o.listing(t)
	return o
}

func (o *outside) name() string { return filepath.Base(o.dir) }

// marker is a file in it whose name no container has.
func (o *outside) marker() string { return filepath.Join(o.dir, "marker-"+o.name()) }

// look are the arguments of a container that searches for it.
func (o *outside) look() []string {
	return []string{"/bin/attacker", "look", o.name(), filepath.Base(o.marker())}
}

// untouched is an error if anything in it has changed.
func (o *outside) untouched(t *testing.T) {
	t.Helper()
	if now := o.listing(t); now != o.before {
		t.Errorf("the host's directory was\n%sand is\n%s", o.before, now)
	}
}

func (o *outside) listing(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(o.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%s %v %d:%d %d %v\n", path, info.Mode(), st.Uid, st.Gid, info.Size(), info.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// hostFiles are what attacks of runtimes have changed on hosts.
var hostFiles = []string{"/dev/null", "/dev/zero", "/dev/tty", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/net/ipv4/ip_forward"}

// theHostStays is to be called when a test begins: in the end hostFiles must be as
// they were.
func theHostStays(t *testing.T) {
	t.Helper()
	need.Clean(t)
	before := hostState(t)
	t.Cleanup(func() {
		if now := hostState(t); now != before {
			t.Errorf("the host was\n%sand is\n%s", before, now)
		}
	})
}

func hostState(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, file := range hostFiles {
		var st syscall.Stat_t
		err := syscall.Lstat(file, &st)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not every kernel has it
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %o %d:%d %x", file, st.Mode, st.Uid, st.Gid, st.Rdev)
		if strings.HasPrefix(file, "/proc/") {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, " %q", text)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// awaitFile waits until a file of the root has a text, and gives all of it.
func (b *box) awaitFile(t *testing.T, name, has string) string {
	t.Helper()
	for late := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(b.Root(name))
		if strings.Contains(string(text), has) {
			return string(text)
		}
		if time.Now().After(late) {
			t.Fatalf("%s does not come: %s", name, text)
		}
	}
}
